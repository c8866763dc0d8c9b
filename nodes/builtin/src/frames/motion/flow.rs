//! Motion of every pixel of a frame, and whether the other frame shows it.

use rayon::join;

use super::planes::{BLOCK, Plane, Pyramid};
use super::search::{Field, PARTS, Vector, search};

/// How far a pixel may be from where it came from, there and back, in parts of a pixel.
const RETURNS: i32 = 6;
/// How much lighter or darker a pixel may become on its way, of 255.
const CHANGES: u8 = 24;
/// Pixels to each side of one that are compared with it.
const AROUND: usize = 2;
/// How many times more a pixel itself counts, so that edges lie where they are.
const OWN: u16 = 8;
/// The side of a block with what is around it.
const WIDE: usize = BLOCK + 2 * AROUND;

/// A motion in quarters of a pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Motion {
    pub(super) x: i16,
    pub(super) y: i16,
}

impl Motion {
    fn new(vector: Vector) -> Self {
        Motion { x: vector.x as i16, y: vector.y as i16 }
    }

    pub(super) fn back(self) -> Self {
        Motion { x: -self.x, y: -self.y }
    }

    /// Whether two pixels of these motions belong together.
    pub(super) fn alike(self, other: Motion) -> bool {
        let near = |a: i16, b: i16| (i32::from(a) - i32::from(b)).abs() <= RETURNS;
        near(self.x, other.x) && near(self.y, other.y)
    }
}

/// The motion of each pixel to another frame.
pub(super) struct Flow {
    pub(super) motions: Vec<Motion>,
    /// Whether the other frame shows the pixel.
    pub(super) shown: Vec<bool>,
}

/// The flows from one frame to another and back.
pub(super) fn flows(first: &Pyramid, second: &Pyramid) -> (Flow, Flow) {
    let (there, back) = join(|| of_pixels(first, second), || of_pixels(second, first));
    let (first, second) = (&first.levels[0], &second.levels[0]);
    let (shown_there, shown_back) =
        (shown(first, second, &there, &back), shown(second, first, &back, &there));
    (Flow { motions: there, shown: shown_there }, Flow { motions: back, shown: shown_back })
}

/// A pixel is shown by the other frame if the motion there leads back to it, and it is as light.
fn shown(from: &Plane, to: &Plane, there: &[Motion], back: &[Motion]) -> Vec<bool> {
    let (height, width) = (from.height, from.width);
    let mut all = Vec::with_capacity(there.len());
    for y in 0..height {
        for (x, motion) in there[y * width..][..width].iter().enumerate() {
            let at = target((x, y), *motion);
            let inside = at.0 >= 0 && at.1 >= 0 && at.0 < width as i32 && at.1 < height as i32;
            all.push(
                inside && {
                    let returned = back[at.1 as usize * width + at.0 as usize];
                    let (one, other) = (from.from(x as i32, y as i32)[0], to.from(at.0, at.1)[0]);
                    returned.back().alike(*motion) && one.abs_diff(other) <= CHANGES
                },
            );
        }
    }
    all
}

/// The pixel that a motion leads to.
pub(super) fn target((x, y): (usize, usize), motion: Motion) -> (i32, i32) {
    let rounded = |part: i16| (i32::from(part) + PARTS / 2).div_euclid(PARTS);
    (x as i32 + rounded(motion.x), y as i32 + rounded(motion.y))
}

/// The motion of each pixel: that of its block, or where blocks move apart that of the block around
/// it under which its surroundings change least.
fn of_pixels(from: &Pyramid, to: &Pyramid) -> Vec<Motion> {
    let field = search(from, to);
    let (from, to) = (&from.levels[0], &to.levels[0]);
    let mut motions = vec![Motion::default(); from.height * from.width];
    for row in 0..field.rows {
        for column in 0..field.columns {
            let candidates = around(&field, row as isize, column as isize);
            let mut chosen = [Motion::new(candidates[0]); BLOCK * BLOCK];
            if candidates.len() > 1 {
                choose(from, to, (column * BLOCK, row * BLOCK), &candidates, &mut chosen);
            }
            let (left, top) = (column * BLOCK, row * BLOCK);
            let wide = BLOCK.min(from.width - left);
            for y in 0..BLOCK.min(from.height - top) {
                motions[(top + y) * from.width + left..][..wide]
                    .copy_from_slice(&chosen[y * BLOCK..][..wide]);
            }
        }
    }
    motions
}

/// The vectors of a block and those around it that differ by more than a pixel, its own first.
fn around(field: &Field, row: isize, column: isize) -> Vec<Vector> {
    let mut vectors = vec![field.at(row, column)];
    for (y, x) in (-1..=1).flat_map(|y| (-1..=1).map(move |x| (y, x))) {
        let vector = field.at(row + y, column + x);
        if vectors.iter().all(|other| vector.gap(*other) > PARTS) {
            vectors.push(vector);
        }
    }
    vectors
}

/// For each pixel of a block the vector under which the pixels around it change least.
fn choose(
    from: &Plane,
    to: &Plane,
    (left, top): (usize, usize),
    candidates: &[Vector],
    chosen: &mut [Motion; BLOCK * BLOCK],
) {
    let mut least = [u16::MAX; BLOCK * BLOCK];
    let (x, y) = (left as i32 - AROUND as i32, top as i32 - AROUND as i32);
    for vector in candidates {
        let rounded = |part: i32| (part + PARTS / 2).div_euclid(PARTS);
        let (a, b) = (from.from(x, y), to.from(x + rounded(vector.x), y + rounded(vector.y)));
        // Sums over 2·AROUND + 1 pixels along x, then along y.
        let (mut rows, mut own) = ([[0u16; BLOCK]; WIDE], [[0u16; BLOCK]; WIDE]);
        for (index, row) in rows.iter_mut().enumerate() {
            let a = &a[index * from.stride()..][..WIDE];
            let b = &b[index * to.stride()..][..WIDE];
            let mut gaps = [0u16; WIDE];
            for ((gap, a), b) in gaps.iter_mut().zip(a).zip(b) {
                *gap = u16::from(a.abs_diff(*b));
            }
            for (column, sum) in row.iter_mut().enumerate() {
                *sum = gaps[column..=column + 2 * AROUND].iter().sum();
            }
            own[index].copy_from_slice(&gaps[AROUND..AROUND + BLOCK]);
        }
        for pixel in 0..BLOCK * BLOCK {
            let (row, column) = (pixel / BLOCK, pixel % BLOCK);
            let sum: u16 = rows[row..=row + 2 * AROUND].iter().map(|row| row[column]).sum();
            let sum = sum + OWN * own[row + AROUND][column];
            if sum < least[pixel] {
                least[pixel] = sum;
                chosen[pixel] = Motion::new(*vector);
            }
        }
    }
}
