//! How things look: diagnostics, tables, quantities, progress.

mod base64;
pub(crate) mod diagnostics;
mod excerpt;
pub(crate) mod gather;
pub(crate) mod progress;
pub(crate) mod quantity;
pub(crate) mod table;
