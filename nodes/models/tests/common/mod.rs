//! Reading reference values and comparing tensors with them.
#![allow(dead_code, unreachable_pub)] // each test file uses a part

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use kino_models::ModelFolder;

/// A file or folder of reference values.
pub fn reference(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/ref")).join(path)
}

/// A model among the reference values.
pub fn model(path: &str) -> ModelFolder {
    ModelFolder::directory(reference(path)).unwrap()
}

/// The tensors of a reference file.
pub fn golden(path: &str) -> Golden {
    Golden(candle_core::safetensors::load(reference(path), &Device::Cpu).unwrap())
}

pub struct Golden(HashMap<String, Tensor>);

impl Golden {
    #[track_caller]
    pub fn get(&self, name: &str) -> Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no reference `{name}`")).clone()
    }

    pub fn f64s(&self, name: &str) -> Vec<f64> {
        values(&self.get(name))
    }
}

pub fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, and that no value is NaN.
#[track_caller]
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims(), "shapes differ");
    let pairs = values(a).into_iter().zip(values(b));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, |m, d| if d.is_nan() { f64::NAN } else { d.max(m) })
}

/// Fails where `a` is farther than `limit` from `b` anywhere.
#[track_caller]
pub fn close(what: &str, a: &Tensor, b: &Tensor, limit: f64) {
    let distance = distance(a, b);
    println!("{what}: {distance:.2e} of {limit:.0e}");
    assert!(distance <= limit, "{what}: {distance:.3e} is more than {limit:.0e}");
}

/// Numbers by the formula of `tests/ref/single_files.py`.
pub fn numbers(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let wave = |i: usize| ((i * 7919 + seed * 104_729) as f64 * 0.618_034).fract() as f32 - 0.5;
    let values: Vec<f32> = (0..count).map(|i| wave(i) * 0.3).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// A stream of numbers for property tests; the seed stands in every message.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        // xorshift64*: Vigna, arXiv:1402.6246.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
