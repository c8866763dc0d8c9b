//! Resizing, against Pillow and against dense matrices.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Random, close, same};
use kino_kernels::{Filter, resize};

/// What `Image.resize` of Pillow gives for the picture of [`picture`]: filter, height, width, rows.
const PILLOW: &[(Filter, usize, usize, &[f32])] = &[
    (
        Filter::Nearest,
        3,
        11,
        &[
            0.000000, 0.000000, 0.366337, 0.732673, 0.732673, 0.099010, 0.465347, 0.465347,
            0.831683, 0.198020, 0.198020, 0.168317, 0.168317, 0.752475, 0.336634, 0.336634,
            0.920792, 0.504951, 0.504951, 0.089109, 0.673267, 0.673267, 0.336634, 0.336634,
            0.138614, 0.940594, 0.940594, 0.742574, 0.544554, 0.544554, 0.346535, 0.148515,
            0.148515,
        ],
    ),
    (
        Filter::Nearest,
        8,
        3,
        &[
            0.366337, 0.099010, 0.831683, 0.366337, 0.099010, 0.831683, 0.059406, 0.009901,
            0.960396, 0.752475, 0.920792, 0.089109, 0.752475, 0.920792, 0.089109, 0.445545,
            0.831683, 0.217822, 0.138614, 0.742574, 0.346535, 0.138614, 0.742574, 0.346535,
        ],
    ),
    (
        Filter::Bilinear,
        3,
        11,
        &[
            0.250354, 0.243281, 0.272342, 0.535168, 0.434358, 0.060820, 0.323647, 0.586473,
            0.849299, 0.566671, 0.299859, 0.390539, 0.454045, 0.512651, 0.389439, 0.468247,
            0.698570, 0.575358, 0.452145, 0.328933, 0.508751, 0.673267, 0.514852, 0.403626,
            0.299859, 0.507779, 0.663752, 0.780764, 0.625048, 0.469333, 0.313617, 0.391668,
            0.475248,
        ],
    ),
    (
        Filter::Bilinear,
        8,
        3,
        &[
            0.314003, 0.393128, 0.526874, 0.329164, 0.354142, 0.589993, 0.355286, 0.324185,
            0.653377, 0.421588, 0.525845, 0.475690, 0.465568, 0.598828, 0.431931, 0.487226,
            0.543135, 0.522100, 0.428527, 0.619795, 0.411377, 0.381188, 0.683751, 0.318246,
        ],
    ),
    (
        Filter::Bicubic,
        3,
        11,
        &[
            0.238210, 0.210114, 0.253793, 0.608290, 0.468504, 0.036710, 0.269275, 0.619877,
            0.908270, 0.564967, 0.238094, 0.405804, 0.480982, 0.532528, 0.328664, 0.427006,
            0.711490, 0.606083, 0.431890, 0.293949, 0.528486, 0.739450, 0.531180, 0.399582,
            0.286433, 0.501532, 0.699490, 0.804874, 0.654823, 0.451741, 0.276607, 0.378683,
            0.494554,
        ],
    ),
    (
        Filter::Bicubic,
        8,
        3,
        &[
            0.295959, 0.428742, 0.504256, 0.311816, 0.356303, 0.592985, 0.349685, 0.309587,
            0.668798, 0.419845, 0.545265, 0.462001, 0.474832, 0.614680, 0.422103, 0.497813,
            0.509604, 0.551172, 0.423151, 0.636086, 0.403718, 0.363006, 0.743563, 0.276263,
        ],
    ),
    (
        Filter::Lanczos,
        3,
        11,
        &[
            0.239689, 0.162740, 0.258265, 0.664791, 0.483605, 0.016591, 0.178914, 0.696217,
            0.951901, 0.558165, 0.176576, 0.426198, 0.519459, 0.524380, 0.283528, 0.397116,
            0.713532, 0.656534, 0.387212, 0.275495, 0.548949, 0.793067, 0.537392, 0.396849,
            0.291241, 0.473453, 0.733575, 0.824994, 0.691314, 0.416964, 0.248390, 0.369665,
            0.515704,
        ],
    ),
    (
        Filter::Lanczos,
        8,
        3,
        &[
            0.290212, 0.474393, 0.471604, 0.300314, 0.360422, 0.597897, 0.345740, 0.310786,
            0.673968, 0.416117, 0.552887, 0.454334, 0.486880, 0.608409, 0.425726, 0.504825,
            0.480089, 0.573294, 0.424006, 0.623990, 0.411778, 0.359798, 0.773754, 0.243396,
        ],
    ),
];

/// A picture of 5×7 that Pillow saw too: ((37x + 59y + 11xy) mod 101)/101.
fn picture() -> Tensor {
    let values = (0..35).map(|i| {
        let (x, y) = (i % 7, i / 7);
        ((37 * x + 59 * y + 11 * x * y) % 101) as f32 / 101.0
    });
    Tensor::from_vec(values.collect::<Vec<_>>(), (1, 5, 7, 1), &Device::Cpu).unwrap()
}

#[test]
fn filters_equal_pillows() {
    for (filter, height, width, expected) in PILLOW {
        let expected = Tensor::from_slice(expected, (1, *height, *width, 1), &Device::Cpu).unwrap();
        close(&resize(&picture(), *height, *width, *filter).unwrap(), &expected, 2e-6);
    }
}

#[test]
fn frames_and_channels_are_resized_alike() {
    let one = picture();
    let twice = Tensor::cat(&[&one, &one], 3).unwrap();
    let four = Tensor::cat(&[&twice, &twice], 0).unwrap();
    let small = resize(&one, 13, 4, Filter::Lanczos).unwrap();
    let all = resize(&four, 13, 4, Filter::Lanczos).unwrap();
    for frame in 0..2 {
        for channel in 0..2 {
            same(&all.narrow(0, frame, 1).unwrap().narrow(3, channel, 1).unwrap(), &small);
        }
    }
}

#[test]
fn fast_and_composite_forms_agree() {
    let mut random = Random::new(21);
    let x = random.tensor(&[2, 9, 14, 3]);
    for filter in Filter::ALL {
        for (height, width) in [(18, 28), (4, 5), (9, 30), (1, 1)] {
            let fast = resize(&x, height, width, filter).unwrap();
            // A variable keeps its gradient, so it takes the composite form.
            let variable = candle_core::Var::from_tensor(&x).unwrap();
            close(&fast, &resize(&variable, height, width, filter).unwrap().detach(), 2e-6);
        }
    }
}

#[test]
fn views_and_types_are_taken() {
    let mut random = Random::new(22);
    let view = random.view(&[2, 6, 5, 3]);
    let whole = view.contiguous().unwrap();
    let expected = resize(&whole, 12, 10, Filter::Lanczos).unwrap();
    same(&resize(&view, 12, 10, Filter::Lanczos).unwrap(), &expected);
    let same_size = resize(&view, 6, 5, Filter::Bilinear).unwrap();
    same(&same_size.contiguous().unwrap(), &whole);
    let half = whole.to_dtype(DType::BF16).unwrap();
    let resized = resize(&half, 12, 10, Filter::Lanczos).unwrap();
    assert_eq!(resized.dtype(), DType::BF16);
    close(&resized.to_dtype(DType::F32).unwrap(), &expected, 0.02);
}

#[test]
fn a_plain_picture_stays_plain() {
    let plain = Tensor::full(0.25f32, (1, 31, 17, 3), &Device::Cpu).unwrap();
    for filter in Filter::ALL {
        let large = resize(&plain, 77, 40, filter).unwrap();
        close(&large, &Tensor::full(0.25f32, (1, 77, 40, 3), &Device::Cpu).unwrap(), 1e-6);
    }
}

#[test]
fn names_read_back() {
    for filter in Filter::ALL {
        assert_eq!(filter.to_string().parse(), Ok(filter));
    }
    assert!("box".parse::<Filter>().unwrap_err().contains("lanczos"));
    assert!(resize(&picture(), 0, 4, Filter::Lanczos).is_err());
}

/// Whole factors are means of squares; of 4 pixels that become 3, each takes one and a third.
#[test]
fn the_area_filter_takes_each_pixel_as_far_as_it_is_covered() {
    let line: Vec<f32> = vec![0.0, 3.0, 6.0, 12.0];
    let frame = Tensor::from_vec(line, (1, 1, 4, 1), &Device::Cpu).unwrap();
    let to = |width: usize| {
        let resized = resize(&frame, 1, width, Filter::Area).unwrap();
        resized.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(to(2), [1.5, 9.0]);
    assert_eq!(to(1), [5.25]);
    let near = |found: &[f32], expected: &[f32]| {
        found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6)
    };
    assert!(near(&to(3), &[0.75, 4.5, 10.5]), "{:?}", to(3));
    assert_eq!(to(8), [0.0, 0.0, 3.0, 3.0, 6.0, 6.0, 12.0, 12.0]);
}
