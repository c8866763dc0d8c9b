//! The fast paths against the same formulas in f64, over random shapes, in every tier that this
//! processor has.

use candle_core::{DType, Device, Tensor};
use half::bf16;

use crate::e4m3::E4M3;
use crate::random::Random;
use crate::tier::tests::in_every_tier;
use crate::{
    BlockType, ConvInput, ConvWeights, Epilogue, GroupNorm, LinearEpilogue, PackedMatrix,
    Precision, WeightScale,
};

fn f64s(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// What a product in a precision sees of a tensor.
fn seen(tensor: &Tensor, precision: Precision) -> Vec<f64> {
    match precision {
        Precision::F32 => f64s(tensor),
        _ => f64s(&tensor.to_dtype(DType::BF16).unwrap()),
    }
}

/// Asserts that each number is near what is expected: within `limit` of its size, or of 1 where it
/// is smaller; a result of bf16 may be rounded besides.
#[track_caller]
fn near(what: &str, found: &Tensor, expected: &[f64], limit: f64) {
    let limit = limit + if found.dtype() == DType::BF16 { 1.0 / 256.0 } else { 0.0 };
    let found = f64s(found);
    assert_eq!(found.len(), expected.len(), "{what}");
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        let gap = (found - expected).abs() / expected.abs().max(1.0);
        assert!(gap <= limit, "{what}, number {place}: {found} for {expected}, off by {gap:.1e}");
    }
}

const TYPES: [DType; 2] = [DType::F32, DType::BF16];
const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

#[test]
fn products() {
    let mut random = Random::new(101);
    let mut sizes = vec![[1, 1, 1], [12, 2, 32], [13, 513, 33], [1, 1030, 64], [1600, 3, 5]];
    sizes.extend((0..12).map(|_| [random.size(80), random.size(700), random.size(300)]));
    for [rows, inner, out] in sizes {
        let dtype = TYPES[random.bits() as usize % 2];
        let x = random.tensor(&[rows, inner], dtype);
        let weight = random.tensor(&[out, inner], dtype);
        let bytes: Vec<u8> = (0..out * inner).map(|_| random.bits() as u8 & 0xbf).collect();
        let scaled: Vec<f64> =
            bytes.iter().map(|byte| f64::from(E4M3[usize::from(*byte)]) * 0.37).collect();
        let row_scales = random.tensor(&[out], DType::F32).affine(0.02, 0.0).unwrap();
        let scales64 = f64s(&row_scales);
        let signed = bytes.iter().enumerate();
        let signed: Vec<f64> =
            signed.map(|(i, byte)| f64::from(*byte as i8) * scales64[i / inner]).collect();
        let by_row = scaled.iter().enumerate();
        let by_row: Vec<f64> = by_row.map(|(i, w)| w / 0.37 * scales64[i / inner]).collect();
        let row_scale = WeightScale::Rows(row_scales.to_vec1().unwrap().into());
        let bytes = Tensor::from_vec(bytes, (out, inner), &Device::Cpu).unwrap();
        let bias = random.tensor(&[out], dtype);
        let beside = random.tensor(&[rows, out], dtype);
        let gates = [random.tensor(&[out], DType::F32), random.tensor(&[rows, out], DType::F32)];
        // The sums of each precision and matrix: those of every tier.
        let all_sums = PRECISIONS.map(|precision| {
            let x = seen(&x, precision);
            [&seen(&weight, precision), &scaled, &by_row, &signed].map(|weight| -> Vec<f64> {
                let of_row = |x: &[f64]| -> Vec<f64> {
                    let rows = weight.chunks_exact(inner);
                    rows.map(|weight| x.iter().zip(weight).map(|(x, w)| x * w).sum()).collect()
                };
                x.chunks_exact(inner).flat_map(of_row).collect()
            })
        });
        in_every_tier(|tier| {
            for (precision, sums) in PRECISIONS.into_iter().zip(&all_sums) {
                let what = format!("{tier:?} {precision:?} {dtype:?} {rows}×{inner}×{out}");
                let packed = PackedMatrix::pack(&weight, precision).unwrap();
                let narrow = |scale| PackedMatrix::pack_e4m3(&bytes, scale, precision).unwrap();
                let of_rows = narrow(row_scale.clone());
                let narrow = narrow(WeightScale::All(0.37));
                let whole = PackedMatrix::pack_int8(&bytes, &row_scales, None, precision).unwrap();
                let matrices = [&packed, &narrow, &of_rows, &whole];
                for (packed, sums) in matrices.into_iter().zip(sums) {
                    let largest = inner as f64 / 8.0; // of the sums' rounding errors
                    let limit = 3e-6 * largest.max(1.0);
                    let run = |bias: Option<&Tensor>, epilogue| {
                        crate::linear_packed(&x, packed, bias, epilogue).unwrap()
                    };
                    near(&what, &run(None, LinearEpilogue::None), sums, limit);
                    let bias64 = f64s(&bias);
                    let biased: Vec<f64> =
                        sums.iter().enumerate().map(|(i, y)| y + bias64[i % out]).collect();
                    near(&what, &run(Some(&bias), LinearEpilogue::None), &biased, limit);
                    let expected: Vec<f64> = biased.iter().map(|y| gelu_tanh(*y)).collect();
                    let found = run(Some(&bias), LinearEpilogue::GeluTanh);
                    near(&what, &found, &expected, limit);
                    let other = f64s(&beside);
                    let expected: Vec<f64> =
                        biased.iter().zip(&other).map(|(y, to)| y + to).collect();
                    let found = run(Some(&bias), LinearEpilogue::Add(&beside));
                    near(&what, &found, &expected, limit);
                    let expected: Vec<f64> =
                        biased.iter().zip(&other).map(|(y, by)| y * by).collect();
                    let found = run(Some(&bias), LinearEpilogue::Times(&beside));
                    near(&what, &found, &expected, limit);
                    for gate in &gates {
                        let gate64 = f64s(gate);
                        let expected: Vec<f64> = (0..rows * out)
                            .map(|i| other[i] + biased[i] * gate64[i % gate64.len()])
                            .collect();
                        let epilogue = LinearEpilogue::GateAdd { to: &beside, gate };
                        near(&what, &run(Some(&bias), epilogue), &expected, limit);
                    }
                }
            }
        });
    }
}

/// Matrices in blocks, of every form: the weights are those of the blocks, rounded to bf16 where
/// that is what is multiplied. One row, a few, and many.
#[test]
fn products_of_blocks() {
    let mut random = Random::new(107);
    for form in BlockType::ALL {
        let [rows, blocks, out] =
            [random.size(40), 1 + random.bits() as usize % 5, random.size(90)];
        let inner = blocks * form.numbers();
        // No half that is infinite or no number, and none that is large.
        let count = out * blocks * form.bytes();
        let bytes: Vec<u8> = (0..count).map(|_| random.bits() as u8 & 0xab).collect();
        let mut wide = vec![0.0; out * inner];
        crate::widen_blocks(form, &bytes, &mut wide);
        // Brought to weights near 1, so that sums are.
        let largest = wide.iter().fold(0f32, |a, b| a.max(b.abs()));
        let wide = Tensor::from_vec(wide, (out, inner), &Device::Cpu).unwrap();
        let bytes = Tensor::from_vec(bytes, (out, blocks * form.bytes()), &Device::Cpu).unwrap();
        let dtype = TYPES[random.bits() as usize % 2];
        let x = random.tensor(&[rows, inner], dtype);
        in_every_tier(|tier| {
            for precision in PRECISIONS {
                let what =
                    format!("{tier:?} {form:?} {precision:?} {dtype:?} {rows}×{inner}×{out}");
                let packed = PackedMatrix::pack_blocks(&bytes, form, precision).unwrap();
                let (x_seen, weight) = (seen(&x, precision), seen(&wide, precision));
                let sum = |row: usize, column: usize| -> f64 {
                    let x = &x_seen[row * inner..][..inner];
                    x.iter().zip(&weight[column * inner..]).map(|(x, w)| x * w).sum()
                };
                let scale = f64::from(largest).max(1e-30);
                let sums = (0..rows * out).map(|i| sum(i / out, i % out) / scale);
                let sums: Vec<f64> = sums.collect();
                let found = crate::linear_packed(&x, &packed, None, LinearEpilogue::None).unwrap();
                let found = (found.to_dtype(DType::F64).unwrap() / scale).unwrap();
                let rounding = if dtype == DType::BF16 { 1.0 / 256.0 } else { 0.0 };
                near(&what, &found, &sums, 3e-6 * (inner as f64 / 8.0) + rounding);
            }
        });
    }
}

/// A matrix that was rotated before it was rounded multiplies as the one before.
#[test]
fn products_of_rotated_numbers() {
    let mut random = Random::new(108);
    let (rows, inner, out) = (7, 192, 40);
    let (x, bytes) =
        (random.tensor(&[rows, inner], DType::F32), random.tensor(&[out, inner], DType::F32));
    let bytes: Vec<u8> = f64s(&bytes).iter().map(|x| (x * 127.0) as i8 as u8).collect();
    let bytes = Tensor::from_vec(bytes, (out, inner), &Device::Cpu).unwrap();
    let scales = random.tensor(&[out], DType::F32);
    let turned = f64s(&crate::rotate_groups(&x, 64).unwrap());
    let whole = f64s(&crate::composite::signed_bytes(&bytes).unwrap());
    let scales64 = f64s(&scales);
    let sum = |row: usize, column: usize| -> f64 {
        let (x, w) = (&turned[row * inner..][..inner], &whole[column * inner..]);
        x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() * scales64[column]
    };
    let expected: Vec<f64> = (0..rows * out).map(|i| sum(i / out, i % out)).collect();
    in_every_tier(|tier| {
        let packed = PackedMatrix::pack_int8(&bytes, &scales, Some(64), Precision::F32).unwrap();
        let found = crate::linear_packed(&x, &packed, None, LinearEpilogue::None).unwrap();
        near(&format!("{tier:?}"), &found, &expected, 1e-4);
    });
}

#[test]
fn products_of_nothing_are_empty_or_zeros() {
    let empty = Tensor::zeros((0, 7), DType::BF16, &Device::Cpu).unwrap();
    let weight = Tensor::ones((5, 7), DType::BF16, &Device::Cpu).unwrap();
    in_every_tier(|_| {
        let packed = PackedMatrix::pack(&weight, Precision::Bf16).unwrap();
        let y = crate::linear_packed(&empty, &packed, None, LinearEpilogue::None).unwrap();
        assert_eq!((y.dims(), y.dtype()), (&[0, 5][..], DType::BF16));
        assert_eq!(crate::linear(&empty, &weight, None).unwrap().dims(), [0, 5]);
    });
}

#[test]
fn packed_matrices_refuse_what_does_not_fit() {
    let mut random = Random::new(102);
    let x = random.tensor(&[3, 6], DType::F32);
    let packed = PackedMatrix::pack(&random.tensor(&[4, 6], DType::F32), Precision::F32).unwrap();
    assert_eq!((packed.dims(), packed.bytes()), ([4, 6], 32 * 6 * 4));
    let run = |x: &Tensor, epilogue| crate::linear_packed(x, &packed, None, epilogue);
    assert!(run(&random.tensor(&[3, 5], DType::F32), LinearEpilogue::None).is_err());
    assert!(run(&x, LinearEpilogue::Add(&x)).is_err());
    assert!(run(&x.to_dtype(DType::F64).unwrap(), LinearEpilogue::None).is_err());
    assert!(PackedMatrix::pack(&x.to_dtype(DType::U8).unwrap(), Precision::F32).is_err());
    assert!(PackedMatrix::pack_e4m3(&x, WeightScale::All(1.0), Precision::F32).is_err());
}

#[test]
fn attentions() {
    let mut random = Random::new(103);
    let mut sizes = vec![[1, 1, 1, 1], [3, 97, 513, 5], [2, 30, 1100, 32]];
    sizes.extend(
        (0..8).map(|_| [random.size(4), random.size(120), random.size(600), random.size(70)]),
    );
    for [heads, n, m, d] in sizes {
        let dtype = TYPES[random.bits() as usize % 2];
        // As [tokens, heads, width], turned: the layout of a transformer.
        let mut turned =
            |tokens: usize| random.tensor(&[tokens, heads, d], dtype).transpose(0, 1).unwrap();
        let [q, k, v] = [turned(n), turned(m), turned(m)];
        let bias = random.tensor(&[heads, n, m], DType::F32);
        let scale = 1.5 / (d as f64).sqrt();
        let [q64, k64, v64] = [&q, &k, &v].map(|t| f64s(&t.contiguous().unwrap()));
        let bias64 = f64s(&bias);
        let of_keys = random.tensor(&[1, 1, m], DType::F32);
        let of_keys64 = f64s(&of_keys);
        let expected = |bias: &dyn Fn(usize, usize, usize) -> f64| -> Vec<f64> {
            let mut out = Vec::new();
            for (head, query) in (0..heads).flat_map(|head| (0..n).map(move |n| (head, n))) {
                let q = &q64[(head * n + query) * d..][..d];
                let score = |key: usize| {
                    let k = &k64[(head * m + key) * d..][..d];
                    let product: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                    product * scale + bias(head, query, key)
                };
                let scores: Vec<f64> = (0..m).map(score).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
                let sum: f64 = weights.iter().sum();
                out.extend((0..d).map(|channel| {
                    let value = |key: usize| v64[(head * m + key) * d + channel];
                    (0..m).map(|key| weights[key] * value(key)).sum::<f64>() / sum
                }));
            }
            out
        };
        let plain = expected(&|_, _, _| 0.0);
        let biased = expected(&|head, query, key| bias64[(head * n + query) * m + key]);
        let biased_by_key = expected(&|_, _, key| of_keys64[key]);
        // Weights are rounded to bf16 before they meet the values.
        let limit = if dtype == DType::BF16 { 4e-3 } else { 5e-6 };
        in_every_tier(|tier| {
            let what = format!("{tier:?} {dtype:?} {heads} heads, {n} of {m} × {d}");
            let found = crate::attention(&q, &k, &v, scale).unwrap();
            assert_eq!(found.dtype(), dtype);
            near(&what, &found.contiguous().unwrap(), &plain, limit);
            let found = crate::attention_with_bias(&q, &k, &v, &bias, scale).unwrap();
            near(&what, &found.contiguous().unwrap(), &biased, limit);
            let found = crate::attention_with_bias(&q, &k, &v, &of_keys, scale).unwrap();
            near(&what, &found.contiguous().unwrap(), &biased_by_key, limit);
        });
    }
}

/// One row of a formula over rows.
type RowFormula<'a> = &'a dyn Fn(usize, &[f64]) -> Vec<f64>;

fn by_rows(x: &[f64], width: usize, formula: RowFormula<'_>) -> Vec<f64> {
    x.chunks(width).enumerate().flat_map(|(row, x)| formula(row, x)).collect()
}

fn standardized(x: &[f64]) -> Vec<f64> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
    x.iter().map(|x| (x - mean) / (variance + 1e-6).sqrt()).collect()
}

#[test]
fn functions_of_rows_and_numbers() {
    let mut random = Random::new(104);
    for _ in 0..12 {
        let (rows, half) = (random.size(50), random.size(200));
        let width = 2 * half;
        for dtype in TYPES {
            let x = random.tensor(&[rows, width], dtype).affine(3.0, 0.25).unwrap();
            let y = random.tensor(&[rows, width], dtype);
            let own_type = TYPES[random.bits() as usize % 2];
            let own = random.tensor(&[width], own_type);
            let angles = random.tensor(&[rows, half], DType::F32).affine(9.0, 0.0).unwrap();
            let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
            let [x64, y64, own64, cos64, sin64] = [&x, &y, &own, &cos, &sin].map(f64s);
            let each = |formula: &dyn Fn(f64, usize) -> f64| -> Vec<f64> {
                x64.iter().enumerate().map(|(i, x)| formula(*x, i)).collect()
            };
            let layer_norm = by_rows(&x64, width, &|_, x| {
                let y = standardized(x);
                y.iter().zip(&own64).map(|(y, w)| y * w + w).collect()
            });
            let rms_norm = by_rows(&x64, width, &|_, x| {
                let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
                x.iter().zip(&own64).map(|(x, w)| x / (mean + 1e-6).sqrt() * w).collect()
            });
            let modulate = by_rows(&x64, width, &|row, x| {
                let scale = &y64[row * width..][..width];
                let pairs = standardized(x).into_iter().zip(scale).zip(&own64);
                pairs.map(|((x, scale), shift)| x * (1.0 + scale) + shift).collect()
            });
            let softmax = by_rows(&x64, width, &|_, x| {
                let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = x.iter().map(|x| (x - top).exp()).sum();
                x.iter().map(|x| (x - top).exp() / sum).collect()
            });
            let turn_row = |row: usize, x: &[f64]| -> Vec<f64> {
                let pairs = x.chunks(2).enumerate();
                let turn = pairs.flat_map(|(i, pair)| {
                    let (c, s) = (cos64[row * half + i], sin64[row * half + i]);
                    [pair[0] * c - pair[1] * s, pair[0] * s + pair[1] * c]
                });
                turn.collect()
            };
            let rope = by_rows(&x64, width, &turn_row);
            let both = by_rows(&rms_norm, width, &turn_row);
            let gated = each(&|x, i| x + y64[i] * own64[i % width]);
            let sum = each(&|x, i| x + y64[i]);
            let product = each(&|x, i| x * y64[i]);
            let gelu = each(&|x, _| 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())));
            let tanh = each(&|x, _| gelu_tanh(x));
            let silu = each(&|x, _| x / (1.0 + (-x).exp()));
            in_every_tier(|tier| {
                let tokens = x.unsqueeze(1).unwrap();
                let found = [
                    (
                        "layer_norm",
                        crate::layer_norm(&x, Some(&own), Some(&own), 1e-6),
                        &layer_norm,
                    ),
                    ("rms_norm", crate::rms_norm(&x, &own, 1e-6), &rms_norm),
                    ("modulate", crate::modulate(&x, &own, &y, 1e-6), &modulate),
                    ("softmax_last", crate::softmax_last(&x), &softmax),
                    ("rope", crate::rope_interleaved(&tokens, &cos, &sin), &rope),
                    ("rms_norm_rope", crate::rms_norm_rope(&x, &own, 1e-6, 1, (&cos, &sin)), &both),
                    ("gate_add", crate::gate_add(&x, &y, &own), &gated),
                    ("add", crate::add(&x, &y), &sum),
                    ("multiply", crate::multiply(&x, &y), &product),
                    ("gelu", crate::gelu(&x), &gelu),
                    ("gelu_tanh", crate::gelu_tanh(&x), &tanh),
                    ("silu", crate::silu(&x), &silu),
                ];
                for (name, found, expected) in found {
                    let found = found.unwrap();
                    assert_eq!(found.dtype(), dtype, "{name}");
                    near(&format!("{name} {tier:?} {rows}×{width}"), &found, expected, 2e-5);
                }
            });
        }
    }
}

/// What is rounded is rounded once: a row of bf16 gives the nearest bf16 of its result in f32.
#[test]
fn rows_of_bf16_are_rounded_once() {
    let mut random = Random::new(105);
    let x = random.tensor(&[9, 77], DType::BF16);
    let wide = x.to_dtype(DType::F32).unwrap();
    in_every_tier(|_| {
        let found = crate::gelu_tanh(&x).unwrap();
        let expected = crate::gelu_tanh(&wide).unwrap().to_dtype(DType::BF16).unwrap();
        let bits = |t: &Tensor| -> Vec<bf16> { t.flatten_all().unwrap().to_vec1().unwrap() };
        assert_eq!(bits(&found), bits(&expected));
    });
}

/// Convolutions with many channels.
#[test]
fn convolutions() {
    let mut random = Random::new(106);
    for _ in 0..6 {
        let [t, h, w] = [1, 2, 3].map(|most| most + random.bits() as usize % 9);
        let (cin, cout) = (random.size(40), 1 + random.bits() as usize % 150);
        let kernel = [1, 1 + h.min(2), w.min(3)];
        let weight = random.tensor(&[cout, cin, kernel[0], kernel[1], kernel[2]], DType::F32);
        let (x, bias) = (
            random.tensor(&[t, h + 1, w + 2, cin], DType::F32),
            random.tensor(&[cout], DType::F32),
        );
        let (x64, weight64, bias64) = (f64s(&x), f64s(&weight), f64s(&bias));
        let (high, wide) = (h + 2 - kernel[1], w + 3 - kernel[2]);
        let sum = |frame: usize, y: usize, x: usize, channel: usize| {
            let mut sum = bias64[channel];
            for (dy, dx) in (0..kernel[1]).flat_map(|dy| (0..kernel[2]).map(move |dx| (dy, dx))) {
                for c in 0..cin {
                    let place = ((frame * (h + 1) + y + dy) * (w + 2) + x + dx) * cin + c;
                    let of_weight = ((channel * cin + c) * kernel[1] + dy) * kernel[2] + dx;
                    sum += x64[place] * weight64[of_weight];
                }
            }
            sum
        };
        let places = (0..t * high * wide * cout).map(|i| {
            let (pixel, channel) = (i / cout, i % cout);
            sum(pixel / (high * wide), pixel / wide % high, pixel % wide, channel)
        });
        let expected: Vec<f64> = places.collect();
        let packed = crate::ConvWeights::pack(&weight, Some(&bias), [1, 1, 1]).unwrap();
        in_every_tier(|tier| {
            let found = crate::conv(crate::ConvInput::new(&x), &packed, None).unwrap();
            near(&format!("{tier:?} {t}×{h}×{w}, {cin} to {cout}"), &found, &expected, 2e-5);
        });
    }
}

#[test]
fn group_norms() {
    let mut random = Random::new(107);
    for _ in 0..12 {
        let (groups, width) = (random.size(9), random.size(40));
        let [t, h, w, c] = [random.size(3), random.size(9), random.size(50), groups * width];
        let x = (random.tensor(&[t, h, w, c], DType::F32) + 5.0).unwrap();
        let [weight, bias] = [(); 2].map(|()| random.tensor(&[c], DType::F32));
        let norm = crate::GroupNorm { weight: &weight, bias: &bias, groups, eps: 1e-6 };
        let (values, weights, biases) = (f64s(&x), f64s(&weight), f64s(&bias));
        let mut expected = vec![0.0; values.len()];
        for frame in 0..t {
            for group in 0..groups {
                let place = |pixel: usize, channel: usize| {
                    (frame * h * w + pixel) * c + group * width + channel
                };
                let all = (0..h * w).flat_map(|pixel| (0..width).map(move |ch| (pixel, ch)));
                let count = (h * w * width) as f64;
                let mean = all.clone().map(|(p, ch)| values[place(p, ch)]).sum::<f64>() / count;
                let square = |(p, ch): (usize, usize)| (values[place(p, ch)] - mean).powi(2);
                let variance = all.clone().map(square).sum::<f64>() / count;
                for (p, ch) in all {
                    let channel = group * width + ch;
                    let y = (values[place(p, ch)] - mean) / (variance + 1e-6).sqrt();
                    expected[place(p, ch)] = y * weights[channel] + biases[channel];
                }
            }
        }
        let silu: Vec<f64> = expected.iter().map(|y| y / (1.0 + (-y).exp())).collect();
        in_every_tier(|tier| {
            let what = format!("{tier:?} {t}×{h}×{w}×{c}, {groups} groups");
            // Where a group is nearly constant its rounding is enlarged by 1/√eps.
            let limit = if h * w * width > 2 { 2e-5 } else { 2e-3 };
            near(&what, &crate::group_norm(&x, &norm).unwrap(), &expected, limit);
            near(&what, &crate::group_norm_silu(&x, &norm, [0; 4]).unwrap(), &silu, limit);
        });
    }
}

/// One convolution of a sum, with its operands in f64.
struct Convolved {
    zeros: usize,
    past: Option<Tensor>,
    frames: Tensor,
    weight: Tensor,
    stride: [usize; 3],
}

impl Convolved {
    /// The sum at `[frame, row, column, channel]` of the result.
    fn sum(&self, at: [usize; 4]) -> f64 {
        let (cout, cin, kt, kh, kw) = self.weight.dims5().unwrap();
        let (_, h, w, _) = self.frames.dims4().unwrap();
        let mut numbers = vec![0.0; self.zeros * h * w * cin];
        numbers.extend(self.past.iter().flat_map(f64s));
        numbers.extend(f64s(&self.frames));
        let (weight, channel) = (f64s(&self.weight), at[3]);
        assert!(channel < cout);
        let mut sum = 0.0;
        for tap in 0..kt * kh * kw {
            let offset = [tap / (kh * kw), tap / kw % kh, tap % kw];
            let [t, y, x]: [usize; 3] =
                std::array::from_fn(|axis| at[axis] * self.stride[axis] + offset[axis]);
            for c in 0..cin {
                let input = numbers[((t * h + y) * w + x) * cin + c];
                sum += input * weight[(channel * cin + c) * kt * kh * kw + tap];
            }
        }
        sum
    }
}

/// Convolutions of f32 and of bf16, with their epilogue, at some numbers of each result.
#[test]
fn convolutions_of_both_types_with_past_and_epilogue() {
    let mut random = Random::new(107);
    for _ in 0..40 {
        let pick = |random: &mut Random, of: &[usize]| of[random.bits() as usize % of.len()];
        let kernel = [pick(&mut random, &[1, 3]), 0, 0].map(|_| pick(&mut random, &[1, 3, 3]));
        let stride = [(); 3].map(|()| pick(&mut random, &[1, 1, 2]));
        let (zeros, past) = (pick(&mut random, &[0, 1, 2]), pick(&mut random, &[0, 0, 1, 2]));
        let (cin, cout) = (random.size(70), random.size(70));
        let [t, h, w] = [3, 9, 40].map(|most| random.size(most));
        let [h, w] = [h + kernel[1], w + kernel[2]];
        let t = t + kernel[0].saturating_sub(zeros + past);
        let size: [usize; 3] = std::array::from_fn(|axis| {
            ([zeros + past + t, h, w][axis] - kernel[axis]) / stride[axis] + 1
        });
        let padding = [(); 4].map(|()| pick(&mut random, &[0, 0, 1]));
        let [top, bottom, left, right] = padding;
        let whole = [size[0], top + size[1] + bottom, left + size[2] + right, cout];
        for dtype in TYPES {
            let weight = random.tensor(&[cout, cin, kernel[0], kernel[1], kernel[2]], dtype);
            let bias = random.tensor(&[cout], dtype);
            let frames = random.tensor(&[t, h, w, cin], dtype);
            let past = (past > 0).then(|| random.tensor(&[past, h, w, cin], dtype));
            let residual = random.tensor(&whole, dtype);
            let one = Convolved { zeros, past, frames, weight, stride };
            let places: Vec<[usize; 4]> = (0..20)
                .map(|_| [size[0], size[1], size[2], cout].map(|n| random.bits() as usize % n))
                .collect();
            in_every_tier(|tier| {
                let weights = ConvWeights::pack(&one.weight, Some(&bias), stride).unwrap();
                let input = ConvInput { zeros, past: one.past.as_ref(), frames: &one.frames };
                let activation = crate::Activation::LeakyRelu(0.25);
                let epilogue =
                    Epilogue { activation, scale: 0.5, residual: Some(&residual), padding };
                let found = crate::conv_sum(&[(input, &weights)], &epilogue).unwrap();
                assert_eq!((found.dims(), found.dtype()), (&whole[..], dtype));
                for &[frame, row, column, channel] in &places {
                    let sum = one.sum([frame, row, column, channel]) + f64s(&bias)[channel];
                    let place = (frame, top + row, left + column, channel);
                    let of = |x: &Tensor| {
                        x.get(place.0)?.get(place.1)?.get(place.2)?.narrow(0, place.3, 1)
                    };
                    let added = f64s(&of(&residual).unwrap())[0];
                    let expected = if sum > 0.0 { sum } else { 0.25 * sum } * 0.5 + added;
                    let what = format!(
                        "{tier:?} {dtype:?} {cin}→{cout} {kernel:?} {stride:?} {zeros} {whole:?}"
                    );
                    let terms = (cin * kernel.iter().product::<usize>()) as f64;
                    near(&what, &of(&found).unwrap(), &[expected], 3e-6 * (terms / 8.0).max(1.0));
                }
                if padding[0] > 0 {
                    assert!(f64s(&found.get(0).unwrap().get(0).unwrap()).iter().all(|y| *y == 0.0));
                }
            });
        }
    }
}

/// Kernels of 3×3 that take fewer products, as Winograd has them: sums of one part or two over one
/// frame or three, of planes that are whole tiles or not.
#[test]
fn convolutions_with_transformed_weights() {
    let mut random = Random::new(109);
    for _ in 0..12 {
        let (kt, cout) = ([1, 3][random.bits() as usize % 2], 33 + random.size(70));
        let zeros = random.bits() as usize % kt;
        let [t, h, w] = [2 + kt - zeros, 11, 30].map(|most| random.size(most).max(kt - zeros));
        let bias = random.tensor(&[cout], DType::F32);
        let parts: Vec<Convolved> = (0..random.size(2))
            .map(|_| {
                let cin = 16 + random.size(40);
                let weight = random.tensor(&[cout, cin, kt, 3, 3], DType::F32);
                let frames = random.tensor(&[t, h + 2, w + 2, cin], DType::F32);
                Convolved { zeros, past: None, frames, weight, stride: [1; 3] }
            })
            .collect();
        let size = [zeros + t + 1 - kt, h, w, cout];
        let terms: usize = parts.iter().map(|part| part.weight.elem_count() / cout).sum();
        let places: Vec<[usize; 4]> =
            (0..40).map(|_| size.map(|n| random.bits() as usize % n)).collect();
        let sum = |at: &[usize; 4]| parts.iter().map(|part| part.sum(*at)).sum::<f64>();
        let bias64 = f64s(&bias);
        let expected: Vec<f64> = places.iter().map(|at| sum(at) + bias64[at[3]]).collect();
        in_every_tier(|tier| {
            let weights = parts.iter().enumerate().map(|(index, part)| {
                let bias = (index == 0).then_some(&bias);
                ConvWeights::pack(&part.weight, bias, part.stride).unwrap()
            });
            let weights: Vec<ConvWeights> = weights.collect();
            assert!(weights.iter().all(|weights| weights.packed().unwrap().winograd.is_some()));
            let inputs =
                parts.iter().map(|part| ConvInput { zeros, past: None, frames: &part.frames });
            let inputs: Vec<_> = inputs.zip(&weights).collect();
            let found = crate::conv_sum(&inputs, &Epilogue::default()).unwrap();
            assert_eq!(found.dims(), size);
            for (&[frame, row, column, channel], expected) in places.iter().zip(&expected) {
                let pixel = found.get(frame).unwrap().get(row).unwrap().get(column).unwrap();
                let what = format!("{tier:?} {size:?}, {kt} frames, {} parts", parts.len());
                let pixel = pixel.narrow(0, channel, 1).unwrap();
                near(&what, &pixel, &[*expected], 3e-6 * terms as f64 / 8.0);
            }
        });
    }
}

/// What stands between convolutions computes in f32 and rounds once: in bf16 the same numbers as
/// of the same input in f32, rounded.
#[test]
fn planes_of_bf16_are_those_of_f32_rounded() {
    let mut random = Random::new(108);
    for _ in 0..12 {
        let c = 2 * random.size(60);
        let [t, h, w] = [3, 7, 9].map(|most| random.size(most));
        let narrow = random.tensor(&[t, h, w, c], DType::BF16);
        let wide = narrow.to_dtype(DType::F32).unwrap();
        let [gamma, bias] = [(); 2].map(|()| random.tensor(&[c], DType::BF16));
        let [gamma32, bias32] = [&gamma, &bias].map(|x| x.to_dtype(DType::F32).unwrap());
        let norm = GroupNorm { weight: &gamma, bias: &bias, groups: 2, eps: 1e-6 };
        let norm32 = GroupNorm { weight: &gamma32, bias: &bias32, ..norm };
        let padding = [1, 0, 2, 1];
        in_every_tier(|tier| {
            let pairs = [
                (crate::channel_norm(&narrow, &gamma), crate::channel_norm(&wide, &gamma32)),
                (
                    crate::channel_norm_silu(&narrow, &gamma, padding),
                    crate::channel_norm_silu(&wide, &gamma32, padding),
                ),
                (crate::group_norm(&narrow, &norm), crate::group_norm(&wide, &norm32)),
                (
                    crate::group_norm_silu(&narrow, &norm, padding),
                    crate::group_norm_silu(&wide, &norm32, padding),
                ),
                (crate::pad_plane(&narrow, padding), crate::pad_plane(&wide, padding)),
                (
                    crate::upsample_nearest2(&narrow, padding),
                    crate::upsample_nearest2(&wide, padding),
                ),
                (crate::halves_to_frames(&narrow), crate::halves_to_frames(&wide)),
            ];
            for (index, (found, expected)) in pairs.into_iter().enumerate() {
                let expected = expected.unwrap().to_dtype(DType::BF16).unwrap();
                let (found, what) = (found.unwrap(), format!("{tier:?}, {index}"));
                assert_eq!(found.dtype(), DType::BF16, "{what}");
                assert_eq!(f64s(&found), f64s(&expected), "{what}");
            }
        });
    }
}
