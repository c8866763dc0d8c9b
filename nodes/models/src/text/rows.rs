//! The rows of an encoded text that differ.

use candle_core::{DType, Tensor};

use crate::error::Result;

/// Rows of a text `[rows, width]` up to the first of those at its end that are all equal: past a
/// prompt stand rows of zeros.
///
/// # Errors
/// When it is no matrix, or cannot be read.
pub fn distinct_rows(text: &Tensor) -> Result<usize> {
    let (rows, width) = text.dims2()?;
    let numbers: Vec<f32> = text.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let bits = |row: usize| numbers[row * width..][..width].iter().map(|x| x.to_bits());
    let equal = (0..rows).rev().take_while(|row| bits(*row).eq(bits(rows - 1))).count();
    Ok(rows - equal.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn equal_rows_at_the_end_count_once() {
        for (rows, expected) in [
            (vec![[1.0_f32, 2.0]], 1),
            (vec![[1.0, 2.0], [1.0, 2.0]], 1),
            (vec![[0.0, 0.0], [1.0, 2.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], 3),
            (vec![[0.0, 0.0], [0.0, 0.0], [0.0, 1.0]], 3),
            (vec![[1.0, 2.0], [f32::NAN, 0.0], [f32::NAN, 0.0]], 2),
        ] {
            let shape = (rows.len(), 2);
            let text = Tensor::from_vec(rows.concat(), shape, &Device::Cpu).unwrap();
            assert_eq!(distinct_rows(&text).unwrap(), expected, "{text}");
        }
        let none = Tensor::zeros((0, 2), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(distinct_rows(&none).unwrap(), 0);
    }
}
