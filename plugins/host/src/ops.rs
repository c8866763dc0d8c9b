//! Operations on tensors that plugins call by name. The table is `plugins/abi/OPERATIONS.md`.
//!
//! Everything goes through candle and `kino-kernels`, so it runs where the tensors lie. Whatever a
//! plugin passes gives a result or an error, never a panic.

mod attributes;
mod elementwise;
mod layout;
mod linear;
mod reduce;

use std::cell::Cell;

use candle_core::Tensor;
use kino_node::{Error, Result};

use attributes::Attributes;

/// The largest result, in bytes.
const MOST: u64 = 1 << 36;

thread_local! {
    /// The largest result of the operation that this thread computes.
    static LIMIT: Cell<u64> = const { Cell::new(MOST) };
}

type Run = fn(&[Tensor], &mut Attributes) -> Result<Tensor>;

/// An operation: its name, the least and the greatest number of tensors, what it does.
struct Op {
    name: &'static str,
    tensors: (usize, usize),
    run: Run,
}

const fn op(name: &'static str, tensors: (usize, usize), run: Run) -> Op {
    Op { name, tensors, run }
}

const MANY: usize = usize::MAX;

macro_rules! table {
    ($($name:literal $module:ident :: $run:ident ($least:literal, $most:expr)),* $(,)?) => {
        /// All operations, in the order of the table.
        static OPS: &[Op] = &[$(op($name, ($least, $most), $module::$run)),*];
        /// The names of all operations, in the order of the table.
        pub const NAMES: &[&str] = &[$($name),*];
    };
}

table![
    "add" elementwise::add(2, 2),
    "sub" elementwise::sub(2, 2),
    "mul" elementwise::mul(2, 2),
    "div" elementwise::div(2, 2),
    "min" elementwise::min(2, 2),
    "max" elementwise::max(2, 2),
    "pow" elementwise::pow(2, 2),
    "eq" elementwise::eq(2, 2),
    "ne" elementwise::ne(2, 2),
    "lt" elementwise::lt(2, 2),
    "le" elementwise::le(2, 2),
    "gt" elementwise::gt(2, 2),
    "ge" elementwise::ge(2, 2),
    "where" elementwise::choose(3, 3),
    "neg" elementwise::neg(1, 1),
    "abs" elementwise::abs(1, 1),
    "exp" elementwise::exp(1, 1),
    "log" elementwise::log(1, 1),
    "sqrt" elementwise::sqrt(1, 1),
    "recip" elementwise::recip(1, 1),
    "sin" elementwise::sin(1, 1),
    "cos" elementwise::cos(1, 1),
    "tanh" elementwise::tanh(1, 1),
    "sigmoid" elementwise::sigmoid(1, 1),
    "relu" elementwise::relu(1, 1),
    "silu" elementwise::silu(1, 1),
    "gelu" elementwise::gelu(1, 1),
    "erf" elementwise::erf(1, 1),
    "floor" elementwise::floor(1, 1),
    "ceil" elementwise::ceil(1, 1),
    "round" elementwise::round(1, 1),
    "sign" elementwise::sign(1, 1),
    "affine" elementwise::affine(1, 1),
    "clamp" elementwise::clamp(1, 1),
    "sum" reduce::sum(1, 1),
    "mean" reduce::mean(1, 1),
    "max_of" reduce::max_of(1, 1),
    "min_of" reduce::min_of(1, 1),
    "argmax" reduce::argmax(1, 1),
    "argmin" reduce::argmin(1, 1),
    "softmax" reduce::softmax(1, 1),
    "cumsum" reduce::cumsum(1, 1),
    "matmul" linear::matmul(2, 2),
    "conv2d" linear::conv2d(2, 3),
    "resize" linear::resize(1, 1),
    "cast" layout::cast(1, 1),
    "reshape" layout::reshape(1, 1),
    "permute" layout::permute(1, 1),
    "slice" layout::slice(1, 1),
    "concat" layout::concat(1, MANY),
    "gather" layout::gather(2, 2),
    "index_select" layout::index_select(2, 2),
    "broadcast" layout::broadcast(1, 1),
    "flip" layout::flip(1, 1),
    "pad" layout::pad(1, 1),
    "contiguous" layout::contiguous(1, 1),
    "to_host" layout::to_host(1, 1),
];

/// Computes one operation.
///
/// # Errors
/// When there is no such operation, or tensors or attributes do not fit; the message names the
/// operation, what was found and what was expected.
pub fn apply(name: &str, tensors: &[Tensor], attributes: &str) -> Result<Tensor> {
    let op = OPS.iter().find(|op| op.name == name).ok_or_else(|| unknown(name))?;
    let named = |error: Error| match error {
        Error::Failed { message, hint } => {
            Error::Failed { message: format!("op {name}: {message}"), hint }
        }
        Error::Tensor(error) => Error::failed(format!("op {name}: {error}")),
        other => other,
    };
    let (least, most) = op.tensors;
    if !(least..=most).contains(&tensors.len()) {
        let expected = match (least, most) {
            (least, MANY) => format!("{least} or more"),
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least} to {most}"),
        };
        let found = tensors.len();
        return Err(named(Error::failed(format!("it takes {expected} tensors, found {found}"))));
    }
    let mut attributes = Attributes::read(attributes).map_err(named)?;
    let result = (op.run)(tensors, &mut attributes).map_err(named)?;
    attributes.finish().map_err(named)?;
    Ok(result)
}

/// Computes one operation whose result takes at most `most` bytes.
///
/// # Errors
/// As [`apply`], and when the result would be larger.
pub fn apply_within(name: &str, tensors: &[Tensor], attributes: &str, most: u64) -> Result<Tensor> {
    /// Lifts the limit again, whatever happens.
    struct Lift;
    impl Drop for Lift {
        fn drop(&mut self) {
            LIMIT.set(MOST);
        }
    }
    LIMIT.set(most.min(MOST));
    let _lift = Lift;
    apply(name, tensors, attributes)
}

fn unknown(name: &str) -> Error {
    let near = NAMES.iter().map(|known| (strsim::jaro_winkler(known, name), known));
    let near = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > 0.8);
    let message = format!("there is no operation `{name}` on tensors");
    match near {
        Some((_, near)) => Error::advised(message, format!("did you mean `{near}`?")),
        None => Error::advised(message, "plugins/abi/OPERATIONS.md lists them"),
    }
}

/// Refuses a result that no machine holds.
fn check_size(shape: &[usize], size: usize) -> Result<()> {
    let bytes = shape.iter().try_fold(size as u64, |n, dim| n.checked_mul(*dim as u64));
    match bytes {
        Some(bytes) if bytes <= LIMIT.get() => Ok(()),
        _ => Err(Error::failed(format!(
            "a result of {shape:?} is too large: {} bytes are left",
            LIMIT.get()
        ))),
    }
}

/// The dimension that an index names; negative ones count from the end.
fn dimension(dim: i64, rank: usize) -> Result<usize> {
    let at = if dim < 0 { dim.checked_add(rank as i64) } else { Some(dim) };
    let at = at.and_then(|at| usize::try_from(at).ok()).filter(|at| *at < rank);
    at.ok_or_else(|| Error::failed(format!("there is no dimension {dim} among {rank}")))
}
