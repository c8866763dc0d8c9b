//! The operations of a transformer, against the same formulas in candle's operations.

mod common;

use candle_core::{DType, Device, Result, Tensor, Var};
use common::{Random, close, same};
use kino_kernels::{BlockType, composite};

#[test]
fn linear_equals_its_composite_form() {
    let mut random = Random::new(1);
    for (rows, inner, out) in [(1, 7, 5), (37, 33, 65), (600, 48, 500), (2, 300, 900), (1, 1, 1)] {
        let (x, weight) = (random.tensor(&[rows, inner]), random.tensor(&[out, inner]));
        let bias = random.tensor(&[out]);
        for bias in [None, Some(&bias)] {
            let expected = composite::linear(&x, &weight, bias).unwrap();
            close(&kino_kernels::linear(&x, &weight, bias).unwrap(), &expected, 2e-5);
        }
    }
    let (x, weight) = (random.tensor(&[3, 2, 5, 8]), random.tensor(&[4, 8]));
    assert_eq!(kino_kernels::linear(&x, &weight, None).unwrap().dims(), [3, 2, 5, 4]);
}

/// Over several pieces of the matrix, and over one.
#[test]
fn linear_of_eight_bits_equals_its_composite_form() {
    let mut random = Random::new(12);
    for (rows, inner, out) in [(1, 7, 5), (37, 33, 2065), (64, 300, 1024), (3, 70_001, 2)] {
        let x = random.tensor(&[rows, inner]);
        // All bytes but those that stand for NaN.
        let bytes = (0..out * inner).map(|i| match (i * 131 + 7) as u8 {
            byte if byte & 0x7f == 0x7f => 0,
            byte => byte,
        });
        let weight = Tensor::from_iter(bytes, &Device::Cpu).unwrap().reshape((out, inner)).unwrap();
        let bias = random.tensor(&[out]);
        for bias in [None, Some(&bias)] {
            let expected = composite::linear_e4m3(&x, &weight, 0.003, bias).unwrap();
            let found = kino_kernels::linear_e4m3(&x, &weight, 0.003, bias).unwrap();
            let largest = expected.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            let scaled = |t: Tensor| (t / f64::from(largest)).unwrap();
            close(&scaled(found), &scaled(expected), 2e-5);
        }
    }
    let (x, floats) = (random.tensor(&[2, 4]), random.tensor(&[3, 4]));
    assert!(kino_kernels::linear_e4m3(&x, &floats, 1.0, None).is_err());
}

/// Over several pieces of the matrix, and over one; in f32 and in bf16.
#[test]
fn linear_of_blocks_equals_its_composite_form() {
    let mut random = Random::new(13);
    for blocks in BlockType::ALL {
        for (rows, inner, out) in [(3, 256, 5), (37, 512, 1100)] {
            let x = random.tensor(&[rows, inner]);
            let bytes = blocks.bytes_of(inner).unwrap();
            // No half that is infinite or no number.
            let weight = (0..out * bytes).map(|_| (random.next() * 128.0) as i8 as u8 & 0xbb);
            let weight = Tensor::from_iter(weight.collect::<Vec<_>>(), &Device::Cpu).unwrap();
            let weight = weight.reshape((out, bytes)).unwrap();
            let bias = random.tensor(&[out]);
            for dtype in [DType::F32, DType::BF16] {
                let (x, bias) = (x.to_dtype(dtype).unwrap(), bias.to_dtype(dtype).unwrap());
                let expected = composite::linear_blocks(&x, &weight, blocks, Some(&bias)).unwrap();
                let found = kino_kernels::linear_blocks(&x, &weight, blocks, Some(&bias)).unwrap();
                assert_eq!(found.dtype(), dtype);
                let wide = expected.to_dtype(DType::F32).unwrap();
                let largest = wide.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let scaled =
                    |t: Tensor| (t.to_dtype(DType::F32).unwrap() / f64::from(largest)).unwrap();
                let limit = if dtype == DType::F32 { 2e-5 } else { 1e-2 };
                close(&scaled(found), &scaled(expected), limit);
            }
        }
    }
    let (x, weight) = (random.tensor(&[2, 64]), random.tensor(&[3, 34]));
    assert!(kino_kernels::linear_blocks(&x, &weight, BlockType::Q8_0, None).is_err());
}

#[test]
fn linear_of_signed_bytes_equals_its_composite_form() {
    let mut random = Random::new(14);
    for (rows, inner, out) in [(1, 7, 5), (37, 33, 2065), (3, 70_001, 2)] {
        let (x, bias) = (random.tensor(&[rows, inner]), random.tensor(&[out]));
        let bytes = (0..out * inner).map(|i| (i * 131 + 7) as u8);
        let weight = Tensor::from_iter(bytes, &Device::Cpu).unwrap().reshape((out, inner)).unwrap();
        let scales = (random.tensor(&[out]) * 0.01).unwrap();
        let expected = composite::linear_int8(&x, &weight, &scales, Some(&bias)).unwrap();
        let found = kino_kernels::linear_int8(&x, &weight, &scales, Some(&bias)).unwrap();
        let largest = expected.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let scaled = |t: Tensor| (t / f64::from(largest)).unwrap();
        close(&scaled(found), &scaled(expected), 2e-5);
    }
    let (x, weight) = (random.tensor(&[2, 4]), Tensor::zeros((3, 4), DType::U8, &Device::Cpu));
    assert!(kino_kernels::linear_int8(&x, &weight.unwrap(), &random.tensor(&[2]), None).is_err());
}

#[test]
fn rotating_equals_its_composite_form_and_twice_is_none() {
    let mut random = Random::new(15);
    for (shape, group) in [(&[3, 4][..], 4), (&[40, 96], 16), (&[2, 3, 512], 256), (&[5, 64], 64)] {
        let x = random.tensor(shape);
        let found = kino_kernels::rotate_groups(&x, group).unwrap();
        close(&found, &composite::rotate_groups(&x, group).unwrap(), 2e-6);
        close(&kino_kernels::rotate_groups(&found, group).unwrap(), &x, 2e-6);
        let half = x.to_dtype(DType::BF16).unwrap();
        let rotated = kino_kernels::rotate_groups(&half, group).unwrap();
        assert_eq!(rotated.dtype(), DType::BF16);
        close(&rotated.to_dtype(DType::F32).unwrap(), &found, 4e-2);
    }
    let x = random.tensor(&[2, 32]);
    for group in [0, 1, 8, 64] {
        assert!(kino_kernels::rotate_groups(&x, group).is_err(), "{group}");
    }
}

#[test]
fn attention_equals_its_composite_form() {
    let mut random = Random::new(2);
    let cases =
        [(1, 1, 1, 1), (3, 97, 513, 5), (2, 200, 1025, 16), (5, 3, 2, 64), (12, 40, 31, 32)];
    for (heads, n, m, d) in cases {
        let q = random.tensor(&[heads, n, d]).affine(8.0, 0.0).unwrap(); // a sharp softmax too
        let (k, v) = (random.tensor(&[heads, m, d]), random.tensor(&[heads, m, d]));
        let scale = 1.0 / (d as f64).sqrt();
        let expected = composite::attention(&q, &k, &v, scale).unwrap();
        close(&kino_kernels::attention(&q, &k, &v, scale).unwrap(), &expected, 5e-6);
    }
}

#[test]
fn attention_survives_large_scores() {
    let mut random = Random::new(3);
    let q = random.tensor(&[1, 4, 8]).affine(300.0, 0.0).unwrap();
    let k = random.tensor(&[1, 1500, 8]).affine(300.0, 0.0).unwrap();
    let v = random.tensor(&[1, 1500, 8]);
    let expected = composite::attention(&q, &k, &v, 1.0).unwrap();
    close(&kino_kernels::attention(&q, &k, &v, 1.0).unwrap(), &expected, 1e-4);
}

#[test]
fn attention_takes_tokens_by_heads() {
    let mut random = Random::new(4);
    let [q, k, v] = [100, 70, 70].map(|n| random.tensor(&[n, 6, 8]).transpose(0, 1).unwrap());
    let viewed = kino_kernels::attention(&q, &k, &v, 0.3).unwrap();
    let [q, k, v] = [q, k, v].map(|x| x.contiguous().unwrap());
    same(&viewed, &kino_kernels::attention(&q, &k, &v, 0.3).unwrap());
    assert!(viewed.transpose(0, 1).unwrap().is_contiguous(), "the layout of the queries is kept");
}

#[test]
fn attention_with_bias_equals_its_composite_form() {
    let mut random = Random::new(5);
    let (q, k, v) =
        (random.tensor(&[3, 7, 4]), random.tensor(&[3, 9, 4]), random.tensor(&[3, 9, 4]));
    for shape in [[3, 7, 9], [1, 7, 9], [1, 1, 9]] {
        let bias = random.tensor(&shape);
        let expected = composite::attention_with_bias(&q, &k, &v, &bias, 1.0).unwrap();
        close(&kino_kernels::attention_with_bias(&q, &k, &v, &bias, 1.0).unwrap(), &expected, 1e-5);
    }
}

#[test]
fn attention_by_distance_equals_its_composite_form_and_that_with_a_bias_of_pairs() {
    let mut random = Random::new(7);
    for (n, m) in [(7, 9), (9, 7), (1, 4), (70, 700)] {
        let (q, k, v) =
            (random.tensor(&[3, n, 4]), random.tensor(&[3, m, 4]), random.tensor(&[3, m, 4]));
        let bias = random.tensor(&[3, n + m - 1]);
        let found = kino_kernels::attention_by_distance(&q, &k, &v, &bias, 0.3).unwrap();
        let expected = composite::attention_by_distance(&q, &k, &v, &bias, 0.3).unwrap();
        close(&found, &expected, 1e-5);
        // Of query i and key j: number j − i + n − 1.
        let rows = (0..n).map(|query| bias.narrow(1, n - 1 - query, m).unwrap());
        let pairs = Tensor::stack(&rows.collect::<Vec<_>>(), 1).unwrap();
        same(&found, &kino_kernels::attention_with_bias(&q, &k, &v, &pairs, 0.3).unwrap());
        let narrow = bias.narrow(1, 0, n + m - 2).unwrap();
        assert!(kino_kernels::attention_by_distance(&q, &k, &v, &narrow, 0.3).is_err());
    }
}

#[test]
fn norms_equal_their_composite_forms() {
    let mut random = Random::new(6);
    for shape in [vec![1, 1], vec![5, 17], vec![3, 4, 192], vec![33, 1536]] {
        let width = shape[shape.len() - 1];
        let x = random.tensor(&shape).affine(3.0, 0.5).unwrap();
        let (weight, bias) = (random.tensor(&[width]), random.tensor(&[width]));
        for (weight, bias) in [(None, None), (Some(&weight), Some(&bias)), (Some(&weight), None)] {
            let expected = composite::layer_norm(&x, weight, bias, 1e-6).unwrap();
            close(&kino_kernels::layer_norm(&x, weight, bias, 1e-6).unwrap(), &expected, 5e-6);
        }
        let expected = composite::rms_norm(&x, &weight, 1e-6).unwrap();
        close(&kino_kernels::rms_norm(&x, &weight, 1e-6).unwrap(), &expected, 5e-6);
        let expected = composite::softmax_last(&x).unwrap();
        close(&kino_kernels::softmax_last(&x).unwrap(), &expected, 1e-6);
    }
}

#[test]
fn modulation_takes_one_row_or_one_a_token() {
    let mut random = Random::new(7);
    let (x, y) = (random.tensor(&[9, 40]), random.tensor(&[9, 40]));
    for shape in [vec![40], vec![1, 40], vec![9, 40], vec![9, 1]] {
        let (shift, scale) = (random.tensor(&shape), random.tensor(&shape));
        let expected = composite::modulate(&x, &shift, &scale, 1e-6).unwrap();
        close(&kino_kernels::modulate(&x, &shift, &scale, 1e-6).unwrap(), &expected, 5e-6);
        let expected = composite::gate_add(&x, &y, &scale).unwrap();
        close(&kino_kernels::gate_add(&x, &y, &scale).unwrap(), &expected, 1e-6);
    }
}

#[test]
fn activations_equal_candles() {
    let mut random = Random::new(8);
    let x = random.tensor(&[7, 333]).affine(12.0, 0.0).unwrap();
    close(&kino_kernels::gelu_tanh(&x).unwrap(), &x.gelu().unwrap(), 3e-6);
    close(&kino_kernels::gelu(&x).unwrap(), &x.gelu_erf().unwrap(), 3e-6);
    close(&kino_kernels::silu(&x).unwrap(), &x.silu().unwrap(), 3e-6);
    let far = Tensor::new(&[-1e30f32, -200.0, 0.0, 200.0, 1e30, f32::NAN], &Device::Cpu).unwrap();
    for activation in [kino_kernels::gelu_tanh, kino_kernels::gelu, kino_kernels::silu] {
        let y = activation(&far).unwrap().to_vec1::<f32>().unwrap();
        assert!(y[0].abs() < 1e-3 && y[1].abs() < 1e-30 && y[2] == 0.0, "{y:?}");
        assert!(y[3] == 200.0 && y[4] == 1e30 && y[5].is_nan(), "{y:?}");
    }
}

#[test]
fn rope_equals_its_composite_form() {
    let mut random = Random::new(9);
    for (n, heads, d) in [(1, 1, 2), (13, 3, 32), (5, 12, 128)] {
        let x = random.tensor(&[n, heads, d]);
        let angles = random.tensor(&[n, d / 2]).affine(40.0, 0.0).unwrap();
        let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
        let expected = composite::rope_interleaved(&x, &cos, &sin).unwrap();
        close(&kino_kernels::rope_interleaved(&x, &cos, &sin).unwrap(), &expected, 1e-6);
        let (x, weight) = (x.flatten_from(1).unwrap(), random.tensor(&[heads * d]));
        let rotation = (&cos, &sin);
        let expected = composite::rms_norm_rope(&x, &weight, 1e-6, heads, rotation).unwrap();
        let found = kino_kernels::rms_norm_rope(&x, &weight, 1e-6, heads, rotation).unwrap();
        assert_eq!(found.dims(), [n, heads, d]);
        close(&found, &expected, 1e-5);
    }
}

/// All operations on the same operands.
fn all(x: &Tensor, row: &Tensor, weight: &Tensor, cos: &Tensor) -> Vec<Result<Tensor>> {
    let heads = |x: &Tensor| x.unsqueeze(0);
    let tokens = |x: &Tensor| x.unsqueeze(1);
    vec![
        kino_kernels::linear(x, weight, Some(&weight.narrow(1, 0, 1).unwrap().squeeze(1).unwrap())),
        kino_kernels::layer_norm(x, Some(row), Some(row), 1e-6),
        kino_kernels::rms_norm(x, row, 1e-6),
        kino_kernels::modulate(x, row, x, 1e-6),
        kino_kernels::gate_add(x, x, row),
        kino_kernels::gelu_tanh(x),
        kino_kernels::gelu(x),
        kino_kernels::silu(x),
        kino_kernels::softmax_last(x),
        heads(x).and_then(|x| kino_kernels::attention(&x, &x, &x, 0.2)),
        heads(x).and_then(|q| kino_kernels::attention_with_bias(&q, &q, &q, &q, 0.2)),
        heads(x).and_then(|q| {
            let distances = x.flatten_all()?.narrow(0, 0, 2 * q.dim(1)? - 1)?.unsqueeze(0)?;
            kino_kernels::attention_by_distance(&q, &q, &q, &distances, 0.2)
        }),
        tokens(x).and_then(|x| kino_kernels::rope_interleaved(&x, cos, cos)),
        kino_kernels::rms_norm_rope(x, row, 1e-6, 1, (cos, cos)),
    ]
}

#[test]
fn views_give_the_same_bits() {
    let mut random = Random::new(10);
    let operands = [
        random.view(&[24, 24]),
        random.view(&[24]),
        random.view(&[10, 24]),
        random.view(&[24, 12]),
    ];
    let [x, row, weight, cos] = &operands;
    let whole = operands.each_ref().map(|t| t.contiguous().unwrap());
    for (view, whole) in
        all(x, row, weight, cos).into_iter().zip(all(&whole[0], &whole[1], &whole[2], &whole[3]))
    {
        same(&view.unwrap(), &whole.unwrap());
    }
}

#[test]
fn half_precision_takes_the_composite_form() {
    let mut random = Random::new(11);
    let wide = [
        random.tensor(&[24, 24]),
        random.tensor(&[24]),
        random.tensor(&[10, 24]),
        random.tensor(&[24, 12]),
    ];
    for dtype in [DType::BF16, DType::F16] {
        let half = wide.each_ref().map(|t| t.to_dtype(dtype).unwrap());
        let results = all(&half[0], &half[1], &half[2], &half[3]);
        for (half, wide) in results.into_iter().zip(all(&wide[0], &wide[1], &wide[2], &wide[3])) {
            let half = half.unwrap();
            assert_eq!(half.dtype(), dtype);
            close(&half.to_dtype(DType::F32).unwrap(), &wide.unwrap(), 0.15);
        }
    }
}

#[test]
fn gradients_pass() {
    let mut random = Random::new(12);
    let x = Var::from_tensor(&random.tensor(&[24, 24])).unwrap();
    let (row, weight) = (random.tensor(&[24]), random.tensor(&[10, 24]));
    let cos = random.tensor(&[24, 12]);
    for (index, y) in all(&x, &row, &weight, &cos).into_iter().enumerate() {
        let gradients = y.unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(&x).unwrap_or_else(|| panic!("operation {index} has none"));
        let size = gradient.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(size > 0.0, "operation {index}");
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let mut random = Random::new(13);
    let operands = [
        random.tensor(&[700, 96]),
        random.tensor(&[96]),
        random.tensor(&[500, 96]),
        random.tensor(&[700, 48]),
    ];
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let [x, row, weight, cos] = &operands;
        pool.install(|| all(x, row, weight, cos))
    };
    for ((one, three), index) in run(1).into_iter().zip(run(3)).zip(0..) {
        // The attention of text encoders multiplies by candle, whose threads are its own.
        if index != 10 {
            same(&one.unwrap(), &three.unwrap());
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let mut random = Random::new(14);
    let x = random.tensor(&[4, 6]);
    assert!(kino_kernels::linear(&x, &random.tensor(&[3, 5]), None).is_err());
    assert!(kino_kernels::linear(&x, &random.tensor(&[3, 6]), Some(&x)).is_err());
    assert!(kino_kernels::rms_norm(&x, &random.tensor(&[5]), 1e-6).is_err());
    assert!(kino_kernels::gate_add(&x, &random.tensor(&[4, 5]), &random.tensor(&[6])).is_err());
    assert!(kino_kernels::modulate(&x, &random.tensor(&[5]), &x, 1e-6).is_err());
    let heads = random.tensor(&[2, 4, 6]);
    assert!(kino_kernels::attention(&heads, &heads, &random.tensor(&[2, 5, 6]), 1.0).is_err());
    assert!(kino_kernels::rope_interleaved(&heads, &x, &x).is_err());
    let (row, angles) = (random.tensor(&[6]), random.tensor(&[4, 1]));
    let turned =
        |heads, angles| kino_kernels::rms_norm_rope(&x, &row, 1.0, heads, (angles, angles));
    assert!(turned(3, &angles).is_ok() && turned(4, &angles).is_err() && turned(0, &x).is_err());
    assert!(turned(3, &x).is_err());
}
