//! Operations on tensors that plugins call by name. The contract is `plugins/abi/OPERATIONS.md`.
//!
//! Everything goes through candle and `kino-kernels`, so it runs where the tensors lie. Whatever a
//! plugin passes gives a result or an error, never a panic: shapes, types and sizes are checked
//! before candle sees them, and what candle does wrong or differently on some device (views,
//! tensors without elements, indices, ties, what is not a number) is avoided here.

mod call;
mod conv;
mod elementwise;
mod index;
mod layout;
mod linear;
mod reduce;
mod resize;
mod shape;
mod unary;

use candle_core::Tensor;
use kino_node::{Error, Result};

use call::Call;

/// The largest result, in bytes.
const MOST: u64 = 1 << 36;

/// An operation.
struct Op {
    name: &'static str,
    /// How many of the tensors must be given.
    least: usize,
    /// The names of its tensors; `…` stands for any number more.
    tensors: &'static [&'static str],
    attributes: &'static [&'static str],
    run: fn(&Call) -> Result<Tensor>,
}

macro_rules! table {
    ($($name:literal $module:ident :: $run:ident (
        $least:literal, [$($tensor:literal),*], [$($key:literal),*]
    )),* $(,)?) => {
        /// All operations, in the order of the contract.
        static OPS: &[Op] = &[$(Op {
            name: $name,
            least: $least,
            tensors: &[$($tensor),*],
            attributes: &[$($key),*],
            run: $module::$run,
        }),*];
        /// The names of all operations, in the order of the contract.
        pub const NAMES: &[&str] = &[$($name),*];
    };
}

table![
    "add" elementwise::add(2, ["a", "b"], []),
    "sub" elementwise::sub(2, ["a", "b"], []),
    "mul" elementwise::mul(2, ["a", "b"], []),
    "div" elementwise::div(2, ["a", "b"], []),
    "min" elementwise::min(2, ["a", "b"], []),
    "max" elementwise::max(2, ["a", "b"], []),
    "pow" elementwise::pow(2, ["a", "b"], []),
    "eq" elementwise::eq(2, ["a", "b"], []),
    "ne" elementwise::ne(2, ["a", "b"], []),
    "lt" elementwise::lt(2, ["a", "b"], []),
    "le" elementwise::le(2, ["a", "b"], []),
    "gt" elementwise::gt(2, ["a", "b"], []),
    "ge" elementwise::ge(2, ["a", "b"], []),
    "where" elementwise::choose(3, ["condition", "a", "b"], []),
    "neg" unary::neg(1, ["a"], []),
    "abs" unary::abs(1, ["a"], []),
    "exp" unary::exp(1, ["a"], []),
    "log" unary::log(1, ["a"], []),
    "sqrt" unary::sqrt(1, ["a"], []),
    "recip" unary::recip(1, ["a"], []),
    "sin" unary::sin(1, ["a"], []),
    "cos" unary::cos(1, ["a"], []),
    "tanh" unary::tanh(1, ["a"], []),
    "sigmoid" unary::sigmoid(1, ["a"], []),
    "relu" unary::relu(1, ["a"], []),
    "silu" unary::silu(1, ["a"], []),
    "gelu" unary::gelu(1, ["a"], []),
    "erf" unary::erf(1, ["a"], []),
    "floor" unary::floor(1, ["a"], []),
    "ceil" unary::ceil(1, ["a"], []),
    "round" unary::round(1, ["a"], []),
    "sign" unary::sign(1, ["a"], []),
    "affine" unary::affine(1, ["a"], ["mul", "add"]),
    "clamp" unary::clamp(1, ["a"], ["min", "max"]),
    "sum" reduce::sum(1, ["a"], ["dims", "keep"]),
    "mean" reduce::mean(1, ["a"], ["dims", "keep"]),
    "max_of" reduce::max_of(1, ["a"], ["dims", "keep"]),
    "min_of" reduce::min_of(1, ["a"], ["dims", "keep"]),
    "argmax" reduce::argmax(1, ["a"], ["dim", "keep"]),
    "argmin" reduce::argmin(1, ["a"], ["dim", "keep"]),
    "softmax" reduce::softmax(1, ["a"], ["dim"]),
    "cumsum" reduce::cumsum(1, ["a"], ["dim"]),
    "matmul" linear::matmul(2, ["a", "b"], []),
    "conv2d" conv::conv2d(2, ["x", "weight", "bias"], ["stride", "padding", "dilation", "groups"]),
    "resize" resize::resize(1, ["x"], ["height", "width", "filter"]),
    "cast" unary::cast(1, ["a"], ["dtype"]),
    "reshape" layout::reshape(1, ["a"], ["shape"]),
    "permute" layout::permute(1, ["a"], ["dims"]),
    "slice" layout::slice(1, ["a"], ["dim", "start", "len"]),
    "concat" layout::concat(1, ["a", "…"], ["dim"]),
    "gather" index::gather(2, ["a", "indices"], ["dim"]),
    "index_select" index::index_select(2, ["a", "indices"], ["dim"]),
    "broadcast" layout::broadcast(1, ["a"], ["shape"]),
    "flip" layout::flip(1, ["a"], ["dims"]),
    "pad" layout::pad(1, ["a"], ["dim", "before", "after", "mode"]),
    "contiguous" layout::contiguous(1, ["a"], []),
    "to_host" layout::to_host(1, ["a"], []),
];

/// Computes one operation; `attributes` is a JSON object, or empty where there are none.
///
/// # Errors
/// When there is no such operation, or tensors or attributes do not fit; the message names the
/// operation, what was found and what was expected.
pub fn apply(name: &str, tensors: &[Tensor], attributes: &str) -> Result<Tensor> {
    apply_within(name, tensors, attributes, &Bounds { most: MOST, check: &|| Ok(()) })
}

/// What one operation may use up.
pub struct Bounds<'a> {
    /// The most bytes of the result.
    pub most: u64,
    /// Asked between pieces of work, each well below a second; an error ends the operation.
    pub check: &'a dyn Fn() -> Result<()>,
}

/// Computes one operation within bounds.
///
/// # Errors
/// As [`apply`], when the result would be larger, and what `check` says.
pub fn apply_within(
    name: &str,
    tensors: &[Tensor],
    attributes: &str,
    bounds: &Bounds<'_>,
) -> Result<Tensor> {
    let op = OPS.iter().find(|op| op.name == name).ok_or_else(|| unknown(name))?;
    let bounds = Bounds { most: bounds.most.min(MOST), check: bounds.check };
    run(op, tensors, attributes, &bounds).map_err(|error| match error {
        Error::Tensor(error) => Error::failed(format!("op {name}: {error}")),
        error => error.within(format_args!("op {name}")),
    })
}

fn run(op: &Op, tensors: &[Tensor], attributes: &str, bounds: &Bounds<'_>) -> Result<Tensor> {
    check_count(op, tensors.len())?;
    for tensor in tensors {
        check(tensor)?;
        if !tensor.device().same_device(tensors[0].device()) {
            return Err(Error::failed("the tensors lie on different devices"));
        }
    }
    let result = (op.run)(&Call::new(tensors, attributes, op.attributes, bounds)?)?;
    match result.elem_count() {
        // A view of nothing may begin behind the end of what it views, which panics when read.
        0 => Ok(Tensor::zeros(result.shape(), result.dtype(), result.device())?),
        _ => Ok(result),
    }
}

fn check_count(op: &Op, found: usize) -> Result<()> {
    let most = if op.tensors.contains(&"…") { usize::MAX } else { op.tensors.len() };
    if (op.least..=most).contains(&found) {
        return Ok(());
    }
    let count = match (op.least, most) {
        (least, usize::MAX) => format!("{least} or more tensors"),
        (1, 1) => "1 tensor".to_owned(),
        (least, most) if least == most => format!("{least} tensors"),
        (least, most) => format!("{least} to {most} tensors"),
    };
    let names = op.tensors.join(", ");
    Err(Error::failed(format!("expected {count} ({names}), found {found}")))
}

/// Refuses what no operation takes.
fn check(tensor: &Tensor) -> Result<()> {
    if !shape::TYPES.iter().any(|(_, dtype)| *dtype == tensor.dtype()) {
        let found = tensor.dtype().as_str();
        return Err(Error::failed(format!("operations do not take {found}")));
    }
    if tensor.rank() > shape::MOST_DIMENSIONS {
        let (found, most) = (tensor.rank(), shape::MOST_DIMENSIONS);
        return Err(Error::failed(format!("{found} dimensions: at most {most} are possible")));
    }
    Ok(())
}

fn unknown(name: &str) -> Error {
    let near = NAMES.iter().map(|known| (strsim::jaro_winkler(known, name), known));
    let near = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > 0.8);
    let message = format!("there is no operation `{}` on tensors", brief(name));
    match near {
        Some((_, near)) => Error::advised(message, format!("did you mean `{near}`?")),
        None => Error::advised(message, "plugins/abi/OPERATIONS.md lists them"),
    }
}

/// A name, cut where it is long.
fn brief(name: &str) -> String {
    name.chars().take(60).collect()
}
