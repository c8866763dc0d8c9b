//! The levels, without the engine.

use kino_plugin::prelude::*;
use kino_plugin::testing;
use sigmas_karras::sigmas_karras;

fn levels(steps: u64, min: f64, max: f64, rho: f64) -> Result<Vec<f64>> {
    let run = testing::run::<sigmas_karras>().param("steps", steps).param("rho", rho);
    let out = run.param("sigma_min", min).param("sigma_max", max).call()?;
    Ok(out.get::<Sigmas>("sigmas")?.to_vec())
}

#[test]
fn levels_are_those_of_the_paper() -> Result<()> {
    // Equation 5 with the paper's own settings, in Python's floats.
    let paper =
        [80.0, 17.527_831_964_644_11, 2.515_218_976_147_159, 0.169_752_756_268_764_13, 0.002];
    let found = levels(5, 0.002, 80.0, 7.0)?;
    assert_eq!(found.len(), 6);
    for (level, sigma) in found.iter().zip(paper) {
        let back = level / (1.0 - level);
        assert!((back / sigma - 1.0).abs() < 1e-12, "expected {sigma}, found {back}");
    }
    assert_eq!(found[5], 0.0);
    Ok(())
}

#[test]
fn rho_one_is_even() -> Result<()> {
    let found = levels(4, 1.0, 4.0, 1.0)?;
    for (level, expected) in found.iter().zip([0.8, 0.75, 2.0 / 3.0, 0.5, 0.0]) {
        assert!((level - expected).abs() < 1e-12, "{found:?}");
    }
    Ok(())
}

#[test]
fn levels_fall_from_at_most_one_to_zero() -> Result<()> {
    for steps in [1, 2, 3, 50, 1000] {
        for rho in [1.0, 7.0, 20.0] {
            let found = levels(steps, 0.0001, 10000.0, rho)?;
            assert_eq!(found.len() as u64, steps + 1);
            assert!(found[0] < 1.0 && found.last() == Some(&0.0));
            assert!(found.windows(2).all(|pair| pair[0] > pair[1]), "{steps} steps, rho {rho}");
        }
    }
    Ok(())
}

#[test]
fn the_wrong_way_around_is_refused() {
    let why = levels(5, 2.0, 1.0, 7.0).unwrap_err();
    assert_eq!(why.message(), "`sigma_min` (2) must be less than `sigma_max` (1)");
}
