//! Convolution and what stands around it, against the same formulas in candle's operations.

mod common;

use candle_core::{DType, Tensor, Var};
use common::{Random, close, same};
use kino_kernels::{ConvInput, ConvWeights, composite, conv};

/// One convolution: frames of zeros, past frames, frames, height, width; channels; kernel; stride.
type Case = (usize, usize, usize, usize, usize, [usize; 2], [usize; 3], [usize; 3]);

const CASES: [Case; 9] = [
    (0, 0, 3, 5, 7, [3, 5], [3, 3, 3], [1, 1, 1]),
    (2, 0, 1, 10, 14, [16, 16], [3, 3, 3], [1, 1, 1]),
    (1, 1, 2, 9, 6, [4, 12], [3, 3, 3], [1, 1, 1]),
    (0, 2, 4, 41, 43, [8, 3], [3, 3, 3], [1, 1, 1]),
    (0, 0, 2, 11, 9, [6, 7], [1, 3, 3], [1, 2, 2]),
    (0, 1, 4, 3, 5, [5, 6], [3, 1, 1], [2, 1, 1]),
    (0, 1, 2, 1, 1, [1, 1], [3, 1, 1], [2, 1, 1]),
    (0, 0, 1, 66, 130, [17, 33], [1, 3, 3], [1, 1, 1]),
    (3, 0, 1, 4, 4, [2, 2], [3, 3, 3], [1, 1, 1]),
];

struct Operands {
    past: Option<Tensor>,
    frames: Tensor,
    weights: ConvWeights,
    residual: Tensor,
}

fn operands(random: &mut Random, case: Case, dtype: DType) -> Operands {
    let (zeros, past, t, h, w, [cin, cout], kernel, stride) = case;
    let of = |x: Tensor| x.to_dtype(dtype).unwrap();
    let weight = of(random.tensor(&[cout, cin, kernel[0], kernel[1], kernel[2]]));
    let bias = of(random.tensor(&[cout]));
    let weights = ConvWeights::pack(&weight, Some(&bias), stride).unwrap();
    let past = (past > 0).then(|| of(random.tensor(&[past, h, w, cin])));
    let frames = of(random.tensor(&[t, h, w, cin]));
    let size = |length: usize, axis: usize| (length - kernel[axis]) / stride[axis] + 1;
    let all = zeros + past.as_ref().map_or(0, |p| p.dim(0).unwrap()) + t;
    let residual = of(random.tensor(&[size(all, 0), size(h, 1), size(w, 2), cout]));
    Operands { past, frames, weights, residual }
}

#[test]
fn convolution_equals_its_composite_form() {
    let mut random = Random::new(1);
    for case in CASES {
        let o = operands(&mut random, case, DType::F32);
        let input = ConvInput { zeros: case.0, past: o.past.as_ref(), frames: &o.frames };
        let size = o.residual.dims4().unwrap().into();
        for residual in [None, Some(&o.residual)] {
            let fast = conv(input, &o.weights, residual).unwrap();
            let slow = composite::conv(input, &o.weights, residual, size).unwrap();
            close(&fast, &slow, 2e-5);
        }
    }
}

#[test]
fn convolution_equals_candles_on_planes() {
    let mut random = Random::new(2);
    let (x, weight) = (random.tensor(&[2, 7, 9, 5]), random.tensor(&[4, 5, 3, 3]));
    let weights = ConvWeights::pack(&weight, None, [1, 1, 1]).unwrap();
    let ours = conv(ConvInput::new(&x), &weights, None).unwrap();
    let first = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
    let theirs = first.conv2d(&weight, 0, 1, 1, 1).unwrap();
    close(&ours, &theirs.permute((0, 2, 3, 1)).unwrap(), 1e-5);
}

#[test]
fn frames_of_zeros_need_not_exist() {
    let mut random = Random::new(3);
    let o = operands(&mut random, (0, 0, 3, 5, 6, [4, 4], [3, 3, 3], [1, 1, 1]), DType::F32);
    let short = ConvInput { zeros: 2, past: None, frames: &o.frames };
    let black = Tensor::zeros_like(&o.frames).unwrap().narrow(0, 0, 2).unwrap();
    let long = ConvInput { zeros: 0, past: Some(&black), frames: &o.frames };
    close(&conv(short, &o.weights, None).unwrap(), &conv(long, &o.weights, None).unwrap(), 1e-6);
}

#[test]
fn views_give_the_same_bits() {
    let mut random = Random::new(4);
    let o = operands(&mut random, CASES[3], DType::F32);
    let (frames, past) = (random.view(&[4, 41, 43, 8]), random.view(&[2, 41, 43, 8]));
    let residual = random.view(o.residual.dims());
    let (frames2, past2) = (frames.contiguous().unwrap(), past.contiguous().unwrap());
    let a = ConvInput { zeros: 0, past: Some(&past), frames: &frames };
    let b = ConvInput { zeros: 0, past: Some(&past2), frames: &frames2 };
    same(
        &conv(a, &o.weights, Some(&residual)).unwrap(),
        &conv(b, &o.weights, Some(&residual.contiguous().unwrap())).unwrap(),
    );
    let gamma = random.view(&[8]);
    let flat = gamma.contiguous().unwrap();
    let padding = [1, 2, 3, 4];
    let pairs = [
        (kino_kernels::channel_norm(&frames, &gamma), kino_kernels::channel_norm(&frames2, &flat)),
        (
            kino_kernels::channel_norm_silu(&frames, &gamma, padding),
            kino_kernels::channel_norm_silu(&frames2, &flat, padding),
        ),
        (
            kino_kernels::upsample_nearest2(&frames, padding),
            kino_kernels::upsample_nearest2(&frames2, padding),
        ),
        (kino_kernels::pad_plane(&frames, padding), kino_kernels::pad_plane(&frames2, padding)),
        (kino_kernels::halves_to_frames(&frames), kino_kernels::halves_to_frames(&frames2)),
    ];
    for (view, whole) in pairs {
        same(&view.unwrap(), &whole.unwrap());
    }
}

#[test]
fn norm_padding_and_upsampling_equal_their_composite_forms() {
    let mut random = Random::new(5);
    for shape in [[1, 1, 1, 1], [3, 5, 7, 4], [2, 4, 3, 17], [1, 9, 2, 96]] {
        let (x, gamma) = (random.tensor(&shape), random.tensor(&shape[3..]));
        let x = x.broadcast_mul(&random.tensor(&[shape[0], shape[1], 1, 1])).unwrap();
        let norm = composite::channel_norm(&x, &gamma).unwrap();
        close(&kino_kernels::channel_norm(&x, &gamma).unwrap(), &norm, 5e-6);
        for padding in [[0; 4], [1; 4], [0, 1, 2, 3]] {
            let silu = composite::pad_plane(&norm.silu().unwrap(), padding).unwrap();
            close(&kino_kernels::channel_norm_silu(&x, &gamma, padding).unwrap(), &silu, 5e-6);
            let padded = composite::pad_plane(&x, padding).unwrap();
            same(&kino_kernels::pad_plane(&x, padding).unwrap(), &padded);
            let large = composite::upsample_nearest2(&x, padding).unwrap();
            same(&kino_kernels::upsample_nearest2(&x, padding).unwrap(), &large);
        }
        if shape[3] % 2 == 0 {
            let frames = composite::halves_to_frames(&x).unwrap();
            same(&kino_kernels::halves_to_frames(&x).unwrap(), &frames);
        }
    }
}

#[test]
fn a_black_pixel_stays_black() {
    let x = Tensor::zeros((1, 2, 2, 8), DType::F32, &candle_core::Device::Cpu).unwrap();
    let gamma = Random::new(6).tensor(&[8]);
    same(&kino_kernels::channel_norm_silu(&x, &gamma, [0; 4]).unwrap(), &x);
}

#[test]
fn half_precision_takes_the_composite_form() {
    let mut random = Random::new(7);
    for dtype in [DType::BF16, DType::F16] {
        let o = operands(&mut random, CASES[2], dtype);
        let input = ConvInput { zeros: 1, past: o.past.as_ref(), frames: &o.frames };
        let half = conv(input, &o.weights, Some(&o.residual)).unwrap();
        assert_eq!(half.dtype(), dtype);
        let wide = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
        let (past, frames) = (wide(o.past.as_ref().unwrap()), wide(&o.frames));
        let input = ConvInput { zeros: 1, past: Some(&past), frames: &frames };
        // The packed form of the same rounded weights, [kt, kh, kw·cin, cout].
        let packed = wide(o.weights.packed()).reshape((3, 3, 3, 4, 12)).unwrap();
        let weight = packed.permute((4, 3, 0, 1, 2)).unwrap();
        let bias = wide(o.weights.bias().unwrap());
        let weights = ConvWeights::pack(&weight, Some(&bias), [1, 1, 1]).unwrap();
        let full = conv(input, &weights, Some(&wide(&o.residual))).unwrap();
        close(&wide(&half), &full, 0.5);
    }
}

#[test]
fn gradients_pass() {
    let mut random = Random::new(8);
    let x = Var::from_tensor(&random.tensor(&[1, 4, 4, 2])).unwrap();
    let weights = ConvWeights::pack(&random.tensor(&[3, 2, 1, 3, 3]), None, [1, 1, 1]).unwrap();
    let y = conv(ConvInput::new(&x), &weights, None).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    let gradient = gradients.get(&x).unwrap().abs().unwrap().sum_all().unwrap();
    assert!(gradient.to_scalar::<f32>().unwrap() > 0.0);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let mut random = Random::new(9);
    let weights = ConvWeights::pack(&random.tensor(&[3, 2, 3, 3, 3]), None, [1, 1, 1]).unwrap();
    let wrong = random.tensor(&[1, 4, 4, 5]);
    assert!(conv(ConvInput::new(&wrong), &weights, None).is_err());
    let short = random.tensor(&[1, 4, 4, 2]);
    assert!(conv(ConvInput::new(&short), &weights, None).is_err(), "one frame under three");
    assert!(kino_kernels::channel_norm(&short, &random.tensor(&[3])).is_err());
    assert!(ConvWeights::pack(&random.tensor(&[3, 2]), None, [1, 1, 1]).is_err());
}
