//! Numbers of 16 and of 32 bits: what tensors on the CPU hold, and how one becomes the other.

use candle_core::WithDType;
use half::bf16;

use crate::tier::by_tier;

/// Numbers of a tensor.
#[derive(Clone, Copy)]
pub(crate) enum Slice<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl<'a> Slice<'a> {
    /// The numbers from number `first` on.
    pub(crate) fn skip(self, first: usize) -> Self {
        match self {
            Self::F32(numbers) => Self::F32(&numbers[first..]),
            Self::Bf16(numbers) => Self::Bf16(&numbers[first..]),
        }
    }

    /// Pieces of so many numbers, one after the other.
    pub(crate) fn cut(self, length: usize) -> impl Iterator<Item = Self> {
        let count = match self {
            Self::F32(numbers) => numbers.len(),
            Self::Bf16(numbers) => numbers.len(),
        };
        (0..count / length).map(move |index| {
            let piece = index * length..(index + 1) * length;
            match self {
                Self::F32(numbers) => Self::F32(&numbers[piece]),
                Self::Bf16(numbers) => Self::Bf16(&numbers[piece]),
            }
        })
    }
}

/// A type in which activations are held.
pub(crate) trait Number: WithDType + Default {
    /// Writes numbers as f32.
    fn widen(numbers: &[Self], out: &mut [f32]);
    /// Writes f32 in this type, rounded to the nearest, the even one where two are.
    fn narrow(numbers: &[f32], out: &mut [Self]);
    /// The bits of the same number as f32.
    fn bits(self) -> u32;
    /// The bits of the nearest bf16.
    fn half_bits(self) -> u16;
    /// The bits of the nearest bf16 of each.
    fn half_bits_of(numbers: &[Self], out: &mut [u16]);
}

impl Number for f32 {
    fn widen(numbers: &[Self], out: &mut [f32]) {
        out.copy_from_slice(numbers);
    }

    fn narrow(numbers: &[f32], out: &mut [Self]) {
        out.copy_from_slice(numbers);
    }

    fn bits(self) -> u32 {
        self.to_bits()
    }

    fn half_bits(self) -> u16 {
        round(self)
    }

    fn half_bits_of(numbers: &[Self], out: &mut [u16]) {
        round_all(numbers, out);
    }
}

impl Number for bf16 {
    fn widen(numbers: &[Self], out: &mut [f32]) {
        widen_all(numbers, out);
    }

    fn narrow(numbers: &[f32], out: &mut [Self]) {
        narrow_all(numbers, out);
    }

    fn bits(self) -> u32 {
        u32::from(self.to_bits()) << 16
    }

    fn half_bits(self) -> u16 {
        self.to_bits()
    }

    fn half_bits_of(numbers: &[Self], out: &mut [u16]) {
        out.iter_mut().zip(numbers).for_each(|(out, number)| *out = number.to_bits());
    }
}

/// The bits of the nearest bf16, the even one where two are; NaN stays NaN.
#[inline(always)]
pub(crate) fn round(number: f32) -> u16 {
    let bits = number.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
    (if is_nan { quiet } else { rounded }) as u16
}

by_tier! {
    fn round_all<FMA>(numbers: &[f32], out: &mut [u16]) {
        for (out, number) in out.iter_mut().zip(numbers) {
            *out = round(*number);
        }
    }
}

by_tier! {
    fn narrow_all<FMA>(numbers: &[f32], out: &mut [bf16]) {
        for (out, number) in out.iter_mut().zip(numbers) {
            *out = bf16::from_bits(round(*number));
        }
    }
}

by_tier! {
    fn widen_all<FMA>(numbers: &[bf16], out: &mut [f32]) {
        for (out, number) in out.iter_mut().zip(numbers) {
            *out = f32::from_bits(u32::from(number.to_bits()) << 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier::tests::in_every_tier;

    #[test]
    fn rounding_is_that_of_half() {
        // All upper halves, with lower halves below, at and above the middle.
        let numbers: Vec<f32> = (0..=u16::MAX)
            .flat_map(|high| [0, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| (high, low)))
            .map(|(high, low)| f32::from_bits(u32::from(high) << 16 | low))
            .collect();
        in_every_tier(|tier| {
            let mut found = vec![bf16::ZERO; numbers.len()];
            bf16::narrow(&numbers, &mut found);
            let mut wide = vec![0.0; numbers.len()];
            bf16::widen(&found, &mut wide);
            for ((number, found), wide) in numbers.iter().zip(&found).zip(&wide) {
                let expected = bf16::from_f32(*number);
                let same = found.to_bits() == expected.to_bits();
                assert!(same || found.is_nan() && expected.is_nan(), "{tier:?}: {number:e}");
                assert_eq!(wide.to_bits(), u32::from(found.to_bits()) << 16, "{tier:?}");
            }
        });
    }
}
