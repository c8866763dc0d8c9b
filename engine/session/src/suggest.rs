//! What somebody may have meant.

use strsim::osa_distance;

/// The candidate that differs least from `word` (optimal string alignment), if it is near enough to
/// be meant, or one that holds it.
pub fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let scored = candidates.clone().map(|candidate| (osa_distance(word, candidate), candidate));
    let best = scored.min_by_key(|(distance, _)| *distance);
    best.filter(|(distance, near)| *distance * 3 <= near.chars().count().max(3))
        .map(|(_, near)| near)
        .or_else(|| {
            candidates.into_iter().find(|candidate| candidate.split('.').any(|part| part == word))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_understood() {
        let ops = ["dit.sample", "vae.decode", "vae.encode"];
        assert_eq!(nearest("dit.sampel", ops.into_iter()), Some("dit.sample"));
        assert_eq!(nearest("decode", ops.into_iter()), Some("vae.decode"));
        assert_eq!(nearest("upscale", ops.into_iter()), None);
    }
}
