//! Rotary position embedding in three axes.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::patch::Grid;

/// The base of the frequencies.
const THETA: f64 = 10_000.0;

/// The rotation of each patch of a grid.
///
/// A head of width D gives D − 4·⌊D/6⌋ of it to time and 2·⌊D/6⌋ each to height and width; pair i
/// of an axis of width d turns by position/10000^(2i/d). Angles are computed in f64: in f32 they
/// drift on large grids.
///
/// Shapes: cosine and sine, each `[tokens, D/2]`, f32.
///
/// # Errors
/// When the device refuses the tensors.
pub fn rope_tables(grid: Grid, head_dim: usize, device: &Device) -> Result<(Tensor, Tensor)> {
    let side = 2 * (head_dim / 6);
    let time = head_dim - 2 * side;
    let mut angles = Vec::with_capacity(grid.tokens() * head_dim / 2);
    for frame in 0..grid.frames {
        for row in 0..grid.rows {
            for column in 0..grid.columns {
                for (position, width) in [(frame, time), (row, side), (column, side)] {
                    angles.extend((0..width / 2).map(|pair| angle(position, pair, width)));
                }
            }
        }
    }
    let shape = (grid.tokens(), head_dim / 2);
    let cos = angles.iter().map(|angle| angle.cos() as f32).collect();
    let sin = angles.iter().map(|angle| angle.sin() as f32).collect();
    Ok((Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?))
}

fn angle(position: usize, pair: usize, width: usize) -> f64 {
    position as f64 / THETA.powf(2.0 * pair as f64 / width as f64)
}
