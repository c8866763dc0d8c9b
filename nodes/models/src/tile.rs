//! Spatial tiles: a large frame in overlapping parts, blended linearly (`tiled_decode`).

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};

/// The size of a tile and the distance between two, in pixels of a frame.
///
/// Neighbours overlap by the difference and are blended there. A frame that fits into one tile is
/// not cut. Each tile goes through the whole clip before the next, so that what a network needs
/// for its activations and keeps between chunks is that of one tile.
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

    /// Whether a frame of `size` = (height, width) pixels is cut.
    pub fn cuts(&self, size: [usize; 2]) -> bool {
        size[0] > self.height || size[1] > self.width
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
pub struct Grid {
    rows: Vec<Range<usize>>,
    columns: Vec<Range<usize>>,
    after: Tile,
    size: [usize; 2],
}

impl Grid {
    /// A grid for frames of `size` = (height, width) pixels; `factor` pixels are a latent pixel.
    ///
    /// The encoder cuts pixels and joins latents, the decoder (`decode`) the other way round.
    ///
    /// # Errors
    /// When the tile is no whole number of latent pixels.
    pub fn new(tile: Tile, size: [usize; 2], factor: usize, decode: bool) -> Result<Self> {
        let whole =
            Tile { height: size[0], width: size[1], stride_height: size[0], stride_width: size[1] };
        tile.check(factor)?;
        let tile = if tile.cuts(size) { tile } else { whole };
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

    /// How many tiles there are.
    pub fn count(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Where the tiles lie before the network, row by row.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.rows.iter().enumerate().flat_map(|(row, rows)| {
            self.columns.iter().enumerate().map(move |(column, columns)| Place {
                at: [row, column],
                rows: rows.clone(),
                columns: columns.clone(),
            })
        })
    }
}

/// Where a tile lies before the network.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its row and column among the tiles.
    at: [usize; 2],
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Place {
    /// The tile's part of a tensor, its rows along `axis` and its columns along the next.
    ///
    /// # Errors
    /// When the tensor is smaller than what was cut.
    pub fn of(&self, whole: &Tensor, axis: usize) -> Result<Tensor> {
        let rows = whole.narrow(axis, self.rows.start, self.rows.len())?;
        Ok(rows.narrow(axis + 1, self.columns.start, self.columns.len())?)
    }
}

/// Processed tiles blended into many frames, where each tile passes through all of them before the
/// next.
///
/// Beside the frames it holds what neighbours overlap of one row of tiles.
pub struct TileJoin<'a> {
    grid: &'a Grid,
    frames: Vec<Joined>,
}

/// One chunk of frames in the making.
#[derive(Default)]
struct Joined {
    /// The values so far, and frames and channels; none before the first tile.
    whole: Option<(Vec<f32>, [usize; 2])>,
    /// The lower edges of the row of tiles above, and of the tiles of this row so far.
    above: Vec<Tensor>,
    row: Vec<Tensor>,
    /// The right edge of the tile before.
    left: Option<Tensor>,
}

impl<'a> TileJoin<'a> {
    /// Nothing is there yet of so many chunks of frames.
    pub fn new(grid: &'a Grid, chunks: usize) -> Self {
        Self { grid, frames: (0..chunks).map(|_| Joined::default()).collect() }
    }

    /// Adds a tile `[t, h, w, c]` of one chunk of frames. Tiles come in the order of
    /// [`Grid::places`].
    ///
    /// # Errors
    /// When there is no memory for the frames, or a tensor operation fails.
    pub fn add(&mut self, place: &Place, chunk: usize, tile: &Tensor) -> Result<()> {
        let Tile { height, width, stride_height, stride_width } = self.grid.after;
        let (over, beside) = (height - stride_height, width - stride_width);
        let [row, column] = place.at;
        let joined = &mut self.frames[chunk];
        if column == 0 {
            joined.above = std::mem::take(&mut joined.row);
            joined.left = None;
        }
        let mut tile = tile.clone();
        if let Some(above) = joined.above.get(column) {
            tile = blend(above, &tile, 1, over)?;
        }
        if let Some(left) = &joined.left {
            tile = blend(left, &tile, 2, beside)?;
        }
        let (_, high, wide, _) = tile.dims4()?;
        let (over, beside) = (over.min(high), beside.min(wide));
        joined.row.push(tile.narrow(1, high - over, over)?.force_contiguous()?);
        joined.left = Some(tile.narrow(2, wide - beside, beside)?.force_contiguous()?);
        let own = tile.narrow(1, 0, high.min(stride_height))?;
        let own = own.narrow(2, 0, wide.min(stride_width))?.to_dtype(DType::F32)?;
        joined.put(&own, [row * stride_height, column * stride_width], self.grid.size)
    }

    /// The frames of each chunk, `[t, H, W, c]` in f32; each leaves when it is taken.
    pub fn finish(self, device: &Device) -> impl Iterator<Item = Result<Tensor>> + use<> {
        let ([height, width], device) = (self.grid.size, device.clone());
        self.frames.into_iter().map(move |joined| {
            let (values, [count, channels]) =
                joined.whole.ok_or_else(|| Error::input("a frame without tiles"))?;
            Ok(Tensor::from_vec(values, (count, height, width, channels), &device)?)
        })
    }
}

impl Joined {
    /// Copies a part of the frames to its place, (top, left) of frames of `size`.
    fn put(&mut self, part: &Tensor, [top, left]: [usize; 2], size: [usize; 2]) -> Result<()> {
        let (count, high, wide, channels) = part.dims4()?;
        let values = match &mut self.whole {
            Some((values, _)) => values,
            none => {
                let length = count * size[0] * size[1] * channels;
                let mut values: Vec<f32> = Vec::new();
                values.try_reserve_exact(length).map_err(|_| {
                    Error::input(format!(
                        "there is no memory for {count} frames of {size:?} pixels"
                    ))
                })?;
                values.resize(length, 0.0);
                &mut none.insert((values, [count, channels])).0
            }
        };
        let part: Vec<f32> = part.flatten_all()?.to_vec1()?;
        for (line, from) in part.chunks_exact(wide * channels).enumerate() {
            let (frame, row) = (line / high, line % high);
            let at = ((frame * size[0] + top + row) * size[1] + left) * channels;
            values[at..at + from.len()].copy_from_slice(from);
        }
        Ok(())
    }
}

/// Bytes beside the frames that joining `frames` frames of `size` = (height, width) pixels tile by
/// tile holds: what neighbours overlap of two rows of tiles and one tile, `depth` numbers a pixel.
pub(crate) fn joining_bytes(
    frames: usize,
    size: [usize; 2],
    tile: Option<Tile>,
    depth: usize,
) -> usize {
    let Some(tile) = tile.filter(|tile| tile.cuts(size)) else { return 0 };
    let (over, beside) = (tile.height - tile.stride_height, tile.width - tile.stride_width);
    let columns = spans(size[1], tile.width, tile.stride_width);
    let across: usize = columns.iter().map(Range::len).sum();
    let pixels = 2 * over * across + tile.height * beside;
    frames.saturating_mul(pixels).saturating_mul(depth * size_of::<f32>())
}

/// Height and width of every tile of a frame, in pixels.
pub(crate) fn tile_sizes(size: [usize; 2], tile: Option<Tile>) -> Vec<[usize; 2]> {
    let Some(tile) = tile.filter(|tile| tile.cuts(size)) else {
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
