//! Decoding in tiles: each goes through the whole clip before the next begins, so that what a
//! network keeps between latent frames is that of one tile.

use candle_core::{DType, Tensor};

use super::decoder::DecoderNet;
use super::pass::{Cache, Chunk, Pass};
use super::shortcut::unfold;
use super::stream::Setup;
use crate::cancel::CheckCancel;
use crate::error::{Error, Result};
use crate::tile::{Grid, Tile, TileJoin};

/// Decodes a whole normalised latent `[z, f, h, w]` in tiles: its frames `[t, H, W, 3]` in −1…1 and
/// f32, as many tensors as there are latent frames. `done` is told how many of how many latent
/// frames of all tiles have passed.
pub(super) fn decode_tiles(
    net: &DecoderNet,
    setup: &Setup,
    (latent, tile): (&Tensor, Tile),
    done: &mut dyn FnMut(usize, usize),
    check_cancel: &mut CheckCancel<'_>,
) -> Result<Vec<Tensor>> {
    let (channels, count, height, width) = latent.dims4()?;
    let z = setup.config.z_dim;
    if channels != z || count == 0 || height == 0 || width == 0 {
        let found = latent.dims();
        let message = format!("a latent {found:?}; expected [{z}, frames, height, width]");
        return Err(Error::input(message));
    }
    let (factor, patch) = (setup.config.spatial_factor(), setup.config.patch());
    tile.check(factor)?;
    let size = [height, width].map(|side| side * factor / patch);
    let grid = Grid::new(tile.divided(patch), size, factor / patch, true)?;
    let mut joined = TileJoin::new(&grid, count);
    let (mut passed, all) = (0, grid.count() * count);
    for place in grid.places() {
        let mut cache = Cache::default();
        for index in 0..count {
            let part = latent.narrow(1, index, 1)?.squeeze(1)?; // [z, h, w]
            let x = setup.enter(&place.of(&part, 1)?)?;
            let chunk = if index + 1 < count { Chunk::Inner } else { Chunk::Last };
            let frames = net.forward(&x, &mut Pass::new(&mut cache, chunk, check_cancel))?;
            joined.add(&place, index, &frames)?;
            passed += 1;
            done(passed, all);
        }
    }
    let whole = |frames: Result<Tensor>| {
        Ok(unfold(&frames?, patch)?.to_dtype(DType::F32)?.clamp(-1f32, 1f32)?)
    };
    joined.finish(&setup.device).map(whole).collect()
}
