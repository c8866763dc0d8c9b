//! Scalars and rows that LLVM turns into vectors when inlined into a function of a tier.

/// Partial sums of a reduction: fixed, so that every tier adds in the same order.
pub(crate) const LANES: usize = 16;

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
    const TWICE_ROOT: f32 = 1.595_769_1;
    let cubic = madd::<FMA>(0.044_715 * x * x, x, x);
    x / (1.0 + exp::<FMA>(-TWICE_ROOT * cubic))
}

/// Folds a row into [`LANES`] partial results and those into one.
#[inline(always)]
fn fold(
    row: &[f32],
    start: f32,
    join: impl Fn(f32, f32) -> f32,
    end: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = join(lanes[i], chunk[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = join(*lane, x);
    }
    let mut half = LANES / 2;
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
