//! A picture as a vision encoder reads it: resized, cut, rounded, normalised.

use candle_core::{DType, Device, Tensor};
use kino_kernels::{Filter, resize_levels};

use super::config::PrepareConfig;
use crate::error::{Error, Result};

/// The longest side to which a picture is brought before it is cut, in shortest sides. Of longer
/// ones only the middle is resized, which is all that is kept.
const LONGEST: usize = 4;

/// Makes a picture ready, as `CLIPImageProcessor` does.
///
/// The encoders were trained on bytes, so the picture is rounded to their levels where Pillow does.
///
/// Shapes: `picture` `[h, w, 3]` in 0…1; the result is `[3, size, size]`, f32.
///
/// # Errors
/// When the picture has no pixels or other than three channels.
pub fn prepare(picture: &Tensor, config: &PrepareConfig) -> Result<Tensor> {
    let (height, width, channels) = picture.dims3()?;
    if channels != 3 || height == 0 || width == 0 {
        let found = picture.dims();
        return Err(Error::input(format!("a picture is [height, width, 3], found {found:?}")));
    }
    let picture = middle(&picture.to_dtype(DType::F32)?, LONGEST)?;
    let (height, width, _) = picture.dims3()?;
    let (tall, wide) = config.resized(height, width);
    let filter = config.filter().unwrap_or(Filter::Bicubic);
    let resized = resize_levels(&picture.unsqueeze(0)?, tall, wide, filter)?.squeeze(0)?;
    let (h, w) = config.crop();
    let cut = resized.narrow(0, (tall - h) / 2, h)?.narrow(1, (wide - w) / 2, w)?;
    let column = |values: [f64; 3]| Tensor::new(&values.map(|v| v as f32), picture.device());
    let centred = cut.broadcast_sub(&column(config.image_mean)?)?;
    let ready = centred.broadcast_div(&column(config.image_std)?)?; // [h, w, 3]
    Ok(ready.permute((2, 0, 1))?.contiguous()?)
}

/// The middle of a picture that is more than `times` as long as it is wide, or the other way
/// round.
fn middle(picture: &Tensor, times: usize) -> Result<Tensor> {
    let (height, width, _) = picture.dims3()?;
    let (tall, wide) = (height.min(width * times), width.min(height * times));
    let part = picture.narrow(0, (height - tall) / 2, tall)?;
    Ok(part.narrow(1, (width - wide) / 2, wide)?.to_device(&Device::Cpu)?.contiguous()?)
}
