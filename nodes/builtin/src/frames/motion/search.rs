//! Block matching: where each block of a frame lies in another one.
//!
//! Hierarchical search (Bierling, SPIE 1001, 1988): all vectors at the coarsest size, then at each
//! finer one those of the blocks around, followed downhill (Zhu and Ma's diamond search, IEEE TIP
//! 2000, with all eight neighbours), and at the end by halves and quarters of a pixel. A small cost
//! for being unlike the vector of the coarser block keeps plain areas together.

use super::planes::{BLOCK, Plane, Pyramid, REACH};

/// Parts of a pixel that vectors are found in.
pub(super) const PARTS: i32 = 4;
/// What a pixel of difference between a block's vector and the expected one costs, as a sum of
/// absolute differences.
const UNLIKE: u32 = 6;
/// The most steps downhill at one size.
const DOWNHILL: usize = 6;
/// How much better a vector between pixels must be: interpolation alone hides some noise.
const FINER: u32 = 24;

/// A motion, or a place, along x and y.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Vector {
    pub(super) x: i32,
    pub(super) y: i32,
}

impl Vector {
    const fn new(x: i32, y: i32) -> Self {
        Vector { x, y }
    }

    pub(super) fn times(self, factor: i32) -> Self {
        Vector::new(self.x * factor, self.y * factor)
    }

    pub(super) fn plus(self, other: Vector) -> Self {
        Vector::new(self.x + other.x, self.y + other.y)
    }

    /// The greater of the differences along both axes.
    pub(super) fn gap(self, other: Vector) -> i32 {
        (self.x - other.x).abs().max((self.y - other.y).abs())
    }

    fn within(self, bound: i32) -> bool {
        self.x.abs() <= bound && self.y.abs() <= bound
    }
}

/// The eight steps around a place.
const AROUND: [Vector; 8] = [
    Vector::new(-1, 0),
    Vector::new(1, 0),
    Vector::new(0, -1),
    Vector::new(0, 1),
    Vector::new(-1, -1),
    Vector::new(1, -1),
    Vector::new(-1, 1),
    Vector::new(1, 1),
];

/// One vector a block, row by row.
pub(super) struct Field {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) vectors: Vec<Vector>,
}

impl Field {
    /// The vector of a block, or of the nearest where there is none.
    pub(super) fn at(&self, row: isize, column: isize) -> Vector {
        let row = row.clamp(0, self.rows as isize - 1) as usize;
        let column = column.clamp(0, self.columns as isize - 1) as usize;
        self.vectors[row * self.columns + column]
    }
}

/// Where the blocks of `from` lie in `to`, in quarters of a pixel.
pub(super) fn search(from: &Pyramid, to: &Pyramid) -> Field {
    let coarsest = from.levels.len() - 1;
    let mut field = everywhere(&from.levels[coarsest], &to.levels[coarsest]);
    for level in (0..coarsest).rev() {
        field = refined(&from.levels[level], &to.levels[level], &field);
    }
    let (from, to) = (&from.levels[0], &to.levels[0]);
    between_pixels(from, to, &smoothed(from, to, field))
}

/// The sum of absolute differences of a block at (x, y) and one that lies `vector` from there.
fn difference(from: &Plane, to: &Plane, (x, y): (i32, i32), vector: Vector) -> u32 {
    let (a, b) = (from.from(x, y), to.from(x + vector.x, y + vector.y));
    let mut sum = 0u32;
    for row in 0..BLOCK {
        let a: &[u8; BLOCK] = a[row * from.stride()..][..BLOCK].try_into().unwrap_or(&[0; BLOCK]);
        let b: &[u8; BLOCK] = b[row * to.stride()..][..BLOCK].try_into().unwrap_or(&[0; BLOCK]);
        sum += a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>();
    }
    sum
}

/// As [`difference`] for a vector in quarters of a pixel, by bilinear interpolation.
fn difference_between(from: &Plane, to: &Plane, (x, y): (i32, i32), vector: Vector) -> u32 {
    let (right, down) = (vector.x.rem_euclid(PARTS) as u16, vector.y.rem_euclid(PARTS) as u16);
    let whole = Vector::new(vector.x.div_euclid(PARTS), vector.y.div_euclid(PARTS));
    let (a, b) = (from.from(x, y), to.from(x + whole.x, y + whole.y));
    let parts = PARTS as u16;
    let mut sum = 0u32;
    for row in 0..BLOCK {
        let a = &a[row * from.stride()..][..BLOCK];
        let upper = &b[row * to.stride()..][..BLOCK + 1];
        let lower = &b[(row + 1) * to.stride()..][..BLOCK + 1];
        let mut columns = [0u16; BLOCK + 1];
        for ((column, upper), lower) in columns.iter_mut().zip(upper).zip(lower) {
            *column = u16::from(*upper) * (parts - down) + u16::from(*lower) * down;
        }
        for (index, a) in a.iter().enumerate() {
            let mixed = columns[index] * (parts - right) + columns[index + 1] * right;
            sum += u32::from((mixed + 8).div_euclid(16).abs_diff(u16::from(*a)));
        }
    }
    sum
}

/// The corner of a block.
fn corner(row: usize, column: usize) -> (i32, i32) {
    ((column * BLOCK) as i32, (row * BLOCK) as i32)
}

/// A field of vectors that `best` finds, block by block.
fn each_block(plane: &Plane, mut best: impl FnMut(usize, usize, &[Vector]) -> Vector) -> Field {
    let (rows, columns) = plane.blocks();
    let mut vectors = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            let vector = best(row, column, &vectors);
            vectors.push(vector);
        }
    }
    Field { rows, columns, vectors }
}

/// The best of all vectors within reach, the shorter where two are alike.
fn everywhere(from: &Plane, to: &Plane) -> Field {
    each_block(from, |row, column, _| {
        let place = corner(row, column);
        let mut best = (u32::MAX, Vector::default());
        for y in -REACH..=REACH {
            for x in -REACH..=REACH {
                let vector = Vector::new(x, y);
                let length = x.unsigned_abs() + y.unsigned_abs();
                let cost = difference(from, to, place, vector) + length * UNLIKE / 2;
                best = best.min((cost, vector));
            }
        }
        best.1
    })
}

/// Vectors at twice the size.
fn refined(from: &Plane, to: &Plane, coarse: &Field) -> Field {
    let (_, columns) = from.blocks();
    each_block(from, |row, column, done| {
        let place = corner(row, column);
        let (above, left) = ((row / 2) as isize, (column / 2) as isize);
        let expected = coarse.at(above, left).times(2);
        let cost = |vector: Vector| {
            let unlike =
                (vector.x - expected.x).unsigned_abs() + (vector.y - expected.y).unsigned_abs();
            difference(from, to, place, vector) + unlike.min(16) * UNLIKE / 2
        };
        let mut candidates = Candidates::new(expected);
        for (y, x) in (-1..=1).flat_map(|y| (-1..=1).map(move |x| (y, x))) {
            candidates.add(coarse.at(above + y, left + x).times(2));
        }
        candidates.add(Vector::default());
        if column > 0 {
            candidates.add(done[done.len() - 1]);
        }
        if row > 0 {
            candidates.add(done[done.len() - columns]);
        }
        downhill(candidates.best(cost), from.bound, cost)
    })
}

/// Vectors worth trying, each once.
struct Candidates {
    vectors: [Vector; 16],
    count: usize,
}

impl Candidates {
    fn new(first: Vector) -> Self {
        let mut vectors = [Vector::default(); 16];
        vectors[0] = first;
        Candidates { vectors, count: 1 }
    }

    fn add(&mut self, vector: Vector) {
        if self.count < self.vectors.len() && !self.vectors[..self.count].contains(&vector) {
            self.vectors[self.count] = vector;
            self.count += 1;
        }
    }

    /// The cheapest, the earlier where two cost the same.
    fn best(&self, cost: impl Fn(Vector) -> u32) -> (u32, Vector) {
        let mut best = (u32::MAX, self.vectors[0]);
        for vector in &self.vectors[..self.count] {
            let cost = cost(*vector);
            if cost < best.0 {
                best = (cost, *vector);
            }
        }
        best
    }
}

/// Goes to the best neighbour as long as one is better.
fn downhill(start: (u32, Vector), bound: i32, cost: impl Fn(Vector) -> u32) -> Vector {
    let mut best = start;
    for _ in 0..DOWNHILL {
        let middle = best.1;
        for step in AROUND {
            let vector = middle.plus(step);
            if vector.within(bound) {
                let cost = cost(vector);
                if cost < best.0 {
                    best = (cost, vector);
                }
            }
        }
        if best.1 == middle {
            break;
        }
    }
    best.1
}

/// Each block takes over the vector of one around it where that is as good and more alike.
fn smoothed(from: &Plane, to: &Plane, field: Field) -> Field {
    each_block(from, |row, column, _| {
        let place = corner(row, column);
        let (y, x) = (row as isize, column as isize);
        let own = field.at(y, x);
        let around: [Vector; 8] =
            AROUND.map(|step| field.at(y + step.y as isize, x + step.x as isize));
        if around.iter().all(|vector| *vector == own) {
            return own;
        }
        let cost = |vector: Vector| {
            let unlike = |other: &Vector| {
                let gap = (vector.x - other.x).unsigned_abs() + (vector.y - other.y).unsigned_abs();
                gap.min(8)
            };
            let unlike: u32 = around.iter().map(unlike).sum();
            difference(from, to, place, vector) + unlike * UNLIKE / 4
        };
        let mut candidates = Candidates::new(own);
        around.into_iter().for_each(|vector| candidates.add(vector));
        candidates.best(cost).1
    })
}

/// Vectors in quarters of a pixel.
fn between_pixels(from: &Plane, to: &Plane, field: &Field) -> Field {
    each_block(from, |row, column, _| {
        let place = corner(row, column);
        let whole = field.at(row as isize, column as isize);
        let mut best = (difference(from, to, place, whole), whole.times(PARTS));
        if best.0 <= FINER {
            return best.1;
        }
        for step in [PARTS / 2, PARTS / 4] {
            let middle = best;
            let mut finer = (best.0 - FINER.min(best.0), best.1);
            for around in AROUND {
                let vector = middle.1.plus(around.times(step));
                let cost = difference_between(from, to, place, vector);
                if cost < finer.0 {
                    finer = (cost, vector);
                }
            }
            if finer.1 != middle.1 {
                best = finer;
            }
        }
        best.1
    })
}
