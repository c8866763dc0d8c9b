//! Which network a file holds.

use std::sync::Arc;

use super::{rrdb, span, srvgg};
use crate::checkpoint::PartFiles;
use crate::error::{Error, Result};
use crate::model::UpscalerSpec;

/// Tells whether a file is of one kind, and if so what is known of it.
type Recognise = fn(&PartFiles) -> Option<Result<Arc<dyn UpscalerSpec>>>;

/// All kinds, in the order in which they are asked.
const KINDS: [Recognise; 3] = [span::recognise, rrdb::recognise, srvgg::recognise];

/// Names that a message shows.
const SHOWN: usize = 3;

/// What the network in a file is, by the names and shapes of its weights. No weight is read.
///
/// # Errors
/// When it is of no kind that is known, or has sizes that are not supported.
pub fn read_upscaler(files: &PartFiles) -> Result<Arc<dyn UpscalerSpec>> {
    if let Some(found) = KINDS.iter().find_map(|recognise| recognise(files)) {
        return found;
    }
    let names = files.names();
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let what = format!(
        "this network (weights {}{more}; known are SRVGGNetCompact, RRDBNet of the ESRGAN family \
         and SPAN)",
        shown.join(", ")
    );
    Err(Error::Unsupported { file: files.describe().to_owned(), what })
}
