//! Every operation: its name, what it takes, and how a call of it is checked.

use super::call::OpCall;
use super::error::{OpError, Result};
use super::op::{
    BinaryOp, CmpOp, Conv, Extremum, Filter, MAX_DIMENSIONS, Op, OpPlan, Operand, Padding,
    ReduceOp, UnaryOp,
};
use super::shape::{common, completed, dimension, dimensions, floating, same_type};
use crate::{DType, code};

/// Larger sides of resized images are refused: each pixel of one has its own weights.
const MAX_PIXELS: usize = 1 << 22;

/// An operation.
struct Entry {
    name: &'static str,
    /// How many of the operands must be given.
    least: usize,
    /// The names of its operands; `…` stands for any number more.
    operands: &'static [&'static str],
    attributes: &'static [&'static str],
    plan: fn(&OpCall<'_>) -> Result<OpPlan>,
}

macro_rules! table {
    ($($name:literal ($least:literal, [$($operand:literal),*], [$($key:literal),*]) $plan:expr;)*)
    => {
        /// All operations, in the order of the contract.
        static OPS: &[Entry] = &[$(Entry {
            name: $name,
            least: $least,
            operands: &[$($operand),*],
            attributes: &[$($key),*],
            plan: $plan,
        }),*];
        /// The names of all operations, in the order of the contract.
        pub const NAMES: &[&str] = &[$($name),*];
    };
}

table! {
    "add" (2, ["a", "b"], []) |call| join(call, BinaryOp::Add);
    "sub" (2, ["a", "b"], []) |call| join(call, BinaryOp::Sub);
    "mul" (2, ["a", "b"], []) |call| join(call, BinaryOp::Mul);
    "div" (2, ["a", "b"], []) |call| join(call, BinaryOp::Div);
    "min" (2, ["a", "b"], []) |call| join(call, BinaryOp::Min);
    "max" (2, ["a", "b"], []) |call| join(call, BinaryOp::Max);
    "pow" (2, ["a", "b"], []) |call| {
        floating(call.operands[0].dtype)?;
        join(call, BinaryOp::Pow)
    };
    "eq" (2, ["a", "b"], []) |call| compare(call, CmpOp::Eq);
    "ne" (2, ["a", "b"], []) |call| compare(call, CmpOp::Ne);
    "lt" (2, ["a", "b"], []) |call| compare(call, CmpOp::Lt);
    "le" (2, ["a", "b"], []) |call| compare(call, CmpOp::Le);
    "gt" (2, ["a", "b"], []) |call| compare(call, CmpOp::Gt);
    "ge" (2, ["a", "b"], []) |call| compare(call, CmpOp::Ge);
    "where" (3, ["condition", "a", "b"], []) choose;
    "neg" (1, ["a"], []) neg;
    "abs" (1, ["a"], []) |call| map(call, UnaryOp::Abs);
    "exp" (1, ["a"], []) |call| real(call, UnaryOp::Exp);
    "log" (1, ["a"], []) |call| real(call, UnaryOp::Log);
    "sqrt" (1, ["a"], []) |call| real(call, UnaryOp::Sqrt);
    "recip" (1, ["a"], []) |call| real(call, UnaryOp::Recip);
    "sin" (1, ["a"], []) |call| real(call, UnaryOp::Sin);
    "cos" (1, ["a"], []) |call| real(call, UnaryOp::Cos);
    "tanh" (1, ["a"], []) |call| real(call, UnaryOp::Tanh);
    "sigmoid" (1, ["a"], []) |call| real(call, UnaryOp::Sigmoid);
    "relu" (1, ["a"], []) |call| map(call, UnaryOp::Relu);
    "silu" (1, ["a"], []) |call| real(call, UnaryOp::Silu);
    "gelu" (1, ["a"], []) |call| real(call, UnaryOp::Gelu);
    "erf" (1, ["a"], []) |call| real(call, UnaryOp::Erf);
    "floor" (1, ["a"], []) |call| map(call, UnaryOp::Floor);
    "ceil" (1, ["a"], []) |call| map(call, UnaryOp::Ceil);
    "round" (1, ["a"], []) |call| map(call, UnaryOp::Round);
    "sign" (1, ["a"], []) |call| map(call, UnaryOp::Sign);
    "affine" (1, ["a"], ["mul", "add"]) affine;
    "clamp" (1, ["a"], ["min", "max"]) clamp;
    "sum" (1, ["a"], ["dims", "keep"]) |call| reduce(call, ReduceOp::Sum);
    "mean" (1, ["a"], ["dims", "keep"]) |call| reduce(call, ReduceOp::Mean);
    "max_of" (1, ["a"], ["dims", "keep"]) |call| reduce(call, ReduceOp::Extreme(Extremum::Max));
    "min_of" (1, ["a"], ["dims", "keep"]) |call| reduce(call, ReduceOp::Extreme(Extremum::Min));
    "argmax" (1, ["a"], ["dim", "keep"]) |call| arg(call, Extremum::Max);
    "argmin" (1, ["a"], ["dim", "keep"]) |call| arg(call, Extremum::Min);
    "softmax" (1, ["a"], ["dim"]) softmax;
    "cumsum" (1, ["a"], ["dim"]) cumsum;
    "matmul" (2, ["a", "b"], []) matmul;
    "conv2d" (2, ["x", "weight", "bias"], ["stride", "padding", "dilation", "groups"]) conv2d;
    "resize" (1, ["x"], ["height", "width", "filter"]) resize;
    "cast" (1, ["a"], ["dtype"]) cast;
    "reshape" (1, ["a"], ["shape"]) reshape;
    "permute" (1, ["a"], ["dims"]) permute;
    "slice" (1, ["a"], ["dim", "start", "len"]) slice;
    "concat" (1, ["a", "…"], ["dim"]) concat;
    "gather" (2, ["a", "indices"], ["dim"]) gather;
    "index_select" (2, ["a", "indices"], ["dim"]) index_select;
    "broadcast" (1, ["a"], ["shape"]) broadcast;
    "flip" (1, ["a"], ["dims"]) flip;
    "pad" (1, ["a"], ["dim", "before", "after", "mode"]) pad;
    "contiguous" (1, ["a"], []) |call| alike(call, Op::Contiguous);
    "to_host" (1, ["a"], []) |call| alike(call, Op::ToHost);
}

/// Checks a call of the operation `name`; `attributes` is a JSON object, or empty where there are
/// none.
///
/// # Errors
/// When there is no such operation, or operands or attributes do not fit.
pub fn plan(name: &str, operands: &[Operand<'_>], attributes: &str) -> Result<OpPlan> {
    let entry = OPS.iter().find(|entry| entry.name == name).ok_or_else(|| unknown(name))?;
    planned(entry, operands, attributes).map_err(|refusal| refusal.of(name))
}

fn planned(entry: &Entry, operands: &[Operand<'_>], attributes: &str) -> Result<OpPlan> {
    check_count(entry, operands.len())?;
    if let Some(large) = operands.iter().find(|operand| operand.dims.len() > MAX_DIMENSIONS) {
        return Err(OpError::new(format!(
            "{} dimensions: at most {MAX_DIMENSIONS} are possible",
            large.dims.len()
        )));
    }
    (entry.plan)(&OpCall::new(operands, attributes, entry.attributes)?)
}

fn check_count(entry: &Entry, found: usize) -> Result<()> {
    let most = if entry.operands.contains(&"…") { usize::MAX } else { entry.operands.len() };
    if (entry.least..=most).contains(&found) {
        return Ok(());
    }
    let count = match (entry.least, most) {
        (least, usize::MAX) => format!("{least} or more tensors"),
        (1, 1) => "1 tensor".to_owned(),
        (least, most) if least == most => format!("{least} tensors"),
        (least, most) => format!("{least} to {most} tensors"),
    };
    let names = entry.operands.join(", ");
    Err(OpError::new(format!("expected {count} ({names}), found {found}")))
}

fn unknown(name: &str) -> OpError {
    let brief: String = name.chars().take(60).collect();
    let refusal = OpError::new(format!("there is no operation `{brief}` on tensors"));
    let refusal = refusal.code(code::NO_SUCH_OP);
    match kino_port::did_you_mean(name, NAMES.iter().copied()) {
        Some(near) => refusal.hint(near),
        None => refusal.hint("plugins/abi/OPERATIONS.md lists them"),
    }
}

/// An operation whose result has the type and the shape of its first operand.
fn alike(call: &OpCall<'_>, op: Op) -> Result<OpPlan> {
    let (dtype, dims) = call.first();
    Ok(OpPlan { op, dtype, shape: dims.to_vec() })
}

/// The shape of the first two operands, broadcast; both have one type.
fn both(call: &OpCall<'_>) -> Result<Vec<usize>> {
    let [a, b] = [call.operands[0], call.operands[1]];
    same_type(a, b)?;
    common(a.dims, b.dims)
}

fn join(call: &OpCall<'_>, by: BinaryOp) -> Result<OpPlan> {
    Ok(OpPlan { op: Op::Binary(by), dtype: call.first().0, shape: both(call)? })
}

fn compare(call: &OpCall<'_>, by: CmpOp) -> Result<OpPlan> {
    Ok(OpPlan { op: Op::Cmp(by), dtype: DType::U8, shape: both(call)? })
}

fn choose(call: &OpCall<'_>) -> Result<OpPlan> {
    let [condition, a, b] = [call.operands[0], call.operands[1], call.operands[2]];
    if condition.dtype != DType::U8 {
        let message = format!("the condition is {}, expected u8", condition.dtype);
        return Err(OpError::new(message).hint("comparisons give one"));
    }
    same_type(a, b)?;
    let shape = common(condition.dims, &common(a.dims, b.dims)?)?;
    Ok(OpPlan { op: Op::Where, dtype: a.dtype, shape })
}

fn map(call: &OpCall<'_>, by: UnaryOp) -> Result<OpPlan> {
    alike(call, Op::Unary(by))
}

/// A function of real numbers only.
fn real(call: &OpCall<'_>, by: UnaryOp) -> Result<OpPlan> {
    floating(call.first().0)?;
    map(call, by)
}

fn neg(call: &OpCall<'_>) -> Result<OpPlan> {
    match call.first().0 {
        dtype @ (DType::U8 | DType::U32) => {
            Err(OpError::new(format!("{dtype} has no negatives")).hint("`cast` it first"))
        }
        _ => map(call, UnaryOp::Neg),
    }
}

fn affine(call: &OpCall<'_>) -> Result<OpPlan> {
    /// Whole numbers up to here are exact in f64.
    const EXACT: f64 = (1u64 << 53) as f64;
    let (mul, add) = (call.real("mul")?, call.real("add")?);
    let dtype = call.first().0;
    for (key, value) in [("mul", mul), ("add", add)] {
        if !dtype.is_float() && (value.fract() != 0.0 || value.abs() > EXACT) {
            return Err(OpError::new(format!(
                "attribute `{key}`: expected a whole number for {dtype}, found {value}"
            ))
            .hint("`cast` the tensor first"));
        }
    }
    alike(call, Op::Affine { mul, add })
}

fn clamp(call: &OpCall<'_>) -> Result<OpPlan> {
    let (min, max) = (call.bound("min")?, call.bound("max")?);
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return Err(OpError::new(format!("`min` {min} is greater than `max` {max}")));
    }
    let dtype = call.first().0;
    let Some([least, most]) = dtype.range() else { return alike(call, Op::Clamp { min, max }) };
    let (least, most) = (i128::from(least), i128::from(most));
    let low = min.map_or(least, |min| (min.ceil() as i128).max(least));
    let high = max.map_or(most, |max| (max.floor() as i128).min(most));
    if low > high {
        return Err(OpError::new(format!(
            "no {dtype} lies within both: from {low} up, and to {high}"
        )));
    }
    // Within the range of i64, as that of every type is.
    alike(call, Op::ClampWhole([low as i64, high as i64]))
}

/// What is left of a shape without some dimensions, which `keep` gives the size 1.
fn left(shape: &[usize], gone: &[usize], keep: bool) -> Vec<usize> {
    let sizes = shape.iter().enumerate();
    sizes
        .filter_map(|(dim, size)| match gone.contains(&dim) {
            true => keep.then_some(1),
            false => Some(*size),
        })
        .collect()
}

/// Refuses to choose among no elements.
fn some(shape: &[usize], gone: &[usize], result: &[usize]) -> Result<()> {
    if gone.iter().any(|dim| shape[*dim] == 0) && !result.contains(&0) {
        return Err(OpError::new(format!("there is no element to choose in {shape:?}")));
    }
    Ok(())
}

fn reduce(call: &OpCall<'_>, by: ReduceOp) -> Result<OpPlan> {
    let (dtype, dims) = call.first();
    let gone = match call.ints_given("dims")? {
        Some(named) => dimensions(&named, dims)?,
        None => (0..dims.len()).collect(),
    };
    let shape = left(dims, &gone, call.flag("keep")?);
    match by {
        ReduceOp::Sum => {}
        ReduceOp::Mean => floating(dtype)?,
        ReduceOp::Extreme(_) => some(dims, &gone, &shape)?,
    }
    Ok(OpPlan { op: Op::Reduce { by, dims: gone }, dtype, shape })
}

fn arg(call: &OpCall<'_>, of: Extremum) -> Result<OpPlan> {
    let (_, dims) = call.first();
    let dim = dimension(call.int("dim")?, dims)?;
    let shape = left(dims, &[dim], call.flag("keep")?);
    some(dims, &[dim], &shape)?;
    if u32::try_from(dims[dim]).is_err() {
        return Err(OpError::new(format!("dimension {dim} of {dims:?} exceeds u32")));
    }
    Ok(OpPlan { op: Op::Arg { of, dim }, dtype: DType::U32, shape })
}

fn softmax(call: &OpCall<'_>) -> Result<OpPlan> {
    let (dtype, dims) = call.first();
    let dim = dimension(call.int("dim")?, dims)?;
    floating(dtype)?;
    alike(call, Op::Softmax(dim))
}

fn cumsum(call: &OpCall<'_>) -> Result<OpPlan> {
    let dim = dimension(call.int("dim")?, call.first().1)?;
    alike(call, Op::CumSum(dim))
}

fn matmul(call: &OpCall<'_>) -> Result<OpPlan> {
    let [a, b] = [call.operands[0], call.operands[1]];
    floating(a.dtype)?;
    same_type(a, b)?;
    let refuse = |why| Err(OpError::new(format!("{:?} by {:?}: {why}", a.dims, b.dims)));
    let ([a_lead @ .., m, k], [b_lead @ .., rows, n]) = (a.dims, b.dims) else {
        return refuse("both must have two dimensions or more");
    };
    if k != rows {
        return refuse("the inner dimensions differ");
    }
    let Ok(lead) = common(a_lead, b_lead) else {
        return refuse("the leading dimensions do not broadcast");
    };
    let shape = [lead.as_slice(), &[*m, *n]].concat();
    Ok(OpPlan { op: Op::MatMul, dtype: a.dtype, shape })
}

fn conv2d(call: &OpCall<'_>) -> Result<OpPlan> {
    let [x, weight] = [call.operands[0], call.operands[1]];
    floating(x.dtype)?;
    call.operands[1..].iter().try_for_each(|other| same_type(x, *other))?;
    let (&[n, c, h, w], &[o, share, kh, kw]) = (x.dims, weight.dims) else {
        return Err(OpError::new(format!(
            "{:?} by {:?}: expected [n, c, h, w] by [o, c/groups, kh, kw]",
            x.dims, weight.dims
        )));
    };
    let moves = Conv {
        stride: call.size_or("stride", 1, 1)?,
        padding: call.size_or("padding", 0, 0)?,
        dilation: call.size_or("dilation", 1, 1)?,
        groups: call.size_or("groups", 1, 1)?,
    };
    let groups = moves.groups;
    if share.checked_mul(groups) != Some(c) || !o.is_multiple_of(groups) {
        return Err(OpError::new(format!(
            "{:?} by {:?}: the channels do not fit {groups} groups",
            x.dims, weight.dims
        )));
    }
    let shape = vec![n, o, moves.places(h, kh)?, moves.places(w, kw)?];
    if let Some(bias) = call.operands.get(2)
        && bias.dims != [o]
    {
        return Err(OpError::new(format!("bias {:?}, expected [{o}]", bias.dims)));
    }
    Ok(OpPlan { op: Op::Conv2d(moves), dtype: x.dtype, shape })
}

impl Conv {
    /// Places of a kernel of `taps` along `length`.
    fn places(&self, length: usize, taps: usize) -> Result<usize> {
        let reach = taps.checked_sub(1).and_then(|gaps| gaps.checked_mul(self.dilation));
        let padded = self.padding.checked_mul(2).and_then(|both| both.checked_add(length));
        let room = reach.and_then(|reach| padded?.checked_sub(reach)?.checked_sub(1));
        room.map(|room| room / self.stride + 1).ok_or_else(|| {
            OpError::new(format!(
                "a kernel of {taps} (dilation {}) does not fit into {length} (padding {})",
                self.dilation, self.padding
            ))
        })
    }
}

fn resize(call: &OpCall<'_>) -> Result<OpPlan> {
    let (dtype, dims) = call.first();
    let (height, width) = (call.size("height", 1)?, call.size("width", 1)?);
    let filter = call.choice("filter", &Filter::ALL.map(|filter| (filter.name(), filter)))?;
    let &[n, c, h, w] = dims else {
        return Err(OpError::new(format!("{dims:?}: expected [n, c, h, w]")));
    };
    if height > MAX_PIXELS || width > MAX_PIXELS {
        let found = height.max(width);
        return Err(OpError::new(format!("a side of {found}: at most {MAX_PIXELS} is possible")));
    }
    if n > 0 && c > 0 && (h == 0 || w == 0) {
        return Err(OpError::new(format!("{dims:?} has no pixels")));
    }
    Ok(OpPlan { op: Op::Resize(filter), dtype, shape: vec![n, c, height, width] })
}

fn cast(call: &OpCall<'_>) -> Result<OpPlan> {
    let dtype = call.choice("dtype", &DType::ALL.map(|dtype| (dtype.name(), dtype)))?;
    Ok(OpPlan { dtype, ..alike(call, Op::Cast)? })
}

fn reshape(call: &OpCall<'_>) -> Result<OpPlan> {
    let (dtype, dims) = call.first();
    let wanted = call.ints("shape")?;
    let shape = completed(&wanted, dims.iter().product());
    let shape =
        shape.ok_or_else(|| OpError::new(format!("{dims:?} does not become {wanted:?}")))?;
    Ok(OpPlan { op: Op::Reshape, dtype, shape })
}

fn permute(call: &OpCall<'_>) -> Result<OpPlan> {
    let (dtype, dims) = call.first();
    let order = dimensions(&call.ints("dims")?, dims)?;
    if order.len() != dims.len() {
        let found = order.len();
        return Err(OpError::new(format!("{found} dimensions in another order, of {dims:?}")));
    }
    let shape = order.iter().map(|dim| dims[*dim]).collect();
    Ok(OpPlan { op: Op::Permute(order), dtype, shape })
}

/// The first operand's shape with another size of one dimension.
fn along(call: &OpCall<'_>, op: Op, dim: usize, size: usize) -> Result<OpPlan> {
    let mut plan = alike(call, op)?;
    plan.shape[dim] = size;
    Ok(plan)
}

fn slice(call: &OpCall<'_>) -> Result<OpPlan> {
    let (_, dims) = call.first();
    let dim = dimension(call.int("dim")?, dims)?;
    let (start, len) = (call.size("start", 0)?, call.size("len", 0)?);
    if start.checked_add(len).is_none_or(|end| end > dims[dim]) {
        return Err(OpError::new(format!(
            "{len} from {start} on reach past the end of dimension {dim} of {dims:?}"
        )));
    }
    along(call, Op::Slice { dim, start }, dim, len)
}

fn concat(call: &OpCall<'_>) -> Result<OpPlan> {
    let first = call.operands[0];
    let dim = dimension(call.int("dim")?, first.dims)?;
    let mut size = first.dims[dim];
    for other in &call.operands[1..] {
        same_type(first, *other)?;
        let mut pairs = first.dims.iter().zip(other.dims).enumerate();
        if other.dims.len() != first.dims.len() || !pairs.all(|(at, (a, b))| at == dim || a == b) {
            return Err(OpError::new(format!(
                "{:?} and {:?} do not join along dimension {dim}",
                first.dims, other.dims
            )));
        }
        size = size.saturating_add(other.dims[dim]);
    }
    along(call, Op::Concat(dim), dim, size)
}

/// Refuses what cannot be indices.
fn indices(operand: Operand<'_>) -> Result<()> {
    match operand.dtype {
        DType::U32 | DType::I64 => Ok(()),
        found => Err(OpError::new(format!("the indices are {found}, expected u32 or i64"))),
    }
}

fn gather(call: &OpCall<'_>) -> Result<OpPlan> {
    let (x, at) = (call.operands[0], call.operands[1]);
    let dim = dimension(call.int("dim")?, x.dims)?;
    let mut pairs = at.dims.iter().zip(x.dims).enumerate();
    if at.dims.len() != x.dims.len() || !pairs.all(|(at, (few, all))| at == dim || few <= all) {
        return Err(OpError::new(format!(
            "indices {:?} do not fit {:?} along dimension {dim}",
            at.dims, x.dims
        )));
    }
    indices(at)?;
    Ok(OpPlan { op: Op::Gather(dim), dtype: x.dtype, shape: at.dims.to_vec() })
}

fn index_select(call: &OpCall<'_>) -> Result<OpPlan> {
    let at = call.operands[1];
    let dim = dimension(call.int("dim")?, call.first().1)?;
    let &[count] = at.dims else {
        return Err(OpError::new(format!("indices {:?}, expected [n]", at.dims)));
    };
    indices(at)?;
    along(call, Op::IndexSelect(dim), dim, count)
}

fn broadcast(call: &OpCall<'_>) -> Result<OpPlan> {
    let (dtype, dims) = call.first();
    let wanted = call.ints("shape")?;
    let refuse = || OpError::new(format!("{dims:?} does not broadcast to {wanted:?}"));
    let shape: Option<Vec<usize>> = wanted.iter().map(|size| usize::try_from(*size).ok()).collect();
    let shape = shape.ok_or_else(refuse)?;
    let mut pairs = dims.iter().rev().zip(shape.iter().rev());
    if dims.len() > shape.len() || !pairs.all(|(from, to)| from == to || *from == 1) {
        return Err(refuse());
    }
    Ok(OpPlan { op: Op::Broadcast, dtype, shape })
}

fn flip(call: &OpCall<'_>) -> Result<OpPlan> {
    let dims = dimensions(&call.ints("dims")?, call.first().1)?;
    alike(call, Op::Flip(dims))
}

fn pad(call: &OpCall<'_>) -> Result<OpPlan> {
    let (_, dims) = call.first();
    let dim = dimension(call.int("dim")?, dims)?;
    let (before, after) = (call.size("before", 0)?, call.size("after", 0)?);
    let with = call.choice("mode", &Padding::ALL.map(|mode| (mode.name(), mode)))?;
    let size = dims[dim].saturating_add(before).saturating_add(after);
    if dims[dim] == 0 && with == Padding::Edge && size > 0 {
        return Err(OpError::new(format!("dimension {dim} of {dims:?} has no edge to repeat")));
    }
    along(call, Op::Pad { dim, before, after, with }, dim, size)
}
