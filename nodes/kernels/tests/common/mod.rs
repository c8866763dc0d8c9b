//! Seeded tensors and comparison, shared by the tests of the kernels.

#![allow(dead_code, unreachable_pub)] // each test binary uses a part of it

use candle_core::{DType, Device, Tensor};

/// Small reproducible random numbers (SplitMix64).
pub struct Random(u64);

impl Random {
    /// A generator that prints its seed, so that a failure can be repeated.
    pub fn new(seed: u64) -> Self {
        println!("seed {seed}");
        Self(seed)
    }

    /// A number in −1…1.
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / 8_388_608.0 - 1.0
    }

    /// A tensor of numbers in −1…1.
    pub fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| self.next()).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    /// The same shape as a view: axes reversed, and cut out of a larger tensor.
    pub fn view(&mut self, shape: &[usize]) -> Tensor {
        let mut around: Vec<usize> = shape.iter().rev().copied().collect();
        around[0] += 2;
        let axes: Vec<usize> = (0..shape.len()).rev().collect();
        let inner = self.tensor(&around).narrow(0, 1, around[0] - 2).unwrap();
        let view = inner.permute(axes).unwrap();
        assert_eq!(view.dims(), shape);
        view
    }
}

/// The largest difference of two tensors of one shape.
pub fn distance(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    assert_eq!(a.dtype(), b.dtype());
    let flat = |t: &Tensor| -> Vec<f32> {
        t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let (a, b) = (flat(a), flat(b));
    let gaps = a.iter().zip(&b).map(|(a, b)| (a - b).abs());
    gaps.fold(0.0, |worst, gap| if gap.is_nan() || gap > worst { gap } else { worst })
}

/// Asserts that two tensors agree within `limit`.
#[track_caller]
pub fn close(a: &Tensor, b: &Tensor, limit: f32) {
    let gap = distance(a, b);
    assert!(gap <= limit, "differ by {gap:e}, more than {limit:e}");
}

/// Asserts that two tensors hold the same bits.
#[track_caller]
pub fn same(a: &Tensor, b: &Tensor) {
    assert_eq!(distance(a, b), 0.0);
}
