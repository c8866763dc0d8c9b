//! `kino plugin trust`: accepts a plugin as it stands, and says what that means.

use kino_host::{BuildKind, FoundPlugin, LockEntry, LockFile, PluginIndex, TrustOptions};
use kino_session::plugins::{record_consent, user_folder};

use super::args::{Accept, Trust};
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::screen::Screen;
use crate::setup;

impl Accept {
    /// What is accepted; `dev` trusts every build.
    pub(crate) fn options(&self, dev: bool) -> TrustOptions {
        TrustOptions {
            native: self.native,
            isolate: self.isolate,
            dev,
            read: self.read.clone(),
            memory: self.memory.clone(),
            seconds: self.seconds,
        }
    }
}

/// Writes the entry of a plugin into the lock file beside the graph.
///
/// # Errors
/// When there is no such plugin, it is not built, or the file cannot be written.
pub(crate) fn run(args: &Trust, screen: &Screen) -> Result<Exit, Failure> {
    let settings = setup::settings()?;
    let index = PluginIndex::scan(&args.folder, Some(&user_folder(&settings)))?;
    let near = PluginIndex::near(&args.folder);
    let near = || near.iter().find(|found| found.manifest.id == args.id);
    let Some(found) = index.plugin(&args.id).or_else(near) else {
        return Err(unknown(&args.id, index));
    };
    let entry = kino_host::pin(found, &args.accept.options(args.dev))?;
    record_consent(&settings, found, &entry)?;
    let mut was_dev_mode = false;
    let insert = |lock: &mut LockFile| {
        let before = lock.plugins.insert(args.id.clone(), entry.clone());
        was_dev_mode = before.is_some_and(|before| before.dev.is_some());
    };
    LockFile::change(&found.lock, insert)?;
    print_summary(found, &entry, screen)?;
    if was_dev_mode && entry.dev.is_none() && !screen.json {
        let native = if entry.kind == BuildKind::Native { " --native" } else { "" };
        let command = format!("kino plugin trust {}{native} --dev", args.id);
        screen.print(&format!("  only this build now; `{command}` takes every build again\n"))?;
    }
    Ok(Exit::Good)
}

fn unknown(id: &str, mut index: PluginIndex) -> Failure {
    if !index.broken.is_empty() {
        return index.broken.remove(0).1.into();
    }
    let known: Vec<_> = index.found.iter().map(|found| found.manifest.id.as_str()).collect();
    let missing = Failure::usage(format!("no plugin `{id}` was found"));
    if known.is_empty() {
        return missing
            .hint("plugins lie in `plugins/` beside the graph; `kino plugin add` installs one");
    }
    missing.hint(format!("found are {}", known.join(", ")))
}

/// Says what was accepted.
///
/// # Errors
/// When printing fails.
pub(crate) fn print_summary(
    found: &FoundPlugin,
    entry: &LockEntry,
    screen: &Screen,
) -> Result<(), Failure> {
    let (id, file) = (&found.manifest.id, found.lock.join(kino_host::LOCK_FILE));
    if screen.json {
        screen.print_json(&json!({ "plugin": id, "lock": file, "entry": entry }))?;
        return Ok(());
    }
    let mut text =
        format!("{} {} is trusted ({})\n", screen.out.bold(id), entry.version, entry.kind);
    let what = match (entry.kind, entry.isolate) {
        (BuildKind::Wasm, _) => "runs in a sandbox",
        (BuildKind::Native, true) => {
            "is native code in a process of its own: it can do whatever you can, but not crash kino"
        }
        (BuildKind::Native, false) => "is native code: it can do whatever you can",
    };
    text.push_str(&format!("  it {what}\n"));
    match &entry.dev {
        Some(folder) => {
            text.push_str(&format!("  every build in {folder} is taken; --locked refuses it\n"))
        }
        None => text.push_str(&format!("  sha256 {}\n", entry.sha256)),
    }
    if !entry.grants.read.is_empty() {
        text.push_str(&format!("  it may read {}\n", entry.grants.read.join(", ")));
    }
    text.push_str(&format!("  {}\n", screen.out.dim(&file.display().to_string())));
    screen.print(&text)?;
    Ok(())
}
