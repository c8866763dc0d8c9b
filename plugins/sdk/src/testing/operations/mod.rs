//! Reference forms of every operation of the contract: one loop each, computed in f64.

mod along;
mod elements;
mod image;
mod shapes;

use serde_json::Value as Json;

use super::array::Array;
use super::held::Outcome;
use crate::DType;

/// Every operation, as the contract lists them.
pub(crate) const NAMES: &[&str] = &[
    "add",
    "sub",
    "mul",
    "div",
    "min",
    "max",
    "pow",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "where",
    "neg",
    "abs",
    "exp",
    "log",
    "sqrt",
    "recip",
    "sin",
    "cos",
    "tanh",
    "sigmoid",
    "relu",
    "silu",
    "gelu",
    "erf",
    "floor",
    "ceil",
    "round",
    "sign",
    "affine",
    "clamp",
    "sum",
    "mean",
    "max_of",
    "min_of",
    "argmax",
    "argmin",
    "softmax",
    "cumsum",
    "matmul",
    "conv2d",
    "resize",
    "cast",
    "reshape",
    "permute",
    "slice",
    "concat",
    "gather",
    "index_select",
    "broadcast",
    "flip",
    "pad",
    "contiguous",
    "to_host",
];

/// Computes an operation.
pub(crate) fn compute(name: &str, tensors: &[&Array], attributes: &str) -> Outcome<Array> {
    let attributes: Json = match attributes {
        "" => Json::Null,
        text => serde_json::from_str(text).map_err(|error| format!("attributes: {error}"))?,
    };
    let call = Call { tensors, attributes: &attributes };
    let computed = match name {
        "add" | "sub" | "mul" | "div" | "min" | "max" | "pow" | "eq" | "ne" | "lt" | "le"
        | "gt" | "ge" => elements::join(name, &call),
        "where" => elements::choose(&call),
        "affine" => elements::affine(&call),
        "clamp" => elements::clamp(&call),
        "cast" => elements::cast(&call),
        "sum" | "mean" | "max_of" | "min_of" => along::reduce(name, &call),
        "argmax" | "argmin" => along::arg(name, &call),
        "softmax" => along::softmax(&call),
        "cumsum" => along::cumsum(&call),
        "matmul" => image::matmul(&call),
        "conv2d" => image::conv2d(&call),
        "resize" => image::resize(&call),
        "reshape" => shapes::reshape(&call),
        "permute" => shapes::permute(&call),
        "slice" => shapes::slice(&call),
        "concat" => shapes::concat(&call),
        "gather" => shapes::gather(&call),
        "index_select" => shapes::index_select(&call),
        "broadcast" => shapes::broadcast(&call),
        "flip" => shapes::flip(&call),
        "pad" => shapes::pad(&call),
        "contiguous" | "to_host" => call.only().cloned(),
        _ => match elements::function(name) {
            Some(function) => elements::map(&call, function),
            None => Err("there is no such operation".to_owned()),
        },
    };
    computed.map_err(|why| format!("{name}: {why}"))
}

/// An operation's tensors and attributes, and how they are read.
pub(crate) struct Call<'a> {
    tensors: &'a [&'a Array],
    attributes: &'a Json,
}

impl<'a> Call<'a> {
    fn exactly<const N: usize>(&self) -> Outcome<[&'a Array; N]> {
        let found = self.tensors.len();
        self.tensors.try_into().map_err(|_| format!("expected {N} tensors, found {found}"))
    }

    fn only(&self) -> Outcome<&'a Array> {
        self.exactly::<1>().map(|[only]| only)
    }

    fn get<T>(&self, key: &str, read: impl Fn(&Json) -> Option<T>) -> Outcome<Option<T>> {
        match self.attributes.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(found) => {
                let value = read(found);
                value.map(Some).ok_or_else(|| format!("attribute `{key}` cannot be {found}"))
            }
        }
    }

    fn need<T>(&self, key: &str, read: impl Fn(&Json) -> Option<T>) -> Outcome<T> {
        self.get(key, read)?.ok_or_else(|| format!("attribute `{key}` is missing"))
    }

    fn size(&self, key: &str) -> Outcome<usize> {
        self.need(key, |json| json.as_u64().map(|size| size as usize))
    }

    fn sizes(&self, key: &str) -> Outcome<Vec<i64>> {
        self.need(key, |json| json.as_array()?.iter().map(Json::as_i64).collect())
    }

    fn truth(&self, key: &str) -> Outcome<bool> {
        Ok(self.get(key, Json::as_bool)?.unwrap_or(false))
    }

    fn text(&self, key: &str) -> Outcome<String> {
        self.need(key, |json| json.as_str().map(str::to_owned))
    }

    /// The dimension that `dim` means.
    fn dim(&self, of: &Array) -> Outcome<usize> {
        resolve(self.need("dim", Json::as_i64)?, of.dims.len())
    }
}

/// A dimension, counted from the end where it is negative.
fn resolve(dim: i64, rank: usize) -> Outcome<usize> {
    let found = if dim < 0 { dim + rank as i64 } else { dim };
    if (0..rank as i64).contains(&found) {
        return Ok(found as usize);
    }
    Err(format!("a tensor of {rank} dimensions has no dimension {dim}"))
}

/// Elements from one to the next along each dimension.
fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for dim in (1..dims.len()).rev() {
        strides[dim - 1] = strides[dim] * dims[dim];
    }
    strides
}

/// The place along each dimension of an element.
fn place(index: usize, dims: &[usize]) -> Vec<usize> {
    let mut place = vec![0; dims.len()];
    let mut rest = index;
    for dim in (0..dims.len()).rev() {
        place[dim] = rest % dims[dim];
        rest /= dims[dim];
    }
    place
}

/// The index of a place.
fn index_of(place: &[usize], dims: &[usize]) -> usize {
    place.iter().zip(strides(dims)).map(|(at, stride)| at * stride).sum()
}

/// The index in a tensor of shape `from` of an element of a shape that it broadcasts to.
fn spread(index: usize, to: &[usize], from: &[usize]) -> usize {
    let place = place(index, to);
    let place = &place[to.len() - from.len()..];
    let own: Vec<_> =
        place.iter().zip(from).map(|(at, &dim)| if dim == 1 { 0 } else { *at }).collect();
    index_of(&own, from)
}

/// The shape that two shapes broadcast to.
fn joined(a: &[usize], b: &[usize]) -> Outcome<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], dim: usize| {
        let missing = rank - dims.len();
        if dim < missing { 1 } else { dims[dim - missing] }
    };
    (0..rank)
        .map(|dim| match (at(a, dim), at(b, dim)) {
            (a, b) if a == b => Ok(a),
            (1, b) => Ok(b),
            (a, 1) => Ok(a),
            _ => Err(format!("shapes {a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

fn expect_same_type(a: &Array, b: &Array) -> Outcome<DType> {
    if a.dtype == b.dtype {
        return Ok(a.dtype);
    }
    Err(format!("both must have one element type, found {} and {}", a.dtype, b.dtype))
}
