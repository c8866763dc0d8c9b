//! Numbers to test with, and comparing.

use std::fmt::Write;
use std::path::Path;

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
    /// When there is no memory for them.
    #[track_caller]
    pub fn random(seed: u64, dims: [usize; 4]) -> Frames {
        let [count, height, width, channels] = dims;
        assert_eq!(channels, 3, "frames have three channels");
        let make = || {
            let mut builder = crate::FramesBuilder::new(Some(8.0))?;
            for first in (0..count.max(1)).step_by(2) {
                let size = [2.min(count - first), height, width, 3];
                builder.push(&Tensor::random(seed.wrapping_add(first as u64), &size))?;
            }
            builder.finish()
        };
        make().unwrap_or_else(|error| panic!("{error}"))
    }

    /// All frames in one tensor `[n, height, width, 3]`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn joined(&self) -> Result<Tensor> {
        let chunks = self.chunks().collect::<Result<Vec<_>>>()?;
        Tensor::concat(&chunks.iter().collect::<Vec<_>>(), 0)
    }
}

/// Asserts that two tensors agree within a tolerance, and says where they do not.
///
/// # Panics
/// When shapes or types differ, or an element by more than the tolerance; a NaN only equals a NaN.
#[track_caller]
pub fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f64) {
    if let Err(difference) = compare(found, expected, tolerance) {
        panic!("{difference}");
    }
}

/// What [`assert_close`] asserts.
///
/// # Errors
/// Where both differ, and by how much.
pub fn compare(found: &Tensor, expected: &Tensor, tolerance: f64) -> Result<()> {
    if (found.dims(), found.dtype()) != (expected.dims(), expected.dtype()) {
        return Err(Error::new(format!("expected {expected:?}, found {found:?}")));
    }
    let numbers = |tensor: &Tensor| tensor.cast(DType::F64)?.to_vec::<f64>();
    let (found_all, expected_all) = (numbers(found)?, numbers(expected)?);
    let (mut worst, mut most, mut wrong) = (0, -1.0, 0);
    for (index, (&a, &b)) in found_all.iter().zip(&expected_all).enumerate() {
        let same = a == b || a.is_nan() && b.is_nan();
        let difference = match (a - b).abs() {
            _ if same => 0.0,
            difference if difference.is_nan() => f64::INFINITY,
            difference => difference,
        };
        wrong += usize::from(difference > tolerance);
        if difference > most {
            (worst, most) = (index, difference);
        }
    }
    if wrong == 0 {
        return Ok(());
    }
    let (a, b, count) = (found_all[worst], expected_all[worst], found_all.len());
    Err(Error::new(format!(
        "{wrong} of {count} elements differ by more than {tolerance:e}; most of all at {:?}: \
         expected {b}, found {a}, {most:e} apart",
        place(worst, found.dims())
    )))
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
pub fn golden(path: &str, found: &Tensor, tolerance: f64) {
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
    for number in tensor.cast(DType::F64)?.to_vec::<f64>()? {
        writeln!(text, "{number:?}")?;
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
    let numbers = numbers.lines().map(str::parse::<f64>).collect::<Result<Vec<_>, _>>()?;
    Tensor::from_vec(numbers, &dims)?.cast(dtype)
}
