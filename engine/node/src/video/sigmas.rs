//! Noise levels of a sampling run.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_port::{PortType, Sigma};

use crate::stored::TensorReader;
use crate::types::{Field, Fields, TensorFact, Tensors, ValueType};
use crate::{Error, Result};

/// Noise levels of a run: one a step, and the level after the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Sigmas(pub Arc<[Sigma]>);

impl Sigmas {
    /// The number of steps of the run.
    pub fn steps(&self) -> usize {
        self.0.len().saturating_sub(1)
    }
}

/// What is known of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct SigmasFact {
    /// The number of steps.
    pub steps: usize,
}

impl ValueType for Sigmas {
    const PORT: PortType = PortType::Sigmas;
    type Fact = SigmasFact;
    /// The bits of each level, so that nothing is rounded.
    type Header = Vec<u64>;

    fn check(&self) -> Result<()> {
        let levels = self.0.iter().map(|sigma| sigma.0);
        let rule = Self::PORT.tensor_rule();
        rule.map_or(Ok(()), |rule| rule.check_elements(levels)).map_err(Error::failed)
    }

    fn fact(&self) -> SigmasFact {
        SigmasFact { steps: self.steps() }
    }

    fn shape(&self) -> Option<Vec<usize>> {
        Some(vec![self.0.len()])
    }

    fn tensor(&self) -> Result<Tensor> {
        let levels: Vec<f32> = self.0.iter().map(|sigma| sigma.0 as f32).collect();
        Ok(Tensor::new(levels, &Device::Cpu)?)
    }

    fn exact_tensor(&self) -> Result<Tensor> {
        let levels: Vec<f64> = self.0.iter().map(|sigma| sigma.0).collect();
        Ok(Tensor::new(levels, &Device::Cpu)?)
    }

    fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let levels = tensor.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        Ok(Sigmas(levels.into_iter().map(Sigma).collect()))
    }

    fn fact_of_tensor(tensor: &TensorFact) -> Option<SigmasFact> {
        Some(SigmasFact { steps: tensor.shape.first()?.checked_sub(1)? })
    }

    fn tensor_of_fact(fact: &SigmasFact) -> Option<TensorFact> {
        Some(TensorFact { shape: vec![fact.steps + 1], dtype: DType::F32 })
    }

    fn field(&self, name: &str) -> Result<Option<Field>> {
        (name == "tensor").then(|| self.exact_tensor().map(Field::Tensor)).transpose()
    }

    fn from_fields(fields: &dyn Fields) -> Result<Self> {
        Self::from_tensor(&fields.need_tensor("tensor")?)
    }

    fn bytes(&self) -> u64 {
        size_of_val(&*self.0) as u64
    }

    fn header(&self) -> Self::Header {
        self.0.iter().map(|sigma| sigma.0.to_bits()).collect()
    }

    fn tensors(&self) -> Tensors<'_> {
        Box::new(std::iter::empty())
    }

    fn restore(levels: Self::Header, _: &mut TensorReader<'_>) -> Result<Self> {
        Ok(Sigmas(levels.into_iter().map(|bits| Sigma(f64::from_bits(bits))).collect()))
    }
}
