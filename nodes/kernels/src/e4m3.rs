//! Numbers of eight bits.

use crate::tier::by_tier;

/// The number that a byte stands for in E4M3 (arXiv:2209.05433; `float8_e4m3fn` of torch): a sign,
/// four bits of exponent with a bias of 7, three of mantissa; no infinity, and NaN where all but
/// the sign are set.
pub const fn e4m3(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = ((byte >> 3) & 0xf, (byte & 7) as f32);
    if byte & 0x7f == 0x7f {
        return f32::NAN;
    }
    if exponent == 0 {
        return sign * mantissa / 512.0;
    }
    let mut power = 1.0 / 64.0; // 2⁻⁶
    let mut step = 1;
    while step < exponent {
        power *= 2.0;
        step += 1;
    }
    sign * (1.0 + mantissa / 8.0) * power
}

/// The numbers of all bytes.
pub(crate) const E4M3: [f32; 256] = {
    let mut numbers = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        numbers[byte] = e4m3(byte as u8);
        byte += 1;
    }
    numbers
};

/// The bits of the f32 that a byte stands for, in integer arithmetic that becomes vectors.
#[inline(always)]
fn bits(byte: u8) -> u32 {
    let (sign, rest) = (u32::from(byte & 0x80) << 24, u32::from(byte & 0x7f));
    // The fields of f32, whose bias is 120 more; without an exponent the number is what lies above
    // 2⁻⁶ there.
    let normal = (rest << 20) + (120 << 23);
    let small = (f32::from_bits((rest << 20) + (121 << 23)) - f32::from_bits(121 << 23)).to_bits();
    let finite = if rest < 8 { small } else { normal };
    sign | if rest == 0x7f { 0x7fc0_0000 } else { finite }
}

/// The bits of the f32 that a byte in two's complement is.
#[inline(always)]
fn signed_bits(byte: u8) -> u32 {
    f32::from(byte as i8).to_bits()
}

/// Words of bytes by `bits`: an f32 each.
#[inline(always)]
fn each(bytes: &[u8], words: &mut [u32], bits: impl Fn(u8) -> u32) {
    words.iter_mut().zip(bytes).for_each(|(word, byte)| *word = bits(*byte));
}

/// Words of bytes whose numbers bf16 holds: pairs of those that lie `width` bytes apart, zeros
/// where the last row has none beside it.
#[inline(always)]
fn pairs(bytes: &[u8], width: usize, words: &mut [u32], bits: impl Fn(u8) -> u32) {
    for (words, bytes) in words.chunks_exact_mut(width).zip(bytes.chunks(2 * width)) {
        let (lower, upper) = bytes.split_at(width);
        words.iter_mut().zip(lower).for_each(|(word, byte)| *word = bits(*byte) >> 16);
        for (word, byte) in words.iter_mut().zip(upper) {
            *word |= bits(*byte) & 0xffff_0000;
        }
    }
}

by_tier! {
    /// The numbers of bytes in E4M3, as the bits of f32.
    pub(crate) fn widen<FMA>(bytes: &[u8], words: &mut [u32]) {
        each(bytes, words, bits);
    }
}

by_tier! {
    /// The same as bf16, in pairs of those that lie `width` bytes apart.
    pub(crate) fn widen_pairs<FMA>(bytes: &[u8], width: usize, words: &mut [u32]) {
        pairs(bytes, width, words, bits);
    }
}

by_tier! {
    /// Bytes in two's complement, as the bits of f32.
    pub(crate) fn widen_signed<FMA>(bytes: &[u8], words: &mut [u32]) {
        each(bytes, words, signed_bits);
    }
}

by_tier! {
    /// The same as bf16, in pairs of those that lie `width` bytes apart.
    pub(crate) fn widen_signed_pairs<FMA>(bytes: &[u8], width: usize, words: &mut [u32]) {
        pairs(bytes, width, words, signed_bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier::tests::in_every_tier;

    #[test]
    fn all_bytes_are_widened_alike() {
        let bytes: Vec<u8> = (0..=255).collect();
        in_every_tier(|tier| {
            let (mut wide, mut pairs) = ([0; 256], [0; 128]);
            widen(&bytes, &mut wide);
            widen_pairs(&bytes, 64, &mut pairs);
            for (index, number) in E4M3.iter().enumerate() {
                let row = index / 64;
                let half = pairs[row / 2 * 64 + index % 64] >> (row % 2 * 16) << 16;
                for bits in [wide[index], half] {
                    let found = f32::from_bits(bits);
                    let same = found.to_bits() == number.to_bits();
                    assert!(same || found.is_nan() && number.is_nan(), "{tier:?}: {index:#04x}");
                }
            }
            widen_signed(&bytes, &mut wide);
            assert!((0..=255).all(|i| f32::from_bits(wide[i]) == f32::from(i as u8 as i8)));
            // The last row alone.
            widen_pairs(&bytes[..192], 64, &mut pairs);
            assert!(pairs[64..].iter().all(|pair| pair >> 16 == 0));
            widen_signed_pairs(&bytes[..192], 64, &mut pairs);
            for (index, pair) in pairs.iter().enumerate() {
                let low = f32::from_bits(pair << 16);
                assert_eq!(low, f32::from((index / 64 * 128 + index % 64) as u8 as i8), "{tier:?}");
                assert!(index < 64 || pair >> 16 == 0);
            }
        });
    }

    #[test]
    fn bytes_are_the_numbers_of_the_format() {
        // The corners of float8_e4m3fn.
        for (byte, number) in [
            (0x00, 0.0),
            (0x01, 0.001953125),
            (0x07, 0.013671875),
            (0x08, 0.015625),
            (0x38, 1.0),
            (0x39, 1.125),
            (0x7e, 448.0),
            (0xfe, -448.0),
            (0xb8, -1.0),
        ] {
            assert_eq!(e4m3(byte), number, "{byte:#04x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        // Rising with the byte.
        assert!((0..0x7e_u8).all(|byte| e4m3(byte) < e4m3(byte + 1)));
    }
}
