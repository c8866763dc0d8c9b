//! A frame between two, from the motion between them.

use rayon::prelude::*;

use super::flow::{Flow, Motion, target};
use super::search::PARTS;

/// A motion that no pixel has: nothing is known of a place.
const NONE: Motion = Motion { x: i16::MIN, y: i16::MIN };

/// A frame: RGB, `[height, width, 3]`.
pub(super) struct Picture<'a> {
    pub(super) rgb: &'a [f32],
    pub(super) height: usize,
    pub(super) width: usize,
}

/// Two frames and the flows between them.
pub(super) struct Pair<'a> {
    pub(super) first: Picture<'a>,
    pub(super) second: Picture<'a>,
    pub(super) there: &'a Flow,
    pub(super) back: &'a Flow,
}

/// Which of the two frames show a place.
#[derive(Clone, Copy, PartialEq)]
enum Seen {
    Both,
    First,
    Second,
}

impl Pair<'_> {
    /// The frame at time `t` of 0…1 between the first and the second: `[height, width, 3]`.
    ///
    /// Every pixel that both frames show is put where it is at that time; where two meet, the one
    /// that covers the other in either frame wins. A place that none comes to is one that only one
    /// frame shows: it moves as what is beside it, and is taken from the frame that shows it.
    pub(super) fn at(&self, t: f32) -> Vec<f32> {
        let (height, width) = (self.first.height, self.first.width);
        let mut motions = vec![NONE; height * width];
        self.put(&mut motions, t, false);
        self.put(&mut motions, t, true);
        let mut seen = vec![Seen::Both; height * width];
        self.fill(&mut motions, &mut seen, t);
        let mut out = vec![0f32; height * width * 3];
        out.par_chunks_exact_mut(width * 3).enumerate().for_each(|(y, row)| {
            let places = motions[y * width..][..width].iter().zip(&seen[y * width..][..width]);
            for ((x, pixel), (motion, seen)) in row.chunks_exact_mut(3).enumerate().zip(places) {
                pixel.copy_from_slice(&self.mixed((x, y), *motion, *seen, t));
            }
        });
        out
    }

    /// Puts the pixels of a frame where they are at time `t`.
    fn put(&self, motions: &mut [Motion], t: f32, of_second: bool) {
        let (height, width) = (self.first.height, self.first.width);
        let (flow, way) = if of_second { (self.back, 1.0 - t) } else { (self.there, t) };
        for y in 0..height {
            let row = y * width..(y + 1) * width;
            for (x, (own, shown)) in
                flow.motions[row.clone()].iter().zip(&flow.shown[row]).enumerate()
            {
                if !shown {
                    continue;
                }
                let along = |part: i16| nearest(f32::from(part) * way / PARTS as f32);
                let to = (x as i32 + along(own.x), y as i32 + along(own.y));
                if to.0 < 0 || to.1 < 0 || to.0 >= width as i32 || to.1 >= height as i32 {
                    continue;
                }
                let motion = if of_second { own.back() } else { *own };
                let place = (to.0 as usize, to.1 as usize);
                let there = &mut motions[place.1 * width + place.0];
                if *there == NONE || !motion.alike(*there) && self.covers(place, motion, *there, t)
                {
                    *there = motion;
                }
            }
        }
    }

    /// Whether what moves by `one` hides what moves by `other` at a place at time `t`.
    ///
    /// It does if one of the frames shows `one` where the other motion says that something of
    /// `other` is, which the other frame shows. Where neither or both can be said, the one that
    /// came first stays.
    fn covers(&self, place: (usize, usize), one: Motion, other: Motion, t: f32) -> bool {
        self.hides(place, one, other, t) > self.hides(place, other, one, t)
    }

    /// In how many frames the pixel of `one` lies over a pixel of `other` that the other frame shows.
    fn hides(&self, place: (usize, usize), one: Motion, other: Motion, t: f32) -> usize {
        let in_first = offset(place, one, -t);
        let in_second = offset(place, one, 1.0 - t);
        let over = |at: (i32, i32), to: Motion, flow: &Flow| {
            let Some(index) = self.index(at) else { return false };
            let beneath = target((index.0, index.1), to);
            let Some((x, y)) = self.index(beneath) else { return false };
            flow.motions[y * self.first.width + x].alike(to.back())
        };
        usize::from(over(in_first, other, self.back))
            + usize::from(over(in_second, other.back(), self.there))
    }

    fn index(&self, (x, y): (i32, i32)) -> Option<(usize, usize)> {
        let inside =
            x >= 0 && y >= 0 && x < self.first.width as i32 && y < self.first.height as i32;
        inside.then_some((x as usize, y as usize))
    }

    /// Gives places that no pixel came to the motion of what is beside them; rows that are empty
    /// that of the nearest row that is not.
    fn fill(&self, motions: &mut [Motion], seen: &mut [Seen], t: f32) {
        let width = self.first.width;
        let rows = || 0..self.first.height;
        let empty = |row: &usize| motions[row * width..][..width].iter().all(|m| *m == NONE);
        let (empty, filled): (Vec<usize>, Vec<usize>) = rows().partition(empty);
        for y in &filled {
            self.fill_row(*y, motions, seen, t);
        }
        for y in empty {
            let Some(near) = filled.iter().min_by_key(|row| row.abs_diff(y)) else { return };
            for x in 0..width {
                let (beside, at) = (motions[near * width + x], y * width + x);
                (motions[at], seen[at]) = self.guess((x, y), &[beside], t);
            }
        }
    }

    /// The same for a row in which some places have a motion.
    fn fill_row(&self, y: usize, motions: &mut [Motion], seen: &mut [Seen], t: f32) {
        let row = y * self.first.width..(y + 1) * self.first.width;
        let (motions, seen) = (&mut motions[row.clone()], &mut seen[row]);
        let mut x = 0;
        while x < motions.len() {
            if motions[x] != NONE {
                x += 1;
                continue;
            }
            let end = (x..motions.len()).find(|x| motions[*x] != NONE).unwrap_or(motions.len());
            let left = x.checked_sub(1).map(|left| motions[left]);
            let beside: Vec<Motion> = left.into_iter().chain(motions.get(end).copied()).collect();
            for x in x..end {
                (motions[x], seen[x]) = self.guess((x, y), &beside, t);
            }
            x = end;
        }
    }

    /// The motion, of some, by which exactly one frame shows a place; else the first of them.
    fn guess(&self, place: (usize, usize), some: &[Motion], t: f32) -> (Motion, Seen) {
        let only = |at: (i32, i32), flow: &Flow| {
            self.index(at).is_some_and(|(x, y)| !flow.shown[y * self.first.width + x])
        };
        for motion in some {
            let (from, to) = (offset(place, *motion, -t), offset(place, *motion, 1.0 - t));
            match (only(from, self.there), only(to, self.back)) {
                (true, false) => return (*motion, Seen::First),
                (false, true) => return (*motion, Seen::Second),
                _ => {}
            }
            // What comes from outside a frame is shown by the other.
            match (self.index(from), self.index(to)) {
                (Some(_), None) => return (*motion, Seen::First),
                (None, Some(_)) => return (*motion, Seen::Second),
                _ => {}
            }
        }
        (some.first().copied().unwrap_or_default(), Seen::Both)
    }

    /// The colour of a place.
    fn mixed(&self, (x, y): (usize, usize), motion: Motion, seen: Seen, t: f32) -> [f32; 3] {
        let along = |part: i16, way: f32| f32::from(part) * way / PARTS as f32;
        let from = (x as f32 - along(motion.x, t), y as f32 - along(motion.y, t));
        let to = (x as f32 + along(motion.x, 1.0 - t), y as f32 + along(motion.y, 1.0 - t));
        match seen {
            Seen::First => self.first.colour(from),
            Seen::Second => self.second.colour(to),
            Seen::Both => {
                let (a, b) = (self.first.colour(from), self.second.colour(to));
                [0, 1, 2].map(|channel| a[channel] + (b[channel] - a[channel]) * t)
            }
        }
    }
}

/// The nearest whole number.
fn nearest(value: f32) -> i32 {
    (value + 0.5).floor() as i32
}

/// The place that lies `way` of a motion from another.
fn offset((x, y): (usize, usize), motion: Motion, way: f32) -> (i32, i32) {
    let along = |part: i16| nearest(f32::from(part) * way / PARTS as f32);
    (x as i32 + along(motion.x), y as i32 + along(motion.y))
}

impl Picture<'_> {
    /// The colour between pixels, by Catmull and Rom's cubic (1974), cut to 0…1.
    fn colour(&self, (x, y): (f32, f32)) -> [f32; 3] {
        let (left, top) = (x.floor(), y.floor());
        let (right, down) = (x - left, y - top);
        let (left, top) = (left as i32, top as i32);
        if right == 0.0 && down == 0.0 {
            return self.pixel(left, top);
        }
        let (across, along) = (cubic(right), cubic(down));
        let inside =
            left >= 1 && top >= 1 && left + 2 < self.width as i32 && top + 2 < self.height as i32;
        let mut columns = [0f32; 12];
        for (row, weight) in along.iter().enumerate() {
            let y = top - 1 + row as i32;
            if inside {
                let start = (y as usize * self.width + left as usize - 1) * 3;
                let pixels = &self.rgb[start..start + 12];
                for (sum, value) in columns.iter_mut().zip(pixels) {
                    *sum += weight * value;
                }
            } else {
                for column in 0..4 {
                    let pixel = self.pixel(left - 1 + column as i32, y);
                    for channel in 0..3 {
                        columns[column * 3 + channel] += weight * pixel[channel];
                    }
                }
            }
        }
        [0, 1, 2].map(|channel| {
            let sum: f32 = across
                .iter()
                .enumerate()
                .map(|(i, weight)| weight * columns[i * 3 + channel])
                .sum();
            sum.clamp(0.0, 1.0)
        })
    }

    /// A pixel, or the nearest where there is none.
    fn pixel(&self, x: i32, y: i32) -> [f32; 3] {
        let x = x.clamp(0, self.width as i32 - 1) as usize;
        let y = y.clamp(0, self.height as i32 - 1) as usize;
        let start = (y * self.width + x) * 3;
        [self.rgb[start], self.rgb[start + 1], self.rgb[start + 2]]
    }
}

/// The weights of four pixels for a place `t` past the second.
fn cubic(t: f32) -> [f32; 4] {
    let (t2, t3) = (t * t, t * t * t);
    [
        0.5 * (-t + 2.0 * t2 - t3),
        0.5 * (2.0 - 5.0 * t2 + 3.0 * t3),
        0.5 * (t + 4.0 * t2 - 3.0 * t3),
        0.5 * (t3 - t2),
    ]
}
