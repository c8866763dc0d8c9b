//! Paths in graphs, as texts: which op is another graph's, and what a path is seen from elsewhere.
//! It knows no file system.

/// Whether an op is another graph's path.
pub(crate) fn is_graph(op: &str) -> bool {
    op.ends_with(".ron") || op.starts_with("./") || op.starts_with("../")
}

/// `path` seen from `dir`, without `.` and inner `..`.
pub(crate) fn join(dir: &str, path: &str) -> String {
    let path = path.replace('\\', "/");
    let absolute = path.starts_with('/');
    let whole = if absolute { path } else { format!("{dir}{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("{}{}", if absolute { "/" } else { "" }, parts.join("/"))
}

/// What a graph reads, seen from `dir`, unless the path is absolute or names something else, such
/// as `embedded:shapes`.
pub(crate) fn within(dir: &str, path: String) -> String {
    if dir.is_empty() || path.starts_with('/') || path.contains(':') {
        return path;
    }
    join(dir, &path)
}

/// The folder of a path, with `/` at its end; empty where it has none.
pub(crate) fn folder(path: &str) -> String {
    path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"))
}
