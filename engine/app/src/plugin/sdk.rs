//! The SDK that plugins are built with: its sources come with the binary.

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::{files, setup};

include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// The folder of the crate `kino-plugin`: a given SDK, that of the settings, or the one that comes
/// with kino, unpacked into the user's data folder.
///
/// # Errors
/// When a given folder holds no SDK, the settings do not read, or nothing can be written.
pub(crate) fn folder(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let settings = setup::settings()?;
    let given = given.map(Path::to_owned).or(settings.folder("sdk"));
    let Some(given) = given else { return unpack(&settings.data_folder()) };
    // The workspace, or the crate itself.
    for folder in [given.join("plugins/sdk"), given.clone()] {
        if folder.join("Cargo.toml").is_file() && folder.join("macros").is_dir() {
            let whole = folder.canonicalize();
            return whole.map_err(|error| Failure::world(format!("{}: {error}", folder.display())));
        }
    }
    Err(Failure::usage(format!("{} holds no SDK", given.display()))
        .hint("name Kinograph's sources, or leave it out"))
}

/// Unpacks the SDK, a folder for each state of its sources.
fn unpack(data: &Path) -> Result<PathBuf, Failure> {
    let mut hasher = blake3::Hasher::new();
    for (name, text) in FILES {
        hasher.update(name.as_bytes()).update(&[0]).update(text.as_bytes()).update(&[0]);
    }
    let id = &hasher.finalize().to_hex()[..12];
    let root = data.join("sdk").join(format!("{}-{id}", env!("CARGO_PKG_VERSION")));
    let done = root.join("whole");
    if !done.is_file() {
        for (name, text) in FILES {
            let text = if *name == "Cargo.toml" { workspace(text) } else { (*text).to_owned() };
            files::write(&root.join(name), text.as_bytes())?;
        }
        files::write(&done, b"")?;
    }
    Ok(root.join("plugins/sdk"))
}

/// The workspace's manifest with no members but the SDK's.
fn workspace(text: &str) -> String {
    let members = "members = [\"engine/port\", \"plugins/abi\", \"plugins/contract\", \"plugins/sdk\", \
                   \"plugins/sdk/macros\"]";
    let (Some(start), Some(end)) =
        (text.find("members = ["), text.find("]\n\n[workspace.package]"))
    else {
        return text.to_owned();
    };
    format!("{}{members}{}", &text[..start], &text[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_are_all_there() {
        for name in [
            "Cargo.toml",
            "engine/port/src/lib.rs",
            "plugins/abi/include/kino_plugin.h",
            "plugins/abi/wit/kino-plugin.wit",
            "plugins/contract/src/ops/plan.rs",
            "plugins/sdk/Cargo.toml",
            "plugins/sdk/macros/src/lib.rs",
        ] {
            assert!(FILES.iter().any(|(file, _)| *file == name), "{name}");
        }
        let text = workspace(FILES[0].1);
        assert!(text.contains("plugins/sdk/macros") && !text.contains("engine/app\","), "{text}");
    }
}
