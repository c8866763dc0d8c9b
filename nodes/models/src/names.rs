//! The names and shapes by which a network that stands alone in a file is told from others.

use crate::checkpoint::{LARGEST_SIZE, PartFiles};
use crate::error::{Error, Result};
use crate::weight::Weights;

/// What training programs wrap a network's weights in, with the dot behind it.
const WRAPPERS: [&str; 6] = ["", "params_ema.", "params.", "module.", "netG.", "model_g."];

/// The names of a file, seen inside the wrapper that all lie in.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    files: &'a PartFiles,
    /// The wrapper, with its dot; empty where there is none.
    pub(crate) wrapper: &'static str,
}

impl<'a> Names<'a> {
    /// The names of a file inside each wrapper that has `name` in it, the outermost first.
    pub(crate) fn having(files: &'a PartFiles, name: &str) -> Option<Self> {
        let mut wrapped = WRAPPERS.into_iter().map(|wrapper| Names { files, wrapper });
        wrapped.find(|names| names.shape(name).is_some())
    }

    /// The shape of a weight, if it is there.
    pub(crate) fn shape(&self, name: &str) -> Option<&'a [usize]> {
        self.files.shape(&format!("{}{name}", self.wrapper))
    }

    /// Output channels, input channels and side of a square 2-D kernel.
    ///
    /// # Errors
    /// When it is missing or no such kernel.
    pub(crate) fn kernel(&self, name: &str) -> Result<[usize; 3]> {
        let found = self
            .shape(name)
            .ok_or_else(|| self.wrong(format!("no weight `{}{name}`", self.wrapper)))?;
        match *found {
            [cout, cin, side, other]
                if side == other && [cout, cin, side].iter().all(|n| is_size(*n)) =>
            {
                Ok([cout, cin, side])
            }
            _ => Err(self.wrong(format!(
                "weight `{}{name}` is {found:?}; expected [output channels, input channels, side, \
                 side]",
                self.wrapper
            ))),
        }
    }

    /// How many weights there are whose names `name` gives for 0, 1, 2, ….
    pub(crate) fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|index| self.shape(&name(*index)).is_some()).count()
    }

    /// An error about this file.
    pub(crate) fn wrong(&self, reason: String) -> Error {
        Error::Config { file: self.files.describe().to_owned(), reason }
    }

    /// An error about what this file needs.
    pub(crate) fn unsupported(&self, what: impl Into<String>) -> Error {
        Error::Unsupported { file: self.files.describe().to_owned(), what: what.into() }
    }
}

/// Whether a network can have so many of anything.
fn is_size(n: usize) -> bool {
    (1..=LARGEST_SIZE).contains(&n)
}

/// Weights as they are inside a wrapper.
pub(crate) fn inside(weights: &Weights, wrapper: &str) -> Weights {
    match wrapper.strip_suffix('.') {
        Some(name) => weights.scope(name),
        None => weights.clone(),
    }
}

/// The side of squares of pixels that so many channels of colours are spread over.
pub(crate) fn square_side(channels: usize, colours: usize) -> Option<usize> {
    let squares = channels.checked_div(colours)?;
    let side = squares.isqrt();
    (side > 0 && side * side * colours == channels).then_some(side)
}
