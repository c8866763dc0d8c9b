//! What somebody may have meant who wrote a name that nobody knows: one measure for nodes, ports,
//! inputs, choices, operations, tensors and weights.

/// Longer words than this, in bytes, are compared with nothing, nor is a longer candidate.
const LONGEST: usize = 64;
/// No more candidates than this are looked at.
const MAX_CANDIDATES: usize = 10_000;
/// What is less alike was not meant.
const LEAST_LIKENESS: f64 = 0.75;

/// The candidate that is most like `word` (Jaro–Winkler similarity), if it is like enough to be
/// meant; else one of which `word` is a whole part, as `decode` is of `vae.decode`.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let candidates = candidates.into_iter().take(MAX_CANDIDATES);
    let (mut best, mut whole) = ((LEAST_LIKENESS, None), None);
    for candidate in candidates.filter(|candidate| candidate.len() <= LONGEST) {
        let likeness = strsim::jaro_winkler(word, candidate);
        if likeness > LEAST_LIKENESS && likeness >= best.0 {
            best = (likeness, Some(candidate));
        }
        if whole.is_none() && !word.is_empty() && candidate.split('.').any(|part| part == word) {
            whole = Some(candidate);
        }
    }
    best.1.or(whole)
}

/// The question whether the nearest candidate was meant, if one is near enough.
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(word, candidates).map(|near| format!("did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_understood() {
        let ops = ["dit.sample", "vae.decode", "vae.encode"];
        assert_eq!(nearest("dit.sampel", ops), Some("dit.sample"));
        assert_eq!(nearest("decode", ops), Some("vae.decode"));
        assert_eq!(nearest("upscale", ops), None);
        assert_eq!(nearest("", ops), None);
        assert_eq!(nearest(&"dit.sample".repeat(9), ops), None);
        assert_eq!(did_you_mean("vae.decod", ops).as_deref(), Some("did you mean `vae.decode`?"));
    }
}
