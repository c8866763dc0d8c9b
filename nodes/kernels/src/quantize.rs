//! Numbers in fewer bits, for files: ggml's blocks, and E4M3. What computes with them lies
//! elsewhere.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor, bail};
use rayon::prelude::*;

use crate::Result;
use crate::blocks::BlockType;

/// Numbers that a task packs: a multiple of every block's.
const PIECE: usize = 1 << 14;

/// Packs numbers into blocks by candle's quantizers, which follow the `quantize_row_*_ref` of
/// `ggml-quants.c` (llama.cpp). A piece is packed as it is alone, so the bytes depend on no thread.
///
/// # Errors
/// When they are no whole number of blocks, or one is not finite.
pub fn quantize_blocks(blocks: BlockType, numbers: &[f32]) -> Result<Vec<u8>> {
    if blocks.bytes_of(numbers.len()).is_none() {
        bail!("{} numbers are no whole number of blocks {}", numbers.len(), blocks.name());
    }
    // The searches for scales would not end well.
    if let Some(number) = numbers.iter().find(|number| !number.is_finite()) {
        bail!("{number} has no place in a block");
    }
    // These quantizers enter no pool of threads.
    let packed = numbers.par_chunks(PIECE).map(|piece| {
        let tensor = Tensor::from_slice(piece, piece.len(), &Device::Cpu)?;
        Ok(QTensor::quantize(&tensor, kind(blocks))?.data()?.into_owned())
    });
    Ok(packed.collect::<Result<Vec<_>>>()?.concat())
}

const fn kind(blocks: BlockType) -> GgmlDType {
    match blocks {
        BlockType::Q4_0 => GgmlDType::Q4_0,
        BlockType::Q4_1 => GgmlDType::Q4_1,
        BlockType::Q5_0 => GgmlDType::Q5_0,
        BlockType::Q5_1 => GgmlDType::Q5_1,
        BlockType::Q8_0 => GgmlDType::Q8_0,
        BlockType::Q2_K => GgmlDType::Q2K,
        BlockType::Q3_K => GgmlDType::Q3K,
        BlockType::Q4_K => GgmlDType::Q4K,
        BlockType::Q5_K => GgmlDType::Q5K,
        BlockType::Q6_K => GgmlDType::Q6K,
    }
}

/// The largest number of E4M3.
pub const E4M3_MAX: f32 = 448.0;

/// The byte whose number ([`crate::e4m3`]) is nearest, the even one of two that are equally near,
/// and ±448 for what lies beyond; NaN for NaN.
pub const fn to_e4m3(value: f32) -> u8 {
    let bits = value.to_bits();
    let (sign, bits) = ((bits >> 24) as u8 & 0x80, bits & 0x7fff_ffff);
    if bits > f32::INFINITY.to_bits() {
        return sign | 0x7f;
    }
    let byte = if bits < (1.0_f32 / 64.0).to_bits() {
        // Multiples of 2⁻⁹ below the least number with an exponent. The sum of f32 rounds them.
        (f32::from_bits(bits) + 16384.0).to_bits() - 16384.0_f32.to_bits()
    } else {
        // The bias of f32 is 120 more, and it has 20 bits of mantissa more: they round to even.
        let rest = bits - (120 << 23);
        (rest + 0x7_ffff + (rest >> 20 & 1)) >> 20
    };
    sign | if byte > 0x7e { 0x7e } else { byte as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::widen_blocks;
    use crate::e4m3;

    /// How far the numbers of blocks lie from those that were packed, as a part of the largest: half
    /// a step of the form's bits, and what K-quants lose as their scales are rounded, too.
    #[test]
    fn blocks_hold_what_was_packed_within_their_bits() {
        let seed = 11;
        println!("seed {seed}");
        let wave = |i: usize| ((i * 7919 + seed * 104_729) as f64 * 0.618_034).fract() as f32 - 0.5;
        let numbers: Vec<f32> = (0..40_960).map(wave).collect();
        for (blocks, most) in [
            (BlockType::Q4_0, 0.08),
            (BlockType::Q4_1, 0.04),
            (BlockType::Q5_0, 0.04),
            (BlockType::Q5_1, 0.02),
            (BlockType::Q8_0, 0.003),
            (BlockType::Q2_K, 0.2),
            (BlockType::Q3_K, 0.15),
            (BlockType::Q4_K, 0.04),
            (BlockType::Q5_K, 0.02),
            (BlockType::Q6_K, 0.02),
        ] {
            let bytes = quantize_blocks(blocks, &numbers).unwrap();
            assert_eq!(bytes.len(), blocks.bytes_of(numbers.len()).unwrap());
            let mut wide = vec![0.0; numbers.len()];
            widen_blocks(blocks, &bytes, &mut wide);
            let off = numbers.iter().zip(&wide).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{}: {off}", blocks.name());
            assert!(off > 0.0 && off < most, "{}: {off}", blocks.name());
        }
        let error = quantize_blocks(BlockType::Q4_K, &numbers[..300]).unwrap_err().to_string();
        assert!(error.contains("300 numbers are no whole number of blocks Q4_K"), "{error}");
        let error = quantize_blocks(BlockType::Q8_0, &[f32::NAN; 32]).unwrap_err().to_string();
        assert!(error.contains("NaN has no place in a block"), "{error}");
    }

    #[test]
    fn every_number_of_e4m3_is_its_own_byte_and_others_the_nearest() {
        for byte in (0..=255_u8).filter(|byte| byte & 0x7f != 0x7f) {
            assert_eq!(to_e4m3(e4m3(byte)), byte, "{byte:#04x}");
        }
        // Between two neighbours: the nearer one, and of equally near ones the even byte.
        for byte in 0..0x7e_u8 {
            let (low, high) = (e4m3(byte), e4m3(byte + 1));
            let (middle, near) = ((low + high) / 2.0, (high - low) / 64.0);
            let even = byte + (byte & 1);
            assert_eq!(to_e4m3(middle), even, "{byte:#04x}");
            assert_eq!(to_e4m3(middle - near), byte, "{byte:#04x}");
            assert_eq!(to_e4m3(-(middle + near)), (byte + 1) | 0x80, "{byte:#04x}");
        }
        for (value, byte) in [(448.0, 0x7e), (1e30, 0x7e), (f32::INFINITY, 0x7e), (-500.0, 0xfe)] {
            assert_eq!(to_e4m3(value), byte, "{value}");
        }
        assert_eq!(to_e4m3(f32::NAN) & 0x7f, 0x7f);
        assert_eq!(to_e4m3(-1e-30), 0x80);
    }
}
