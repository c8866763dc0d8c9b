//! How frames are cut for a network that enlarges them: in tiles that overlap by what it sees.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;
use kino_kernels::{Filter, clamp_finite, resize};

use super::layers::RGB;
use crate::cancel::CheckCancel;
use crate::error::{Error, Result};
use crate::model::{Upscaler, UpscalerSpec};

/// The most pixels by which tiles overlap on each side. What a network of many layers sees beyond
/// hardly counts.
const MOST_OVERLAP: usize = 32;
/// Sides of tiles that are chosen from, where none is given.
const SIDES: [usize; 7] = [512, 384, 256, 192, 128, 96, 64];
/// Bytes that a tile of a chosen side may take.
const MOST_BYTES: u64 = 640 << 20;
/// Small frames are worked on together, up to so many pixels and frames.
const PIXELS_AT_ONCE: usize = 32 * 1024;
const FRAMES_AT_ONCE: usize = 4;

/// How frames of one size are cut for a network, and how large they become.
///
/// Where the overlap holds all that the network sees, the result is that of the whole frame but
/// for the last bits.
pub struct Tiling {
    spec: Arc<dyn UpscalerSpec>,
    size: [usize; 2],
    factor: usize,
    rows: Vec<Cut>,
    columns: Vec<Cut>,
}

/// A part of an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cut {
    /// What is kept of it.
    kept: Range<usize>,
    /// What the network is given.
    given: Range<usize>,
}

impl Tiling {
    /// Frames of `size` = `[height, width]` pixels become `factor` times larger, at most as much as
    /// the network enlarges. `side` is that of a tile in pixels of the input, 0 to choose one by
    /// the memory that it takes.
    ///
    /// # Errors
    /// When `factor` is 0 or above the network's.
    pub fn new(
        spec: Arc<dyn UpscalerSpec>,
        size: [usize; 2],
        factor: usize,
        side: usize,
    ) -> Result<Self> {
        if !(1..=spec.factor()).contains(&factor) {
            return Err(Error::input(format!(
                "{} enlarges {} times, so `factor` is from 1 to {}, found {factor}",
                spec.name(),
                spec.factor(),
                spec.factor()
            )));
        }
        let overlap = spec.reach().min(MOST_OVERLAP);
        let side = if side == 0 { chosen_side(&*spec, overlap) } else { side };
        let multiple = spec.multiple();
        let [rows, columns] = size.map(|length| cuts(length, side, overlap, multiple));
        Ok(Self { spec, size, factor, rows, columns })
    }

    /// Frames that are worked on at once.
    pub fn frames_at_once(&self) -> usize {
        match self.rows.len() * self.columns.len() {
            1 => {
                let pixels = self.size[0].saturating_mul(self.size[1]).max(1);
                (PIXELS_AT_ONCE / pixels).clamp(1, FRAMES_AT_ONCE)
            }
            _ => 1,
        }
    }

    /// Bytes that enlarging [`Tiling::frames_at_once`] frames needs besides the weights and the
    /// frames that come in; those that go out are counted once.
    pub fn memory(&self) -> u64 {
        let largest = |cuts: &[Cut]| cuts.iter().map(|cut| cut.given.len()).max().unwrap_or(0);
        let tile = [largest(&self.rows), largest(&self.columns)];
        let count = self.frames_at_once() as u64;
        let bytes = |[height, width]: [usize; 2], factor: usize| {
            let pixels = height as u128 * width as u128 * (factor * factor * RGB) as u128;
            u64::try_from(4 * pixels).unwrap_or(u64::MAX)
        };
        let network = self.spec.memory(tile);
        // What the network gave, smaller, or with its colours cut off.
        let enlarged = bytes(tile, self.spec.factor()).saturating_mul(2);
        let one_tile = network.max(enlarged).saturating_mul(count);
        match self.rows.len() * self.columns.len() {
            1 => one_tile,
            // Tiles that are done wait for the last, and are then joined into the result.
            _ => one_tile.saturating_add(bytes(self.size, self.factor)),
        }
    }

    /// Enlarges frames. Shapes: `frames` `[n, h, w, 3]`, of the size that was told; the result
    /// `[n, factor·h, factor·w, 3]` in 0…1: what the network gives outside is cut off. Where it
    /// enlarges more than was asked, pixels are the means of the areas that they cover.
    ///
    /// # Errors
    /// When the size is another, it is cancelled, or a tensor operation fails.
    pub fn upscale(
        &self,
        network: &dyn Upscaler,
        frames: &Tensor,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let (_, height, width, _) = frames.dims4()?;
        if [height, width] != self.size {
            return Err(Error::input(format!("frames of {height}×{width}, not {:?}", self.size)));
        }
        let mut lines = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let line = frames.narrow(1, row.given.start, row.given.len())?;
            let mut tiles = Vec::with_capacity(self.columns.len());
            for column in &self.columns {
                check_cancel()?;
                let tile = line.narrow(2, column.given.start, column.given.len())?.contiguous()?;
                let tile = network.upscale(&tile, check_cancel)?;
                tiles.push(self.finished(tile, row, column)?);
            }
            lines.push(joined(tiles, 2)?);
        }
        joined(lines, 1)
    }

    /// What is kept of an enlarged tile, at the size that was asked for, in 0…1.
    fn finished(&self, tile: Tensor, row: &Cut, column: &Cut) -> Result<Tensor> {
        let factor = self.spec.factor();
        let kept = |cut: &Cut| {
            let start = (cut.kept.start - cut.given.start) * factor;
            (start, cut.kept.len() * factor)
        };
        let ((top, height), (left, width)) = (kept(row), kept(column));
        let tile = tile.narrow(1, top, height)?.narrow(2, left, width)?.contiguous()?;
        let size = [row, column].map(|cut| cut.kept.len() * self.factor);
        // Each input pixel becomes whole squares of both sizes, so tiles do not meet in one.
        let tile = resize(&tile, size[0], size[1], Filter::Area)?;
        clamp_finite(&tile, 0.0, 1.0)?.ok_or_else(|| {
            Error::input(
                "enlarging left the range of numbers: the frames that came in hold values that are \
                 infinite or none, or the weights of the network are damaged",
            )
        })
    }
}

fn joined(mut parts: Vec<Tensor>, axis: usize) -> Result<Tensor> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Ok(Tensor::cat(&parts, axis)?),
    }
}

/// The largest side of a tile that takes little enough memory, else the smallest there is.
fn chosen_side(spec: &dyn UpscalerSpec, overlap: usize) -> usize {
    let fits = |side: &&usize| spec.memory([**side + 2 * overlap; 2]) <= MOST_BYTES;
    SIDES.iter().find(fits).or(SIDES.last()).copied().unwrap_or(64)
}

/// Cuts an axis into parts of nearly equal length, at most `side` but for the next multiple.
fn cuts(length: usize, side: usize, overlap: usize, multiple: usize) -> Vec<Cut> {
    let count = length.div_ceil(side.max(multiple)).max(1);
    let place = |index: usize| match index {
        _ if index == count => length,
        _ => (length as u128 * index as u128 / count as u128) as usize / multiple * multiple,
    };
    (0..count)
        .map(|index| {
            let kept = place(index)..place(index + 1);
            let start = kept.start.saturating_sub(overlap) / multiple * multiple;
            let end = kept.end.saturating_add(overlap).next_multiple_of(multiple).min(length);
            Cut { given: start..end, kept }
        })
        .filter(|cut| !cut.kept.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_an_axis_once_and_see_what_they_need() {
        for (length, side, overlap, multiple) in
            [(1, 64, 18, 1), (64, 64, 18, 1), (65, 64, 18, 1), (1001, 96, 32, 4), (7, 1, 3, 2)]
        {
            let parts = cuts(length, side, overlap, multiple);
            let mut at = 0;
            for Cut { kept, given } in &parts {
                assert_eq!(kept.start, at);
                at = kept.end;
                assert!(kept.len() <= side.max(multiple) + multiple, "{kept:?} of {side}");
                assert_eq!((given.start % multiple, kept.start % multiple), (0, 0));
                assert!(given.start == 0 || kept.start - given.start >= overlap, "{parts:?}");
                assert!(given.end == length || given.end - kept.end >= overlap, "{parts:?}");
            }
            assert_eq!(at, length);
        }
        assert_eq!(cuts(480, 512, 18, 1), [Cut { kept: 0..480, given: 0..480 }]);
    }
}
