//! Frames that a network takes only at multiples of a size.

use candle_core::Tensor;

use crate::error::Result;

/// Goes on past the end of an axis to a multiple, mirrored at the last pixel.
pub(crate) fn mirrored_to(x: &Tensor, axis: usize, multiple: usize) -> Result<Tensor> {
    let length = x.dim(axis)?;
    let whole = length.next_multiple_of(multiple);
    if whole == length {
        return Ok(x.contiguous()?);
    }
    let last = length - 1;
    // Of an axis that is too short to be mirrored its last pixel is repeated.
    let places = (0..whole).map(|at| if at < length { at } else { (2 * last).saturating_sub(at) });
    let places: Vec<u32> = places.map(|at| at.min(last) as u32).collect();
    Ok(x.contiguous()?.index_select(&Tensor::new(places, x.device())?, axis)?)
}
