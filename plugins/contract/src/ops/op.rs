//! What can be computed: operations with their attributes, what they take and what comes out.

use crate::DType;

/// The most dimensions of a tensor.
pub const MAX_DIMENSIONS: usize = 8;

/// The largest result, in bytes.
pub const MAX_BYTES: u64 = 1 << 36;

/// A tensor's type and shape.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The type of its elements.
    pub dtype: DType,
    /// The size of each dimension.
    pub dims: &'a [usize],
}

/// What is to be computed, and what comes out.
#[derive(Clone, Debug, PartialEq)]
pub struct OpPlan {
    /// What is to be computed.
    pub op: Op,
    /// The type of the result's elements.
    pub dtype: DType,
    /// The shape of the result.
    pub shape: Vec<usize>,
}

/// An operation with its attributes; dimensions are counted from the front and exist.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Two tensors of one type, element by element.
    Binary(BinaryOp),
    /// The same; the result is u8: 1 where it holds, else 0.
    Cmp(CmpOp),
    /// An element of the second where the first (u8) is not 0, else of the third.
    Where,
    /// One tensor, element by element.
    Unary(UnaryOp),
    /// x · mul + add; both are whole where x is.
    Affine {
        /// The factor.
        mul: f64,
        /// What is added.
        add: f64,
    },
    /// Kept within bounds; `None` is no bound.
    Clamp {
        /// The lower bound.
        min: Option<f64>,
        /// The upper bound.
        max: Option<f64>,
    },
    /// Whole numbers, kept within the range of their type and of bounds.
    ClampWhole([i64; 2]),
    /// Over dimensions.
    Reduce {
        /// What becomes of the elements.
        by: ReduceOp,
        /// Over which dimensions.
        dims: Vec<usize>,
    },
    /// The index of the greatest or least along a dimension, the first of equals.
    Arg {
        /// Which of them.
        of: Extremum,
        /// Along which dimension.
        dim: usize,
    },
    /// e^x along a dimension, divided by its sum.
    Softmax(usize),
    /// The running sum along a dimension.
    CumSum(usize),
    /// `[…, m, k]` by `[…, k, n]`.
    MatMul,
    /// `[n, c, h, w]` by `[o, c/groups, kh, kw]`, and perhaps a bias `[o]`.
    Conv2d(Conv),
    /// `[n, c, h, w]` in another size.
    Resize(Filter),
    /// To the type of the result.
    Cast,
    /// To the shape of the result.
    Reshape,
    /// Dimensions in this order.
    Permute(Vec<usize>),
    /// A part along a dimension; how long it is says the result's shape.
    Slice {
        /// Along which dimension.
        dim: usize,
        /// Where it begins.
        start: usize,
    },
    /// Joined along a dimension.
    Concat(usize),
    /// The first at the indices of the second along a dimension.
    Gather(usize),
    /// Slices of the first along a dimension, at the indices `[n]` of the second.
    IndexSelect(usize),
    /// Repeated to the shape of the result.
    Broadcast,
    /// Reversed along dimensions.
    Flip(Vec<usize>),
    /// Longer along a dimension.
    Pad {
        /// Along which dimension.
        dim: usize,
        /// By how much before the first element.
        before: usize,
        /// By how much behind the last one.
        after: usize,
        /// What lies there.
        with: Padding,
    },
    /// Row-major without gaps.
    Contiguous,
    /// In main memory.
    ToHost,
}

/// Functions of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// The sum.
    Add,
    /// The difference.
    Sub,
    /// The product.
    Mul,
    /// The quotient.
    Div,
    /// The lesser one.
    Min,
    /// The greater one.
    Max,
    /// The power.
    Pow,
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmpOp {
    /// Both are equal.
    Eq,
    /// Both differ.
    Ne,
    /// The first is less.
    Lt,
    /// The first is less or equal.
    Le,
    /// The first is greater.
    Gt,
    /// The first is greater or equal.
    Ge,
}

/// Functions of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// The negative.
    Neg,
    /// Without its sign.
    Abs,
    /// e to this power.
    Exp,
    /// The natural logarithm.
    Log,
    /// The square root.
    Sqrt,
    /// One divided by it.
    Recip,
    /// The sine of radians.
    Sin,
    /// The cosine of radians.
    Cos,
    /// The hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e^−x).
    Sigmoid,
    /// 0 where it is negative.
    Relu,
    /// x · sigmoid(x).
    Silu,
    /// x · Φ(x), by the error function.
    Gelu,
    /// The error function.
    Erf,
    /// The next whole number below.
    Floor,
    /// The next whole number above.
    Ceil,
    /// The nearest whole number; halves go away from zero.
    Round,
    /// −1, 0 or 1.
    Sign,
}

/// What becomes of several elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The greatest or least of them.
    Extreme(Extremum),
}

/// The greatest or the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extremum {
    /// The greatest.
    Max,
    /// The least.
    Min,
}

/// How sizes are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The nearest element.
    Nearest,
    /// A straight line between neighbours.
    Bilinear,
    /// Three lobes of a windowed sinc.
    Lanczos,
}

impl Filter {
    /// All of them.
    pub const ALL: [Filter; 3] = [Filter::Nearest, Filter::Bilinear, Filter::Lanczos];

    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Filter::Nearest => "nearest",
            Filter::Bilinear => "bilinear",
            Filter::Lanczos => "lanczos",
        }
    }
}

/// What lies beyond the ends of a padded dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Zeros.
    Zeros,
    /// The last element again.
    Edge,
}

impl Padding {
    /// All of them.
    pub const ALL: [Padding; 2] = [Padding::Zeros, Padding::Edge];

    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Padding::Zeros => "zeros",
            Padding::Edge => "edge",
        }
    }
}

/// How a kernel moves over an image; [`Default`]: every pixel, no padding, one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Pixels from one place to the next; 1 or more.
    pub stride: usize,
    /// Zeros beyond each border.
    pub padding: usize,
    /// Pixels from one weight to the next; 1 or more.
    pub dilation: usize,
    /// Groups of channels that do not see each other; 1 or more.
    pub groups: usize,
}

impl Default for Conv {
    fn default() -> Self {
        Conv { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}
