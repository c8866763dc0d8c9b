//! When the frames of a video are shown, and at which rate.

use std::sync::Arc;

/// When each frame is shown, in ticks from the first one on.
#[derive(Debug)]
pub(super) struct Timing {
    pub(super) ticks: Vec<i64>,
    /// When the last one ends.
    pub(super) end: i64,
    /// Ticks a second.
    pub(super) scale: u32,
}

/// What is known of a video before any of it is decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoInfo {
    /// Width in pixels, as it is shown.
    pub width: usize,
    /// Height in pixels, as it is shown.
    pub height: usize,
    /// When each frame is shown, in seconds from the first one on.
    pub times: Arc<[f64]>,
    /// When the last one ends, in seconds.
    pub end: f64,
    /// Frames a second: the mean where the rate varies, none for a still image.
    pub fps: Option<f64>,
    /// Whether all frames are shown equally long.
    pub is_constant: bool,
    /// The bytes that decoding takes beside the frames that it gives.
    pub memory: u64,
}

impl Timing {
    /// One frame that is shown for ever.
    pub(super) fn still() -> Self {
        Timing { ticks: vec![0], end: 0, scale: 1 }
    }

    /// Of delays in ticks, one a frame.
    pub(super) fn of_delays(delays: &[u32], scale: u32) -> Self {
        let mut end = 0_i64;
        let ticks = delays.iter().map(|delay| {
            let begin = end;
            end += i64::from(*delay);
            begin
        });
        Timing { ticks: ticks.collect(), end, scale }
    }

    /// Frames a second, and whether that is so for each.
    fn rate(&self) -> (Option<f64>, bool) {
        let (count, scale) = (self.ticks.len(), f64::from(self.scale));
        let (Some(&last), true) = (self.ticks.last(), self.end > 0) else { return (None, true) };
        let Some(&second) = self.ticks.get(1) else {
            return (Some(scale / self.end as f64), true);
        };
        if second > 0 && self.ticks.windows(2).all(|pair| pair[1] - pair[0] == second) {
            return (Some(scale / second as f64), true);
        }
        // Times that are rounded to ticks, such as 33, 67, 100 of 1000.
        if last > 0 {
            let mean = (count - 1) as f64 * scale / last as f64;
            let near = |fps: &f64| {
                let error =
                    |(index, tick): (usize, &i64)| index as f64 * scale / fps - *tick as f64;
                *fps > 0.0 && self.ticks.iter().enumerate().all(|at| error(at).abs() <= 1.0)
            };
            let film = |fps: f64| (fps * 1.001).round() / 1.001;
            if let Some(fps) = [mean.round(), film(mean), mean].into_iter().find(near) {
                return (Some(fps), true);
            }
        }
        (Some(count as f64 * scale / self.end as f64), false)
    }

    /// What is known of a video with these times.
    pub(super) fn info(&self, (width, height): (usize, usize), memory: u64) -> VideoInfo {
        let (fps, is_constant) = self.rate();
        let seconds = |ticks: i64| ticks as f64 / f64::from(self.scale);
        let times = self.ticks.iter().map(|ticks| seconds(*ticks)).collect();
        VideoInfo { width, height, times, end: seconds(self.end), fps, is_constant, memory }
    }
}

/// The most frames that a rate may make of a video.
const MOST_FRAMES: f64 = 16_777_216.0;

impl VideoInfo {
    /// The number of frames: those of the file, or at a rate; none where that is more than can be
    /// meant.
    pub fn count(&self, fps: Option<f64>) -> Option<usize> {
        match fps {
            None => Some(self.times.len()),
            Some(fps) => {
                let count = (self.end * fps).round().max(1.0);
                (count <= MOST_FRAMES).then_some(count as usize)
            }
        }
    }

    /// The frame of the file that is shown as frame `index`; at a rate, the one that is on the
    /// screen at that time.
    pub fn frame_at(&self, index: usize, fps: Option<f64>) -> usize {
        let Some(fps) = fps else { return index };
        // A little later, so that 1/3 + 1/3 + 1/3 is not before 1.
        let time = index as f64 / fps + 1e-6;
        self.times.partition_point(|begin| *begin <= time).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(ticks: &[i64], end: i64, scale: u32) -> VideoInfo {
        Timing { ticks: ticks.to_vec(), end, scale }.info((1, 1), 0)
    }

    #[test]
    fn rates() {
        let rate = |ticks: &[i64], end, scale| {
            let info = info(ticks, end, scale);
            (info.fps, info.is_constant)
        };
        assert_eq!(rate(&[0, 1001, 2002], 3003, 24_000), (Some(24_000.0 / 1001.0), true));
        assert_eq!(rate(&[0], 1000, 8000), (Some(8.0), true));
        assert_eq!(rate(&[0], 0, 1), (None, true));
        assert_eq!(rate(&[0, 42, 83, 125, 167], 208, 1000), (Some(24.0), true));
        assert_eq!(rate(&[0, 33, 67, 100, 133], 167, 1000), (Some(30.0), true));
        assert_eq!(rate(&[0, 10, 40, 50], 80, 100), (Some(5.0), false));
        assert_eq!(rate(&[0, 0, 0], 3, 1), (Some(1.0), false));
    }

    #[test]
    fn at_a_rate_each_frame_is_the_one_on_the_screen() {
        let varying = info(&[0, 10, 40, 50], 80, 100);
        let at = |info: &VideoInfo, fps: f64| -> Vec<usize> {
            let count = info.count(Some(fps)).unwrap();
            (0..count).map(|index| info.frame_at(index, Some(fps))).collect()
        };
        assert_eq!(at(&varying, 10.0), [0, 1, 1, 1, 2, 3, 3, 3]);
        assert_eq!(at(&varying, 5.0), [0, 1, 2, 3]);
        let constant = info(&[0, 1, 2, 3, 4, 5], 6, 30);
        assert_eq!(at(&constant, 15.0), [0, 2, 4]);
        assert_eq!(at(&constant, 60.0), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
        assert_eq!(at(&constant, 30.0), [0, 1, 2, 3, 4, 5]);
        assert_eq!(info(&[0], 0, 1).count(Some(8.0)), Some(1));
        assert_eq!(info(&[0], i64::MAX, 1).count(Some(8.0)), None);
    }
}
