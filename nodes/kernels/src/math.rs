//! Scalars and rows that LLVM turns into vectors when inlined into a function of a tier.

/// Numbers of the widest vector of a tier.
pub(crate) const LANES: usize = 16;
/// Partial sums of a reduction: fixed, so that every tier adds in the same order. They are four
/// vectors, since an addition takes about four cycles, and one begins in each.
const PARTS: usize = 4 * LANES;

/// a·b + c.
#[inline(always)]
pub(crate) fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// eˣ to about 1e-7 of its value; below −87.3 it stays at e^−87.3 (1e-38), above 88.3 at e^88.3.
///
/// The polynomial is that of `expf` in Cephes (S. L. Moshier).
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Comparisons in this order keep NaN.
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    // Adding 1.5·2²³ rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = madd::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = madd::<FMA>(n, -0.693_359_4, x);
    let r = madd::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = madd::<FMA>(1.987_569_1e-4, r, 1.398_199_9e-3);
    p = madd::<FMA>(p, r, 8.333_452e-3);
    p = madd::<FMA>(p, r, 4.166_579_6e-2);
    p = madd::<FMA>(p, r, 1.666_666_5e-1);
    p = madd::<FMA>(p, r, 5e-1);
    let e = madd::<FMA>(p * r, r, r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    e * f32::from_bits(exponent << 23)
}

/// x·sigmoid(x).
#[inline(always)]
pub(crate) fn silu<const FMA: bool>(x: f32) -> f32 {
    x / (1.0 + exp::<FMA>(-x))
}

/// GELU in its tanh form, as x·sigmoid(2·√(2/π)·(x + 0.044715·x³)).
#[inline(always)]
pub(crate) fn gelu_tanh<const FMA: bool>(x: f32) -> f32 {
    const TWICE_ROOT: f32 = 1.595_769_2;
    let cubic = madd::<FMA>(0.044_715 * x * x, x, x);
    x / (1.0 + exp::<FMA>(-TWICE_ROOT * cubic))
}

/// Folds a row into [`PARTS`] partial results and those into one.
#[inline(always)]
fn fold(
    row: &[f32],
    start: f32,
    join: impl Fn(f32, f32) -> f32,
    end: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; PARTS];
    let (chunks, rest) = row.as_chunks::<PARTS>();
    for chunk in chunks {
        for i in 0..PARTS {
            lanes[i] = join(lanes[i], chunk[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = join(*lane, x);
    }
    let mut half = PARTS / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = end(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Sum of a row.
#[inline(always)]
pub(crate) fn sum(row: &[f32]) -> f32 {
    fold(row, 0.0, |a, x| a + x, |a, b| a + b)
}

/// Sum of (x − centre)² over a row.
#[inline(always)]
pub(crate) fn sum_squares<const FMA: bool>(row: &[f32], centre: f32) -> f32 {
    let join = |a, x: f32| madd::<FMA>(x - centre, x - centre, a);
    fold(row, 0.0, join, |a, b| a + b)
}

/// The largest of a row; −∞ when it is empty.
#[inline(always)]
pub(crate) fn largest(row: &[f32]) -> f32 {
    let pick = |a: f32, x: f32| if x > a { x } else { a };
    fold(row, f32::NEG_INFINITY, pick, pick)
}

/// Replaces a row by exp(x·scale − top) and returns the sum.
#[inline(always)]
pub(crate) fn exp_row<const FMA: bool>(row: &mut [f32], scale: f32, top: f32) -> f32 {
    for x in row.iter_mut() {
        *x = exp::<FMA>(madd::<FMA>(*x, scale, -top));
    }
    sum(row)
}

#[cfg(test)]
mod tests {
    use crate::tier::by_tier;
    use crate::tier::tests::in_every_tier;

    by_tier! {
        fn exp_all<FMA>(x: &[f32], y: &mut [f32]) {
            for (y, x) in y.iter_mut().zip(x) {
                *y = super::exp::<FMA>(*x);
            }
        }
    }

    by_tier! {
        fn reductions<FMA>(x: &[f32]) -> [f32; 3] {
            [super::sum(x), super::sum_squares::<FMA>(x, 0.25), super::largest(x)]
        }
    }

    #[test]
    fn exp_is_exact_to_the_last_bits() {
        let x: Vec<f32> = (-8700..8800).map(|i| i as f32 * 0.01).collect();
        in_every_tier(|tier| {
            let mut y = vec![0.0; x.len()];
            exp_all(&x, &mut y);
            for (x, y) in x.iter().zip(&y) {
                let exact = f64::from(*x).exp();
                let error = (f64::from(*y) - exact).abs() / exact;
                assert!(error < 2e-7, "{tier:?}: exp({x}) = {y}, off by {error:e} of it");
            }
        });
    }

    #[test]
    fn exp_stays_finite_and_keeps_nan() {
        let x = [f32::NEG_INFINITY, -1e30, 0.0, 1e30, f32::INFINITY, f32::NAN];
        in_every_tier(|_| {
            let mut y = [0.0; 6];
            exp_all(&x, &mut y);
            assert!(y[0] < 2e-38 && y[1] < 2e-38 && y[2] == 1.0, "{y:?}");
            assert!(y[3] > 1e38 && y[4] > 1e38 && y[5].is_nan(), "{y:?}");
        });
    }

    #[test]
    fn reductions_take_every_element_once() {
        for length in [0, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..length).map(|i| (i * 7 % 11) as f32 - 3.0).collect();
            let sum: f32 = x.iter().sum();
            let squares: f32 = x.iter().map(|x| (x - 0.25) * (x - 0.25)).sum();
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            in_every_tier(|tier| {
                let found = reductions(&x);
                assert_eq!((found[0], found[2]), (sum, largest), "{tier:?}, {length}");
                assert!((found[1] - squares).abs() < 1e-3, "{tier:?}, {length}");
            });
        }
    }
}
