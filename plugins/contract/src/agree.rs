//! What a node says of its inputs before it runs: pictures that must be of one size, or as many.

/// What must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agree {
    /// Width and height.
    Size,
    /// The number of frames; a mask of one frame stands for all.
    Count,
}

/// Inputs of a node that must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// In what.
    pub what: Agree,
    /// Their indices.
    pub inputs: Vec<usize>,
}

/// What is known of the pictures that feed an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pictures {
    /// The input's name.
    pub input: String,
    /// How many there are, where it is known.
    pub count: Option<usize>,
    /// Their height in pixels, where it is known.
    pub height: Option<usize>,
    /// Their width in pixels, where it is known.
    pub width: Option<usize>,
    /// Whether they are those of a mask.
    pub is_mask: bool,
}

/// Two inputs that do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The later one.
    pub input: String,
    /// What was expected, and what both are.
    pub message: String,
}

/// What to do where pictures do not agree.
pub fn advice(what: Agree) -> &'static str {
    match what {
        Agree::Size => "`frames.fit` and `frames.resize` bring frames to one size",
        Agree::Count => "`frames.trim` cuts frames to as many; a mask of one frame stands for all",
    }
}

impl Agreement {
    /// Holds pictures against it, each with the first whose side or number is known; `node` is the
    /// node's id.
    ///
    /// # Errors
    /// When two do not agree: which, and what both are.
    pub fn check(&self, node: &str, pictures: &[Pictures]) -> Result<(), Disagreement> {
        let axes: &[fn(&Pictures) -> Option<usize>] = match self.what {
            Agree::Size => &[|one| one.height, |one| one.width],
            Agree::Count => &[|one| one.count.filter(|count| !(one.is_mask && *count == 1))],
        };
        let disagreeing = |axis: &fn(&Pictures) -> Option<usize>| {
            let mut known = pictures.iter().enumerate().filter(|(_, one)| axis(one).is_some());
            let (_, first) = known.next()?;
            let (at, other) = known.find(|(_, one)| axis(one) != axis(first))?;
            Some((at, first, other))
        };
        let found = axes.iter().filter_map(disagreeing).min_by_key(|(at, ..)| *at);
        let Some((_, first, other)) = found else { return Ok(()) };
        let (a, b) = (&first.input, &other.input);
        let message = match self.what {
            Agree::Size => {
                let side = |side: Option<usize>| side.map_or("?".to_owned(), |n| n.to_string());
                let size = |one: &Pictures| format!("{}x{}", side(one.width), side(one.height));
                let (first, other) = (size(first), size(other));
                format!(
                    "`{node}` takes `{a}` and `{b}` of one size: `{a}` is {first}, `{b}` is {other}"
                )
            }
            Agree::Count => {
                let count = |one: &Pictures| match one.count.unwrap_or_default() {
                    1 => "1 frame".to_owned(),
                    n => format!("{n} frames"),
                };
                let (first, other) = (count(first), count(other));
                format!(
                    "`{node}` takes as many of `{a}` as of `{b}`: `{a}` has {first}, `{b}` {other}"
                )
            }
        };
        Err(Disagreement { input: other.input.clone(), message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures(input: &str, count: impl Into<Option<usize>>, width: usize) -> Pictures {
        let (input, count) = (input.to_owned(), count.into());
        Pictures { input, count, height: Some(8), width: Some(width), is_mask: false }
    }

    #[test]
    fn sizes_and_numbers_are_held_against_each_other() {
        let check = |what, all: &[Pictures]| {
            let agreement = Agreement { what, inputs: vec![0, 1] };
            agreement.check("a.mix", all).map_err(|error| (error.input, error.message))
        };
        let (a, b) = (pictures("a", 5, 16), pictures("b", 6, 24));
        let (input, message) = check(Agree::Size, &[a.clone(), b.clone()]).unwrap_err();
        let expected = "`a.mix` takes `a` and `b` of one size: `a` is 16x8, `b` is 24x8";
        assert_eq!((input.as_str(), message.as_str()), ("b", expected));
        let (_, message) = check(Agree::Count, &[a.clone(), b.clone()]).unwrap_err();
        let expected = "`a.mix` takes as many of `a` as of `b`: `a` has 5 frames, `b` 6 frames";
        assert_eq!(message, expected);
        // What is not known is held against nothing, and one mask stands for all frames.
        let unknown = pictures("b", None, 16);
        assert_eq!(check(Agree::Count, &[a.clone(), unknown.clone()]), Ok(()));
        assert_eq!(check(Agree::Size, &[a.clone(), unknown]), Ok(()));
        let mask = |count| Pictures { is_mask: true, ..pictures("mask", count, 16) };
        assert_eq!(check(Agree::Count, &[mask(1), a.clone()]), Ok(()));
        assert!(check(Agree::Count, &[a.clone(), mask(1), mask(3)]).is_err());
        assert_eq!(check(Agree::Size, std::slice::from_ref(&a)), Ok(()));
        // Of a size that is known in part, that part is held against the others.
        let broad = |input: &str, width| Pictures { height: None, ..pictures(input, 5, width) };
        assert_eq!(check(Agree::Size, &[broad("b", 16), a.clone()]), Ok(()));
        let (input, message) = check(Agree::Size, &[broad("b", 24), a]).unwrap_err();
        let expected = "`a.mix` takes `b` and `a` of one size: `b` is 24x?, `a` is 16x8";
        assert_eq!((input.as_str(), message.as_str()), ("a", expected));
    }
}
