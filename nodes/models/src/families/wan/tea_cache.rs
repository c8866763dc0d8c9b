//! What was fitted to a transformer for TeaCache: by its folder, or by the published sizes of Wan
//! 2.1.

use super::transformer::TransformerConfig;
use crate::checkpoint::{Checkpoint, ModelFiles};
use crate::error::Result;
use crate::patch::Grid;
use crate::sampling::{TeaCacheFit, TeaCacheInput};

/// Patches of a frame that lie nearer to 1280×720 pixels (3,600) than to 832×480 (1,560), by their
/// quotients: the same transformer comes in two versions, which differ in nothing else.
const PATCHES_OF_720_LINES: usize = 2370;

/// The file beside a transformer's weights that says what was fitted to them.
const FILE: &str = "tea_cache.json";

/// What the folder of a part says was fitted to its weights, if it says so. Other weights in their
/// place, from a file of their own, have nothing of it.
///
/// # Errors
/// When the file cannot be read, or says something else.
pub(super) fn own(checkpoint: &Checkpoint, part: &str) -> Result<Option<TeaCacheFit>> {
    let path = format!("{part}/{FILE}");
    match checkpoint.contains(&path) && !checkpoint.is_single(part) {
        true => checkpoint.json(&path).map(Some),
        false => Ok(None),
    }
}

/// The polynomial of a transformer's size, where one is published: `coefficients` of
/// `TeaCache4Wan2.1/teacache_generate.py` (github.com/ali-vilab/TeaCache). For T2V 1.3B those that
/// look at the embedding; for the others those of `use_ret_steps`, as its README advises.
///
/// Nothing is published for one of two experts (Wan 2.2 A14B), TI2V, FLF2V and VACE.
pub(super) fn published(
    config: &TransformerConfig,
    is_expert: bool,
    grid: Grid,
) -> Option<TeaCacheFit> {
    let latent = config.out_channels;
    let sizes = (config.num_attention_heads, config.attention_head_dim, config.num_layers);
    if is_expert || config.control().is_some() || latent != 16 {
        return None;
    }
    let from_text = config.in_channels == latent && config.image_dim.is_none();
    let from_image = config.in_channels == 2 * latent + 4
        && config.image_dim.is_some()
        && config.pos_embed_seq_len.is_none();
    let by_projection = |coefficients| TeaCacheFit {
        coefficients,
        input: TeaCacheInput::Projection,
        first_steps: 5,
    };
    match sizes {
        (12, 128, 30) if from_text => Some(TeaCacheFit {
            coefficients: [2.39676752e3, -1.31110545e3, 2.01331979e2, -8.29855975, 1.37887774e-1],
            input: TeaCacheInput::Embedding,
            first_steps: 1,
        }),
        (40, 128, 40) if from_text => Some(by_projection([
            -3.03318725e5,
            4.90537029e4,
            -2.65530556e3,
            5.87365115e1,
            -3.15583525e-1,
        ])),
        (40, 128, 40) if from_image => {
            Some(by_projection(match grid.rows * grid.columns < PATCHES_OF_720_LINES {
                true => [2.57151496e5, -3.54229917e4, 1.40286849e3, -1.35890334e1, 1.32517977e-1],
                false => [8.10705460e3, 2.13393892e3, -3.72934672e2, 1.66203073e1, -4.17769401e-2],
            }))
        }
        _ => None,
    }
}
