//! Who writes which file: single files, and those that one path numbers. It knows no file system.

use std::collections::BTreeMap;
use std::ops::Bound;

use kino_port::{NumberedFiles, PathForm};

/// The files that somebody writes, each with its writer.
#[derive(Debug)]
pub struct WrittenFiles<W> {
    single: BTreeMap<String, W>,
    /// By what stands before the number.
    numbered: BTreeMap<String, Vec<(NumberedFiles, W)>>,
}

impl<W> Default for WrittenFiles<W> {
    fn default() -> Self {
        WrittenFiles { single: BTreeMap::new(), numbered: BTreeMap::new() }
    }
}

impl<W: Copy> WrittenFiles<W> {
    /// Whether nobody writes anything.
    pub fn is_empty(&self) -> bool {
        self.single.is_empty() && self.numbered.is_empty()
    }

    /// Who writes the file at `path`.
    pub fn writer(&self, path: &str) -> Option<W> {
        let single = self.single.get(path).copied();
        single
            .or_else(|| self.before(path).find_map(|(files, w)| files.contains(path).then_some(w)))
    }

    /// Who writes a file where the folder of `path` must be, or whose folder is the file at `path`.
    /// Of numbered files, by what stands before their number.
    pub fn in_the_way(&self, path: &str) -> Option<W> {
        let slashes = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
        let mut folders = slashes.map(|at| &path[..at]);
        let above = folders.find_map(|folder| self.writer(folder));
        above.or_else(|| {
            let begin = format!("{path}/");
            let from = (Bound::Included(begin.as_str()), Bound::Unbounded);
            let single = self.single.range::<str, _>(from).next();
            let single = single.filter(|(below, _)| below.starts_with(&begin));
            let numbered = || {
                let below = self.numbered.range::<str, _>(from).next();
                below.filter(|(below, _)| below.starts_with(&begin))?.1.first().map(|(_, w)| *w)
            };
            single.map(|(_, writer)| *writer).or_else(numbered)
        })
    }

    /// Notes who writes what `path` names. Gives who else writes a file of it, if anybody.
    pub fn insert(&mut self, path: String, form: PathForm, writer: W) -> Option<W> {
        let Some(files) = form.files(&path) else {
            let other = self.writer(&path);
            self.single.insert(path, writer);
            return other;
        };
        let begin = files.before().to_owned();
        let begin = begin.as_str();
        let single = self.single.range::<str, _>((Bound::Included(begin), Bound::Unbounded));
        let mut single = single.take_while(|(path, _)| path.starts_with(begin));
        let single = single.find_map(|(path, other)| files.contains(path).then_some(*other));
        let longer = self.numbered.range::<str, _>((Bound::Excluded(begin), Bound::Unbounded));
        let longer = longer.take_while(|(before, _)| before.starts_with(begin));
        let longer = longer.flat_map(|(_, all)| all.iter().map(|(files, other)| (files, *other)));
        let numbered = || {
            let mut near = self.before(begin).chain(longer);
            near.find_map(|(others, other)| files.meets(others).then_some(other))
        };
        let other = single.or_else(numbered);
        self.numbered.entry(begin.to_owned()).or_default().push((files, writer));
        other
    }

    /// The numbered files whose paths begin as `path` does.
    fn before(&self, path: &str) -> impl Iterator<Item = (&NumberedFiles, W)> {
        let ends = path.char_indices().map(|(at, _)| at).chain([path.len()]);
        let ends = ends.filter(|_| !self.numbered.is_empty());
        let found = ends.filter_map(|end| self.numbered.get(&path[..end]));
        found.flatten().map(|(files, writer)| (files, *writer))
    }
}
