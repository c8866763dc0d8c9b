//! Numbers in blocks that share their scales, as ggml stores them and GGUF files hold them.
//!
//! The layouts are those of `ggml-common.h`, the formulas those of `dequantize_row_*` in
//! `ggml-quants.c` (llama.cpp), operation for operation: the numbers are the same, bit for bit.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor, bail};
use half::f16;

use crate::Result;
use crate::tier::by_tier;

/// A form of blocks, by its name in ggml.
#[allow(non_camel_case_types, reason = "the names are ggml's")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockType {
    /// 32 numbers of 4 bits, a scale.
    Q4_0,
    /// 32 numbers of 4 bits, a scale and a minimum.
    Q4_1,
    /// 32 numbers of 5 bits, a scale.
    Q5_0,
    /// 32 numbers of 5 bits, a scale and a minimum.
    Q5_1,
    /// 32 numbers of 8 bits, a scale.
    Q8_0,
    /// 256 numbers of 2 bits, scales and minima of 16 by 4 bits.
    Q2_K,
    /// 256 numbers of 3 bits, scales of 16 by 6 bits.
    Q3_K,
    /// 256 numbers of 4 bits, scales and minima of 32 by 6 bits.
    Q4_K,
    /// 256 numbers of 5 bits, scales and minima of 32 by 6 bits.
    Q5_K,
    /// 256 numbers of 6 bits, scales of 16 by 8 bits.
    Q6_K,
}

impl BlockType {
    /// Every form that is read.
    pub const ALL: [Self; 10] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// Its name in ggml.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2_K => "Q2_K",
            Self::Q3_K => "Q3_K",
            Self::Q4_K => "Q4_K",
            Self::Q5_K => "Q5_K",
            Self::Q6_K => "Q6_K",
        }
    }

    /// Numbers in a block.
    pub const fn numbers(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2_K | Self::Q3_K | Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2_K => 84,
            Self::Q3_K => 110,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of so many numbers; none where they are no whole number of blocks.
    pub const fn bytes_of(self, numbers: usize) -> Option<usize> {
        match numbers.is_multiple_of(self.numbers()) {
            true => (numbers / self.numbers()).checked_mul(self.bytes()),
            false => None,
        }
    }
}

by_tier! {
    /// The numbers that blocks stand for; as many blocks as both slices hold.
    pub fn widen_blocks<FMA>(blocks: BlockType, bytes: &[u8], numbers: &mut [f32]) {
        match blocks {
            BlockType::Q4_0 => each(bytes, numbers, q4_0),
            BlockType::Q4_1 => each(bytes, numbers, q4_1),
            BlockType::Q5_0 => each(bytes, numbers, q5_0),
            BlockType::Q5_1 => each(bytes, numbers, q5_1),
            BlockType::Q8_0 => each(bytes, numbers, q8_0),
            BlockType::Q2_K => each(bytes, numbers, q2_k),
            BlockType::Q3_K => each(bytes, numbers, q3_k),
            BlockType::Q4_K => each(bytes, numbers, q4_k),
            BlockType::Q5_K => each(bytes, numbers, q5_k),
            BlockType::Q6_K => each(bytes, numbers, q6_k),
        }
    }
}

/// The numbers of rows that are held in blocks, in f32 on the CPU.
///
/// Shapes: `rows` `[n, bytes of a row]` in U8; the result `[n, in]`.
pub fn widen_rows(rows: &Tensor, blocks: BlockType) -> Result<Tensor> {
    let inner = row_numbers(rows, blocks)?;
    let rows = rows.to_device(&Device::Cpu)?.force_contiguous()?;
    let count = rows.dim(0)?;
    let mut wide = vec![0.0; count * inner];
    match &*rows.storage_and_layout().0 {
        Storage::Cpu(CpuStorage::U8(bytes)) => widen_blocks(blocks, bytes, &mut wide),
        _ => bail!("a CPU kernel was given {:?} on {:?}", rows.dtype(), rows.device()),
    }
    Tensor::from_vec(wide, (count, inner), &Device::Cpu)
}

/// How many numbers a row of bytes stands for.
pub(crate) fn row_numbers(weight: &Tensor, blocks: BlockType) -> Result<usize> {
    let (_, bytes) = weight.dims2()?;
    if weight.dtype() != DType::U8 || !bytes.is_multiple_of(blocks.bytes()) {
        bail!(
            "rows of {bytes} {:?} are no blocks of {} ({} bytes each)",
            weight.dtype(),
            blocks.name(),
            blocks.bytes()
        );
    }
    Ok(bytes / blocks.bytes() * blocks.numbers())
}

/// Widens block after block.
#[inline(always)]
fn each<const B: usize, const N: usize>(
    bytes: &[u8],
    numbers: &mut [f32],
    widen: impl Fn(&[u8; B], &mut [f32; N]),
) {
    let (blocks, _) = bytes.as_chunks::<B>();
    let (numbers, _) = numbers.as_chunks_mut::<N>();
    blocks.iter().zip(numbers).for_each(|(block, numbers)| widen(block, numbers));
}

/// A half at a place in a block.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// d·(q − 8). Layout: d, 16 bytes of two numbers each, the first half in the low bits.
#[inline(always)]
fn q4_0(block: &[u8; 18], y: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (i, q) in block[2..].iter().enumerate() {
        y[i] = f32::from((q & 15) as i8 - 8) * d;
        y[i + 16] = f32::from((q >> 4) as i8 - 8) * d;
    }
}

/// d·q + m. Layout: d, m, 16 bytes as in [`q4_0`].
#[inline(always)]
fn q4_1(block: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, q) in block[4..].iter().enumerate() {
        y[i] = f32::from(q & 15) * d + m;
        y[i + 16] = f32::from(q >> 4) * d + m;
    }
}

/// The fifth bits of 32 numbers, as they are added to the other four.
#[inline(always)]
fn fifth(bits: &[u8], i: usize) -> u8 {
    (bits[i / 8] >> (i % 8) & 1) << 4
}

/// d·(q − 16). Layout: d, 4 bytes of fifth bits, 16 bytes as in [`q4_0`].
#[inline(always)]
fn q5_0(block: &[u8; 22], y: &mut [f32; 32]) {
    let (d, high) = (half_at(block, 0), &block[2..6]);
    for (i, q) in block[6..].iter().enumerate() {
        y[i] = f32::from((q & 15 | fifth(high, i)) as i8 - 16) * d;
        y[i + 16] = f32::from((q >> 4 | fifth(high, i + 16)) as i8 - 16) * d;
    }
}

/// d·q + m. Layout: d, m, 4 bytes of fifth bits, 16 bytes as in [`q4_0`].
#[inline(always)]
fn q5_1(block: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m, high) = (half_at(block, 0), half_at(block, 2), &block[4..8]);
    for (i, q) in block[8..].iter().enumerate() {
        y[i] = f32::from(q & 15 | fifth(high, i)) * d + m;
        y[i + 16] = f32::from(q >> 4 | fifth(high, i + 16)) * d + m;
    }
}

/// d·q. Layout: d, 32 signed bytes.
#[inline(always)]
fn q8_0(block: &[u8; 34], y: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (y, q) in y.iter_mut().zip(&block[2..]) {
        *y = f32::from(*q as i8) * d;
    }
}

/// d·s·q − m·t. Layout: 16 bytes of scales (low bits) and minima, 64 of four numbers each, d, m.
#[inline(always)]
fn q2_k(block: &[u8; 84], y: &mut [f32; 256]) {
    let (d, m) = (half_at(block, 80), half_at(block, 82));
    for (group, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scales = block[group];
        let (scale, least) = (d * f32::from(scales & 15), m * f32::from(scales >> 4));
        // Two groups share 32 bytes' bits of one place; four places make 128 numbers.
        let (bytes, shift) = (16 + group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2);
        for (y, q) in y.iter_mut().zip(&block[bytes..bytes + 16]) {
            *y = scale * f32::from(q >> shift & 3) - least;
        }
    }
}

/// d·(s − 32)·(q − 4), where the third bit is kept apart. Layout: 32 bytes of third bits, 64 of
/// four numbers each, 12 of scales, d.
#[inline(always)]
fn q3_k(block: &[u8; 110], y: &mut [f32; 256]) {
    let (d, scales) = (half_at(block, 108), &block[96..108]);
    for (group, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = scales[group % 8] >> (group / 8 * 4) & 15;
        let high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
        let scale = d * f32::from((low | high << 4) as i8 - 32);
        let (half, place) = (group % 2 * 16, group % 8 / 2);
        let (bytes, third) = (32 + group / 8 * 32 + half, group / 8 * 4 + place);
        for (i, y) in y.iter_mut().enumerate() {
            let q = block[bytes + i] >> (place * 2) & 3;
            let bit = block[half + i] >> third & 1;
            *y = scale * f32::from((q | bit << 2) as i8 - 4);
        }
    }
}

/// Scale and minimum of a group of 32, each of 6 bits: of the first four in the low bits of a byte
/// each, of the others in four bits of one byte and the two high ones of those before.
#[inline(always)]
fn scale_and_least(scales: &[u8], group: usize) -> (f32, f32) {
    let (scale, least) = match group {
        0..4 => (scales[group] & 63, scales[group + 4] & 63),
        _ => (
            scales[group + 4] & 15 | scales[group - 4] >> 6 << 4,
            scales[group + 4] >> 4 | scales[group] >> 6 << 4,
        ),
    };
    (f32::from(scale), f32::from(least))
}

/// d·s·q − m·t. Layout: d, m, 12 bytes of scales and minima, 128 of two numbers each: 32 bytes have
/// a group in their low bits and the next in their high ones.
#[inline(always)]
fn q4_k(block: &[u8; 144], y: &mut [f32; 256]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (pair, y) in y.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let q = &block[16 + pair * 32..16 + pair * 32 + 32];
        let (low, high) = y.split_at_mut(32);
        let (scale, least) = scale_and_least(&block[4..16], 2 * pair);
        let (scale, least) = (d * scale, m * least);
        low.iter_mut().zip(q).for_each(|(y, q)| *y = scale * f32::from(q & 15) - least);
        let (scale, least) = scale_and_least(&block[4..16], 2 * pair + 1);
        let (scale, least) = (d * scale, m * least);
        high.iter_mut().zip(q).for_each(|(y, q)| *y = scale * f32::from(q >> 4) - least);
    }
}

/// As [`q4_k`] with fifth bits, of each group in one place of 32 bytes before the others.
#[inline(always)]
fn q5_k(block: &[u8; 176], y: &mut [f32; 256]) {
    let (d, m, fifth) = (half_at(block, 0), half_at(block, 2), &block[16..48]);
    for (group, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, least) = scale_and_least(&block[4..16], group);
        let (scale, least) = (d * scale, m * least);
        let (bytes, shift) = (48 + group / 2 * 32, group % 2 * 4);
        let q = block[bytes..bytes + 32].iter().zip(fifth);
        for (y, (q, bits)) in y.iter_mut().zip(q) {
            *y = scale * f32::from(q >> shift & 15 | (bits >> group & 1) << 4) - least;
        }
    }
}

/// d·s·(q − 32). Layout: 128 bytes of the low four bits, 64 of the high two, 16 signed scales, d.
#[inline(always)]
fn q6_k(block: &[u8; 210], y: &mut [f32; 256]) {
    let d = half_at(block, 208);
    for (group, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(block[192 + group] as i8);
        // 128 numbers: 32 in the low bits of 32 bytes, 32 in those of the next, then the high bits.
        let (side, quarter, half) = (group / 8, group % 8 / 2, group % 2 * 16);
        let low = side * 64 + quarter % 2 * 32 + half;
        let high = 128 + side * 32 + half;
        let q = block[low..low + 16].iter().zip(&block[high..high + 16]);
        for (y, (low, high)) in y.iter_mut().zip(q) {
            let q = low >> (quarter / 2 * 4) & 15 | (high >> (quarter * 2) & 3) << 4;
            *y = scale * f32::from(q as i8 - 32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier::tests::in_every_tier;

    /// No tier contracts a product and a sum: the numbers of all are the same bits.
    #[test]
    fn the_numbers_are_the_same_in_every_tier() {
        for blocks in BlockType::ALL {
            let count = 9;
            // Any bytes, but no half that is infinite or no number: its exponent is not all ones.
            let byte = |i: usize| ((i * 7919 + 13) as f64 * 0.618_034).fract() * 256.0;
            let bytes: Vec<u8> =
                (0..count * blocks.bytes()).map(|i| byte(i) as u8 & 0xbb).collect();
            let mut found: Vec<Vec<f32>> = Vec::new();
            let tiers = std::sync::Mutex::new(&mut found);
            in_every_tier(|_| {
                let mut numbers = vec![0.0; count * blocks.numbers()];
                widen_blocks(blocks, &bytes, &mut numbers);
                tiers.lock().unwrap().push(numbers);
            });
            let bits = |numbers: &[f32]| numbers.iter().map(|n| n.to_bits()).collect::<Vec<_>>();
            assert!(found.iter().all(|numbers| bits(numbers) == bits(&found[0])), "{blocks:?}");
            assert!(found[0].iter().any(|number| *number != 0.0), "{blocks:?}");
        }
    }

    #[test]
    fn rows_are_whole_blocks() {
        for blocks in BlockType::ALL {
            assert_eq!(blocks.bytes_of(blocks.numbers() * 3), Some(blocks.bytes() * 3));
            assert_eq!(blocks.bytes_of(blocks.numbers() + 1), None);
        }
        let short = Tensor::zeros((2, 17), DType::U8, &Device::Cpu).unwrap();
        let error = widen_rows(&short, BlockType::Q4_0).unwrap_err().to_string();
        assert!(error.contains("rows of 17 U8 are no blocks of Q4_0 (18 bytes each)"), "{error}");
    }
}
