//! A value as a port of some type takes it: which types fit is said by
//! [`kino_port::PortType::accepts`], what becomes of the value is said here.

use kino_port::PortType;

use crate::table::type_of_port;
use crate::{Error, Result, Value};

impl Value {
    /// The value as a port of type `ty` takes it.
    ///
    /// A whole number widens. A tensor becomes what the port holds, if its shape and elements are
    /// as the rule of the port's type says (`kino_port::TensorRule`): `[f, h, w, 3]` frames, `[c,
    /// f, h, w]` a latent, `[rows, dim]` the embeddings of a prompt whose negative ones are zeros,
    /// and so on. Whatever holds a tensor becomes that tensor at a port of type Tensor.
    ///
    /// # Errors
    /// When the value is of another type, or a tensor's shape is another.
    pub fn fit(&self, ty: &PortType) -> Result<Value> {
        match (ty, self) {
            _ if self.fits(ty) => Ok(self.clone()),
            (PortType::Real, Value::Int(int)) => Ok(Value::Real(*int as f64)),
            (PortType::List(of), Value::List(items)) => {
                let items = items.iter().map(|(name, item)| Ok((name.clone(), item.fit(of)?)));
                Ok(Value::List(items.collect::<Result<_>>()?))
            }
            (PortType::Tensor, value) if value.holds_tensor() => Ok(Value::Tensor(value.tensor()?)),
            (ty, Value::Tensor(tensor)) => {
                let def = type_of_port(ty).ok_or_else(|| self.unfit(ty))?;
                Ok(Value::Typed(def.from_tensor(tensor)?.into()))
            }
            _ => Err(self.unfit(ty)),
        }
    }

    /// Whether a port of type `ty` takes the value just as it is.
    pub(crate) fn fits(&self, ty: &PortType) -> bool {
        match (ty, self) {
            (PortType::Any, _) => true,
            (PortType::Text | PortType::Path, Value::Text(_)) => true,
            (PortType::Int, Value::Int(_)) | (PortType::Bool, Value::Bool(_)) => true,
            (PortType::Real, Value::Real(_)) => true,
            (PortType::File, Value::File(_)) => true,
            (PortType::Tensor, Value::Tensor(_)) => true,
            (ty, Value::Part(part)) => *ty == part.ty,
            (PortType::Custom(name), Value::Custom(record)) => **name == *record.ty,
            (PortType::List(of), Value::List(items)) => items.iter().all(|(_, item)| item.fits(of)),
            (ty, Value::Typed(value)) => value.def().port == *ty,
            _ => false,
        }
    }

    fn unfit(&self, ty: &PortType) -> Error {
        let found = match self {
            Value::Custom(record) => record.ty.to_string(),
            Value::Part(part) => part.ty.to_string(),
            other => other.type_name().to_owned(),
        };
        Error::failed(format!("expected {ty}, found {found}"))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

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
            "frames are [count, height, width, 3], found a tensor [5, 4, 6]",
        );
        check(&zeros(&[1, 16, 2, 4, 6]), "Latent", "Latent[16, 2, 4, 6]");
        check(
            &zeros(&[2, 16, 2, 4, 6]),
            "Latent",
            "a latent is [c, f, h, w] or [1, c, f, h, w], found a tensor [2, 16, 2, 4, 6]",
        );
        check(&zeros(&[1, 8, 32]), "Conditioning", "Conditioning[8, 32]");
        check(
            &zeros(&[8, 8, 32]),
            "Conditioning",
            "embeddings are [rows, dim] or [1, rows, dim], found a tensor [8, 8, 32]",
        );
        check(&zeros(&[1, 8, 32]), "ImageConditioning", "ImageConditioning[8, 32]");
        check(&zeros(&[4]), "Patches", "expected Patches, found Tensor");
        check(&zeros(&[4]), "Text", "expected Text, found Tensor");
        let levels = |levels: &[f32]| Value::Tensor(Tensor::new(levels, &Device::Cpu).unwrap());
        check(&levels(&[1.0, 0.5, 0.0]), "Sigmas", "Sigmas[3]");
        let rule = "noise levels must fall from at most 1 to at least 0, two or more; found";
        for wrong in [&[1.0][..], &[0.5, 0.5], &[1.5, 0.0], &[0.5, f32::NAN]] {
            let error = levels(wrong).fit(&PortType::Sigmas).unwrap_err().to_string();
            assert!(error.starts_with(rule), "{error}");
        }
    }

    #[test]
    fn a_mask_is_one_value_a_pixel_from_0_to_1() {
        check(&zeros(&[2, 4, 6]), "Mask", "Mask[2, 4, 6]");
        check(&zeros(&[1, 2, 4, 6]), "Mask", "Mask[2, 4, 6]");
        check(&zeros(&[4]), "Mask", "a mask is [f, h, w] or [1, f, h, w], found a tensor [4]");
        let of = |value: f32| Value::Tensor(Tensor::full(value, (1, 2, 3), &Device::Cpu).unwrap());
        check(&of(0.5), "Mask", "Mask[1, 2, 3]");
        check(&of(1.5), "Mask", "a mask is one value a pixel in 0…1, found 1.5");
        check(&of(f32::NAN), "Mask", "a mask is one value a pixel in 0…1, found NaN");
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
