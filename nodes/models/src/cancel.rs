//! How long computations are stopped from outside.

use crate::error::Result;

/// Called between the blocks of a computation; its error stops it (see
/// [`crate::Error::Cancelled`]).
pub type CheckCancel<'a> = dyn FnMut() -> Result<()> + 'a;
