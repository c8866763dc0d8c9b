//! Numbers of 16 bits, to and from f32.

use crate::{Bf16, F16};

impl Bf16 {
    /// The same number in single precision.
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// The nearest number of this type; of two as near the one with an even last bit.
    pub fn from_f32(number: f32) -> Self {
        let bits = number.to_bits();
        if number.is_nan() {
            return Bf16((bits >> 16) as u16 | 0x40);
        }
        Bf16(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) as u16)
    }
}

impl F16 {
    /// The same number in single precision.
    pub fn to_f32(self) -> f32 {
        let (sign, exponent) = (u32::from(self.0 >> 15) << 31, u32::from(self.0 >> 10 & 0x1F));
        let fraction = u32::from(self.0 & 0x3FF);
        let size = match exponent {
            0 => fraction as f32 * 2f32.powi(-24),
            0x1F => f32::from_bits(0x7F80_0000 | fraction << 13),
            _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
        };
        f32::from_bits(sign | size.to_bits())
    }

    /// The nearest number of this type; of two as near the one with an even last bit.
    pub fn from_f32(number: f32) -> Self {
        let sign = ((number.to_bits() >> 31) as u16) << 15;
        let size = number.abs();
        if size.is_nan() {
            return F16(sign | 0x7E00);
        }
        if size < 2f32.powi(-14) {
            // Below the normal numbers every step is 2^-24; the sum rounds to even by itself.
            let steps = size * 2f32.powi(24);
            return F16(sign | steps.round_ties_even() as u16);
        }
        let bits = size.to_bits();
        let rounded = (bits + 0xFFF + (bits >> 13 & 1)) >> 13;
        F16(sign | (rounded - (112 << 10)).min(0x7C00) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_the_way_through_f32() {
        for bits in 0..=u16::MAX {
            let half = F16(bits);
            if half.to_f32().is_nan() {
                assert!(F16::from_f32(half.to_f32()).to_f32().is_nan());
            } else {
                assert_eq!(F16::from_f32(half.to_f32()), half);
            }
        }
    }

    #[test]
    fn numbers_between_two_go_to_the_nearer_one_or_the_even_one() {
        // 1 + 2^-11 lies between 1 and 1 + 2^-10; 1 + 3·2^-11 between that and 1 + 2^-9.
        assert_eq!(F16::from_f32(1.0 + 2f32.powi(-11)).to_f32(), 1.0);
        assert_eq!(F16::from_f32(1.0 + 3.0 * 2f32.powi(-11)).to_f32(), 1.0 + 2f32.powi(-9));
        assert_eq!(F16::from_f32(70000.0).to_f32(), f32::INFINITY);
        assert_eq!(F16::from_f32(-3.0 * 2f32.powi(-25)).to_f32(), -(2f32.powi(-23)));
        assert_eq!(Bf16::from_f32(1.0 + 2f32.powi(-8)).to_f32(), 1.0);
        assert_eq!(Bf16::from_f32(1.0 + 3.0 * 2f32.powi(-8)).to_f32(), 1.0 + 2f32.powi(-6));
        assert!(Bf16::from_f32(f32::NAN).to_f32().is_nan());
    }
}
