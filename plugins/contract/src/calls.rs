//! Functions on values of any kind, with any number of results, before anything is computed.
//!
//! They are to values what operations ([`crate::ops`]) are to tensors; the contract is
//! `plugins/abi/OPERATIONS.md`. [`plan`] reads one call, so that the engine and the reference host
//! of the SDK take and refuse the same, in the same words.

use std::str::FromStr;

use kino_port::PortType;

use crate::code;
use crate::ops::{OpCall, OpError, Operand, Result, dimension, fits};

/// The most results of one function.
pub const MAX_RESULTS: usize = 4096;

/// What a function works on, as far as it must be known beforehand.
#[derive(Clone, Copy, Debug)]
pub enum Argument<'a> {
    /// A tensor, or a record that is read as one.
    Tensor(Operand<'a>),
    /// Frames of this number.
    Frames(usize),
    /// Anything else, by the name of its type.
    Other(&'a str),
}

/// A function with its attributes, which fit its values; dimensions are counted from the front.
#[derive(Clone, Debug, PartialEq)]
pub enum CallPlan {
    /// A tensor into parts along a dimension, each of so many.
    Split {
        /// The dimension.
        dim: usize,
        /// The size of each part along it; together they are its size.
        sizes: Vec<usize>,
    },
    /// The greatest (or least) elements along a dimension in order, and where they are.
    TopK {
        /// The dimension.
        dim: usize,
        /// How many.
        k: usize,
        /// The greatest, else the least.
        largest: bool,
    },
    /// Some of frames.
    FramesSlice {
        /// The first of them.
        start: usize,
        /// How many.
        count: usize,
    },
    /// The value as a port of a type takes it.
    Fit(PortType),
    /// The record of the first value, with the others as these fields.
    With(Vec<String>),
}

/// A function.
struct Entry {
    name: &'static str,
    /// How many values it takes, in words.
    takes: &'static str,
    /// Whether it takes so many.
    count: fn(usize) -> bool,
    attributes: &'static [&'static str],
    plan: fn(&OpCall<'_>, &[Argument<'_>]) -> Result<CallPlan>,
}

/// All functions, in the order of the contract.
static CALLS: &[Entry] = &[
    Entry {
        name: "split",
        takes: "1 tensor",
        count: |count| count == 1,
        attributes: &["dim", "sizes"],
        plan: split,
    },
    Entry {
        name: "topk",
        takes: "1 tensor",
        count: |count| count == 1,
        attributes: &["k", "dim", "least"],
        plan: topk,
    },
    Entry {
        name: "frames.slice",
        takes: "1 value (frames)",
        count: |count| count == 1,
        attributes: &["start", "count"],
        plan: frames_slice,
    },
    Entry {
        name: "fit",
        takes: "1 value",
        count: |count| count == 1,
        attributes: &["type"],
        plan: fit,
    },
    Entry {
        name: "with",
        takes: "a record and a value for each field",
        count: |count| count > 0,
        attributes: &["fields"],
        plan: with,
    },
];

/// The names of all functions, in the order of the contract.
pub fn names() -> impl Iterator<Item = &'static str> {
    CALLS.iter().map(|entry| entry.name)
}

/// Checks a call of the function `name`; `attributes` is a JSON object, or empty where there are
/// none.
///
/// # Errors
/// When there is no such function, or values or attributes do not fit.
pub fn plan(name: &str, arguments: &[Argument<'_>], attributes: &str) -> Result<CallPlan> {
    let entry = CALLS.iter().find(|entry| entry.name == name).ok_or_else(|| unknown(name))?;
    let planned = || {
        if !(entry.count)(arguments.len()) {
            let found = arguments.len();
            return Err(OpError::new(format!("expected {}, found {found} values", entry.takes)));
        }
        (entry.plan)(&OpCall::new(&[], attributes, entry.attributes)?, arguments)
    };
    planned().map_err(|error| within(name, error))
}

/// An error of the function `name`.
fn within(name: &str, error: OpError) -> OpError {
    OpError { message: format!("call {name}: {}", error.message), ..error }
}

fn unknown(name: &str) -> OpError {
    let brief: String = name.chars().take(60).collect();
    let error = OpError::new(format!("there is no function `{brief}` on values"));
    let error = error.code(code::NO_SUCH_OP);
    match kino_port::did_you_mean(name, names()) {
        Some(near) => error.hint(near),
        None => error.hint("plugins/abi/OPERATIONS.md lists them"),
    }
}

fn tensor<'a>(arguments: &[Argument<'a>]) -> Result<Operand<'a>> {
    match arguments[0] {
        Argument::Tensor(operand) => Ok(operand),
        Argument::Frames(_) => Err(wrong_kind("a tensor", "Frames")
            .hint("`fit` to Tensor joins all frames; `frames.slice` takes some of them")),
        Argument::Other(found) => Err(wrong_kind("a tensor", found)),
    }
}

fn wrong_kind(expected: &str, found: &str) -> OpError {
    OpError::new(format!("expected {expected}, found {found}")).code(code::WRONG_KIND)
}

fn split(call: &OpCall<'_>, arguments: &[Argument<'_>]) -> Result<CallPlan> {
    let Operand { dims, .. } = tensor(arguments)?;
    let dim = dimension(call.int("dim")?, dims)?;
    let sizes = call.ints("sizes")?;
    if sizes.len() > MAX_RESULTS {
        let message = format!("{} parts: at most {MAX_RESULTS} are possible", sizes.len());
        return Err(OpError::new(message).code(code::LIMIT));
    }
    let known: Option<Vec<usize>> = sizes.iter().map(|size| usize::try_from(*size).ok()).collect();
    let sum =
        |sizes: &Vec<usize>| sizes.iter().try_fold(0usize, |sum, size| sum.checked_add(*size));
    let known = known.filter(|sizes| sum(sizes) == Some(dims[dim]));
    let sizes = known.ok_or_else(|| {
        OpError::new(format!("sizes that make up dimension {dim} of {dims:?}, which these do not"))
    })?;
    Ok(CallPlan::Split { dim, sizes })
}

fn topk(call: &OpCall<'_>, arguments: &[Argument<'_>]) -> Result<CallPlan> {
    let Operand { dims, dtype } = tensor(arguments)?;
    let dim = dimension(call.int("dim")?, dims)?;
    let (k, size) = (call.size("k", 1)?, dims[dim]);
    if k > size {
        return Err(OpError::new(format!("`k` {k} of {size} elements along dimension {dim}")));
    }
    if u32::try_from(size).is_err() {
        return Err(OpError::new(format!("dimension {dim} of {dims:?} exceeds u32")));
    }
    // The indices are of 4 bytes.
    let mut shape = dims.to_vec();
    shape[dim] = k;
    fits("a result", &shape, dtype, crate::ops::MAX_BYTES)?;
    fits("a result", &shape, crate::DType::U32, crate::ops::MAX_BYTES)?;
    Ok(CallPlan::TopK { dim, k, largest: !call.flag("least")? })
}

fn frames_slice(call: &OpCall<'_>, arguments: &[Argument<'_>]) -> Result<CallPlan> {
    let have = match arguments[0] {
        Argument::Frames(count) => count,
        Argument::Tensor(_) => {
            return Err(wrong_kind("Frames", "Tensor").hint("the operation `slice` takes tensors"));
        }
        Argument::Other(found) => return Err(wrong_kind("Frames", found)),
    };
    let (start, count) = (call.size("start", 0)?, call.size("count", 1)?);
    match start.checked_add(count) {
        Some(end) if end <= have => Ok(CallPlan::FramesSlice { start, count }),
        _ => Err(OpError::new(format!("{count} frames from {start} on, of {have}"))),
    }
}

fn fit(call: &OpCall<'_>, _: &[Argument<'_>]) -> Result<CallPlan> {
    let ty = PortType::from_str(call.text("type")?).map_err(OpError::new)?;
    Ok(CallPlan::Fit(ty))
}

fn with(call: &OpCall<'_>, arguments: &[Argument<'_>]) -> Result<CallPlan> {
    let fields = call.texts("fields")?;
    let (named, given) = (fields.len(), arguments.len() - 1);
    if named != given {
        return Err(OpError::new(format!("{named} names of fields, and values for {given}")));
    }
    Ok(CallPlan::With(fields))
}
