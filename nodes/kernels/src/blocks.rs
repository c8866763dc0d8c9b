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

    /// Bits of a number.
    pub(crate) const fn bits(self) -> usize {
        match self {
            Self::Q2_K => 2,
            Self::Q3_K => 3,
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K => 4,
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => 5,
            Self::Q6_K => 6,
            Self::Q8_0 => 8,
        }
    }

    /// Numbers that share a scale.
    pub(crate) const fn group(self) -> usize {
        match self {
            Self::Q2_K | Self::Q3_K | Self::Q6_K => 16,
            _ => 32,
        }
    }

    /// What is taken from the bits of a number.
    pub(crate) const fn offset(self) -> i16 {
        match self {
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Q8_0 => 128,
            Self::Q3_K => 4,
            Self::Q6_K => 32,
            Self::Q4_1 | Self::Q5_1 | Self::Q2_K | Self::Q4_K | Self::Q5_K => 0,
        }
    }

    /// Whether groups have minima.
    pub(crate) const fn has_minima(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q2_K | Self::Q4_K | Self::Q5_K)
    }

    /// Bytes of so many numbers; none where they are no whole number of blocks.
    pub const fn bytes_of(self, numbers: usize) -> Option<usize> {
        match numbers.is_multiple_of(self.numbers()) {
            true => (numbers / self.numbers()).checked_mul(self.bytes()),
            false => None,
        }
    }
}

/// What a block says, whatever its form: number i of group g is d·s_g·(q_i − offset) − m·t_g.
///
/// It is read into the same memory again and again: what a form does not have stays as it is here.
pub(crate) struct Parts {
    /// The numbers, of as many bits as the form has.
    pub(crate) q: [u8; 256],
    /// Scales of groups; 1 where there is one group.
    pub(crate) s: [i8; 16],
    /// Minima of groups; 1 where there is one group.
    pub(crate) t: [u8; 16],
    /// What scales are multiplied by.
    pub(crate) d: f16,
    /// What minima are multiplied by; 0 where the form has none.
    pub(crate) m: f16,
}

impl Parts {
    pub(crate) const fn new() -> Self {
        Self { q: [0; 256], s: [1; 16], t: [1; 16], d: f16::ZERO, m: f16::ZERO }
    }

    /// Reads a block.
    #[inline(always)]
    pub(crate) fn read(&mut self, blocks: BlockType, block: &[u8]) {
        match blocks {
            BlockType::Q4_0 => self.q4_0(block),
            BlockType::Q4_1 => self.q4_1(block),
            BlockType::Q5_0 => self.q5_0(block),
            BlockType::Q5_1 => self.q5_1(block),
            BlockType::Q8_0 => self.q8_0(block),
            BlockType::Q2_K => self.q2_k(block),
            BlockType::Q3_K => self.q3_k(block),
            BlockType::Q4_K => self.q4_k(block),
            BlockType::Q5_K => self.q5_k(block),
            BlockType::Q6_K => self.q6_k(block),
        }
    }

    /// d·(q − 8). Layout: d, 16 bytes of two numbers each, the first half in the low bits.
    #[inline(always)]
    fn q4_0(&mut self, block: &[u8]) {
        self.d = half_at(block, 0);
        for (i, q) in block[2..18].iter().enumerate() {
            (self.q[i], self.q[i + 16]) = (q & 15, q >> 4);
        }
    }

    /// d·q + m. Layout: d, m, 16 bytes as in `q4_0`.
    #[inline(always)]
    fn q4_1(&mut self, block: &[u8]) {
        self.q4_0(&block[2..]);
        (self.d, self.m) = (half_at(block, 0), -half_at(block, 2));
    }

    /// d·(q − 16). Layout: d, 4 bytes of fifth bits, 16 bytes as in `q4_0`.
    #[inline(always)]
    fn q5_0(&mut self, block: &[u8]) {
        let high = &block[2..6];
        for (i, q) in block[6..22].iter().enumerate() {
            self.q[i] = q & 15 | fifth(high, i);
            self.q[i + 16] = q >> 4 | fifth(high, i + 16);
        }
        self.d = half_at(block, 0);
    }

    /// d·q + m. Layout: d, m, 4 bytes of fifth bits, 16 bytes as in `q4_0`.
    #[inline(always)]
    fn q5_1(&mut self, block: &[u8]) {
        self.q5_0(&block[2..]);
        (self.d, self.m) = (half_at(block, 0), -half_at(block, 2));
    }

    /// d·q. Layout: d, 32 signed bytes.
    #[inline(always)]
    fn q8_0(&mut self, block: &[u8]) {
        self.d = half_at(block, 0);
        for (own, q) in self.q.iter_mut().zip(&block[2..34]) {
            *own = q ^ 0x80; // q + 128, the offset
        }
    }

    /// d·s·q − m·t. Layout: 16 bytes of scales (low bits) and minima, 64 of four numbers each, d,
    /// m.
    #[inline(always)]
    fn q2_k(&mut self, block: &[u8]) {
        (self.d, self.m) = (half_at(block, 80), half_at(block, 82));
        for (group, own) in self.q.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scales = block[group];
            (self.s[group], self.t[group]) = ((scales & 15) as i8, scales >> 4);
            // Two groups share 32 bytes' bits of one place; four places make 128 numbers.
            let (bytes, shift) = (16 + group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2);
            for (own, q) in own.iter_mut().zip(&block[bytes..bytes + 16]) {
                *own = q >> shift & 3;
            }
        }
    }

    /// d·(s − 32)·(q − 4), where the third bit is kept apart. Layout: 32 bytes of third bits, 64 of
    /// four numbers each, 12 of scales, d.
    #[inline(always)]
    fn q3_k(&mut self, block: &[u8]) {
        self.d = half_at(block, 108);
        let scales = &block[96..108];
        for (group, own) in self.q.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let low = scales[group % 8] >> (group / 8 * 4) & 15;
            let high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
            self.s[group] = (low | high << 4) as i8 - 32;
            let (half, place) = (group % 2 * 16, group % 8 / 2);
            let (bytes, third) = (32 + group / 8 * 32 + half, group / 8 * 4 + place);
            let q = block[bytes..bytes + 16].iter().zip(&block[half..half + 16]);
            for (own, (q, bits)) in own.iter_mut().zip(q) {
                *own = q >> (place * 2) & 3 | (bits >> third & 1) << 2;
            }
        }
    }

    /// Scales and minima of eight groups of 32, each of 6 bits: of the first four in the low bits of
    /// a byte each, of the others in four bits of one byte and the two high ones of those before.
    #[inline(always)]
    fn eight_scales(&mut self, scales: &[u8]) {
        for group in 0..4 {
            let (scale, least) = (scales[group], scales[group + 4]);
            (self.s[group], self.t[group]) = ((scale & 63) as i8, least & 63);
            let other = scales[group + 8];
            self.s[group + 4] = (other & 15 | scale >> 6 << 4) as i8;
            self.t[group + 4] = other >> 4 | least >> 6 << 4;
        }
    }

    /// d·s·q − m·t. Layout: d, m, 12 bytes of scales and minima, 128 of two numbers each: 32 bytes
    /// have a group in their low bits and the next in their high ones.
    #[inline(always)]
    fn q4_k(&mut self, block: &[u8]) {
        (self.d, self.m) = (half_at(block, 0), half_at(block, 2));
        self.eight_scales(&block[4..16]);
        for (pair, own) in self.q.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            let q = &block[16 + pair * 32..16 + pair * 32 + 32];
            let (low, high) = own.split_at_mut(32);
            low.iter_mut().zip(q).for_each(|(own, q)| *own = q & 15);
            high.iter_mut().zip(q).for_each(|(own, q)| *own = q >> 4);
        }
    }

    /// As `q4_k` with fifth bits, of each group in one place of 32 bytes before the others.
    #[inline(always)]
    fn q5_k(&mut self, block: &[u8]) {
        (self.d, self.m) = (half_at(block, 0), half_at(block, 2));
        self.eight_scales(&block[4..16]);
        for (group, own) in self.q.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (bytes, shift) = (48 + group / 2 * 32, group % 2 * 4);
            let q = block[bytes..bytes + 32].iter().zip(&block[16..48]);
            for (own, (q, bits)) in own.iter_mut().zip(q) {
                *own = q >> shift & 15 | (bits >> group & 1) << 4;
            }
        }
    }

    /// d·s·(q − 32). Layout: 128 bytes of the low four bits, 64 of the high two, 16 signed scales,
    /// d.
    #[inline(always)]
    fn q6_k(&mut self, block: &[u8]) {
        self.d = half_at(block, 208);
        for (group, own) in self.q.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            self.s[group] = block[192 + group] as i8;
            // 128 numbers: 32 in the low bits of 32 bytes, 32 in those of the next, then the high
            // bits.
            let (side, quarter, half) = (group / 8, group % 8 / 2, group % 2 * 16);
            let low = side * 64 + quarter % 2 * 32 + half;
            let high = 128 + side * 32 + half;
            let q = block[low..low + 16].iter().zip(&block[high..high + 16]);
            for (own, (low, high)) in own.iter_mut().zip(q) {
                *own = low >> (quarter / 2 * 4) & 15 | (high >> (quarter * 2) & 3) << 4;
            }
        }
    }
}

/// A half at a place in a block.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

/// The fifth bits of 32 numbers, as they are added to the other four.
#[inline(always)]
fn fifth(bits: &[u8], i: usize) -> u8 {
    (bits[i / 8] >> (i % 8) & 1) << 4
}

by_tier! {
    /// The numbers that blocks stand for; as many blocks as both slices hold.
    pub fn widen_blocks<FMA>(blocks: BlockType, bytes: &[u8], numbers: &mut [f32]) {
        let mut parts = Parts::new();
        let bytes = bytes.chunks_exact(blocks.bytes());
        for (block, y) in bytes.zip(numbers.chunks_exact_mut(blocks.numbers())) {
            parts.read(blocks, block);
            let (d, m) = (parts.d.to_f32(), parts.m.to_f32());
            let groups = parts.q.chunks_exact(blocks.group()).zip(&parts.s).zip(&parts.t);
            for (y, ((q, s), t)) in y.chunks_exact_mut(blocks.group()).zip(groups) {
                let (scale, least) = (d * f32::from(*s), m * f32::from(*t));
                for (y, q) in y.iter_mut().zip(q) {
                    *y = scale * f32::from(i16::from(*q) - blocks.offset()) - least;
                }
            }
        }
    }
}

/// The numbers of rows that are held in blocks, in f32 on the CPU.
///
/// Shapes: `rows` `[n, bytes of a row]` in U8; the result `[n, in]`.
pub(crate) fn widen_rows(rows: &Tensor, blocks: BlockType) -> Result<Tensor> {
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
