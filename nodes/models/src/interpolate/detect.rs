//! Which network a file holds.

use std::sync::Arc;

use super::ifnet;
use crate::checkpoint::PartFiles;
use crate::error::{Error, Result};
use crate::model::InterpolatorSpec;

/// What the network in a file is, by the names and shapes of its weights. No weight is read.
///
/// # Errors
/// When it is of no kind that is known, or has sizes that are not supported.
pub fn read_interpolator(files: &PartFiles) -> Result<Arc<dyn InterpolatorSpec>> {
    if let Some(found) = ifnet::recognise(files) {
        return found;
    }
    let names = files.names();
    let first = names.first().map_or(String::new(), |name| format!("weights `{name}`, …; "));
    let what = format!("this network ({first}known is RIFE from 4.13 on)");
    Err(Error::Unsupported { file: files.describe().to_owned(), what })
}
