//! Numbers of frames, which are computed with many at a time.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// One number of frames: f32, in 0…1 where frames are as they should be.
///
/// What is done with it becomes vector instructions in a native library and in a component alike.
/// `f32::min` and `f32::max` do not: in a component each of them calls a function for every number.
/// Numbers of type f32 and f64 can stand behind a sample, the latter rounded to f32. In a loop of
/// your own over a slice of f32, `Sample(x).min(1.0).0` does the same.
///
/// What is not a number stays that in all operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct Sample(pub f32);

impl Sample {
    /// The lesser of two.
    #[must_use]
    #[inline(always)]
    pub fn min(self, other: impl Into<Sample>) -> Self {
        let other = other.into();
        // A comparison and a choice, as `pmin` and `minps` do it; `f32::min` looks for NaN besides.
        if self.0 > other.0 { other } else { self }
    }

    /// The greater of two.
    #[must_use]
    #[inline(always)]
    pub fn max(self, other: impl Into<Sample>) -> Self {
        let other = other.into();
        if self.0 < other.0 { other } else { self }
    }

    /// Between two numbers, the first of which is the lesser one.
    #[must_use]
    #[inline(always)]
    pub fn clamp(self, least: impl Into<Sample>, most: impl Into<Sample>) -> Self {
        self.max(least).min(most)
    }

    /// Without its sign.
    #[must_use]
    #[inline(always)]
    pub fn abs(self) -> Self {
        Sample(self.0.abs())
    }

    /// Its square root.
    #[must_use]
    #[inline(always)]
    pub fn sqrt(self) -> Self {
        Sample(self.0.sqrt())
    }

    /// The greatest whole number that is not greater.
    #[must_use]
    #[inline(always)]
    pub fn floor(self) -> Self {
        Sample(self.0.floor())
    }

    /// To a power. There are no vector instructions for it.
    #[must_use]
    #[inline(always)]
    pub fn powf(self, power: impl Into<Sample>) -> Self {
        Sample(self.0.powf(power.into().0))
    }
}

impl From<f32> for Sample {
    #[inline(always)]
    fn from(number: f32) -> Self {
        Sample(number)
    }
}

impl From<f64> for Sample {
    #[inline(always)]
    fn from(number: f64) -> Self {
        Sample(number as f32)
    }
}

impl From<Sample> for f32 {
    #[inline(always)]
    fn from(sample: Sample) -> Self {
        sample.0
    }
}

impl Neg for Sample {
    type Output = Sample;

    #[inline(always)]
    fn neg(self) -> Sample {
        Sample(-self.0)
    }
}

macro_rules! operators {
    ($($op:ident $name:ident),*) => {$(
        impl<T: Into<Sample>> $op<T> for Sample {
            type Output = Sample;

            #[inline(always)]
            fn $name(self, other: T) -> Sample {
                Sample(self.0.$name(other.into().0))
            }
        }

        impl $op<Sample> for f32 {
            type Output = Sample;

            #[inline(always)]
            fn $name(self, other: Sample) -> Sample {
                Sample(self.$name(other.0))
            }
        }
    )*};
}

operators!(Add add, Sub sub, Mul mul, Div div);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_computed_as_numbers_are() {
        let gain = 1.5f64;
        for x in [-2.0f32, -0.5, 0.0, 0.25, 0.9, 7.0, f32::INFINITY] {
            let sample = Sample(x);
            assert_eq!((sample * gain).min(1.0).0, (x * 1.5).min(1.0));
            assert_eq!((1.0 - sample / 2.0f32).max(sample).0, (1.0 - x / 2.0).max(x));
            assert_eq!((-sample + 0.5).clamp(0.0, 1.0).0, (0.5 - x).clamp(0.0, 1.0));
            assert_eq!(sample.abs().sqrt().floor().powf(2.0).0, x.abs().sqrt().floor().powf(2.0));
        }
        let none = Sample(f32::NAN);
        assert!([none.min(1.0), none.max(0.0), none.clamp(0.0, 1.0)].iter().all(|x| x.0.is_nan()));
    }
}
