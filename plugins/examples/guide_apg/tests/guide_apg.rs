//! The guider against the paper's own procedure, in plain f64.

use guide_apg::Apg;
use kino_plugin::prelude::*;
use kino_plugin::testing;

/// Scale, eta, momentum, norm threshold.
type Settings = [f64; 4];

/// Algorithm 1 of arXiv:2410.02416, appendix, over lists of numbers.
#[derive(Default)]
struct Paper {
    average: Vec<f64>,
}

impl Paper {
    fn guide(&mut self, with: &[f64], without: &[f64], settings: Settings) -> Vec<f64> {
        let [scale, eta, momentum, threshold] = settings;
        self.average.resize(with.len(), 0.0);
        for (i, average) in self.average.iter_mut().enumerate() {
            *average = with[i] - without[i] + momentum * *average;
        }
        let mut diff = self.average.clone();
        let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        if threshold > 0.0 {
            let factor = (threshold / norm(&diff)).min(1.0);
            diff.iter_mut().for_each(|x| *x *= factor);
        }
        let unit: Vec<f64> = with.iter().map(|x| x / norm(with)).collect();
        let inner: f64 = diff.iter().zip(&unit).map(|(a, b)| a * b).sum();
        let guided = diff.iter().zip(&unit).zip(with).map(|((diff, unit), with)| {
            let parallel = inner * unit;
            let orthogonal = diff - parallel;
            with + (scale - 1.0) * (orthogonal + eta * parallel)
        });
        guided.collect()
    }
}

/// Velocities of one step: with and without text.
fn velocities(step: usize) -> Result<[Tensor; 2]> {
    let seed = 10 * step as u64;
    let velocity = |seed| Tensor::random(seed, &[12, 16]).affine(2.0, -1.0);
    Ok([velocity(seed)?, velocity(seed + 1)?])
}

fn wide(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.cast(DType::F64)?.to_vec()
}

/// Walks five steps and holds each against the reference.
fn check(settings: Settings) -> Result<()> {
    let mut node = testing::open::<Apg>().done()?;
    let mut paper = Paper::default();
    for step in 0..5 {
        let [with, without] = velocities(step)?;
        let [scale, eta, momentum, threshold] = settings;
        let run = node.run().sampling_step(SamplingStep {
            index: step,
            count: 5,
            sigma: 1.0 - 0.2 * step as f64,
        });
        let run = run.input("with_text", &with).input("without_text", &without);
        let run = run.param("scale", scale).param("eta", eta).param("momentum", momentum);
        let found = run.param("norm_threshold", threshold).call()?.tensor("velocity")?;
        let expected = paper.guide(&wide(&with)?, &wide(&without)?, settings);
        let expected = Tensor::from_slice(&expected, &[12, 16])?.cast(DType::F32)?;
        testing::assert_close(&found, &expected, 2e-5);
    }
    Ok(())
}

#[test]
fn every_setting_follows_the_paper() -> Result<()> {
    for scale in [0.0, 1.0, 4.0, 15.0] {
        for eta in [-1.0, 0.0, 0.5, 1.0] {
            for momentum in [-0.75, 0.0, 0.5] {
                for threshold in [0.0, 2.5, 1000.0] {
                    check([scale, eta, momentum, threshold])?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn with_nothing_left_out_it_is_classifier_free_guidance() -> Result<()> {
    let [with, without] = velocities(0)?;
    let run = testing::run::<Apg>().sampling_step(SamplingStep { index: 0, count: 1, sigma: 1.0 });
    let run = run.input("with_text", &with).input("without_text", &without);
    let run = run.param("scale", 5.5).param("eta", 1.0).param("momentum", 0.0);
    let found = run.call()?.tensor("velocity")?;
    let expected = without.add(&with.sub(&without)?.mul(5.5)?)?;
    testing::assert_close(&found, &expected, 1e-5);
    Ok(())
}

#[test]
fn without_eta_the_change_is_at_right_angles() -> Result<()> {
    let [with, without] = velocities(3)?;
    let run = testing::run::<Apg>().sampling_step(SamplingStep { index: 0, count: 1, sigma: 1.0 });
    let run = run.input("with_text", &with).input("without_text", &without);
    let change = wide(&run.call()?.tensor("velocity")?.sub(&with)?)?;
    let along: f64 = change.iter().zip(wide(&with)?).map(|(a, b)| a * b).sum();
    let length: f64 = change.iter().map(|x| x * x).sum();
    assert!(length > 1.0 && along.abs() < 1e-3, "length² {length}, along {along}");
    Ok(())
}

#[test]
fn still_velocities_stay_still() -> Result<()> {
    let zeros = Tensor::zeros::<f32>(&[4, 8])?;
    let run = testing::run::<Apg>().sampling_step(SamplingStep { index: 0, count: 1, sigma: 1.0 });
    let run = run.input("with_text", &zeros).input("without_text", &zeros);
    let found = run.param("norm_threshold", 1.0).call()?.tensor("velocity")?;
    testing::assert_close(&found, &zeros, 0.0);
    Ok(())
}
