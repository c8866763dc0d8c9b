//! Operations on tensors, computed by the engine where the tensors lie.
//!
//! What each one means is written in the contract (`OPERATIONS.md`).

use kino_contract::DType;
use kino_contract::ops::{Conv, Filter, Padding};
use serde_json::{Value as Json, json};

use crate::operand::Operand;
use crate::{Error, Result, Tensor, Value};

macro_rules! joins {
    ($($(#[$doc:meta])* $method:ident => $name:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// When shapes do not broadcast or types differ.
        pub fn $method(&self, other: impl Operand) -> Result<Tensor> {
            other.join($name, self)
        }
    )*};
}

macro_rules! maps {
    ($($(#[$doc:meta])* $method:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// When the engine does not offer it for this type.
        pub fn $method(&self) -> Result<Tensor> {
            self.op(stringify!($method), &[], "")
        }
    )*};
}

macro_rules! reduces {
    ($($(#[$doc:meta])* $method:ident $name:literal;)*) => {$(
        $(#[$doc])*
        /// over dimensions, which are gone in the result; over all where none is given.
        ///
        /// # Errors
        /// When it has no such dimension.
        pub fn $method(&self, dims: &[isize]) -> Result<Tensor> {
            self.reduce($name, dims, false)
        }
    )*};
}

/// Element by element; shapes broadcast as in NumPy.
impl Tensor {
    /// One operation by its name in the contract, on this tensor and more, with attributes.
    ///
    /// # Errors
    /// When the engine does not offer it, or refuses the shapes.
    pub fn op(&self, name: &str, others: &[&Tensor], attributes: &str) -> Result<Tensor> {
        let mut tensors = Vec::with_capacity(1 + others.len());
        tensors.push(self.value());
        tensors.extend(others.iter().map(|tensor| tensor.value()));
        Tensor::of(Value::op(name, &tensors, attributes)?)
    }

    fn with(&self, name: &str, others: &[&Tensor], attributes: &Json) -> Result<Tensor> {
        self.op(name, others, &attributes.to_string())
    }

    joins! {
        /// The sum.
        add => "add";
        /// The difference.
        sub => "sub";
        /// The product, element by element.
        mul => "mul";
        /// The quotient.
        div => "div";
        /// The lesser one.
        min => "min";
        /// The greater one.
        max => "max";
        /// The power.
        pow => "pow";
        /// 1 (u8) where both are equal, else 0.
        eq => "eq";
        /// 1 (u8) where both differ, else 0.
        ne => "ne";
        /// 1 (u8) where this one is less, else 0.
        lt => "lt";
        /// 1 (u8) where this one is less or equal, else 0.
        le => "le";
        /// 1 (u8) where this one is greater, else 0.
        gt => "gt";
        /// 1 (u8) where this one is greater or equal, else 0.
        ge => "ge";
    }

    maps! {
        /// The negative.
        neg;
        /// Without its sign.
        abs;
        /// e to this power.
        exp;
        /// The natural logarithm.
        log;
        /// The square root.
        sqrt;
        /// One divided by it.
        recip;
        /// The sine of radians.
        sin;
        /// The cosine of radians.
        cos;
        /// The hyperbolic tangent.
        tanh;
        /// 1 / (1 + e^−x).
        sigmoid;
        /// 0 where it is negative.
        relu;
        /// x · sigmoid(x).
        silu;
        /// x · Φ(x), by the error function.
        gelu;
        /// The error function.
        erf;
        /// The next whole number below.
        floor;
        /// The next whole number above.
        ceil;
        /// The nearest whole number; halves go away from zero.
        round;
        /// −1, 0 or 1.
        sign;
        /// Row-major without gaps.
        contiguous;
        /// The same in main memory.
        to_host;
    }

    /// Where this (u8) is not 0 an element of `a`, else one of `b`.
    ///
    /// # Errors
    /// When shapes do not broadcast or types differ.
    pub fn choose(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        self.op("where", &[a, b], "")
    }

    /// x · `mul` + `add`; both are whole where x is.
    ///
    /// # Errors
    /// When one of them is not finite, or not whole where it must be.
    pub fn affine(&self, mul: f64, add: f64) -> Result<Tensor> {
        if !mul.is_finite() || !add.is_finite() {
            return Err(Error::new(format!("affine: expected finite numbers, found {mul}, {add}")));
        }
        self.with("affine", &[], &json!({"mul": mul, "add": add}))
    }

    /// Kept within both; `f64::NEG_INFINITY` and `f64::INFINITY` are no bounds.
    ///
    /// # Errors
    /// When one of them is not a number, or the least is greater than the greatest.
    pub fn clamp(&self, min: f64, max: f64) -> Result<Tensor> {
        if min.is_nan() || max.is_nan() || min == f64::INFINITY || max == f64::NEG_INFINITY {
            return Err(Error::new(format!("clamp: expected two bounds, found {min} and {max}")));
        }
        // JSON has no infinities: they become null, which is no bound.
        self.with("clamp", &[], &json!({"min": min, "max": max}))
    }

    /// Converted; to whole numbers cut towards zero.
    ///
    /// # Errors
    /// When the engine cannot.
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        self.with("cast", &[], &json!({"dtype": dtype.name()}))
    }
}

/// Along dimensions, which count from the end where negative.
impl Tensor {
    reduces! {
        /// The sum
        sum "sum";
        /// The mean
        mean "mean";
        /// The greatest
        max_of "max_of";
        /// The least
        min_of "min_of";
    }

    /// `sum`, `mean`, `max_of` or `min_of` over dimensions (over all where none is given); `keep`
    /// leaves them with size 1.
    ///
    /// # Errors
    /// When it has no such dimension.
    pub fn reduce(&self, name: &str, dims: &[isize], keep: bool) -> Result<Tensor> {
        let attributes = match dims {
            [] => json!({"keep": keep}),
            dims => json!({"dims": dims, "keep": keep}),
        };
        self.with(name, &[], &attributes)
    }

    /// The index (u32) of the greatest along a dimension, the first of equals.
    ///
    /// # Errors
    /// When it has no such dimension.
    pub fn argmax(&self, dim: isize) -> Result<Tensor> {
        self.with("argmax", &[], &json!({"dim": dim}))
    }

    /// The index (u32) of the least along a dimension, the first of equals.
    ///
    /// # Errors
    /// When it has no such dimension.
    pub fn argmin(&self, dim: isize) -> Result<Tensor> {
        self.with("argmin", &[], &json!({"dim": dim}))
    }

    /// e^x, divided so that it sums to 1 along a dimension.
    ///
    /// # Errors
    /// When it has no such dimension.
    pub fn softmax(&self, dim: isize) -> Result<Tensor> {
        self.with("softmax", &[], &json!({"dim": dim}))
    }

    /// The running sum along a dimension.
    ///
    /// # Errors
    /// When it has no such dimension.
    pub fn cumsum(&self, dim: isize) -> Result<Tensor> {
        self.with("cumsum", &[], &json!({"dim": dim}))
    }

    /// The product of matrices `[…, m, k]` and `[…, k, n]`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        self.op("matmul", &[other], "")
    }

    /// This `[n, c, h, w]`, convolved with `[o, c/groups, kh, kw]`, plus a bias `[o]`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, conv: Conv) -> Result<Tensor> {
        let Conv { stride, padding, dilation, groups } = conv;
        let attributes = json!({
            "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
        });
        let others: Vec<_> = std::iter::once(weight).chain(bias).collect();
        self.with("conv2d", &others, &attributes)
    }

    /// This `[n, c, h, w]` in another size.
    ///
    /// # Errors
    /// When it has another shape.
    pub fn resize(&self, height: usize, width: usize, filter: Filter) -> Result<Tensor> {
        let attributes = json!({"height": height, "width": width, "filter": filter.name()});
        self.with("resize", &[], &attributes)
    }
}

/// Shapes.
impl Tensor {
    /// The same elements in another shape; one size may be −1.
    ///
    /// # Errors
    /// When the numbers of elements differ.
    pub fn reshape(&self, shape: &[isize]) -> Result<Tensor> {
        self.with("reshape", &[], &json!({"shape": shape}))
    }

    /// The dimensions in another order.
    ///
    /// # Errors
    /// When they are not all named once.
    pub fn permute(&self, dims: &[isize]) -> Result<Tensor> {
        self.with("permute", &[], &json!({"dims": dims}))
    }

    /// Two dimensions exchanged.
    ///
    /// # Errors
    /// When it has no such dimensions.
    pub fn transpose(&self, a: isize, b: isize) -> Result<Tensor> {
        let (a, b) = (self.dim(a)?, self.dim(b)?);
        let mut dims: Vec<_> = (0..self.rank() as isize).collect();
        dims.swap(a, b);
        self.permute(&dims)
    }

    /// The dimension that a number means, which counts from the end where it is negative.
    ///
    /// # Errors
    /// When there is none.
    pub fn dim(&self, dim: isize) -> Result<usize> {
        let rank = self.rank() as isize;
        let found = if dim < 0 { dim + rank } else { dim };
        if (0..rank).contains(&found) {
            return Ok(found as usize);
        }
        Err(Error::new(format!("shape {:?} has no dimension {dim}", self.dims())))
    }

    /// The part from `start`, `len` long, along a dimension.
    ///
    /// # Errors
    /// When it reaches past the end.
    pub fn slice(&self, dim: isize, start: usize, len: usize) -> Result<Tensor> {
        self.with("slice", &[], &json!({"dim": dim, "start": start, "len": len}))
    }

    /// Parts along a dimension of these sizes, which are all of it.
    ///
    /// # Errors
    /// When they are more or less than there is.
    pub fn split(&self, dim: isize, sizes: &[usize]) -> Result<Vec<Tensor>> {
        self.parts("split", &json!({"dim": dim, "sizes": sizes}))
    }

    /// The `k` greatest along a dimension, the best first, and their indices (u32); of equals the
    /// first comes first, and NaN counts as the greatest.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn topk(&self, dim: isize, k: usize) -> Result<(Tensor, Tensor)> {
        self.chosen(&json!({"dim": dim, "k": k}))
    }

    /// The `k` least along a dimension, as [`Tensor::topk`].
    ///
    /// # Errors
    /// When there are fewer.
    pub fn topk_least(&self, dim: isize, k: usize) -> Result<(Tensor, Tensor)> {
        self.chosen(&json!({"dim": dim, "k": k, "least": true}))
    }

    fn chosen(&self, attributes: &Json) -> Result<(Tensor, Tensor)> {
        match <[Tensor; 2]>::try_from(self.parts("topk", attributes)?) {
            Ok([values, indices]) => Ok((values, indices)),
            Err(other) => {
                Err(Error::new(format!("topk gives two tensors, the host gave {}", other.len())))
            }
        }
    }

    /// What a function on this tensor gives.
    fn parts(&self, name: &str, attributes: &Json) -> Result<Vec<Tensor>> {
        let made = Value::call(name, &[self.value()], &attributes.to_string())?;
        made.into_iter().map(Tensor::of).collect()
    }

    /// All of them joined along a dimension.
    ///
    /// # Errors
    /// When there is none, or other dimensions differ.
    pub fn concat(tensors: &[&Tensor], dim: isize) -> Result<Tensor> {
        let [first, others @ ..] = tensors else {
            return Err(Error::new("no tensor is given to be joined"));
        };
        first.with("concat", others, &json!({"dim": dim}))
    }

    /// Elements at indices (u32 or i64, of the same rank) along a dimension.
    ///
    /// # Errors
    /// When an index lies outside.
    pub fn gather(&self, indices: &Tensor, dim: isize) -> Result<Tensor> {
        self.with("gather", &[indices], &json!({"dim": dim}))
    }

    /// Slices at indices `[n]` (u32 or i64) of a dimension.
    ///
    /// # Errors
    /// When an index lies outside.
    pub fn index_select(&self, indices: &Tensor, dim: isize) -> Result<Tensor> {
        self.with("index_select", &[indices], &json!({"dim": dim}))
    }

    /// Repeated to a shape.
    ///
    /// # Errors
    /// When it does not broadcast to it.
    pub fn broadcast(&self, shape: &[usize]) -> Result<Tensor> {
        self.with("broadcast", &[], &json!({"shape": shape}))
    }

    /// Reversed along dimensions.
    ///
    /// # Errors
    /// When it has no such dimensions.
    pub fn flip(&self, dims: &[isize]) -> Result<Tensor> {
        self.with("flip", &[], &json!({"dims": dims}))
    }

    /// Longer along a dimension.
    ///
    /// # Errors
    /// When it has no such dimension.
    pub fn pad(&self, dim: isize, before: usize, after: usize, mode: Padding) -> Result<Tensor> {
        let attributes = json!({"dim": dim, "before": before, "after": after, "mode": mode.name()});
        self.with("pad", &[], &attributes)
    }
}
