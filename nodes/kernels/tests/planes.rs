//! Convolution and what stands around it, against the same formulas in candle's operations.

mod common;

use candle_core::{DType, Tensor, Var};
use common::{Random, close, same};
use kino_kernels::{
    Activation, ConvInput, ConvWeights, Epilogue, GroupNorm, clamp_finite, composite,
    concat_channels, conv, conv_sum, group_norm, group_norm_silu, pixel_shuffle, shrink_bilinear,
    span_attention, warp,
};

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
        (pixel_shuffle(&frames, 2, None), pixel_shuffle(&frames2, 2, None)),
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
fn group_norm_equals_its_composite_form() {
    let mut random = Random::new(51);
    for (shape, groups) in
        [([1, 1, 1, 1], 1), ([2, 5, 7, 12], 4), ([1, 3, 2, 6], 6), ([1, 33, 20, 32], 1)]
    {
        let x = (random.tensor(&shape) + 3.0).unwrap();
        let (weight, bias) = (random.tensor(&shape[3..]), random.tensor(&shape[3..]));
        let norm = GroupNorm { weight: &weight, bias: &bias, groups, eps: 1e-6 };
        let plain = composite::group_norm(&x, &norm).unwrap();
        close(&group_norm(&x, &norm).unwrap(), &plain, 2e-5);
        for padding in [[0; 4], [1; 4], [0, 1, 2, 3]] {
            let silu = composite::pad_plane(&plain.silu().unwrap(), padding).unwrap();
            close(&group_norm_silu(&x, &norm, padding).unwrap(), &silu, 2e-5);
        }
        let odd = GroupNorm { groups: 5, ..norm };
        assert!(group_norm(&x, &odd).is_err(), "{shape:?} in 5 groups");
        let short = random.tensor(&[shape[3] + 1]);
        assert!(group_norm(&x, &GroupNorm { weight: &short, ..norm }).is_err());
    }
}

#[test]
fn a_black_pixel_stays_black() {
    let x = Tensor::zeros((1, 2, 2, 8), DType::F32, &candle_core::Device::Cpu).unwrap();
    let gamma = Random::new(6).tensor(&[8]);
    same(&kino_kernels::channel_norm_silu(&x, &gamma, [0; 4]).unwrap(), &x);
}

#[test]
fn half_precision_is_near_f32() {
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
        let packed = wide(&o.weights.rows().unwrap()).reshape((3, 3, 3, 4, 12)).unwrap();
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

/// Input channels of each part, output channels, height and width of the padded planes: both ways
/// of computing, rows shorter than a group of pixels, several tasks.
const SUMS: [(&[usize], usize, [usize; 2]); 5] = [
    (&[5], 64, [9, 12]),
    (&[6, 3, 17], 48, [20, 33]),
    (&[6, 3, 17], 8, [20, 33]),
    (&[4, 4], 3, [5, 6]),
    (&[2, 1], 40, [67, 19]),
];

#[test]
fn a_sum_of_convolutions_with_its_epilogue_equals_the_composite_form() {
    let mut random = Random::new(31);
    for (cins, cout, [h, w]) in SUMS {
        let parts: Vec<(Tensor, ConvWeights)> = (0..)
            .zip(cins)
            .map(|(index, cin)| {
                let bias = (index == 0).then(|| random.tensor(&[cout]));
                let weight = random.tensor(&[cout, *cin, 3, 3]);
                let weights = ConvWeights::pack(&weight, bias.as_ref(), [1, 1, 1]).unwrap();
                (random.tensor(&[2, h, w, *cin]), weights)
            })
            .collect();
        let parts: Vec<(ConvInput, &ConvWeights)> =
            parts.iter().map(|(x, weights)| (ConvInput::new(x), weights)).collect();
        let slopes = random.tensor(&[cout]);
        for padding in [[0; 4], [1; 4], [0, 2, 3, 1]] {
            let [top, bottom, left, right] = padding;
            let size = [2, h - 2 + top + bottom, w - 2 + left + right, cout];
            let residual = random.tensor(&size);
            for activation in [
                Activation::None,
                Activation::Prelu(&slopes),
                Activation::LeakyRelu(0.2),
                Activation::Silu,
            ] {
                for (scale, residual) in [(1.0, None), (0.2, Some(&residual)), (0.5, None)] {
                    let epilogue = Epilogue { activation, scale, residual, padding };
                    let fast = conv_sum(&parts, &epilogue).unwrap();
                    let inner = [2, h - 2, w - 2, cout];
                    let slow = composite::conv_sum(&parts, &epilogue, inner).unwrap();
                    assert_eq!(fast.dims(), size);
                    close(&fast, &slow, 3e-5);
                }
            }
        }
    }
}

/// Channels in several tensors are the same channels copied together, and PReLU is what it says.
#[test]
fn parts_of_the_channels_are_their_concatenation() {
    let mut random = Random::new(32);
    let (a, b) = (random.tensor(&[1, 11, 13, 5]), random.tensor(&[1, 11, 13, 9]));
    let (weight, bias) = (random.tensor(&[20, 14, 3, 3]), random.tensor(&[20]));
    let pack = |from: usize, count: usize, bias: Option<&Tensor>| {
        let weight = weight.narrow(1, from, count).unwrap();
        ConvWeights::pack(&weight, bias, [1, 1, 1]).unwrap()
    };
    let (of_a, of_b, whole) = (pack(0, 5, Some(&bias)), pack(5, 9, None), pack(0, 14, Some(&bias)));
    let parts = [(ConvInput::new(&a), &of_a), (ConvInput::new(&b), &of_b)];
    let sum = conv_sum(&parts, &Epilogue::default()).unwrap();
    let both = Tensor::cat(&[&a, &b], 3).unwrap();
    let plain = conv(ConvInput::new(&both), &whole, None).unwrap();
    close(&sum, &plain, 2e-5);
    let slopes = random.tensor(&[20]);
    let activation = Activation::Prelu(&slopes);
    let bent = conv_sum(&parts, &Epilogue { activation, ..Epilogue::default() }).unwrap();
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let slopes = flat(&slopes);
    for (index, (x, y)) in flat(&sum).iter().zip(flat(&bent)).enumerate() {
        assert_eq!(y, if *x > 0.0 { *x } else { x * slopes[index % 20] });
    }
}

#[test]
fn sums_that_do_not_fit_are_refused() {
    let mut random = Random::new(33);
    let (a, b) = (random.tensor(&[1, 6, 7, 2]), random.tensor(&[1, 7, 7, 2]));
    let weight = random.tensor(&[4, 2, 3, 3]);
    let bias = random.tensor(&[4]);
    let with = ConvWeights::pack(&weight, Some(&bias), [1, 1, 1]).unwrap();
    let without = ConvWeights::pack(&weight, None, [1, 1, 1]).unwrap();
    let sum = |parts: &[(ConvInput, &ConvWeights)], epilogue: &Epilogue| {
        conv_sum(parts, epilogue).map_err(|error| error.to_string()).unwrap_err()
    };
    let plain = Epilogue::default();
    assert!(sum(&[], &plain).contains("nothing to convolve"));
    let two = [(ConvInput::new(&a), &with), (ConvInput::new(&a), &with)];
    assert!(sum(&two, &plain).contains("has a bias"));
    let sizes = [(ConvInput::new(&a), &with), (ConvInput::new(&b), &without)];
    assert!(sum(&sizes, &plain).contains("a sum of parts"));
    let slopes = random.tensor(&[3]);
    let prelu = Epilogue { activation: Activation::Prelu(&slopes), ..plain };
    assert!(sum(&[(ConvInput::new(&a), &with)], &prelu).contains("slopes [3] for 4 channels"));
    let inner = random.tensor(&[1, 4, 5, 4]);
    let residual = Epilogue { residual: Some(&inner), padding: [1; 4], ..plain };
    assert!(sum(&[(ConvInput::new(&a), &with)], &residual).contains("a residual of"));
}

#[test]
fn shuffled_pixels_are_those_of_their_channels() {
    let mut random = Random::new(34);
    for (shape, factor) in [([2, 3, 5, 12], 2), ([1, 4, 2, 48], 4), ([1, 1, 1, 27], 3)] {
        let x = random.tensor(&shape);
        let [t, h, w, wide] = shape;
        let c = wide / factor / factor;
        let base = random.tensor(&[t, h, w, c]);
        for base in [None, Some(&base)] {
            let fast = pixel_shuffle(&x, factor, base).unwrap();
            assert_eq!(fast.dims(), [t, h * factor, w * factor, c]);
            same(&fast, &composite::pixel_shuffle(&x, factor, base).unwrap());
        }
        let one = |tensor: &Tensor, at: [usize; 4]| {
            let found = at
                .iter()
                .enumerate()
                .fold(tensor.clone(), |found, (_, index)| found.get(*index).unwrap());
            found.to_scalar::<f32>().unwrap()
        };
        let shuffled = pixel_shuffle(&x, factor, None).unwrap();
        for (down, across, channel) in [(0, 0, 0), (factor - 1, 1, c - 1)] {
            let found = one(&shuffled, [t - 1, (h - 1) * factor + down, across, channel]);
            let from = channel * factor * factor + down * factor + across;
            assert_eq!(found, one(&x, [t - 1, h - 1, 0, from]));
        }
    }
    assert!(pixel_shuffle(&random.tensor(&[1, 2, 2, 6]), 2, None).is_err());
    let (x, base) = (random.tensor(&[1, 2, 2, 4]), random.tensor(&[1, 2, 2, 2]));
    assert!(pixel_shuffle(&x, 2, Some(&base)).is_err());
}

#[test]
fn attention_without_parameters_equals_its_composite_form() {
    let mut random = Random::new(35);
    let (x, y) = (random.tensor(&[2, 9, 7, 5]), (random.tensor(&[2, 9, 7, 5]) * 6.0).unwrap());
    close(&span_attention(&x, &y).unwrap(), &composite::span_attention(&x, &y).unwrap(), 2e-6);
    let zeros = x.zeros_like().unwrap();
    same(&span_attention(&zeros, &zeros).unwrap(), &zeros);
    assert!(span_attention(&x, &random.tensor(&[2, 9, 7, 4])).is_err());
}

#[test]
fn values_are_clamped_and_those_that_are_none_are_told() {
    let mut random = Random::new(36);
    let x = (random.tensor(&[1, 70, 90, 3]) * 2.0).unwrap();
    let found = clamp_finite(&x, 0.0, 1.0).unwrap().unwrap();
    same(&found, &composite::clamp_finite(&x, 0.0, 1.0).unwrap().unwrap());
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values[17_777] = wrong;
        let damaged = Tensor::from_vec(values, x.shape(), x.device()).unwrap();
        assert!(clamp_finite(&damaged, 0.0, 1.0).unwrap().is_none(), "{wrong}");
        assert!(composite::clamp_finite(&damaged, 0.0, 1.0).unwrap().is_none(), "{wrong}");
    }
}

#[test]
fn warping_shrinking_and_concatenation_equal_their_composite_forms() {
    let mut random = Random::new(37);
    for shape in [[1, 1, 1, 3], [2, 7, 5, 4], [1, 16, 24, 1]] {
        let x = random.tensor(&shape);
        let [t, h, w, _] = shape;
        let flow = (random.tensor(&[t, h, w, 2]) * 6.0).unwrap();
        close(&warp(&x, &flow).unwrap(), &composite::warp(&x, &flow).unwrap(), 2e-6);
        same(&warp(&x, &flow.zeros_like().unwrap()).unwrap(), &x);
        let beside = random.tensor(&[t, h, w, 2]);
        for padding in [[0; 4], [1, 0, 2, 3]] {
            let both = Tensor::cat(&[&x, &beside], 3).unwrap();
            let padded = composite::pad_plane(&both, padding).unwrap();
            same(&concat_channels(&[&x, &beside], padding).unwrap(), &padded);
        }
    }
    let x = random.tensor(&[2, 16, 32, 3]);
    for factor in [1, 2, 4, 16] {
        let small = shrink_bilinear(&x, factor).unwrap();
        assert_eq!(small.dims(), [2, 16 / factor, 32 / factor, 3]);
        if factor > 1 {
            close(&small, &composite::shrink_bilinear(&x, factor).unwrap(), 1e-6);
        }
    }
    // Far away the border is repeated; what is no number moves nothing.
    let flow = Tensor::full(1e30f32, (2, 16, 32, 2), x.device()).unwrap();
    let corner = x.narrow(1, 15, 1).unwrap().narrow(2, 31, 1).unwrap();
    same(&warp(&x, &flow).unwrap(), &corner.broadcast_as((2, 16, 32, 3)).unwrap());
    let flow = Tensor::full(f32::NAN, (2, 16, 32, 2), x.device()).unwrap();
    same(&warp(&x, &flow).unwrap(), &x);
    assert!(shrink_bilinear(&x, 3).is_err() && shrink_bilinear(&x, 64).is_err());
    assert!(warp(&x, &x).is_err() && concat_channels(&[], [0; 4]).is_err());
    assert!(concat_channels(&[&x, &corner], [0; 4]).is_err());
}
