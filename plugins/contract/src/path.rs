//! Paths of granted files, as plugins write them.

use std::path::{Component, Path, PathBuf};

/// A path relative to the graph, without `.`: whatever way the same file is written.
///
/// # Errors
/// When it is absolute, goes up, or holds what a path of some system does not.
pub fn clean(path: &str) -> Result<PathBuf, String> {
    let relative = Path::new(path);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.contains('\0') || path.contains('\\') || !relative.components().all(plain) {
        return Err("paths are relative to the graph, without `..`".into());
    }
    Ok(relative.components().filter(|part| *part != Component::CurDir).collect())
}
