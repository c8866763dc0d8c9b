//! What operations on tensors mean, before anything is computed.
//!
//! Plugins call operations by name, with tensors and attributes as JSON; the contract is
//! `plugins/abi/OPERATIONS.md`. [`plan`] reads one call: it checks the number of tensors, the
//! attributes, element types and shapes, and says what is to be computed and what will come out.
//! The engine (on candle) and the reference host of the SDK (in plain loops) both compute from
//! that, so that both take and refuse the same, in the same words. What hangs on elements –
//! indices, divisors, sums that leave their type – is left to them, with [`OpError`]s from here.

mod call;
mod error;
mod op;
mod plan;
mod shape;

pub(crate) use call::OpCall;
pub use error::{OpError, Result};
pub use op::{
    BinaryOp, CmpOp, Conv, Extremum, Filter, MAX_BYTES, MAX_DIMENSIONS, Op, OpPlan, Operand,
    Padding, ReduceOp, UnaryOp,
};
pub use plan::{NAMES, plan};
pub(crate) use shape::dimension;
pub use shape::fits;
