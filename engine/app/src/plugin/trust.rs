//! `kino plugin trust`: accepts a plugin as it stands, and says what that means.

use kino_host::{Acceptance, BuildKind, FoundPlugin, Lock, LockEntry, PluginIndex};
use kino_session::plugins::{record_consent, user_folder};

use super::args::{Accept, Trust};
use crate::failure::{Exit, Failure, failure};
use crate::json::json;
use crate::screen::Screen;

impl Accept {
    /// What is accepted; `dev` trusts every build.
    pub(crate) fn acceptance(&self, dev: bool) -> Acceptance {
        Acceptance {
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
    let fault = |error| failure(&error);
    let shelf = PluginIndex::scan(&args.folder, Some(&user_folder())).map_err(fault)?;
    let found = shelf.plugin(&args.id).ok_or_else(|| unknown(&args.id, &shelf))?;
    let entry = kino_host::accept(found, &args.accept.acceptance(args.dev)).map_err(fault)?;
    record_consent(found, &entry).map_err(fault)?;
    let mut was_dev_mode = false;
    let insert = |lock: &mut Lock| {
        let before = lock.plugins.insert(args.id.clone(), entry.clone());
        was_dev_mode = before.is_some_and(|before| before.dev.is_some());
    };
    Lock::change(&found.lock, insert).map_err(fault)?;
    print_summary(found, &entry, screen)?;
    if was_dev_mode && entry.dev.is_none() && !screen.json {
        let command = format!("kino plugin trust {} --dev", args.id);
        screen.print(&format!("  only this build now; `{command}` takes every build again\n"))?;
    }
    Ok(Exit::Good)
}

fn unknown(id: &str, shelf: &PluginIndex) -> Failure {
    if let Some((_, error)) = shelf.broken.first() {
        return failure(error);
    }
    let known: Vec<_> = shelf.found.iter().map(|found| found.manifest.id.as_str()).collect();
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
