//! `kino plugin trust`, `untrust`, `remove` and `show`: accepts a plugin as it stands, says what
//! that means, and takes it back.

use std::path::Path;

use kino_host::{
    Beyond, BuildKind, FoundPlugin, LockEntry, LockFile, PluginIndex, TrustOptions, places_of,
};
use kino_session::plugins::{consent, record_consent, user_folder, withdraw_consent};

use super::about::{About, shown};
use super::args::{Accept, Remove, Show, Trust, Untrust};
use super::folder::Project;
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

/// Writes the entry of a plugin into the lock file beside the graph, after it was shown.
///
/// # Errors
/// When there is no such plugin, it is not built, it is none, somebody says no, or the file cannot
/// be written.
pub(crate) fn run(args: &Trust, screen: &Screen) -> Result<Exit, Failure> {
    let settings = setup::settings()?;
    let index = PluginIndex::scan(&args.folder, Some(&user_folder(&settings)))?;
    let near = PluginIndex::near(&args.folder);
    let near = || near.iter().find(|found| found.manifest.id == args.id);
    let found = match index.plugin(&args.id).or_else(near) {
        Some(found) => found,
        None => return Err(unknown(&args.id, &index)),
    };
    let entry = kino_host::pin(found, &args.accept.options(args.dev))?;
    open(found, &entry, screen)?;
    for (grant, place) in places_of(&args.folder, &entry.grants.read) {
        if let Beyond::OfTheSystem(_) = place {
            let message = format!("`{}` may read {}", args.id, shown(&grant, &place));
            return Err(Failure::usage(message).hint("no plugin reads there, whoever agrees to it"));
        }
    }
    if !args.yes && screen.can_ask() {
        screen.tell(&what(found, &args.folder, &entry, screen));
        if !screen.ask("Trust it?")? {
            return Err(Failure::usage("it is not trusted").hint("nothing was changed"));
        }
    }
    record_consent(&settings, found, &args.folder, &entry)?;
    let mut was_dev_mode = false;
    let insert = |lock: &mut LockFile| {
        let before = lock.plugins.insert(args.id.clone(), entry.clone());
        was_dev_mode = before.is_some_and(|before| before.dev.is_some());
    };
    LockFile::change(&found.lock, insert)?;
    print_summary(found, &args.folder, &entry, screen)?;
    if was_dev_mode && entry.dev.is_none() && !screen.json {
        let native = if entry.kind == BuildKind::Native { " --native" } else { "" };
        let command = format!("kino plugin trust {}{native} --dev", args.id);
        screen.print(&format!("  only this build now; `{command}` takes every build again\n"))?;
    }
    Ok(Exit::Good)
}

/// Takes a plugin's entry out of its lock file, and forgets what was agreed to.
///
/// # Errors
/// When there is no such plugin, or a file cannot be written.
pub(crate) fn untrust(args: &Untrust, screen: &Screen) -> Result<Exit, Failure> {
    let settings = setup::settings()?;
    let index = PluginIndex::scan(&args.folder, Some(&user_folder(&settings)))?;
    let found = named(&index, &args.id)?;
    let mut was_pinned = false;
    LockFile::change(&found.lock, |lock| was_pinned = lock.plugins.remove(&args.id).is_some())?;
    withdraw_consent(&settings, found, Some(&args.folder))?;
    let file = found.lock.join(kino_host::LOCK_FILE);
    if screen.json {
        screen.print_json(&json!({ "plugin": args.id, "lock": file, "was_pinned": was_pinned }))?;
    } else {
        let id = screen.out.bold(&args.id);
        screen.print(&format!("{id} is not trusted any more ({})\n", file.display()))?;
    }
    Ok(Exit::Good)
}

/// Removes one of the user's own plugins.
///
/// # Errors
/// When it is none of the user's own, or cannot be removed.
pub(crate) fn remove(args: &Remove, screen: &Screen) -> Result<Exit, Failure> {
    let settings = setup::settings()?;
    let user = user_folder(&settings);
    let index = PluginIndex::scan(&user, None)?;
    let mut own = PluginIndex::scan(&user.join("none"), Some(&user))?;
    own.found.extend(index.found);
    let Some(found) = own.plugin(&args.id) else {
        return Err(unknown(&args.id, &own).hint(
            "`kino plugin list` shows your own and those beside a graph; of these `untrust` takes \
             back the trust",
        ));
    };
    LockFile::change(&user, |lock| drop(lock.plugins.remove(&args.id)))?;
    withdraw_consent(&settings, found, None)?;
    std::fs::remove_dir_all(&found.folder).map_err(|error| {
        Failure::usage(format!("{} cannot be removed: {error}", found.folder.display()))
    })?;
    if screen.json {
        screen.print_json(&json!({ "plugin": args.id, "folder": found.folder }))?;
    } else {
        let id = screen.out.bold(&args.id);
        screen.print(&format!("{id} is removed ({})\n", found.folder.display()))?;
    }
    Ok(Exit::Good)
}

/// Shows a plugin.
///
/// # Errors
/// When there is no such plugin, or a file does not read.
pub(crate) fn show(args: &Show, screen: &Screen) -> Result<Exit, Failure> {
    let settings = setup::settings()?;
    let index = PluginIndex::scan(&args.folder, Some(&user_folder(&settings)))?;
    let about =
        About::of(named(&index, &args.id)?, &args.folder, &consent(&settings)?, &index.shadowed)?;
    match screen.json {
        true => screen.print_json(&about.json())?,
        false => screen.print(&about.text(screen.out))?,
    }
    Ok(Exit::Good)
}

/// Opens a component that is pinned, so that nothing is trusted that is no plugin. To open native
/// code is to run it, and what is in dev mode may not be built yet.
pub(super) fn open(found: &FoundPlugin, entry: &LockEntry, screen: &Screen) -> Result<(), Failure> {
    if entry.dev.is_some() || entry.kind == BuildKind::Native {
        return Ok(());
    }
    let project = Project { folder: found.folder.clone(), manifest: found.manifest.clone() };
    project.load(entry.kind, setup::notice(screen, None, false))?;
    Ok(())
}

/// What is asked for, before it is trusted.
fn what(found: &FoundPlugin, graphs: &Path, entry: &LockEntry, screen: &Screen) -> String {
    let manifest = &found.manifest;
    let mut text = format!("{} {}", screen.err.bold(&manifest.id), manifest.version);
    if !manifest.about.is_empty() {
        text += &format!("  {}", manifest.about);
    }
    text += &format!("\n  {}\n  nodes {}\n", found.folder.display(), manifest.nodes.join(", "));
    text + &means(graphs, entry)
}

/// What an entry means.
fn means(graphs: &Path, entry: &LockEntry) -> String {
    let what = match (entry.kind, entry.isolate) {
        (BuildKind::Wasm, _) => "runs in a sandbox",
        (BuildKind::Native, true) => {
            "is native code in a process of its own: it can do whatever you can, but not crash kino"
        }
        (BuildKind::Native, false) => "is native code: it can do whatever you can",
    };
    let mut text = format!("  it {what}\n");
    match &entry.dev {
        Some(folder) => {
            text += &format!("  every build in {folder} is taken; --locked refuses it\n");
        }
        None => text += &format!("  sha256 {}\n", entry.sha256),
    }
    for (grant, place) in places_of(graphs, &entry.grants.read) {
        text += &format!("  it may read {}\n", shown(&grant, &place));
    }
    let limits =
        [entry.limits.memory.clone(), entry.limits.seconds.map(|seconds| format!("{seconds} s"))];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    if !limits.is_empty() {
        text += &format!("  it may use {} in one call\n", limits.join(" and "));
    }
    text
}

/// The plugin of this id.
fn named<'a>(index: &'a PluginIndex, id: &str) -> Result<&'a FoundPlugin, Failure> {
    index.plugin(id).ok_or_else(|| unknown(id, index))
}

fn unknown(id: &str, index: &PluginIndex) -> Failure {
    let missing = match index.broken.first() {
        Some((_, error)) => {
            let failure = Failure::usage(error.to_string());
            return match error.hint() {
                Some(hint) => failure.hint(hint.to_owned()),
                None => failure,
            };
        }
        None => Failure::usage(format!("no plugin `{id}` was found")),
    };
    let known: Vec<_> = index.found.iter().map(|found| found.manifest.id.as_str()).collect();
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
    graphs: &Path,
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
    text += &means(graphs, entry);
    text.push_str(&format!("  {}\n", screen.out.dim(&file.display().to_string())));
    screen.print(&text)?;
    Ok(())
}
