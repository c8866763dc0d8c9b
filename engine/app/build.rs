//! Gathers the sources of the plugin SDK and of the example plugins, so that `kino plugin new` and
//! `kino init` work with the binary alone.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The top of the workspace, seen from this package.
const ROOT: &str = "../..";
/// What a plugin is built with, seen from the top of the workspace.
const PARTS: [&str; 5] =
    ["engine/port", "plugins/abi", "plugins/contract", "plugins/sdk", "plugins/sdk/macros"];

fn main() {
    link();
    // Where cargo runs this: the folder of the package.
    let root = Path::new(ROOT);
    let mut files = vec![PathBuf::from("Cargo.toml")];
    for part in PARTS {
        println!("cargo::rerun-if-changed={ROOT}/{part}");
        gather(root, Path::new(part), &mut files);
    }
    println!("cargo::rerun-if-changed={ROOT}/Cargo.toml");
    let out = PathBuf::from(std::env::var("OUT_DIR").unwrap_or_default());
    write(&out.join("sdk.rs"), &listed("FILES", &files));
    let mut files = vec![PathBuf::from("plugins/examples/Cargo.toml")];
    for part in ["plugins/examples", "graphs"] {
        println!("cargo::rerun-if-changed={ROOT}/{part}");
    }
    for folder in folders(root, Path::new("plugins/examples")) {
        if !root.join(&folder).join("Cargo.toml").is_file() {
            continue;
        }
        gather_all(root, &folder, &mut files);
        let name = folder.file_name().unwrap_or_default();
        files.push(Path::new("graphs").join(name).with_extension("ron"));
    }
    for folder in ["graphs/luts", "graphs/rules"] {
        gather_all(root, Path::new(folder), &mut files);
    }
    write(&out.join("examples.rs"), &listed("FILES", &files));
}

/// Makes the command start sooner where the linker and the C library can: a process of a
/// millisecond spends most of it binding symbols. What is not known of this machine changes
/// nothing.
fn link() {
    println!("cargo::rerun-if-env-changed=CXX");
    let target = |what| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let is_built_here = std::env::var("HOST").ok() == std::env::var("TARGET").ok();
    if target("OS") != "linux" || target("ENV") != "gnu" || !is_built_here {
        return;
    }
    // The addresses that are relative to the binary, as bits: 20 kB are read instead of 2 MB. The
    // loader of glibc knows them since 2.36.
    let glibc = said("getconf", &["GNU_LIBC_VERSION"]);
    let version = glibc.as_deref().and_then(|said| said.strip_prefix("glibc 2."));
    let minor = version.and_then(|minor| minor.split('.').next()?.parse::<u32>().ok());
    if minor.is_some_and(|minor| minor >= 36) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    // The few functions of the C++ library that the H.264 encoder calls, instead of all of it: it
    // stands before the encoder, whose own wish for the shared library is then without effect.
    let compiler = std::env::var("CXX").unwrap_or_else(|_| String::from("c++"));
    let archive = said(&compiler, &["-print-file-name=libstdc++.a"]).map(PathBuf::from);
    let folder = archive.as_deref().filter(|path| path.is_absolute()).and_then(Path::parent);
    if let (Some(folder), Ok(_)) = (folder, std::env::var("CARGO_FEATURE_H264")) {
        println!("cargo::rustc-link-search=native={}", folder.display());
        println!("cargo::rustc-link-lib=static:-bundle=stdc++");
    }
}

/// What a program says; none where it cannot be started or fails.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// A list of files with their texts, as code. It says nothing of where the workspace lies, so that
/// it stays true where a checkout is moved with what was built in it.
fn listed(name: &str, files: &[PathBuf]) -> String {
    let mut code = format!("pub(crate) static {name}: &[(&str, &str)] = &[\n");
    for file in files {
        let name = file.to_string_lossy().replace('\\', "/");
        let path = format!("/{ROOT}/{name}");
        let _ = writeln!(
            code,
            "    ({name:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {path:?}))),"
        );
    }
    code.push_str("];\n");
    code
}

fn write(path: &Path, code: &str) {
    if let Err(error) = std::fs::write(path, code) {
        println!("cargo::error={} cannot be written: {error}", path.display());
    }
}

fn folders(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut folders: Vec<_> = folders.map(|entry| folder.join(entry.file_name())).collect();
    folders.sort();
    folders
}

/// All texts below a folder; what is built there is left out.
fn gather_all(root: &Path, folder: &Path, into: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = folder.join(entry.file_name());
        let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            if !path.ends_with("target") {
                gather_all(root, &path, into);
            }
        } else if ["rs", "toml", "ron", "txt", "cube"].contains(&&*ending) {
            into.push(path);
        }
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
