//! Numbers to test with, and comparing.

use std::fmt::{self, Write};
use std::path::Path;
use std::str::FromStr;

use crate::{DType, Error, Frames, Result, Tensor};

/// Numbers that follow from a seed: SplitMix64 (Steele, Lea, Flood 2014).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ bits >> 31) >> 40) as f32 / (1 << 24) as f32
    }
}

impl Tensor {
    /// A tensor of f32 in 0…1 that follows from a seed.
    ///
    /// # Panics
    /// When there is no memory for it.
    #[track_caller]
    pub fn random(seed: u64, dims: &[usize]) -> Tensor {
        let mut numbers = Numbers(seed);
        let filled = Tensor::new_with(dims, |out| out.fill_with(|| numbers.next()));
        filled.unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Frames {
    /// Frames `[n, height, width, 3]` of noise that follows from a seed, in chunks of two, 8 a
    /// second.
    ///
    /// # Panics
    /// When there is no frame, no pixel, or no memory for them.
    #[track_caller]
    pub fn random(seed: u64, dims: [usize; 4]) -> Frames {
        let [count, height, width, channels] = dims;
        assert_eq!(channels, 3, "frames have three channels");
        let make = || {
            let mut builder = crate::FramesBuilder::new(Some(8.0))?;
            for first in (0..count).step_by(2) {
                let size = [2.min(count - first), height, width, 3];
                builder.push(&Tensor::random(seed.wrapping_add(first as u64), &size))?;
            }
            builder.finish()
        };
        make().unwrap_or_else(|error| panic!("{error}"))
    }
}

/// How far two numbers may lie apart. A number alone is the greatest difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    absolute: f64,
    relative: f64,
}

impl From<f64> for Tolerance {
    fn from(absolute: f64) -> Self {
        Tolerance { absolute, relative: 0.0 }
    }
}

/// A difference of so large a part of what is expected: `testing::relative(1e-5)`.
pub fn relative(part: f64) -> Tolerance {
    Tolerance { absolute: 0.0, relative: part }
}

impl Tolerance {
    /// The same, and in any case a difference of `absolute`: for numbers that may be near 0.
    #[must_use]
    pub fn or(self, absolute: f64) -> Self {
        Tolerance { absolute, ..self }
    }

    fn of(self, expected: f64) -> f64 {
        let part = if self.relative > 0.0 { self.relative * expected.abs() } else { 0.0 };
        self.absolute.max(part)
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.absolute, self.relative) {
            (absolute, 0.0) => write!(f, "{absolute:e}"),
            (0.0, relative) => write!(f, "{relative:e} of what is expected"),
            (absolute, relative) => write!(f, "{relative:e} of what is expected or {absolute:e}"),
        }
    }
}

/// Asserts that two tensors agree within a tolerance, and says where they do not.
///
/// # Panics
/// When shapes or types differ, or an element by more than the tolerance; a NaN only equals a NaN.
#[track_caller]
pub fn assert_close(found: &Tensor, expected: &Tensor, tolerance: impl Into<Tolerance>) {
    if let Err(difference) = compare(found, expected, tolerance) {
        panic!("{difference}");
    }
}

/// What [`assert_close`] asserts.
///
/// # Errors
/// Where both differ, and by how much.
pub fn compare(found: &Tensor, expected: &Tensor, tolerance: impl Into<Tolerance>) -> Result<()> {
    let tolerance = tolerance.into();
    if (found.dims(), found.dtype()) != (expected.dims(), expected.dtype()) {
        return Err(Error::new(format!("expected {expected:?}, found {found:?}")));
    }
    let (found_all, expected_all) = (numbers(found)?, numbers(expected)?);
    let (mut worst, mut most, mut wrong) = (0, -1.0, 0);
    for (index, (a, b)) in found_all.iter().zip(&expected_all).enumerate() {
        let difference = a.apart(b);
        wrong += usize::from(difference > tolerance.of(b.real()));
        if difference > most {
            (worst, most) = (index, difference);
        }
    }
    if wrong == 0 {
        return Ok(());
    }
    let (a, b, count) = (&found_all[worst], &expected_all[worst], found_all.len());
    Err(Error::new(format!(
        "{wrong} of {count} elements differ by more than {tolerance}; most of all at {:?}: \
         expected {b}, found {a}, {most:e} apart",
        place(worst, found.dims())
    )))
}

/// An element, exactly.
enum Number {
    Whole(i64),
    Real(f64),
}

impl Number {
    fn real(&self) -> f64 {
        match *self {
            Number::Whole(number) => number as f64,
            Number::Real(number) => number,
        }
    }

    fn apart(&self, other: &Number) -> f64 {
        match (self, other) {
            (Number::Whole(a), Number::Whole(b)) => a.abs_diff(*b) as f64,
            (a, b) => {
                let (a, b) = (a.real(), b.real());
                let same = a == b || a.is_nan() && b.is_nan();
                if same {
                    0.0
                } else {
                    Some((a - b).abs()).filter(|d| !d.is_nan()).unwrap_or(f64::INFINITY)
                }
            }
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Whole(number) => write!(f, "{number}"),
            Number::Real(number) => write!(f, "{number}"),
        }
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<Number>> {
    Ok(match tensor.dtype().range() {
        Some(_) => tensor.cast(DType::I64)?.to_vec()?.into_iter().map(Number::Whole).collect(),
        None => tensor.cast(DType::F64)?.to_vec()?.into_iter().map(Number::Real).collect(),
    })
}

fn place(index: usize, dims: &[usize]) -> Vec<usize> {
    let mut place = vec![0; dims.len()];
    let mut rest = index;
    for (at, &size) in place.iter_mut().zip(dims).rev() {
        *at = rest % size;
        rest /= size;
    }
    place
}

/// Asserts that a tensor is what a file beside the test holds; with `KINO_BLESS=1` in the
/// environment, writes the file instead. The path is relative to the package.
///
/// # Panics
/// When the file is missing or holds another tensor, beyond the tolerance.
#[track_caller]
pub fn golden(path: &str, found: &Tensor, tolerance: impl Into<Tolerance>) {
    let checked = match std::env::var_os("KINO_BLESS") {
        Some(bless) if bless == "1" => write_golden(Path::new(path), found),
        _ => read_golden(Path::new(path))
            .and_then(|expected| compare(found, &expected, tolerance))
            .map_err(|error| error.hint("KINO_BLESS=1 writes what is found")),
    };
    if let Err(error) = checked {
        panic!("{path}: {error}");
    }
}

fn write_golden(path: &Path, tensor: &Tensor) -> Result<()> {
    let mut text = format!("{} {:?}\n", tensor.dtype(), tensor.dims());
    for number in numbers(tensor)? {
        match number {
            Number::Whole(number) => writeln!(text, "{number}")?,
            Number::Real(number) => writeln!(text, "{number:?}")?,
        }
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(path, text)?)
}

fn read_golden(path: &Path) -> Result<Tensor> {
    let text = std::fs::read_to_string(path)?;
    let (head, numbers) = text.split_once('\n').unwrap_or((&text, ""));
    let broken = || Error::new("expected a line such as `f32 [2, 3]`, then a number a line");
    let (dtype, dims) = head.split_once(' ').ok_or_else(broken)?;
    let dtype = DType::from_name(dtype).ok_or_else(broken)?;
    let dims = dims.trim().strip_prefix('[').and_then(|dims| dims.strip_suffix(']'));
    let dims = dims.ok_or_else(broken)?.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    let dims = dims.map(str::parse::<usize>).collect::<Result<Vec<_>, _>>()?;
    let tensor = match dtype.range() {
        Some(_) => Tensor::from_vec(parsed::<i64>(numbers)?, &dims)?,
        None => Tensor::from_vec(parsed::<f64>(numbers)?, &dims)?,
    };
    tensor.cast(dtype)
}

fn parsed<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    lines: &str,
) -> Result<Vec<T>> {
    Ok(lines.lines().map(str::parse::<T>).collect::<Result<Vec<_>, _>>()?)
}
