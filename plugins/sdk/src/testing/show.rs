//! What tests print of what a node gave.

use std::fmt;

use super::run::{Done, Opened};
use crate::port::FromValue;
use crate::{Frames, Tensor, Value, ValueKind};

/// More numbers of a tensor, and items of a list, are not printed.
const MOST: usize = 6;

/// A value in words: numbers and texts as they are, tensors by type, shape and first numbers.
struct Shown<'a>(&'a Value);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown(value) = self;
        let type_name = value.type_name();
        let number =
            |number: crate::Result<String>| number.unwrap_or_else(|error| error.to_string());
        match value.kind() {
            ValueKind::Text => write!(f, "{:?}", number(value.as_text())),
            ValueKind::Int => f.write_str(&number(value.as_int().map(|int| int.to_string()))),
            ValueKind::Real => {
                f.write_str(&number(value.as_real().map(|real| format!("{real:?}"))))
            }
            ValueKind::Bool => f.write_str(&number(value.as_bool().map(|truth| truth.to_string()))),
            ValueKind::List => {
                let items = (0..value.len().min(MOST)).filter_map(|at| value.item(at).ok());
                let mut list = f.debug_list();
                for (name, item) in items {
                    match name.as_str() {
                        "" => list.entry(&Shown(&item)),
                        name => list.entry(&(name, Shown(&item))),
                    };
                }
                if value.len() > MOST { list.finish_non_exhaustive() } else { list.finish() }
            }
            _ if type_name == "Frames" => match Frames::from_value(Value::clone(value)) {
                Ok(frames) => frames.fmt(f),
                Err(error) => write!(f, "Frames({error})"),
            },
            _ => match Tensor::of(Value::clone(value)) {
                Ok(tensor) if type_name == "Tensor" => with_numbers(&tensor, f),
                Ok(tensor) => {
                    write!(f, "{type_name}(")?;
                    with_numbers(&tensor, f)?;
                    f.write_str(")")
                }
                Err(_) => f.write_str(&type_name),
            },
        }
    }
}

/// A tensor with the numbers that it begins with.
fn with_numbers(tensor: &Tensor, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let count: usize = tensor.dims().iter().product();
    let mut numbers = vec![0.0; count.min(MOST)];
    write!(f, "{tensor:?}")?;
    let read = tensor.cast(crate::DType::F64).and_then(|all| all.read_into(0, &mut numbers));
    if read.is_err() {
        return Ok(());
    }
    let numbers: Vec<_> = numbers.iter().map(|number: &f64| number.to_string()).collect();
    let more = if count > MOST { ", …" } else { "" };
    write!(f, " [{}{more}]", numbers.join(", "))
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Done");
        for (name, output) in self.names.iter().zip(&self.outputs) {
            match output {
                Some(value) => shown.field(name, &Shown(value)),
                None => shown.field(name, &format_args!("left out")),
            };
        }
        if !self.logs().is_empty() {
            shown.field("logs", &self.logs());
        }
        shown.finish()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({})", self.id)
    }
}
