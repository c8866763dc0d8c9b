//! Writing GGUF files, good ones and bad.
#![allow(dead_code, unreachable_pub)] // each test file uses a part

use kino_kernels::BlockType;

/// The number of ggml's type for numbers of 32 bits.
pub const F32: u32 = 0;
/// The metadata's type for texts.
pub const TEXT: u32 = 8;
/// Where tensors begin: at multiples of so many bytes.
const ALIGNMENT: usize = 32;

/// ggml's number of a form of blocks.
pub fn number(blocks: BlockType) -> u32 {
    match blocks {
        BlockType::Q4_0 => 2,
        BlockType::Q4_1 => 3,
        BlockType::Q5_0 => 6,
        BlockType::Q5_1 => 7,
        BlockType::Q8_0 => 8,
        BlockType::Q2_K => 10,
        BlockType::Q3_K => 11,
        BlockType::Q4_K => 12,
        BlockType::Q5_K => 13,
        BlockType::Q6_K => 14,
    }
}

/// A tensor to be written.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    /// As torch has it; the file has it reversed.
    pub shape: Vec<usize>,
    pub number: u32,
    pub bytes: Vec<u8>,
    /// Where it lies in the data; else behind the one before.
    pub offset: Option<u64>,
}

impl Tensor {
    pub fn new(name: &str, shape: &[usize], number: u32, bytes: Vec<u8>) -> Self {
        let (name, shape) = (name.to_owned(), shape.to_vec());
        Tensor { name, shape, number, bytes, offset: None }
    }

    pub fn f32(name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(name, shape, F32, bytes)
    }
}

/// A text as the format has it.
pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// An entry of metadata.
pub fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key), &kind.to_le_bytes()[..], value].concat()
}

/// A file of version 3 with these entries of metadata and tensors.
pub fn file(metadata: &[Vec<u8>], tensors: &[Tensor]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    metadata.iter().for_each(|entry| bytes.extend(entry));
    let mut data = Vec::new();
    for tensor in tensors {
        bytes.extend(text(&tensor.name));
        bytes.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|size| bytes.extend((*size as u64).to_le_bytes()));
        bytes.extend(tensor.number.to_le_bytes());
        bytes.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
        data.extend(&tensor.bytes);
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes.extend(data);
    bytes
}

/// Random blocks whose numbers are about as large as weights are: `next` gives any bits.
pub fn random_blocks(blocks: BlockType, numbers: usize, mut next: impl FnMut() -> u64) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..blocks.bytes_of(numbers).unwrap()).map(|_| (next() >> 40) as u8).collect();
    // Places of the halves in a block, and what makes the largest number about a third.
    let halves: &[(usize, f32)] = match blocks {
        BlockType::Q4_0 => &[(0, 0.04)],
        BlockType::Q4_1 => &[(0, 0.04), (2, -0.3)],
        BlockType::Q5_0 => &[(0, 0.02)],
        BlockType::Q5_1 => &[(0, 0.02), (2, -0.3)],
        BlockType::Q8_0 => &[(0, 0.0025)],
        BlockType::Q2_K => &[(80, 0.01), (82, 0.015)],
        BlockType::Q3_K => &[(108, 0.003)],
        BlockType::Q4_K => &[(0, 0.0004), (2, 0.003)],
        BlockType::Q5_K => &[(0, 0.0002), (2, 0.003)],
        BlockType::Q6_K => &[(208, 0.0001)],
    };
    for block in bytes.chunks_exact_mut(blocks.bytes()) {
        for (at, scale) in halves {
            let vary = 0.5 + (next() >> 40) as f32 / (1u64 << 24) as f32;
            block[*at..at + 2].copy_from_slice(&half::f16::from_f32(scale * vary).to_le_bytes());
        }
    }
    bytes
}
