//! Where a path leads: every place that decides what stands at its end.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// More links than this on one way are a circle.
const MAX_LINKS: usize = 40;

/// The links on the way of a path, then its end, each as a name in a folder without links. A way
/// that breaks off ends with the first place that does not exist.
pub(super) fn follow(path: &Path) -> Vec<PathBuf> {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut rest = parts(&whole);
    let (mut at, mut places, mut links) = (PathBuf::new(), Vec::new(), 0);
    while let Some(part) = rest.pop_front() {
        match part {
            Part::Up => {
                at.pop();
            }
            Part::Root(root) => at.push(root),
            Part::Name(name) => {
                let next = at.join(name);
                let Ok(about) = next.symlink_metadata() else {
                    places.push(next);
                    return places;
                };
                match next.read_link() {
                    Ok(target) if about.is_symlink() && links < MAX_LINKS => {
                        links += 1;
                        places.push(next);
                        if target.is_absolute() {
                            at = PathBuf::new();
                        }
                        parts(&target).into_iter().rev().for_each(|part| rest.push_front(part));
                    }
                    _ => at = next,
                }
            }
        }
    }
    places.push(at);
    places
}

enum Part {
    Root(OsString),
    Up,
    Name(OsString),
}

fn parts(path: &Path) -> VecDeque<Part> {
    let part = |part: Component<'_>| match part {
        Component::CurDir => None,
        Component::ParentDir => Some(Part::Up),
        Component::Normal(name) => Some(Part::Name(name.to_owned())),
        root => Some(Part::Root(root.as_os_str().to_owned())),
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_ends_with_the_first_thing_that_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        assert_eq!(follow(&root.join("a/b/c")), [root.join("a")]);
        std::fs::create_dir(root.join("a")).unwrap();
        assert_eq!(follow(&root.join("a/../a/./b/c")), [root.join("a/b")]);
        std::fs::write(root.join("a/b"), "").unwrap();
        assert_eq!(follow(&root.join("a/b")), [root.join("a/b")]);
    }

    #[cfg(unix)]
    #[test]
    fn links_on_the_way_are_places_of_it() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("v1")).unwrap();
        std::fs::write(root.join("v1/g"), "").unwrap();
        symlink("v1", root.join("now")).unwrap();
        symlink(root.join("now/g"), root.join("g")).unwrap();
        let expected = [root.join("g"), root.join("now"), root.join("v1/g")];
        assert_eq!(follow(&root.join("g")), expected);
        symlink("self", root.join("self")).unwrap();
        assert!(follow(&root.join("self")).len() > 1, "a circle ends");
    }
}
