//! Tables of colours in .cube files (Adobe, Cube LUT Specification 1.0).

use kino_plugin::prelude::*;

/// The largest table that is read, in entries a side.
const MOST: usize = 256;

/// A table of colours; red changes fastest.
pub(crate) struct Cube {
    size: usize,
    least: [f32; 3],
    most: [f32; 3],
    entries: Vec<[f32; 3]>,
}

impl Cube {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// When it is no table; the message names the line.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut cube = Cube { size: 0, least: [0.0; 3], most: [1.0; 3], entries: Vec::new() };
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            cube.take(line.trim()).map_err(|error| error.at(format!("line {}", index + 1)))?;
        }
        let falls = cube.least.iter().zip(cube.most).any(|(least, most)| *least >= most);
        ensure!(!falls, "DOMAIN_MIN must be below DOMAIN_MAX");
        ensure!(cube.size > 0, "it has no line LUT_3D_SIZE, so it is no three-dimensional table");
        let (expected, found) = (cube.size.pow(3), cube.entries.len());
        ensure!(found == expected, "expected {expected} colours ({}³), found {found}", cube.size);
        Ok(cube)
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match word {
            "" | "TITLE" => {}
            comment if comment.starts_with('#') => {}
            "LUT_3D_SIZE" => {
                let size = rest.trim().parse().ok().filter(|size| (2..=MOST).contains(size));
                ensure!(self.size == 0, "LUT_3D_SIZE is given twice");
                self.size = size.ok_or_else(|| {
                    Error::new(format!("expected a size from 2 to {MOST}, found `{rest}`"))
                })?;
            }
            "LUT_1D_SIZE" => {
                return Err(Error::new("this is a one-dimensional table")
                    .hint("export a 3D LUT from the program that made it"));
            }
            // As DaVinci Resolve writes it: one range for all three.
            "LUT_3D_INPUT_RANGE" => {
                let [least, most] = numbers(rest)?;
                (self.least, self.most) = ([least; 3], [most; 3]);
            }
            "DOMAIN_MIN" => self.least = numbers(rest)?,
            "DOMAIN_MAX" => self.most = numbers(rest)?,
            _ if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                bail!("there is no keyword `{word}` in .cube files");
            }
            _ => {
                ensure!(self.size > 0, "LUT_3D_SIZE must stand before the colours");
                ensure!(self.entries.len() < self.size.pow(3), "there are too many colours");
                self.entries.push(numbers(line)?);
            }
        }
        Ok(())
    }

    /// The colour of the table between the eight entries around `rgb`.
    pub(crate) fn look_up(&self, rgb: [f32; 3]) -> [f32; 3] {
        let last = (self.size - 1) as f32;
        let (mut first, mut steps, mut stride) = (0, [(0, 0.0); 3], 1);
        for (channel, step) in steps.iter_mut().enumerate() {
            let along =
                (rgb[channel] - self.least[channel]) / (self.most[channel] - self.least[channel]);
            let along = (along * last).clamp(0.0, last);
            let whole = (along as usize).min(self.size - 2);
            first += whole * stride;
            *step = (stride, along - whole as f32);
            stride *= self.size;
        }
        let [(red, r), (green, g), (blue, b)] = steps;
        let edge = |at: usize| mix(self.entries[at], self.entries[at + red], r);
        let face = |at: usize| mix(edge(at), edge(at + green), g);
        mix(face(first), face(first + blue), b)
    }
}

fn mix(a: [f32; 3], b: [f32; 3], t: f32) -> [f32; 3] {
    [0, 1, 2].map(|channel| a[channel] + t * (b[channel] - a[channel]))
}

/// Numbers with spaces between them.
fn numbers<const N: usize>(text: &str) -> Result<[f32; N]> {
    let found =
        text.split_whitespace().map(|word| word.parse().ok().filter(|n: &f32| n.is_finite()));
    let found: Option<Vec<f32>> = found.collect();
    found
        .and_then(|found| found.try_into().ok())
        .ok_or_else(|| Error::new(format!("expected {N} numbers, found `{}`", text.trim())))
}
