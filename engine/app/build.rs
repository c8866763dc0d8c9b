//! Gathers the sources of the plugin SDK, so that `kino plugin new` works with the binary alone.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What a plugin is built with, seen from the top of the workspace.
const PARTS: [&str; 5] =
    ["engine/port", "plugins/abi", "plugins/contract", "plugins/sdk", "plugins/sdk/macros"];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = vec![PathBuf::from("Cargo.toml")];
    for part in PARTS {
        println!("cargo::rerun-if-changed={}", root.join(part).display());
        gather(&root, Path::new(part), &mut files);
    }
    println!("cargo::rerun-if-changed={}", root.join("Cargo.toml").display());
    let mut code = "pub(crate) static FILES: &[(&str, &str)] = &[\n".to_owned();
    for file in files {
        let path = root.join(&file);
        let path = path.canonicalize().unwrap_or(path);
        let name = file.to_string_lossy().replace('\\', "/");
        let _ = writeln!(code, "    ({name:?}, include_str!({:?})),", path.display().to_string());
    }
    code.push_str("];\n");
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    if let Err(error) = std::fs::write(Path::new(&out).join("sdk.rs"), code) {
        println!("cargo::error=the SDK's sources cannot be gathered: {error}");
    }
}

/// All sources below a folder; tests are left out.
fn gather(root: &Path, folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(root.join(folder)) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = folder.join(entry.file_name());
        let name = entry.file_name();
        if entry.path().is_dir() {
            if name != "tests" && name != "target" && name != "macros" {
                gather(root, &path, into);
            }
        } else if path
            .extension()
            .is_some_and(|end| ["rs", "toml", "wit", "h", "md"].iter().any(|known| end == *known))
        {
            into.push(path);
        }
    }
}
