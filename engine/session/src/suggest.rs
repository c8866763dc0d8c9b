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
