//! GGUF files: what they hold is what the public library reads in them, and a stranger's file is
//! refused by name or read, whatever it says.

mod common;

#[path = "common/gguf.rs"]
mod gguf;

use candle_core::{DType, Device, Tensor};
use common::{Random, distance, golden, reference};
use gguf::{F32, TEXT, entry, file, number, random_blocks, text};
use kino_kernels::BlockType;
use kino_models::weight::{Embedding, Linear};
use kino_models::{Error, Weights};

const TYPES: &str = "gguf/types.gguf";

fn open(bytes: &[u8]) -> Result<Weights, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Weights::open(file.path(), DType::F32, &Device::Cpu)
}

fn types() -> Weights {
    Weights::open(&reference(TYPES), DType::F32, &Device::Cpu).unwrap()
}

/// The types of the file that the library wrote, and blocks that it quantised or that are random.
fn names() -> Vec<String> {
    let plain = ["f32", "f16", "bf16"].map(str::to_owned);
    let blocks = BlockType::ALL.iter().map(|blocks| blocks.name().to_lowercase());
    plain.into_iter().chain(blocks).collect()
}

#[test]
fn every_type_is_the_numbers_of_the_public_library() {
    let (weights, values) = (types(), golden("gguf/values.safetensors"));
    for name in names() {
        let expected = values.get(&format!("{name}.weight"));
        let found = weights.get(&format!("{name}.weight"), (3, 512)).unwrap();
        let bits = |tensor: &Tensor| -> Vec<u32> {
            let numbers: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            numbers.into_iter().map(f32::to_bits).collect()
        };
        assert_eq!(bits(&found), bits(&expected), "{name}");
        let rounded = weights.get_as(&format!("{name}.weight"), (3, 512), DType::BF16).unwrap();
        assert_eq!(distance(&rounded, &expected.to_dtype(DType::BF16).unwrap()), 0.0, "{name}");
    }
}

#[test]
fn what_has_more_than_four_dimensions_has_its_shape() {
    let (weights, values) = (types(), golden("gguf/values.safetensors"));
    for (name, shape) in [("five", [2, 3, 1, 2, 2]), ("flat", [2, 8, 1, 2, 2])] {
        let name = format!("{name}.weight");
        assert_eq!(weights.shape(&name), Some(&shape[..]));
        let found = weights.get(&name, shape.to_vec()).unwrap();
        assert_eq!(distance(&found, &values.get(&name)), 0.0, "{name}");
    }
}

#[test]
fn layers_of_blocks_are_those_of_their_numbers() {
    let (weights, values) = (types(), golden("gguf/values.safetensors"));
    let mut random = Random(5);
    let x: Vec<f32> = (0..4 * 512).map(|_| (random.next() >> 40) as f32 / 1.6e7 - 0.5).collect();
    let x = Tensor::from_vec(x, (4, 512), &Device::Cpu).unwrap();
    for name in names() {
        let (own, dense) = (weights.scope(&name), values.get(&format!("{name}.weight")));
        let expected = x.matmul(&dense.t().unwrap()).unwrap();
        let found = Linear::load_plain(&own, 512, 3).unwrap().forward(&x).unwrap();
        let off = distance(&found, &expected);
        let largest = expected.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(off <= 2e-6 * f64::from(largest.max(1.0)), "{name}: {off:e} of {largest}");
        // Rows that are looked up are exact, and only they are widened.
        let table = Embedding::load(&own, 3, 512).unwrap();
        let rows = table.lookup(&[2, 0, 2]).unwrap();
        let ids = Tensor::new(&[2u32, 0, 2], &Device::Cpu).unwrap();
        assert_eq!(distance(&rows, &dense.index_select(&ids, 0).unwrap()), 0.0, "{name}");
    }
}

fn refused(bytes: &[u8]) -> String {
    let error = open(bytes).expect_err("a file that is none").to_string();
    // Without the folder, which is another every time.
    error.split_once(' ').unwrap().1.to_owned()
}

fn a_tensor() -> gguf::Tensor {
    gguf::Tensor::f32("a", &[2, 4], &[0.5; 8])
}

#[test]
fn a_file_that_is_none_is_told_why() {
    let good = file(&[], &[a_tensor()]);
    assert!(open(&good).is_ok());
    let check = |bytes: &[u8], expected: &str| {
        let told = refused(bytes);
        assert!(told.contains(expected), "{told}\n{expected}");
    };
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    check(&good[..good.len() - 1], "is truncated: expected 128 bytes, found 127");
    check(&good[..30], "is truncated: expected 32 bytes, found 30");
    check(&good[..6], "is truncated");
    check(&with(4, &1u32.to_le_bytes()), "it is of version 1; convert it");
    check(&with(4, &9u32.to_le_bytes()), "it is of version 9; 2 and 3 are read");
    check(&with(4, &3u32.to_be_bytes()), "it is big-endian");
    check(&with(8, &u64::MAX.to_le_bytes()), "it has 18446744073709551615 tensors; 100000 at most");
    check(&with(16, &(1u64 << 40).to_le_bytes()), "it has 1099511627776 entries of metadata");
    check(
        &with(24, &u64::MAX.to_le_bytes()),
        "the name of tensor 1 of 1 at byte 24 is said to be 18446744073709551615 bytes long",
    );
    check(&with(32, &[0xff]), "the name of tensor 1 of 1 at byte 24 is not UTF-8");
    check(
        &with(33, &99u32.to_le_bytes()),
        "the tensor `a` is said to have 99 dimensions; 8 at most",
    );
    check(&with(37, &0u64.to_le_bytes()), "the tensor `a`: a dimension of 0");
    check(&with(37, &u64::MAX.to_le_bytes()), "a dimension of 18446744073709551615");
    check(&with(37, &(1u64 << 30).to_le_bytes()), "is truncated: expected 8589934688 bytes");
    check(
        &with(53, &8u32.to_le_bytes()),
        "rows of the tensor `a` are 4 long, which is no multiple of the 32 numbers in a block of Q8_0",
    );
    check(
        &with(57, &7u64.to_le_bytes()),
        "the tensor `a` begins at byte 7 of the data, expected a multiple of 32",
    );
    check(
        &with(57, &(u64::MAX - 31).to_le_bytes()),
        "begins at byte 18446744073709551584 of the data, which no file has",
    );
    let twice = file(&[], &[a_tensor(), a_tensor()]);
    check(&twice, "it names the tensor `a` twice");
    let mut other = a_tensor();
    (other.name, other.offset) = ("b".to_owned(), Some(0));
    check(
        &file(&[], &[a_tensor(), other]),
        "the tensor `a` (32 bytes from byte 128) reaches into `b`, which begins at byte 128",
    );
    let many = gguf::Tensor::new("a", &[1 << 30, 1 << 30, 1 << 30], F32, vec![]);
    check(&file(&[], &[many]), "too many numbers");
}

#[test]
fn metadata_that_are_none_are_told_by_their_key() {
    let check = |entries: &[Vec<u8>], expected: &str| {
        let told = refused(&file(entries, &[a_tensor()]));
        assert!(told.contains(expected), "{told}\n{expected}");
    };
    let list = |of: u32, count: u64| [&of.to_le_bytes()[..], &count.to_le_bytes()].concat();
    check(&[entry("k", 13, &[])], "`k` has the type 13, which is unknown");
    check(&[entry("k", TEXT, &u64::MAX.to_le_bytes())], "the value of `k` at byte");
    check(&[entry("k", 9, &list(10, u64::MAX))], "`k` is said to have 18446744073709551615 items");
    check(&[entry("k", 9, &list(8, u64::MAX))], "`k`");
    check(&[entry("k", 9, &list(0, 1 << 60))], "the list of `k` at byte");
    let deep: Vec<u8> = (0..50).flat_map(|_| list(9, 1)).collect();
    check(&[entry("k", 9, &deep)], "`k` has lists in lists, 8 at most");
    let same = entry("k", TEXT, &text("v"));
    check(&[same.clone(), same], "its metadata have `k` twice");
    let alignment = |value: u32| entry("general.alignment", 4, &value.to_le_bytes());
    check(&[alignment(0)], "`general.alignment` is 0, expected a power of two");
    check(&[alignment(48)], "`general.alignment` is 48, expected a power of two");
    check(&[entry("general.alignment", TEXT, &text("32"))], "is no number of the type U32");
    let key = "comfy.gguf.orig_shape.a";
    let shape = |sizes: &[i32]| {
        let sizes = sizes.iter().flat_map(|size| size.to_le_bytes());
        entry(key, 9, &[list(5, sizes.clone().count() as u64 / 4), sizes.collect()].concat())
    };
    assert!(open(&file(&[shape(&[2, 2, 2])], &[a_tensor()])).is_ok());
    check(&[shape(&[2, 2])], "the tensor `a` is [2, 4], but was [2, 2] before it was converted");
    check(&[shape(&[-1, 8])], "comfy.gguf.orig_shape.a: a dimension of 4294967295");
    check(&[shape(&[1; 9])], "is no list of whole numbers, 8 at most");
    check(&[entry(key, TEXT, &text("x"))], "is no list of whole numbers");
}

/// A type that is not read is no fault of the file: whoever asks for the tensor is told.
#[test]
fn types_that_are_not_read_are_told_by_name() {
    for (number, name) in [(20, "IQ4_NL"), (77, "ggml's type 77"), (26, "I32")] {
        let odd = gguf::Tensor::new("odd", &[1, 32], number, vec![0; 128]);
        let weights = open(&file(&[], &[odd, a_tensor()])).unwrap();
        assert!(weights.get("a", (2, 4)).is_ok());
        let told = weights.get("odd", (1, 32)).unwrap_err().to_string();
        assert!(
            told.contains(&format!("weight `odd` is stored as {name}; this version")),
            "{told}"
        );
    }
}

/// Whatever bytes change, a file is refused or read: nothing panics, and no memory is asked for
/// that the file does not account for.
#[test]
fn changed_files_are_refused_or_read() {
    let mut seed = Random(std::process::id().into());
    let seed = seed.next() ^ std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random(seed | 1);
    let blocks = random_blocks(BlockType::Q4_K, 512, || random.next());
    let small = file(
        &[entry("general.architecture", TEXT, &text("pig")), entry("n", 4, &[1, 0, 0, 0])],
        &[a_tensor(), gguf::Tensor::new("b", &[2, 256], number(BlockType::Q4_K), blocks)],
    );
    let of_library = std::fs::read(reference(TYPES)).unwrap();
    let (mut refused, mut read) = (0, 0);
    for round in 0..800 {
        let mut bytes = if round % 2 == 0 { small.clone() } else { of_library.clone() };
        let header = bytes.len().min(2000);
        for _ in 0..=random.below(3) {
            let at = random.below(header);
            match random.below(4) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 if at + 8 <= bytes.len() => {
                    let odd = [0, 1, u64::MAX, 1 << 63, 1 << 31, 1 << 40, random.next()];
                    bytes[at..at + 8].copy_from_slice(&odd[random.below(7)].to_le_bytes());
                }
                _ => bytes.truncate(random.below(bytes.len()) + 1),
            }
            if bytes.len() < header {
                break;
            }
        }
        match open(&bytes) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
            Ok(weights) => {
                for name in ["a", "b", "q6_k.weight", "flat.weight"] {
                    if let Some(shape) = weights.shape(name).map(<[usize]>::to_vec) {
                        let _ = weights.get(name, shape);
                    }
                }
                read += 1;
            }
        }
    }
    assert!(refused > 100 && read > 50, "{refused} refused, {read} read, seed {seed}");
}
