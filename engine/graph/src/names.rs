//! Finds names in lists of them: long lists are hashed, short ones searched from end to end.

use std::collections::HashMap;

/// Lists up to this length are searched.
const FEW: usize = 16;

/// Where each name of a list stands in it; nothing for a short list.
#[derive(Debug, Default)]
pub(crate) struct NameIndex(Option<HashMap<String, usize>>);

impl NameIndex {
    pub(crate) fn of<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> Self {
        if names.len() <= FEW {
            return NameIndex(None);
        }
        NameIndex(Some(names.enumerate().map(|(at, name)| (name.to_owned(), at)).collect()))
    }

    /// The position of a name in the list that this is the index of.
    pub(crate) fn position<'n>(
        &self,
        name: &str,
        mut names: impl Iterator<Item = &'n str>,
    ) -> Option<usize> {
        match &self.0 {
            Some(index) => index.get(name).copied(),
            None => names.position(|candidate| candidate == name),
        }
    }
}
