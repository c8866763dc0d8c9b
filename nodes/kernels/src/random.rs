//! Small reproducible random numbers for tests (SplitMix64).

use candle_core::{DType, Device, Tensor};

pub(crate) struct Random(u64);

impl Random {
    /// A generator whose seed is in `KINO_TEST_SEED`, or the one given; it is printed.
    pub(crate) fn new(seed: u64) -> Self {
        let named = std::env::var("KINO_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = named.unwrap_or(seed);
        println!("KINO_TEST_SEED={seed}");
        Self(seed)
    }

    /// The generator of a seed that another one gave.
    pub(crate) fn of(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below another.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// A size from 1 to `most`: often a small one, or one beside a multiple of 32.
    pub(crate) fn size(&mut self, most: usize) -> usize {
        let size = match self.bits() % 4 {
            0 => self.bits() as usize % 4,
            1 => self.bits() as usize % (most / 32 + 1) * 32 + self.bits() as usize % 3,
            _ => self.bits() as usize % most,
        };
        size.clamp(1, most)
    }

    /// From −1 to 1.
    pub(crate) fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    pub(crate) fn tensor(&mut self, shape: &[usize], dtype: DType) -> Tensor {
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| self.number()).collect();
        let tensor = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap();
        tensor.to_dtype(dtype).unwrap()
    }
}
