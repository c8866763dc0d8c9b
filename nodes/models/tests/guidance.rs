//! Guidance against its formulas.

mod common;

use candle_core::{Device, Tensor};
use common::{close, values};
use kino_models::sampling::guidance::{CfgScale, classifier_free, rescaled};

fn tensor<const N: usize>(rows: &[[f32; 2]; N]) -> Tensor {
    Tensor::new(rows, &Device::Cpu).unwrap()
}

#[test]
fn guidance_extrapolates_from_without_to_with_text() {
    let (with_text, without) = (tensor(&[[1.0, -2.0]]), tensor(&[[0.5, 1.0]]));
    let guided = classifier_free(&with_text, &without, 4.0).unwrap();
    close("guided", &guided, &tensor(&[[2.5, -11.0]]), 1e-6);
    let plain = classifier_free(&with_text, &without, 1.0).unwrap();
    close("scale 1", &plain, &with_text, 1e-6);
}

/// Each clip gets the contrast of its own velocity with text, and only its own.
#[test]
fn rescaling_restores_each_clips_contrast() {
    let with_text = tensor(&[[1.0, 3.0], [2.0, 2.0], [10.0, -10.0]]);
    let guided = tensor(&[[2.0, 10.0], [6.0, 6.0], [20.0, -60.0]]);
    let whole = rescaled(&guided, &with_text, 1.0, &[2, 1]).unwrap();
    let spread = |rows: &Tensor| {
        let all = values(rows);
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        (all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (all.len() - 1) as f64).sqrt()
    };
    for (start, rows) in [(0, 2), (2, 1)] {
        let (found, wanted) =
            (whole.narrow(0, start, rows).unwrap(), with_text.narrow(0, start, rows).unwrap());
        assert!((spread(&found) - spread(&wanted)).abs() < 1e-5);
    }
    let half = rescaled(&guided, &with_text, 0.5, &[2, 1]).unwrap();
    close("half way", &half, &((whole + &guided).unwrap() * 0.5).unwrap(), 1e-5);
    assert!(rescaled(&guided, &with_text, 1.0, &[2, 2]).is_err());
    let flat = tensor(&[[3.0, 3.0]]);
    close("no contrast", &rescaled(&flat, &flat, 0.7, &[1]).unwrap(), &flat, 1e-6);
}

#[test]
fn guidance_keeps_to_its_part_of_the_run() {
    let always = CfgScale::new(4.0);
    assert!((0..20).all(|step| always.guides(step, 20)));
    let middle = CfgScale { from: 0.25, to: 0.75, ..always };
    let guided: Vec<usize> = (0..8).filter(|step| middle.guides(*step, 8)).collect();
    assert_eq!(guided, [2, 3, 4, 5]);
    assert!((0..20).all(|step| !CfgScale::new(1.0).guides(step, 20)));
}

#[test]
fn guidance_and_rescaling_together() {
    let (with_text, without) =
        (tensor(&[[1.0, -2.0], [0.0, 4.0]]), tensor(&[[0.5, 1.0], [1.0, 1.0]]));
    let plain = CfgScale::new(3.0).apply(&with_text, &without, &[1, 1]).unwrap();
    close("plain", &plain, &classifier_free(&with_text, &without, 3.0).unwrap(), 0.0);
    let guidance = CfgScale { rescale: 0.7, ..CfgScale::new(3.0) };
    let both = guidance.apply(&with_text, &without, &[1, 1]).unwrap();
    close("both", &both, &rescaled(&plain, &with_text, 0.7, &[1, 1]).unwrap(), 0.0);
}
