//! How many seconds a step still needs, estimated from its reports of progress.

use std::time::Instant;

/// The weight of the newest piece of work.
const NEWEST: f64 = 0.3;
/// A single piece of work counts as at most this many times the pace so far, and at least as its
/// inverse.
const OUTLIER: f64 = 4.0;

/// The pace of one step. The first piece of work often loads weights or compiles, so it is
/// forgotten as soon as there is a second.
#[derive(Debug)]
pub(crate) struct Pace {
    at: Instant,
    step: u64,
    samples: u32,
    seconds_each: f64,
}

impl Pace {
    /// A step that begins at `now`.
    pub(crate) fn begin(now: Instant) -> Self {
        Pace { at: now, step: 0, samples: 0, seconds_each: 0.0 }
    }

    /// `step` of `of` are done at `now`: the seconds left, once a piece of work is done.
    pub(crate) fn report(&mut self, step: u64, of: u64, now: Instant) -> Option<f64> {
        if step < self.step || step == 0 {
            // It began anew.
            *self = Pace { step, ..Pace::begin(now) };
            return None;
        }
        if step > self.step {
            let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
            self.sample(elapsed / (step - self.step) as f64);
            self.at = now;
            self.step = step;
        }
        (self.samples > 0).then(|| of.saturating_sub(step) as f64 * self.seconds_each)
    }

    fn sample(&mut self, seconds: f64) {
        self.seconds_each = match self.samples {
            0 | 1 => seconds,
            _ => {
                let near = seconds.clamp(self.seconds_each / OUTLIER, self.seconds_each * OUTLIER);
                self.seconds_each + NEWEST * (near - self.seconds_each)
            }
        };
        self.samples += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Seconds left after each report of `(step, of, at second)`.
    fn left(reports: &[(u64, u64, f64)]) -> Vec<Option<f64>> {
        let begin = Instant::now();
        let mut pace = Pace::begin(begin);
        let at = |seconds| begin + Duration::from_secs_f64(seconds);
        let rounded = |left: f64| (left * 100.0).round() / 100.0;
        reports.iter().map(|(n, of, s)| pace.report(*n, *of, at(*s)).map(rounded)).collect()
    }

    #[test]
    fn nothing_is_said_before_the_first_piece() {
        assert_eq!(left(&[(0, 4, 5.0), (1, 4, 7.0)]), [None, Some(6.0)]);
    }

    #[test]
    fn the_slow_first_piece_is_forgotten() {
        let reports = [(1, 5, 10.0), (2, 5, 11.0), (3, 5, 12.0), (5, 5, 14.0)];
        assert_eq!(left(&reports), [Some(40.0), Some(3.0), Some(2.0), Some(0.0)]);
    }

    #[test]
    fn one_hiccup_does_not_carry_far() {
        let reports = [(1, 10, 1.0), (2, 10, 2.0), (3, 10, 3.0), (4, 10, 103.0)];
        // 1 s a piece, then 100 s counted as 4: 1 + 0.3·3 = 1.9 s for each of six.
        assert_eq!(left(&reports)[3], Some(11.4));
    }

    #[test]
    fn a_second_pass_begins_anew_and_repeats_say_the_same() {
        let reports = [(2, 4, 2.0), (2, 4, 9.0), (1, 4, 10.0), (2, 4, 12.0), (9, 4, 13.0)];
        assert_eq!(left(&reports), [Some(2.0), Some(2.0), None, Some(4.0), Some(0.0)]);
    }
}
