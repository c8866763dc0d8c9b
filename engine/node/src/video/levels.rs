//! Whole numbers as levels of 0…1: pixels of frames, masks. Their type says which number is 1, but
//! for what nobody means by it.

use candle_core::{DType, Tensor};

use crate::{Error, Result};

/// Numbers of 0…1, of which the largest came as so many levels of so many.
pub(super) struct Levels {
    /// As f32.
    pub(super) tensor: Tensor,
    /// None where they came as no whole numbers.
    pub(super) reach: Option<Reach>,
}

/// How far whole numbers reach, of one type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reach {
    dtype: DType,
    /// That which is 1.
    largest: f64,
    /// The size of the largest that there is.
    highest: f64,
}

/// The number of a type of whole numbers that is 1: its largest.
fn largest(dtype: DType) -> Option<f64> {
    Some(match dtype {
        DType::U8 => f64::from(u8::MAX),
        DType::U32 => f64::from(u32::MAX),
        DType::I16 => f64::from(i16::MAX),
        DType::I32 => f64::from(i32::MAX),
        DType::I64 => i64::MAX as f64,
        _ => return None,
    })
}

/// A tensor as f32, whole numbers divided by the largest of their type.
pub(super) fn levels(tensor: &Tensor) -> Result<Levels> {
    let Some((wide, reach)) = measured(tensor)? else {
        return Ok(Levels { tensor: tensor.to_dtype(DType::F32)?, reach: None });
    };
    let tensor = (wide / reach.largest)?.to_dtype(DType::F32)?;
    Ok(Levels { tensor, reach: Some(reach) })
}

/// As [`levels`], but whole numbers of 0 and 1 alone are just those.
pub(super) fn mask_levels(tensor: &Tensor) -> Result<Tensor> {
    match measured(tensor)? {
        Some((wide, reach)) if reach.highest > 1.0 => {
            reach.check("this mask is")?;
            Ok((wide / reach.largest)?.to_dtype(DType::F32)?)
        }
        _ => Ok(tensor.to_dtype(DType::F32)?),
    }
}

/// Whole numbers as f64, and how far they reach; none where they are no whole numbers.
fn measured(tensor: &Tensor) -> Result<Option<(Tensor, Reach)>> {
    let Some(largest) = largest(tensor.dtype()) else { return Ok(None) };
    let wide = tensor.to_dtype(DType::F64)?;
    let highest = match tensor.elem_count() {
        0 => 0.0,
        _ => {
            let all = wide.flatten_all()?;
            let (least, most): (f64, f64) = (all.min(0)?.to_scalar()?, all.max(0)?.to_scalar()?);
            most.max(-least)
        }
    };
    Ok(Some((wide, Reach { dtype: tensor.dtype(), largest, highest })))
}

impl Reach {
    /// That of more of the same.
    pub(super) fn with(self, more: Reach) -> Reach {
        match self.highest / self.largest >= more.highest / more.largest {
            true => self,
            false => more,
        }
    }

    /// Refuses wide numbers that all lie so far below the largest of their type that nothing but
    /// black is seen: levels of 0…255 in I64, as most tools make them.
    pub(super) fn check(self, what: &str) -> Result<()> {
        let Reach { dtype, largest, highest } = self;
        let part = highest / largest;
        if dtype == DType::U8 || part == 0.0 || part >= 0.01 {
            return Ok(());
        }
        Err(Error::advised(
            format!(
                "{what} black: whole numbers of {dtype:?} are levels of which {largest:.0} is 1, \
                 and none here is above {highest:.0}"
            ),
            "save them as U8, of which 255 is 1, or divided, as F32 in 0…1",
        ))
    }
}
