//! A small picture of where a sampling run is going.

use std::sync::Arc;

use candle_core::Tensor;
use kino_models::patch::{Grid, unpatchify};
use kino_node::{Cx, Patches, Preview, Result};

use crate::error::IntoNode;
use crate::models::Models;
use crate::patches::patch_tuple;

/// The longest side of a picture, in pixels.
const LONGEST: usize = 256;

/// The middle frame of the first clip as a step foresees it, if its colours are known.
///
/// `data` gives the latents without noise, `[tokens, c·pt·ph·pw]`, and is asked only where there is
/// a linear map from them to colours. A picture that cannot be made is no reason to stop.
pub(super) fn of_step(
    cx: &Cx<'_>,
    patches: &Patches,
    data: impl FnOnce() -> Result<Tensor>,
) -> Option<Preview> {
    let drawn = draw(cx, patches, data);
    drawn.map_err(|error| tracing::debug!(%error, "There is no preview.")).ok().flatten()
}

fn draw(
    cx: &Cx<'_>,
    patches: &Patches,
    data: impl FnOnce() -> Result<Tensor>,
) -> Result<Option<Preview>> {
    let Some(clip) = patches.clips.first() else { return Ok(None) };
    let models = cx.services.get::<Models>()?;
    let Some(map) = clip.space.as_ref().and_then(|space| models.rgb_map(space)) else {
        return Ok(None);
    };
    let [frames, rows, columns] = clip.grid;
    let count = rows * columns;
    let data = data()?.narrow(0, frames / 2 * count, count)?; // [rows·columns, c·pt·ph·pw]
    let grid = Grid { frames: 1, rows, columns };
    let latent = unpatchify(&data, grid, patch_tuple(patches.patch)).node()?; // [c, pt, h, w]
    let colours = map.apply(&latent.narrow(1, 0, 1)?.squeeze(1)?).node()?; // [h, w, 3]
    let (height, width, _) = colours.dims3()?;
    let bytes = (colours * 255.0)?.round()?.to_dtype(candle_core::DType::U8)?;
    Ok(Some(enlarged(&bytes.flatten_all()?.to_vec1()?, height, width)))
}

/// The picture with every pixel repeated, as often as it fits; of larger ones, every so many
/// pixels.
fn enlarged(rgb: &[u8], height: usize, width: usize) -> Preview {
    let longest = height.max(width);
    let (times, every) = ((LONGEST / longest).max(1), longest.div_ceil(LONGEST));
    let (tall, wide) = (height.div_ceil(every) * times, width.div_ceil(every) * times);
    let mut out = Vec::with_capacity(tall * wide * 3);
    for y in 0..tall {
        for x in 0..wide {
            let at = (y / times * every * width + x / times * every) * 3;
            out.extend_from_slice(&rgb[at..at + 3]);
        }
    }
    Preview { width: wide as u32, height: tall as u32, rgb: Arc::from(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_enlarged_by_whole_numbers_and_stay_small() {
        for (height, width) in [(8, 12), (1, 1), (256, 100), (300, 700), (1, 2000)] {
            let rgb: Vec<u8> = (0..height * width * 3).map(|i| (i % 251) as u8).collect();
            let preview = enlarged(&rgb, height, width);
            let (tall, wide) = (preview.height as usize, preview.width as usize);
            assert!(tall.max(wide) <= LONGEST && tall.max(wide) * 2 > LONGEST, "{tall}x{wide}");
            assert_eq!(preview.rgb.len(), tall * wide * 3);
            assert_eq!(preview.rgb[..3], rgb[..3]);
        }
    }
}
