//! Rotary position embedding in three axes: frame, row, column.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::patch::Grid;

/// The base of the frequencies.
const THETA: f64 = 10_000.0;

/// The rotation of each row of a text and of each patch of a picture behind it.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    /// `[rows + tokens, head/2]`, f32, as the next.
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

impl Rotation {
    /// A text stands at (0, 0, 0), a patch at (frame, row, column); pair i of an axis of width d
    /// turns by position/10000^(2i/d), computed in f64 (`FluxPosEmbed`).
    pub(super) fn new(grid: Grid, rows: usize, axes: [usize; 3], device: &Device) -> Result<Self> {
        let half = axes.iter().sum::<usize>() / 2;
        let count = rows + grid.tokens();
        let mut angles = vec![0.0; rows * half];
        angles.reserve(grid.tokens() * half);
        for frame in 0..grid.frames {
            for row in 0..grid.rows {
                for column in 0..grid.columns {
                    for (position, width) in [frame, row, column].into_iter().zip(axes) {
                        angles.extend((0..width / 2).map(|pair| angle(position, pair, width)));
                    }
                }
            }
        }
        let table = |function: fn(f64) -> f64| {
            let values = angles.iter().map(|angle| function(*angle) as f32).collect();
            Tensor::from_vec(values, (count, half), device)
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }
}

fn angle(position: usize, pair: usize, width: usize) -> f64 {
    position as f64 / THETA.powf(2.0 * pair as f64 / width as f64)
}
