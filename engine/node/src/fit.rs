//! A value as a port of some type takes it: which types fit is said by
//! [`kino_port::PortType::accepts`], what becomes of the value is said here.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use kino_port::{PortType, Sigma};

use crate::{Conditioning, Error, Frames, Latent, Result, Sigmas, Value};

impl Value {
    /// The value as a port of type `ty` takes it.
    ///
    /// A whole number widens. A tensor becomes what the port holds: `[f, h, w, 3]` frames,
    /// `[c, f, h, w]` a latent, `[rows, dim]` the embeddings of a prompt whose negative ones are
    /// zeros (both also with a leading 1), `[steps + 1]` noise levels. Whatever holds a tensor
    /// becomes that tensor at a port of type Tensor.
    ///
    /// # Errors
    /// When the value is of another type, or a tensor's shape is another.
    pub fn fit(&self, ty: &PortType) -> Result<Value> {
        let fits = match (ty, self) {
            (PortType::Any, _) => true,
            (PortType::Text | PortType::Path, Value::Text(_)) => true,
            (PortType::Int, Value::Int(_)) | (PortType::Bool, Value::Bool(_)) => true,
            (PortType::Real, Value::Real(_)) => true,
            (PortType::Real, Value::Int(int)) => return Ok(Value::Real(*int as f64)),
            (PortType::Frames, Value::Frames(_)) | (PortType::Latent, Value::Latent(_)) => true,
            (PortType::Patches, Value::Patches(_)) => true,
            (PortType::Conditioning, Value::Conditioning(_)) => true,
            (PortType::Sigmas, Value::Sigmas(_)) | (PortType::Guider, Value::Guider(_)) => true,
            (PortType::File, Value::File(_)) => true,
            (ty, Value::Part(part)) => *ty == part.ty,
            (PortType::Custom(name), Value::Custom(record)) => **name == *record.ty,
            (PortType::List(of), Value::List(items)) => {
                let items = items.iter().map(|(name, item)| Ok((name.clone(), item.fit(of)?)));
                return Ok(Value::List(items.collect::<Result<_>>()?));
            }
            (PortType::Mask | PortType::ImageConditioning, Value::Tensor(_)) => true,
            (PortType::Tensor, value) if value.holds_tensor() => {
                return Ok(Value::Tensor(value.tensor()?));
            }
            (ty, Value::Tensor(tensor)) => return carried(tensor, ty),
            _ => false,
        };
        if fits { Ok(self.clone()) } else { Err(self.unfit(ty)) }
    }

    /// Whether it holds one tensor of numbers.
    pub fn holds_tensor(&self) -> bool {
        matches!(
            self,
            Value::Tensor(_)
                | Value::Latent(_)
                | Value::Patches(_)
                | Value::Conditioning(_)
                | Value::Frames(_)
                | Value::Sigmas(_)
        )
    }

    fn unfit(&self, ty: &PortType) -> Error {
        let found = match self {
            Value::Custom(record) => &*record.ty,
            other => other.kind(),
        };
        Error::failed(format!("expected {ty}, found {found}"))
    }
}

/// A tensor as a value of the type of a port.
fn carried(tensor: &Tensor, ty: &PortType) -> Result<Value> {
    Ok(match ty {
        PortType::Frames => Value::Frames(Arc::new(Frames::from_tensor(tensor, None)?)),
        PortType::Latent => {
            let tensor = unbatched(tensor, 4, "a latent is [c, f, h, w]")?;
            Value::Latent(Arc::new(Latent { tensor: tensor.to_dtype(DType::F32)?, space: None }))
        }
        PortType::Conditioning => {
            let positive = unbatched(tensor, 2, "embeddings are [rows, dim]")?;
            let negative = positive.zeros_like()?;
            Value::Conditioning(Arc::new(Conditioning::of_text(positive, negative)))
        }
        PortType::Sigmas => Value::Sigmas(sigmas(tensor)?),
        other => return Err(Value::Tensor(tensor.clone()).unfit(other)),
    })
}

fn sigmas(tensor: &Tensor) -> Result<Sigmas> {
    let levels = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let falls = levels.windows(2).all(|pair| pair[0] > pair[1]);
    if levels.len() < 2 || !falls || levels.iter().any(|level| !(0.0..=1.0).contains(level)) {
        return Err(Error::failed(format!(
            "noise levels must fall from at most 1 to at least 0, two or more; found {levels:?}"
        )));
    }
    Ok(Sigmas(levels.into_iter().map(Sigma).collect()))
}

/// A tensor of a rank, without its leading batch of one where it has one more dimension.
fn unbatched(tensor: &Tensor, rank: usize, expected: &str) -> Result<Tensor> {
    let dims = tensor.dims();
    match dims {
        [1, rest @ ..] if rest.len() == rank => Ok(tensor.squeeze(0)?),
        dims if dims.len() == rank => Ok(tensor.clone()),
        dims => Err(Error::failed(format!("{expected}, found {dims:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn zeros(shape: &[usize]) -> Value {
        Value::Tensor(Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap())
    }

    #[track_caller]
    fn check(value: &Value, ty: &str, expected: &str) {
        let fitted = value.fit(&ty.parse().unwrap());
        let found = match fitted {
            Ok(value) => format!("{value:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_tensor_becomes_what_the_port_holds() {
        check(&zeros(&[5, 4, 6, 3]), "Frames", "Frames[5, 4, 6, 3]");
        check(
            &zeros(&[5, 4, 6]),
            "Frames",
            "frames are [count, height, width, 3], found [5, 4, 6]",
        );
        check(&zeros(&[1, 16, 2, 4, 6]), "Latent", "Latent[16, 2, 4, 6]");
        check(
            &zeros(&[2, 16, 2, 4, 6]),
            "Latent",
            "a latent is [c, f, h, w], found [2, 16, 2, 4, 6]",
        );
        check(&zeros(&[1, 8, 32]), "Conditioning", "Conditioning");
        check(&zeros(&[8, 8, 32]), "Conditioning", "embeddings are [rows, dim], found [8, 8, 32]");
        check(&zeros(&[4]), "Mask", "Tensor[4]");
        check(&zeros(&[4]), "Text", "expected Text, found Tensor");
        let levels = |levels: &[f32]| Value::Tensor(Tensor::new(levels, &Device::Cpu).unwrap());
        check(&levels(&[1.0, 0.5, 0.0]), "Sigmas", "Sigmas");
        let rule = "noise levels must fall from at most 1 to at least 0, two or more; found";
        for wrong in [&[1.0][..], &[0.5, 0.5], &[1.5, 0.0], &[0.5, f32::NAN]] {
            let error = levels(wrong).fit(&PortType::Sigmas).unwrap_err().to_string();
            assert!(error.starts_with(rule), "{error}");
        }
    }

    #[test]
    fn what_holds_a_tensor_becomes_it() {
        let frames = zeros(&[5, 4, 6, 3]).fit(&PortType::Frames).unwrap();
        check(&frames, "Tensor", "Tensor[5, 4, 6, 3]");
        check(&frames, "Latent", "expected Latent, found Frames");
        let latent = zeros(&[16, 2, 4, 6]).fit(&PortType::Latent).unwrap();
        let both = Value::List(vec![(Some("a".into()), latent), (None, frames)].into());
        check(&both, "List(Tensor)", "[Tensor[16, 2, 4, 6], Tensor[5, 4, 6, 3]]");
        check(&Value::Int(3), "Real", "3.0");
        check(&Value::Real(3.0), "Int", "expected Int, found Real");
    }
}
