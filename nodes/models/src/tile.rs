//! Spatial tiles: a large frame in overlapping parts, blended linearly (`tiled_decode`).

use std::ops::Range;

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};

/// The size of a tile and the distance between two, in pixels of a frame.
///
/// Neighbours overlap by the difference and are blended there. A frame that fits into one tile is
/// not cut. Tiles bound the memory of the activations of one chunk; what is kept between chunks
/// grows by the overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Pixels down a tile.
    pub height: usize,
    /// Pixels across a tile.
    pub width: usize,
    /// Pixels from the top of one tile to the top of the next.
    pub stride_height: usize,
    /// Pixels from the left of one tile to the left of the next.
    pub stride_width: usize,
}

impl Default for Tile {
    /// 256 pixels, a stride of 192: those of diffusers.
    fn default() -> Self {
        Self { height: 256, width: 256, stride_height: 192, stride_width: 192 }
    }
}

impl Tile {
    /// Square tiles that overlap by about a quarter, all in multiples of `factor` pixels, the size
    /// of a latent pixel.
    pub fn square(size: usize, factor: usize) -> Self {
        let factor = factor.max(1);
        let side = size.next_multiple_of(factor).max(2 * factor);
        let stride = (side * 3 / 4 / factor * factor).max(factor);
        Self { height: side, width: side, stride_height: stride, stride_width: stride }
    }

    /// Refuses what cannot be cut: sizes that are no multiple of a latent pixel, gaps, zeros.
    pub(crate) fn check(&self, factor: usize) -> Result<()> {
        let sizes = [self.height, self.width, self.stride_height, self.stride_width];
        let fits = sizes.iter().all(|size| *size > 0 && size % factor == 0);
        if !fits || self.stride_height > self.height || self.stride_width > self.width {
            return Err(Error::input(format!(
                "tiles of {}×{} pixels every {}×{}: expected multiples of {factor}, and strides \
                 no larger than the tile",
                self.height, self.width, self.stride_height, self.stride_width
            )));
        }
        Ok(())
    }

    /// The same in units of `factor` pixels.
    pub(crate) fn divided(&self, factor: usize) -> Self {
        Self {
            height: self.height / factor,
            width: self.width / factor,
            stride_height: self.stride_height / factor,
            stride_width: self.stride_width / factor,
        }
    }
}

/// How one frame size is cut before a network and joined after it.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    rows: Vec<Range<usize>>,
    columns: Vec<Range<usize>>,
    after: Tile,
    size: [usize; 2],
}

impl Grid {
    /// A grid for frames of `size` = (height, width) pixels; `factor` pixels are a latent pixel.
    ///
    /// The encoder cuts pixels and joins latents, the decoder (`decode`) the other way round.
    pub(crate) fn new(
        tile: Option<Tile>,
        size: [usize; 2],
        factor: usize,
        decode: bool,
    ) -> Result<Self> {
        let whole =
            Tile { height: size[0], width: size[1], stride_height: size[0], stride_width: size[1] };
        let tile = match tile {
            Some(tile) => {
                tile.check(factor)?;
                if size[0] > tile.height || size[1] > tile.width { tile } else { whole }
            }
            None => whole,
        };
        let latent = tile.divided(factor);
        let latent_size = size.map(|length| length / factor);
        let (before, after) = if decode { (latent, tile) } else { (tile, latent) };
        let (cut, joined) = if decode { (latent_size, size) } else { (size, latent_size) };
        Ok(Self {
            rows: spans(cut[0], before.height, before.stride_height),
            columns: spans(cut[1], before.width, before.stride_width),
            after,
            size: joined,
        })
    }

    /// Number of tiles.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// The tiles of `[t, h, w, c]`, row by row.
    pub(crate) fn cut(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let mut tiles = Vec::with_capacity(self.len());
        for row in &self.rows {
            let line = x.narrow(1, row.start, row.len())?;
            for column in &self.columns {
                tiles.push(line.narrow(2, column.start, column.len())?);
            }
        }
        Ok(tiles)
    }

    /// Blends processed tiles into the whole, `[t, h, w, c]`.
    pub(crate) fn join(&self, tiles: Vec<Tensor>) -> Result<Tensor> {
        if let [whole] = tiles.as_slice() {
            return Ok(whole.clone());
        }
        let Tile { height, width, stride_height, stride_width } = self.after;
        let mut above: Vec<Tensor> = Vec::new();
        let mut lines = Vec::with_capacity(self.rows.len());
        for row in tiles.chunks(self.columns.len()) {
            let mut blended: Vec<Tensor> = Vec::with_capacity(row.len());
            for (column, tile) in row.iter().enumerate() {
                let mut tile = tile.clone();
                if let Some(above) = above.get(column) {
                    tile = blend(above, &tile, 1, height - stride_height)?;
                }
                if let Some(left) = blended.last() {
                    tile = blend(left, &tile, 2, width - stride_width)?;
                }
                blended.push(tile);
            }
            lines.push(self.line(&blended, stride_height, stride_width)?);
            above = blended;
        }
        let whole = Tensor::cat(&lines, 1)?;
        Ok(whole.narrow(1, 0, self.size[0])?.narrow(2, 0, self.size[1])?.force_contiguous()?)
    }

    /// One row of tiles, without what the next tiles cover.
    fn line(&self, tiles: &[Tensor], high: usize, wide: usize) -> Result<Tensor> {
        let parts = tiles.iter().map(|tile| {
            let (_, h, w, _) = tile.dims4()?;
            tile.narrow(1, 0, h.min(high))?.narrow(2, 0, w.min(wide))
        });
        Ok(Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 2)?)
    }
}

/// Height and width of every tile of a frame, in pixels.
pub(crate) fn tile_sizes(size: [usize; 2], tile: Option<Tile>) -> Vec<[usize; 2]> {
    let Some(tile) = tile.filter(|tile| size[0] > tile.height || size[1] > tile.width) else {
        return vec![size];
    };
    let columns = spans(size[1], tile.width, tile.stride_width);
    let rows = spans(size[0], tile.height, tile.stride_height);
    rows.iter().flat_map(|row| columns.iter().map(|column| [row.len(), column.len()])).collect()
}

fn spans(length: usize, tile: usize, stride: usize) -> Vec<Range<usize>> {
    let starts = (0..length).step_by(stride.max(1));
    starts.map(|start| start..(start + tile).min(length)).collect()
}

/// Fades from the end of `before` into the start of `x` over `extent` pixels of `axis`.
fn blend(before: &Tensor, x: &Tensor, axis: usize, extent: usize) -> Result<Tensor> {
    let (have, length) = (before.dim(axis)?, x.dim(axis)?);
    let extent = extent.min(have).min(length);
    if extent == 0 {
        return Ok(x.clone());
    }
    let weights: Vec<f64> = (0..extent).map(|i| i as f64 / extent as f64).collect();
    let mut shape = [1; 4];
    shape[axis] = extent;
    let weights = Tensor::from_vec(weights, &shape, x.device())?;
    let rest = weights.affine(-1.0, 1.0)?.to_dtype(DType::F32)?.to_dtype(x.dtype())?;
    let weights = weights.to_dtype(DType::F32)?.to_dtype(x.dtype())?;
    let old = before.narrow(axis, have - extent, extent)?.broadcast_mul(&rest)?;
    let new = x.narrow(axis, 0, extent)?.broadcast_mul(&weights)?;
    let kept = x.narrow(axis, extent, length - extent)?;
    Ok(Tensor::cat(&[(old + new)?, kept], axis)?)
}
