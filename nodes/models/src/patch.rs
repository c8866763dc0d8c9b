//! Latents as patches and back: a pure rearrangement.

use candle_core::Tensor;

use crate::error::{Error, Result};

/// The patches of one clip along time, height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Patches along time.
    pub frames: usize,
    /// Patches from top to bottom.
    pub rows: usize,
    /// Patches from left to right.
    pub columns: usize,
}

impl Grid {
    /// The grid of a latent of `frames`×`height`×`width` cut into patches.
    ///
    /// # Errors
    /// When a side is 0 or not a multiple of the patch's.
    pub fn of_latent(size: (usize, usize, usize), patch: (usize, usize, usize)) -> Result<Self> {
        let (frames, height, width) = size;
        let (pt, ph, pw) = patch;
        let whole = |side: usize, patch: usize| side > 0 && patch > 0 && side.is_multiple_of(patch);
        if !(whole(frames, pt) && whole(height, ph) && whole(width, pw)) {
            return Err(Error::input(format!(
                "a latent of {frames}×{height}×{width} cannot be cut into patches of {pt}×{ph}×{pw}"
            )));
        }
        Ok(Self { frames: frames / pt, rows: height / ph, columns: width / pw })
    }

    /// Patches in all.
    pub fn tokens(&self) -> usize {
        self.frames * self.rows * self.columns
    }
}

/// Cuts a latent into patches, in the order time, height, width.
///
/// Shapes: `latent` `[c, f, h, w]`; the result is `[tokens, c·pt·ph·pw]`. Within a patch the order
/// is (c, pt, ph, pw), that of a convolution's flattened weights.
///
/// # Errors
/// When a side is not a multiple of the patch's.
pub fn patchify(latent: &Tensor, patch: (usize, usize, usize)) -> Result<Tensor> {
    let (c, f, h, w) = latent.dims4()?;
    let grid = Grid::of_latent((f, h, w), patch)?;
    let (pt, ph, pw) = patch;
    let split = latent.reshape(&[c, grid.frames, pt, grid.rows, ph, grid.columns, pw][..])?;
    let sorted = split.permute([1, 3, 5, 0, 2, 4, 6])?; // [f, rows, columns, c, pt, ph, pw]
    Ok(sorted.contiguous()?.reshape((grid.tokens(), c * pt * ph * pw))?)
}

/// Joins patches to a latent: the inverse of [`patchify`].
///
/// Shapes: `patches` `[tokens, c·pt·ph·pw]`; the result is `[c, f, h, w]`.
///
/// # Errors
/// When the patches do not fill the grid, or their width is not a multiple of the patch's volume.
pub fn unpatchify(patches: &Tensor, grid: Grid, patch: (usize, usize, usize)) -> Result<Tensor> {
    let (tokens, width) = patches.dims2()?;
    let (pt, ph, pw) = patch;
    let volume = pt * ph * pw;
    if tokens != grid.tokens() || volume == 0 || width % volume != 0 {
        return Err(Error::input(format!(
            "patches of shape [{tokens}, {width}] do not fill {grid:?} by patches of {pt}×{ph}×{pw}"
        )));
    }
    let c = width / volume;
    let Grid { frames, rows, columns } = grid;
    let split = patches.reshape(&[frames, rows, columns, c, pt, ph, pw][..])?;
    let sorted = split.permute([3, 0, 4, 1, 5, 2, 6])?; // [c, f, pt, rows, ph, columns, pw]
    Ok(sorted.contiguous()?.reshape((c, frames * pt, rows * ph, columns * pw))?)
}
