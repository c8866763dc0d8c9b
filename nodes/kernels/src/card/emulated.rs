//! The kernels without a card: `cuda/` compiled by the processor's C++ compiler, with what
//! `tests/cuda/emulator.h` makes of a card, started as they are on one and held against f64; and,
//! where there is nvcc, compiled for cards.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use super::launch::{self, AttentionSizes, ConvSizes, Launch, Value, is_by_token, is_readable};
use crate::random::Random;
use crate::{BlockType, ConvInput, ConvWeights};

const TYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

/// The emulation, compiled once; none where there is no C++ compiler.
fn emulator() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| String::from("c++"));
        let program = Path::new(env!("OUT_DIR")).join("emulate");
        let output = Command::new(&compiler)
            .args(["-std=c++17", "-O2", "-Wall", "-Werror", "-Wno-unknown-pragmas"])
            .arg("-ffp-contract=off")
            .args(["-Icuda", "-Itests/cuda", "tests/cuda/emulate.cpp", "-o"])
            .arg(&program)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output();
        let output = output.ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(program)
    });
    if program.is_none() {
        println!("skipped: the kernels of cards are emulated where there is a C++ compiler (CXX)");
    }
    program.as_deref()
}

/// What `launch` does with memory of these contents (none: a null pointer) and a result of so many
/// bytes, its threads in an order that `seed` gives. The format is that which `emulate.cpp` reads.
fn start(
    program: &Path,
    launch: &Launch,
    operands: &[Option<&[u8]>],
    out: usize,
    seed: u64,
) -> Output {
    let mut job = Vec::new();
    let mut word = |bytes: &[u8]| job.extend_from_slice(bytes);
    word(&(launch.kernel.len() as u32).to_ne_bytes());
    word(launch.kernel.as_bytes());
    let numbers = launch.grid.into_iter().chain([launch.threads, 1, 1, launch.shared]);
    numbers.for_each(|number| word(&number.to_ne_bytes()));
    word(&seed.to_ne_bytes());
    word(&((operands.len() + 1 + launch.values.len()) as u32).to_ne_bytes());
    // The result holds no zeros beforehand: all of it must be written.
    let result = vec![0xa5; out];
    for bytes in operands.iter().map(|bytes| bytes.unwrap_or_default()).chain([&result[..]]) {
        word(&[1]);
        word(&(bytes.len() as u32).to_ne_bytes());
        word(bytes);
    }
    for value in &launch.values {
        let bytes = value_bytes(value);
        word(&[0]);
        word(&(bytes.len() as u32).to_ne_bytes());
        word(&bytes);
    }
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Where it fails at once nobody reads.
    let _ = child.stdin.take().unwrap().write_all(&job);
    child.wait_with_output().unwrap()
}

/// The result of a launch that does not fail.
fn result(
    program: &Path,
    launch: &Launch,
    operands: &[Option<&[u8]>],
    out: usize,
    seed: u64,
) -> Vec<u8> {
    let output = start(program, launch, operands, out, seed);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{launch:?}: {:?} {said}", output.status);
    output.stdout[output.stdout.len() - out..].to_vec()
}

/// A value as it lies in memory.
fn value_bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Int(value) => value.to_ne_bytes().to_vec(),
        Value::Long(value) => value.to_ne_bytes().to_vec(),
        Value::Float(value) => value.to_ne_bytes().to_vec(),
        Value::Attention(sizes) => raw(sizes),
        Value::Conv(sizes) => raw(sizes),
    }
}

fn raw<T>(sizes: &T) -> Vec<u8> {
    let bytes = std::ptr::from_ref(sizes).cast::<u8>();
    // SAFETY: structures of C without gaps: their sizes are the sums of their fields'.
    unsafe { std::slice::from_raw_parts(bytes, size_of::<T>()) }.to_vec()
}

/// The memory behind a tensor, from its first number on, and what it reads of it.
fn memory(tensor: &Tensor) -> Vec<u8> {
    let (dims, strides) = (tensor.dims(), tensor.stride());
    let last: usize = dims.iter().zip(strides).map(|(dim, stride)| (dim - 1) * stride).sum();
    let start = tensor.layout().start_offset();
    let (storage, _) = tensor.storage_and_layout();
    let candle_core::Storage::Cpu(numbers) = &*storage else { unreachable!("on the CPU") };
    let range = start..start + last + 1;
    match numbers {
        candle_core::CpuStorage::F32(data) => {
            data[range].iter().flat_map(|x| x.to_ne_bytes()).collect()
        }
        candle_core::CpuStorage::BF16(data) => {
            data[range].iter().flat_map(|x| x.to_ne_bytes()).collect()
        }
        candle_core::CpuStorage::F16(data) => {
            data[range].iter().flat_map(|x| x.to_ne_bytes()).collect()
        }
        candle_core::CpuStorage::U8(data) => data[range].to_vec(),
        other => panic!("{other:?}"),
    }
}

/// Numbers of a type as f64.
fn numbers(bytes: &[u8], dtype: DType) -> Vec<f64> {
    let of_two = |read: fn(u16) -> f64| -> Vec<f64> {
        bytes.as_chunks::<2>().0.iter().map(|x| read(u16::from_ne_bytes(*x))).collect()
    };
    match dtype {
        DType::BF16 => of_two(|bits| bf16::from_bits(bits).to_f64()),
        DType::F16 => of_two(|bits| f16::from_bits(bits).to_f64()),
        _ => {
            let floats = bytes.as_chunks::<4>().0.iter();
            floats.map(|x| f64::from(f32::from_ne_bytes(*x))).collect()
        }
    }
}

/// What rounding a number to a type changes at most, as a part of it.
fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 1.0 / 256.0,
        DType::F16 => 1.0 / 2048.0,
        _ => f64::from(f32::EPSILON),
    }
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// A tensor `[heads, length, d]` that lies by heads, by tokens, or in wider rows.
fn operand(random: &mut Random, [heads, length, d]: [usize; 3], dtype: DType) -> Tensor {
    match random.bits() % 3 {
        0 => random.tensor(&[heads, length, d], dtype),
        1 => random.tensor(&[length, heads, d], dtype).transpose(0, 1).unwrap(),
        _ => {
            let wide = random.tensor(&[length, heads, d + 8], dtype);
            wide.narrow(2, 8, d).unwrap().transpose(0, 1).unwrap()
        }
    }
}

/// A bias of f32 that broadcasts to the scores: none, one for all, one of each head, a mask of the
/// last keys, which leaves the first.
fn bias(random: &mut Random, [heads, n, m]: [usize; 3]) -> Option<Tensor> {
    match random.bits() % 4 {
        0 => None,
        1 => Some(random.tensor(&[1, n, m], DType::F32)),
        2 => Some(random.tensor(&[heads, n, m], DType::F32)),
        _ => {
            let open = 1 + random.bits() as usize % m;
            let mask = (0..m).map(|key| if key < open { 0.0 } else { f32::NEG_INFINITY });
            let mask: Vec<f32> = mask.collect();
            Some(Tensor::from_vec(mask, (1, 1, m), &Device::Cpu).unwrap())
        }
    }
}

/// The sums p·v of an attention in f64, and those of p·|v|, in the order `[heads, n, d]`.
fn expected(q: &Tensor, k: &Tensor, v: &Tensor, bias: &[f64], scale: f64) -> [Vec<f64>; 2] {
    let ((heads, n, d), m) = (q.dims3().unwrap(), k.dim(1).unwrap());
    let (q, k, v) = (flat(q), flat(k), flat(v));
    let (mut sums, mut sizes) = (Vec::new(), Vec::new());
    for row in 0..heads * n {
        let head = row / n;
        let key = |key: usize| &k[(head * m + key) * d..][..d];
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let query = &q[row * d..][..d];
        let scores: Vec<f64> =
            (0..m).map(|at| dot(query, key(at)) * scale + bias[row * m + at]).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
        let whole: f64 = weights.iter().sum();
        for column in 0..d {
            let values = (0..m).map(|at| v[(head * m + at) * d + column]);
            let terms = || weights.iter().zip(values.clone()).map(|(p, v)| p * v / whole);
            sums.push(terms().sum());
            sizes.push(terms().map(f64::abs).sum());
        }
    }
    [sums, sizes]
}

/// Every kernel of attention: each type, each width and those that are filled up, lengths around
/// the tiles', operands that lie in different ways, with and without a bias.
#[test]
fn attention() {
    let Some(program) = emulator() else { return };
    let mut random = Random::new(3);
    for case in 0..72 {
        let dtype = TYPES[case % 3];
        let d = [64, 128, 80, 72, 8, 120][case / 3 % 6];
        let [heads, n, m] = [1 + random.bits() as usize % 3, random.size(150), random.size(200)];
        let [q, k, v] = [n, m, m].map(|length| operand(&mut random, [heads, length, d], dtype));
        let added = bias(&mut random, [heads, n, m]);
        let added = added.map(|bias| bias.broadcast_as((heads, n, m)).unwrap());
        // Scores of several units, of either sign.
        let scale = if random.bits().is_multiple_of(8) { -0.4 } else { 0.7 };
        let layouts = [q.layout(), k.layout(), v.layout()];
        assert!(layouts.iter().all(|layout| is_readable(layout)));
        let sizes = AttentionSizes::new(layouts, added.as_ref().map(Tensor::layout), scale);
        let launch = launch::attention(dtype, heads, &sizes.unwrap()).unwrap();
        let what = format!("case {case}: {} {heads}×{n}×{m}×{d} {added:?}", launch.kernel);

        let held = [Some(&q), Some(&k), Some(&v), added.as_ref()].map(|t| t.map(memory));
        let operands = held.each_ref().map(|bytes| bytes.as_deref());
        let bytes = heads * n * d * dtype.size_in_bytes();
        let out = result(program, &launch, &operands, bytes, random.bits());
        let again = result(program, &launch, &operands, bytes, random.bits());
        assert_eq!(out, again, "{what}: another order of threads");
        let found = numbers(&out, dtype);

        let none = vec![0.0; heads * n * m];
        let [sums, sizes] = expected(&q, &k, &v, &added.as_ref().map_or(none, flat), scale);
        let by_token = is_by_token(q.layout());
        for (i, (sum, size)) in sums.iter().zip(&sizes).enumerate() {
            let (head, row, column) = (i / (n * d), i / d % n, i % d);
            let place = if by_token { (row * heads + head) * d + column } else { i };
            // Weights and results are rounded, once each; scores are sums in f32.
            let limit = size * (2.1 * rounding(dtype) + 6e-6) + 1e-6;
            let error = (found[place] - sum).abs();
            assert!(error <= limit, "{what} at {i}: {} for {sum}, {error:e}", found[place]);
        }
    }
}

/// A query all of whose keys are masked has no answer, and its neighbours have theirs.
#[test]
fn a_query_without_keys() {
    let Some(program) = emulator() else { return };
    let mut random = Random::new(4);
    for dtype in TYPES {
        let [q, k, v] = [2, 70, 70].map(|length| random.tensor(&[1, length, 64], dtype));
        let mask = [f32::NEG_INFINITY, 0.0].map(|x| [x; 70]).concat();
        let mask = Tensor::from_vec(mask, (1, 2, 70), &Device::Cpu).unwrap();
        let layouts = [q.layout(), k.layout(), v.layout()];
        let sizes = AttentionSizes::new(layouts, Some(mask.layout()), 1.0).unwrap();
        let launch = launch::attention(dtype, 1, &sizes).unwrap();
        let held = [&q, &k, &v, &mask].map(memory);
        let operands = held.each_ref().map(|bytes| Some(&bytes[..]));
        let out = result(program, &launch, &operands, 128 * dtype.size_in_bytes(), 1);
        let found = numbers(&out, dtype);
        assert!(found[..64].iter().all(|x| x.is_nan()), "{dtype:?}");
        assert!(found[64..].iter().all(|x| x.abs() < 1.0), "{dtype:?}");
    }
}

/// What the emulation is for: memory that is not the kernel's ends it.
#[test]
fn memory_beyond_a_buffer_is_not_touched() {
    let Some(program) = emulator() else { return };
    let mut random = Random::new(5);
    for dtype in TYPES {
        let [q, k, v] = [64, 64, 64].map(|length| random.tensor(&[1, length, 64], dtype));
        let layouts = [q.layout(), k.layout(), v.layout()];
        let sizes = AttentionSizes::new(layouts, None, 1.0).unwrap();
        let launch = launch::attention(dtype, 1, &sizes).unwrap();
        let [q, k, v] = [&q, &k, &v].map(memory);
        let bytes = q.len();
        let fails = |launch: &Launch, k: &[u8], out: usize| {
            let operands = [Some(&q[..]), Some(k), Some(&v[..]), None];
            !start(program, launch, &operands, out, 1).status.success()
        };
        assert!(!fails(&launch, &k, bytes));
        assert!(fails(&launch, &k[..bytes - 16], bytes), "keys, {dtype:?}");
        assert!(fails(&launch, &k, bytes - 16), "the result, {dtype:?}");
        let tight = Launch { shared: launch.shared - 32, ..launch.clone() };
        assert!(fails(&tight, &k, bytes), "shared memory, {dtype:?}");
    }
}

/// Convolutions of each type, with and without a past, frames of zeros, steps and a bias, channels
/// that fill no tile.
#[test]
fn convolution() {
    let Some(program) = emulator() else { return };
    let mut random = Random::new(8);
    for case in 0..45 {
        let dtype = TYPES[case % 3];
        let mut upto = |most: usize| 1 + random.bits() as usize % most;
        let at_once = 16 / dtype.size_in_bytes();
        let [cin, cout] = [at_once * upto(6), at_once * upto(18)];
        let kernel = [upto(3), 2 * upto(2) - 1, 2 * upto(2) - 1];
        let stride = [upto(2), upto(2), upto(2)];
        let [zeros, past, frames] = [2 * (upto(2) - 1), 2 * (upto(2) - 1), upto(3) + 2];
        let [h, w] = [kernel[1] + upto(8) - 1, kernel[2] + upto(8) - 1];
        let weight = random.tensor(&[cout, cin, kernel[0], kernel[1], kernel[2]], dtype);
        let bias = (case % 2 == 0).then(|| random.tensor(&[cout], dtype));
        let weights = ConvWeights::pack(&weight, bias.as_ref(), stride).unwrap();
        let new = random.tensor(&[frames, h, w, cin], dtype);
        let past = (past > 0).then(|| random.tensor(&[past, h, w, cin], dtype));
        let input = ConvInput { zeros, past: past.as_ref(), frames: &new };
        let all = Tensor::cat(&past.iter().chain([&new]).collect::<Vec<_>>(), 0).unwrap();
        let all = all.pad_with_zeros(0, zeros, 0).unwrap();
        let steps = |axis: usize| (all.dims()[axis] - kernel[axis]) / stride[axis] + 1;
        let size = [steps(0), steps(1), steps(2), cout];

        let launch = launch::conv(dtype, &ConvSizes::new(&input, &weights, size).unwrap()).unwrap();
        let wide_bias = bias.as_ref().map(|bias| bias.to_dtype(DType::F32).unwrap());
        let rows = weights.rows().unwrap().to_dtype(dtype).unwrap();
        let held = [past.as_ref(), Some(&new), Some(&rows), wide_bias.as_ref()];
        let held = held.map(|t| t.map(memory));
        let operands = held.each_ref().map(|bytes| bytes.as_deref());
        let bytes = size.iter().product::<usize>() * dtype.size_in_bytes();
        let found = result(program, &launch, &operands, bytes, random.bits());
        let found = numbers(&found, dtype);

        let (x, weight) = (flat(&all), flat(&weight));
        let bias = bias.as_ref().map_or_else(|| vec![0.0; cout], flat);
        for (i, found) in found.iter().enumerate() {
            let channel = i % cout;
            let pixel =
                [i / cout / size[2] / size[1], i / cout / size[2] % size[1], i / cout % size[2]];
            let (mut sum, mut terms) = (bias[channel], bias[channel].abs());
            for tap in 0..kernel.iter().product() {
                let at =
                    [tap / kernel[2] / kernel[1], tap / kernel[2] % kernel[1], tap % kernel[2]];
                let place: Vec<usize> = (0..3).map(|k| pixel[k] * stride[k] + at[k]).collect();
                let first = ((place[0] * h + place[1]) * w + place[2]) * cin;
                for c in 0..cin {
                    let factor =
                        weight[(channel * cin + c) * kernel.iter().product::<usize>() + tap];
                    sum += x[first + c] * factor;
                    terms += (x[first + c] * factor).abs();
                }
            }
            let limit = sum.abs() * 1.01 * rounding(dtype) + terms * 2e-6;
            let what =
                format!("case {case}: {} {kernel:?} {stride:?} {cin} {size:?}", launch.kernel);
            assert!((found - sum).abs() <= limit, "{what} at {i}: {found}, not {sum}");
        }
    }
}

/// The numbers of all bytes, in each type, whatever their count.
#[test]
fn e4m3() {
    let Some(program) = emulator() else { return };
    let bytes: Vec<u8> = (0..=255).cycle().take(5 * 256 + 3).collect();
    for (dtype, scale) in TYPES.into_iter().zip([1.0, 0.37, 2.5]) {
        let launch = launch::widen_e4m3(dtype, bytes.len(), scale).unwrap();
        let size = bytes.len() * dtype.size_in_bytes();
        let found = numbers(&result(program, &launch, &[Some(&bytes)], size, 7), dtype);
        for (byte, found) in bytes.iter().zip(found) {
            let exact = crate::e4m3(*byte) * scale;
            check_bits(found, exact, dtype, &byte);
        }
    }
}

/// Whether a number is one of f32 rounded to a type, to the bit.
#[track_caller]
fn check_bits(found: f64, exact: f32, dtype: DType, what: &dyn std::fmt::Debug) {
    let expected = match dtype {
        DType::BF16 => bf16::from_f32(exact).to_f64(),
        DType::F16 => f16::from_f32(exact).to_f64(),
        _ => f64::from(exact),
    };
    let is_equal = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
    assert!(is_equal, "{dtype:?} {what:?}: {found}, not {expected}");
}

/// Signed bytes, each times the scale of its row.
#[test]
fn int8() {
    let Some(program) = emulator() else { return };
    let mut random = Random::new(11);
    for case in 0..9 {
        let dtype = TYPES[case % 3];
        let [rows, inner] = [random.size(20), random.size(300)];
        let bytes: Vec<u8> = (0..rows * inner).map(|_| random.bits() as u8).collect();
        let scales: Vec<f32> = (0..rows).map(|_| random.number()).collect();
        let launch = launch::widen_int8(dtype, inner, bytes.len()).unwrap();
        let held: Vec<u8> = scales.iter().flat_map(|scale| scale.to_ne_bytes()).collect();
        let size = bytes.len() * dtype.size_in_bytes();
        let out = result(program, &launch, &[Some(&bytes), Some(&held)], size, random.bits());
        for (at, found) in numbers(&out, dtype).into_iter().enumerate() {
            let exact = f32::from(bytes[at].cast_signed()) * scales[at / inner];
            check_bits(found, exact, dtype, &(case, at));
        }
    }
}

/// Any bits at all are the numbers that the processor makes of them, in every form.
#[test]
fn blocks() {
    let Some(program) = emulator() else { return };
    let mut random = Random::new(8);
    for blocks in BlockType::ALL {
        for dtype in TYPES {
            let count = 1 + random.below(6000 / blocks.numbers());
            let bytes: Vec<u8> = (0..count * blocks.bytes()).map(|_| random.bits() as u8).collect();
            let mut expected = vec![0.0; count * blocks.numbers()];
            crate::widen_blocks(blocks, &bytes, &mut expected);
            let launch = launch::widen_blocks(dtype, blocks, expected.len()).unwrap();
            let size = expected.len() * dtype.size_in_bytes();
            let out = result(program, &launch, &[Some(&bytes)], size, random.bits());
            for (at, (found, exact)) in numbers(&out, dtype).into_iter().zip(expected).enumerate() {
                check_bits(found, exact, dtype, &(blocks, at));
            }
        }
    }
}

/// A few rows times a matrix in blocks.
#[test]
fn few_rows() {
    let Some(program) = emulator() else { return };
    let mut random = Random::new(9);
    for (case, blocks) in BlockType::ALL.into_iter().cycle().take(30).enumerate() {
        let dtype = TYPES[case / 10 % 3];
        let (rows, outs) = (1 + random.below(launch::FEW_ROWS), random.size(20));
        let inner = blocks.numbers() * (1 + random.below(1100 / blocks.numbers()));
        // Halves whose exponents are below 1.
        let length = outs * inner / blocks.numbers() * blocks.bytes();
        let bytes: Vec<u8> = (0..length).map(|_| random.bits() as u8 & 0xbb).collect();
        let mut weights = vec![0.0; outs * inner];
        crate::widen_blocks(blocks, &bytes, &mut weights);
        let x = random.tensor(&[rows, inner], dtype);
        let launch = launch::multiply_blocks(dtype, blocks, rows, [outs, inner]).unwrap();
        let size = rows * outs * dtype.size_in_bytes();
        let operands = [Some(&memory(&x)[..]), Some(&bytes)];
        let out = result(program, &launch, &operands, size, random.bits());
        let x = flat(&x);
        for (at, found) in numbers(&out, dtype).into_iter().enumerate() {
            let (x, weights) = (&x[at / outs * inner..], &weights[at % outs * inner..][..inner]);
            let terms = x.iter().zip(weights).map(|(x, weight)| x * f64::from(*weight));
            let (sum, size) = terms
                .fold((0.0, 0.0), |(sum, size): (f64, f64), term| (sum + term, size + term.abs()));
            // Halves of the result may lie below those that have an exponent, or above all.
            let limit = sum.abs() * 1.01 * rounding(dtype) + size * 2e-6 + 6e-8;
            let fits = dtype != DType::F16 || sum.abs() < 65_000.0;
            let what = format!("case {case}: {} {rows}×{outs}×{inner} at {at}", launch.kernel);
            assert!((found - sum).abs() <= limit || !fits, "{what}: {found}, not {sum}");
        }
    }
    let too_many = launch::FEW_ROWS + 1;
    assert_eq!(launch::multiply_blocks(DType::F32, BlockType::Q8_0, too_many, [8, 32]), None);
}

/// Groups are rotated as the processor rotates them, bit for bit.
#[test]
fn rotation() {
    let Some(program) = emulator() else { return };
    let mut random = Random::new(10);
    for group in [4, 16, 64, 256, 1024, 4096] {
        for dtype in TYPES {
            let count = group * random.size(1 + 9000 / group);
            let x = random.tensor(&[count / group, group], dtype);
            let launch = launch::rotate_groups(dtype, group, count).unwrap();
            let held = memory(&x);
            let out = result(program, &launch, &[Some(&held)], held.len(), random.bits());
            let expected = memory(&crate::rotate_groups(&x, group).unwrap());
            let what = format!("{dtype:?}, groups of {group}");
            assert_eq!(numbers(&out, dtype), numbers(&expected, dtype), "{what}");
        }
    }
    assert_eq!(launch::rotate_groups(DType::F32, 16_384, 16_384), None);
}

/// The norm over all heads of a row, then each pair turned.
#[test]
fn norm_and_rotation() {
    let Some(program) = emulator() else { return };
    let mut random = Random::new(6);
    for case in 0..18 {
        let dtype = TYPES[case % 3];
        let d = [128, 64, 2, 6, 80, 40][case / 3];
        let [n, heads] = [random.size(9), random.size(12)];
        let width = heads * d;
        let x = random.tensor(&[n, width], dtype);
        let weight = random.tensor(&[width], DType::F32);
        let [cos, sin] = [0, 1].map(|_| random.tensor(&[n, d / 2], DType::F32));
        let launch = launch::rms_norm_rope(dtype, n, [width, d / 2], 1e-6).unwrap();
        let held = [&x, &weight, &cos, &sin].map(memory);
        let operands = held.each_ref().map(|bytes| Some(&bytes[..]));
        let out = result(program, &launch, &operands, held[0].len(), random.bits());
        let found = numbers(&out, dtype);
        let (x, weight, cos, sin) = (flat(&x), flat(&weight), flat(&cos), flat(&sin));
        for row in 0..n {
            let numbers = &x[row * width..][..width];
            let mean = numbers.iter().map(|x| x * x).sum::<f64>() / width as f64;
            let normed = |at: usize| numbers[at] * weight[at] / (mean + 1e-6).sqrt();
            for at in 0..width {
                let angle = row * (d / 2) + at % d / 2;
                let (first, second) = (normed(at / 2 * 2), normed(at / 2 * 2 + 1));
                let expected = match at % 2 {
                    0 => first * cos[angle] - second * sin[angle],
                    _ => first * sin[angle] + second * cos[angle],
                };
                let limit = expected.abs() * 1.01 * rounding(dtype) + 2e-6;
                let found = found[row * width + at];
                let what = format!("{} {n}×{heads}×{d} at {row}, {at}", launch.kernel);
                assert!((found - expected).abs() <= limit, "{what}: {found}, not {expected}");
            }
        }
    }
}

/// Where there is a toolkit (`NVCC`, or nvcc on the path): its compiler takes the kernels, and the
/// assembler of three generations of cards keeps all their numbers in registers.
#[test]
fn a_toolkit_takes_the_kernels() {
    let nvcc = std::env::var("NVCC").unwrap_or_else(|_| String::from("nvcc"));
    let has_version = Command::new(&nvcc).arg("--version").output();
    let is_real = has_version.is_ok_and(|out| !out.stdout.is_empty());
    if !is_real {
        println!("skipped: the kernels are compiled for cards where there is nvcc (NVCC)");
        return;
    }
    for card in ["sm_80", "sm_89", "sm_90"] {
        let cubin = Path::new(env!("OUT_DIR")).join(format!("kernels-{card}.cubin"));
        let output = Command::new(&nvcc)
            .args(["-cubin", "-std=c++17", "-O3", "-Xptxas", "-v", "cuda/kernels.cu", "-o"])
            .arg(cubin)
            .arg(format!("-arch={card}"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let spills: Vec<&str> = said.lines().filter(|line| line.contains("spill stores")).collect();
        assert_eq!(spills.len(), 84, "{said}");
        for line in spills {
            assert!(line.contains(" 0 bytes spill stores, 0 bytes spill loads"), "{said}");
        }
    }
}
