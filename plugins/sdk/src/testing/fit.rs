//! What a port takes of the reference host's values. Which tensors a type takes, and which field
//! of a record is its tensor, stands in the rows of [`PortType::NAMED`], where the engine reads it
//! too.

use std::sync::Arc;

use kino_abi::host_table::{HostError, HostResult};
use kino_contract::code;
use kino_port::{ElementRule, PortType};

use super::array::Array;
use super::held::{FramesDraft, Handle, Held};
use super::operations::{cast, compute, refused};
use crate::DType;

/// A value as a port of type `ty` takes it.
pub(super) fn fit(value: &Handle, ty: &PortType) -> HostResult<Handle> {
    let found = value.type_name();
    let wrong = || HostError::coded(code::WRONG_KIND, format!("expected {ty}, found {found}"));
    Ok(match (ty, &**value) {
        (PortType::Any, _) | (PortType::Path, Held::Text(_)) => value.clone(),
        (PortType::Real, Held::Int(_)) => Arc::new(Held::Real(value.real()?)),
        (PortType::List(of), Held::List(items)) => {
            let items = items.iter().map(|(name, item)| Ok((name.clone(), fit(item, of)?)));
            Arc::new(Held::List(items.collect::<HostResult<_>>()?))
        }
        (PortType::Tensor, Held::Record(..)) if found == "Frames" => joined(value)?,
        (ty, Held::Tensor(array)) => made(array, ty).ok_or_else(wrong)??,
        _ if ty.to_string() == found => value.clone(),
        (PortType::Tensor, Held::Record(..)) => {
            let row = PortType::NAMED.iter().find(|row| row.name == found);
            let field = row.and_then(|row| row.tensor_field()).ok_or_else(wrong)?;
            let missing = || HostError::new(format!("{found} have no {field}"));
            value.field(field).ok_or_else(missing)?
        }
        _ => return Err(wrong()),
    })
}

fn tensor(array: Array) -> Handle {
    Arc::new(Held::Tensor(array))
}

/// All frames in one tensor.
fn joined(frames: &Handle) -> HostResult<Handle> {
    let missing = || HostError::new("these frames have no chunks");
    let chunks = frames.field("chunks").ok_or_else(missing)?;
    let chunks = (0..chunks.len()).map(|at| Ok(chunks.item(at)?.1));
    let chunks = chunks.collect::<HostResult<Vec<_>>>()?;
    let arrays = chunks.iter().map(|chunk| chunk.array()).collect::<Result<Vec<_>, String>>()?;
    Ok(tensor(compute("concat", &arrays, r#"{"dim": 0}"#).map_err(refused)?))
}

/// A tensor as a value of the type of a port; none where that takes no tensors.
fn made(array: &Array, ty: &PortType) -> Option<HostResult<Handle>> {
    if *ty == PortType::Tensor {
        return Some(Ok(tensor(array.clone())));
    }
    let rule = ty.tensor_rule().filter(|rule| rule.converts)?;
    let checked = || {
        let mut array = array.clone();
        array.dims = rule.fit(&array.dims)?.to_vec();
        if rule.elements != ElementRule::Any {
            rule.check_elements((0..array.count()).map(|index| array.get(index)))?;
        }
        Ok::<_, String>(match rule.dtype.and_then(DType::from_name) {
            Some(dtype) if dtype != array.dtype => cast(&array, dtype),
            _ => array,
        })
    };
    let made = |array: Array| {
        if *ty == PortType::Frames {
            let mut frames = FramesDraft::new(None)?;
            frames.push(&tensor(array))?;
            return Ok(frames.finish()?);
        }
        let name = ty.to_string();
        let field = ty.named().and_then(|row| row.tensor_field()).unwrap_or("tensor");
        let mut fields = vec![(field.to_owned(), tensor(array.clone()))];
        if *ty == PortType::Conditioning {
            fields.push(("negative".to_owned(), tensor(Array::zeros(array.dtype, &array.dims))));
        }
        Ok(match ty.named().is_some_and(|row| row.field(field).is_some()) {
            true => Arc::new(Held::Record(name, fields)),
            false => tensor(array),
        })
    };
    Some(checked().map_err(HostError::from).and_then(made))
}
