//! One call of an operation: its tensors, what comes out, and how large that may get.

use candle_core::{DType, Device, Tensor};
use kino_contract::code;
use kino_contract::ops::{OpError, OpPlan};
use kino_node::{Error, Result};

use super::shape::of_candle;

/// What is always there for what is needed on the way, in bytes.
const SCRATCH: u64 = 1 << 28;

/// The work of one piece, in multiplications and additions: a tenth of a second or so.
const PIECE: usize = 1 << 32;

/// What one operation may use up.
pub struct OpLimits<'a> {
    /// The most bytes of the result.
    pub most: u64,
    /// Asked between pieces of work, each well below a second; an error ends the operation.
    pub check: &'a dyn Fn() -> Result<()>,
}

/// What an operation works on.
pub(super) struct OpCall<'a> {
    /// They fit the plan.
    pub(super) tensors: &'a [Tensor],
    pub(super) plan: &'a OpPlan,
    pub(super) bounds: &'a OpLimits<'a>,
}

impl<'a> OpCall<'a> {
    /// The shape of the result.
    pub(super) fn shape(&self) -> &'a [usize] {
        &self.plan.shape
    }

    /// Refuses a result that is too large.
    pub(super) fn room(&self) -> Result<()> {
        self.fits("a result", &self.plan.shape, self.plan.dtype, self.bounds.most)
    }

    /// The same for what is needed on the way: as much as a result, and some where little is left.
    pub(super) fn scratch(&self, shape: &[usize], dtype: DType) -> Result<()> {
        let most = self.bounds.most.max(SCRATCH);
        self.fits("an intermediate result", shape, of_candle(dtype)?, most)
    }

    fn fits(
        &self,
        what: &str,
        shape: &[usize],
        dtype: kino_contract::DType,
        most: u64,
    ) -> Result<()> {
        let bytes = kino_contract::ops::fits(what, shape, dtype, most).map_err(refused)?;
        if matches!(self.device(), Device::Cpu) && !is_free(bytes) {
            let message = format!("{what} of shape {shape:?} ({dtype})");
            let message = format!("{message}: not enough memory for {bytes} bytes");
            return Err(Error::coded(code::OUT_OF_MEMORY, message));
        }
        Ok(())
    }

    /// Whether the operation goes on: to be asked between pieces of work.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn go_on(&self) -> Result<()> {
        (self.bounds.check)()
    }

    /// Joins what is computed of `count` rows, each of so much work, in pieces that are soon done.
    /// `piece` gets where each begins and how many rows it has; they are joined along `dim`.
    pub(super) fn piecewise(
        &self,
        count: usize,
        work: usize,
        dim: usize,
        piece: impl Fn(usize, usize) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let rows = (PIECE / work.max(1)).max(1);
        let mut parts = Vec::with_capacity(count.div_ceil(rows));
        for start in (0..count).step_by(rows) {
            self.go_on()?;
            parts.push(piece(start, rows.min(count - start))?);
        }
        match parts.as_slice() {
            [whole] => Ok(whole.clone()),
            parts => Ok(Tensor::cat(parts, dim)?),
        }
    }

    /// Where the tensors lie.
    pub(super) fn device(&self) -> &'a Device {
        self.tensors[0].device()
    }
}

/// Whether that much memory can be had: what cannot ends the process.
fn is_free(bytes: u64) -> bool {
    const SMALL: u64 = 1 << 28;
    let Ok(length) = usize::try_from(bytes) else { return false };
    bytes <= SMALL || Vec::<u8>::new().try_reserve_exact(length).is_ok()
}

/// Why a call is refused, as nodes say it.
pub(crate) fn refused(OpError { message, hint, code }: OpError) -> Error {
    Error::Failed { message, hint, code: code.into() }
}
