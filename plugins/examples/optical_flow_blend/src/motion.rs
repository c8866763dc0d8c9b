//! Motion between two pictures, and a picture on the way from one to the other.

use kino_plugin::prelude::*;

/// A picture with its luminance.
pub(crate) struct Picture {
    height: usize,
    width: usize,
    rgb: Vec<f32>,
    luminance: Vec<f32>,
}

impl Picture {
    pub(crate) fn new(rgb: Vec<f32>, [height, width]: [usize; 2]) -> Self {
        let weighted = |rgb: &[f32]| 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
        let luminance = rgb.chunks_exact(3).map(weighted).collect();
        Picture { height, width, rgb, luminance }
    }

    /// Its pixels, `[height, width, 3]`.
    pub(crate) fn rgb(&self) -> &[f32] {
        &self.rgb
    }

    /// The index of the pixel nearest to a place.
    fn nearest(&self, row: isize, column: isize) -> usize {
        let row = row.clamp(0, self.height as isize - 1) as usize;
        row * self.width + column.clamp(0, self.width as isize - 1) as usize
    }

    /// The colour between the four pixels around a place.
    fn between(&self, row: f32, column: f32) -> [f32; 3] {
        let (r, c) = (row.floor(), column.floor());
        let (down, right) = (row - r, column - c);
        let pixel = |dr: isize, dc: isize| {
            let at = 3 * self.nearest(r as isize + dr, c as isize + dc);
            [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
        };
        let upper = mix(pixel(0, 0), pixel(0, 1), right);
        mix(upper, mix(pixel(1, 0), pixel(1, 1), right), down)
    }
}

fn mix(a: [f32; 3], b: [f32; 3], t: f32) -> [f32; 3] {
    [0, 1, 2].map(|channel| a[channel] + t * (b[channel] - a[channel]))
}

/// Motion from one picture to the next, in pixels, as a picture at the time `t` sees it: a vector
/// (rows, columns) for each block.
pub(crate) struct Motion {
    t: f32,
    block: usize,
    columns: usize,
    vectors: Vec<[f32; 2]>,
}

/// What a pixel of motion costs, against the mean difference of luminance: pictures without
/// contrast stand still.
const PRICE: f32 = 1e-4;

impl Motion {
    /// Looks for the motion of each block.
    ///
    /// # Errors
    /// When the run is cancelled.
    pub(crate) fn estimate(
        cx: &Cx,
        before: &Picture,
        after: &Picture,
        t: f32,
        block: usize,
        reach: isize,
    ) -> Result<Self> {
        let (rows, columns) = (before.height.div_ceil(block), before.width.div_ceil(block));
        // Nearer motions come first, so that they win where nothing tells motions apart.
        let mut motions: Vec<[isize; 2]> =
            (-reach..=reach).flat_map(|r| (-reach..=reach).map(move |c| [r, c])).collect();
        motions.sort_by_key(|[r, c]| r * r + c * c);
        let best = |at: usize| {
            let corner = [(at / columns * block) as isize, (at % columns * block) as isize];
            let mut best = (f32::INFINITY, [0.0; 2]);
            for &motion in &motions {
                let [r, c] = motion.map(|along| along as f32);
                let price = PRICE * (r * r + c * c).sqrt();
                let cost = price + difference(before, after, t, corner, block as isize, motion);
                if cost < best.0 {
                    best = (cost, [r, c]);
                }
            }
            best.1
        };
        let mut vectors = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            cx.check_cancel()?;
            vectors.extend((row * columns..(row + 1) * columns).map(best));
        }
        Ok(Motion { t, block, columns, vectors })
    }

    /// The motions of the four blocks around a pixel, that of its own block first.
    fn around(&self, row: usize, column: usize) -> [[f32; 2]; 4] {
        let rows = self.vectors.len() / self.columns;
        let pair = |pixel: usize, blocks: usize| {
            let (own, within) = (pixel / self.block, pixel % self.block);
            let other = if 2 * within < self.block { own.saturating_sub(1) } else { own + 1 };
            [own, other.min(blocks - 1)]
        };
        let ([r, other_r], [c, other_c]) = (pair(row, rows), pair(column, self.columns));
        [(r, c), (r, other_c), (other_r, c), (other_r, other_c)]
            .map(|(row, column)| self.vectors[row * self.columns + column])
    }

    /// Writes the picture at the time `t`, `[height, width, 3]`.
    ///
    /// # Errors
    /// When the run is cancelled.
    pub(crate) fn blend(
        &self,
        cx: &Cx,
        before: &Picture,
        after: &Picture,
        out: &mut [f32],
    ) -> Result<()> {
        let rest = 1.0 - self.t;
        for (at, out) in out.chunks_exact_mut(3).enumerate() {
            let (row, column) = (at / before.width, at % before.width);
            if column == 0 && row % self.block == 0 {
                cx.check_cancel()?;
            }
            let mut best = f32::INFINITY;
            for [down, right] in self.around(row, column) {
                let (row, column) = (row as f32, column as f32);
                let was = before.between(row - self.t * down, column - self.t * right);
                let will = after.between(row + rest * down, column + rest * right);
                let apart: f32 = was.iter().zip(will).map(|(a, b)| (a - b).abs()).sum();
                if apart < best {
                    best = apart;
                    out.copy_from_slice(&mix(was, will, self.t));
                }
            }
        }
        Ok(())
    }
}

/// The mean difference of luminance over a block and half a block around it, if it moves so; of
/// the pixels, those are looked at that are one colour of a chessboard.
fn difference(
    before: &Picture,
    after: &Picture,
    t: f32,
    corner: [isize; 2],
    block: isize,
    motion: [isize; 2],
) -> f32 {
    // Whole pixels on both sides, which together are the motion.
    let back = motion.map(|along| (t * along as f32).round() as isize);
    let on = [motion[0] - back[0], motion[1] - back[1]];
    let (mut sum, mut count) = (0.0, 0.0);
    let [rows, columns] = corner.map(|from| from - block / 2..from + block + block / 2);
    for row in rows {
        for column in columns.clone().skip((row & 1) as usize).step_by(2) {
            let was = before.luminance[before.nearest(row - back[0], column - back[1])];
            let will = after.luminance[after.nearest(row + on[0], column + on[1])];
            sum += (was - will).abs();
            count += 1.0;
        }
    }
    sum / count
}
