//! Which token follows: the likeliest, or one that is drawn.

/// How a token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// What logits are divided by; at 0 the likeliest token is taken.
    pub temperature: f64,
    /// Only so many of the likeliest are drawn from; 0 for all.
    pub top_k: usize,
    /// Only the likeliest that together have this probability (arXiv:1904.09751); 1 for all.
    pub top_p: f64,
    /// Only those that have at least this part of the probability of the likeliest
    /// (arXiv:2407.01082); 0 for all.
    pub min_p: f64,
}

impl Sampling {
    /// The token that follows. The cuts are made in the order of transformers: temperature, `top_k`,
    /// `top_p`, `min_p`. `uniform` gives a number in 0…1 where one is drawn.
    ///
    /// Of equals the token of the smaller number comes first, so that the order is one.
    pub fn choose(&self, logits: &[f32], uniform: impl FnOnce() -> f64) -> u32 {
        let likeliest = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
        let best = (1..logits.len()).fold(0, likeliest);
        if self.temperature <= 0.0 {
            return best as u32;
        }
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let by_logit =
            |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if self.top_k > 0 && self.top_k < order.len() {
            order.select_nth_unstable_by(self.top_k - 1, by_logit);
            order.truncate(self.top_k);
        }
        order.sort_unstable_by(by_logit);
        let highest = f64::from(logits[best]);
        let weight =
            |id: u32| ((f64::from(logits[id as usize]) - highest) / self.temperature).exp();
        let mut weights: Vec<f64> = order.iter().map(|id| weight(*id)).collect();
        let cut = |weights: &mut Vec<f64>, keep: usize| weights.truncate(keep.max(1));
        if self.top_p < 1.0 {
            let wanted = self.top_p * weights.iter().sum::<f64>();
            let mut sum = 0.0;
            let more = weights.iter().position(|weight| {
                sum += weight;
                sum >= wanted
            });
            cut(&mut weights, more.map_or(usize::MAX, |last| last + 1));
        }
        if self.min_p > 0.0 {
            let least = self.min_p * weights.first().copied().unwrap_or_default();
            let fewer = weights.iter().take_while(|weight| **weight >= least).count();
            cut(&mut weights, fewer);
        }
        let mut left = uniform() * weights.iter().sum::<f64>();
        let drawn = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        let drawn = drawn.unwrap_or(weights.len().saturating_sub(1));
        order.get(drawn).copied().unwrap_or(best as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, -1.0, 3.0];

    fn sampling(temperature: f64) -> Sampling {
        Sampling { temperature, top_k: 0, top_p: 1.0, min_p: 0.0 }
    }

    /// The tokens that are drawn, over the whole range of random numbers, each once.
    fn drawn(sampling: Sampling) -> Vec<u32> {
        let mut drawn: Vec<u32> =
            (0..1000).map(|at| sampling.choose(&LOGITS, || f64::from(at) / 1000.0)).collect();
        drawn.dedup();
        drawn
    }

    #[test]
    fn without_temperature_the_first_of_the_likeliest_is_taken() {
        assert_eq!(drawn(sampling(0.0)), [1]);
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        assert_eq!(drawn(sampling(1.0)), [1, 4, 2, 0, 3]);
        let weights = LOGITS.map(|logit| f64::from(logit / 2.0).exp());
        let total: f64 = weights.iter().sum();
        for (id, weight) in weights.iter().enumerate() {
            let own = sampling(2.0);
            let count = (0..10_000)
                .filter(|at| own.choose(&LOGITS, || f64::from(*at) / 10_000.0) == id as u32)
                .count();
            assert!((count as f64 / 10_000.0 - weight / total).abs() < 2e-4, "{id}: {count}");
        }
    }

    #[test]
    fn the_unlikely_are_cut() {
        let one = sampling(1.0);
        assert_eq!(drawn(Sampling { top_k: 3, ..one }), [1, 4, 2]);
        assert_eq!(drawn(Sampling { top_k: 1, ..one }), [1]);
        // The two likeliest have 0.40 each, the third 0.15.
        assert_eq!(drawn(Sampling { top_p: 0.75, ..one }), [1, 4]);
        assert_eq!(drawn(Sampling { top_p: 0.9, ..one }), [1, 4, 2]);
        assert_eq!(drawn(Sampling { top_p: 0.0, ..one }), [1]);
        assert_eq!(drawn(Sampling { min_p: 0.3, ..one }), [1, 4, 2]);
        assert_eq!(drawn(Sampling { min_p: 1.0, ..one }), [1, 4]);
    }
}
