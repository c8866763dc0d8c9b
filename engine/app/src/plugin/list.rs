//! `kino plugin list`: the plugins that graphs of a folder can use.

use kino_host::{LockFile, PluginIndex};
use kino_session::plugins::{self, user_folder};

use super::args::List;
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::render::table::{Align, Table};
use crate::screen::Screen;
use crate::setup;

/// Lists plugins.
///
/// # Errors
/// When a lock file does not read.
pub(crate) fn run(args: &List, screen: &Screen) -> Result<Exit, Failure> {
    let settings = setup::settings()?;
    let index = PluginIndex::scan(&args.folder, Some(&user_folder(&settings)))?;
    let built_in = kino_session::built_in_nodes();
    let conflicts = index.conflicts(|node| built_in.get(node).is_some());
    let consent = plugins::consent(&settings)?;
    let mut lines = Vec::new();
    let mut table = Table::new(&[Align::Left, Align::Left, Align::Left, Align::Left]);
    for found in &index.found {
        let lock = LockFile::read(&found.lock)?;
        let decided = kino_host::allowed_build(found, &lock, &consent, false);
        let manifest = &found.manifest;
        let state = match &decided {
            Ok(allowed) => {
                let how = if allowed.sha256.is_some() { "pinned" } else { "dev mode" };
                let isolated = if allowed.isolate { ", isolated" } else { "" };
                format!("{}, {how}{isolated}", allowed.kind)
            }
            Err(error) => error.to_string().replace(&format!("the plugin `{}` ", manifest.id), ""),
        };
        lines.push(json!({
            "id": manifest.id, "version": manifest.version, "about": manifest.about,
            "nodes": manifest.nodes, "folder": found.folder, "allowed": decided.is_ok(),
            "state": state,
        }));
        let (id, nodes) = (screen.out.name(&manifest.id), manifest.nodes.join(", "));
        table.row([id, manifest.version.clone(), nodes, state]);
    }
    let broken = index.broken.iter().map(|(_, error)| error.to_string());
    let faults: Vec<String> = broken.chain(conflicts).collect();
    if screen.json {
        screen.print_json(&json!({ "plugins": lines, "faults": faults }))?;
    } else if index.found.is_empty() && faults.is_empty() {
        screen.print("no plugins; `kino plugin new NAME` creates one\n")?;
    } else {
        let faults = faults.iter().map(|fault| format!("{fault}\n")).collect::<String>();
        screen.print(&(table.render() + &faults))?;
    }
    Ok(if faults.is_empty() { Exit::Good } else { Exit::NodeFailed })
}
