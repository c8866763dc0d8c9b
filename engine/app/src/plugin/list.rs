//! `kino plugin list`: the plugins that graphs of a folder can use.

use kino_host::PluginIndex;
use kino_session::plugins::{self, user_folder};

use super::about::About;
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
    let mut table = Table::new(&[Align::Left; 5]);
    for found in &index.found {
        let about = About::of(found, &args.folder, &consent, &index.shadowed)?;
        lines.push(about.json());
        let manifest = &found.manifest;
        let (id, nodes) = (screen.out.name(&manifest.id), manifest.nodes.join(", "));
        let mut may = about.reads();
        may.extend(about.limits());
        let may = if may.is_empty() { String::new() } else { format!("; {}", may.join("; ")) };
        let state = about.state() + &may;
        let folder = screen.out.dim(&found.folder.display().to_string());
        table.row([id, manifest.version.clone(), nodes, state, folder]);
    }
    let shadowed = index.shadowed.iter().map(|(mine, by)| {
        format!(
            "your own plugin `{}` ({}) is not used here: {} is, which lies with the graph",
            mine.manifest.id,
            mine.folder.display(),
            by.display()
        )
    });
    let shadowed: Vec<String> = shadowed.collect();
    let broken = index.broken.iter().map(|(_, error)| error.to_string());
    let faults: Vec<String> = broken.chain(conflicts).collect();
    if screen.json {
        screen.print_json(&json!({ "plugins": lines, "shadowed": shadowed, "faults": faults }))?;
    } else if index.found.is_empty() && faults.is_empty() {
        screen.print("no plugins; `kino plugin new NAME` creates one\n")?;
    } else {
        let told = shadowed.iter().chain(&faults).map(|line| format!("{line}\n"));
        screen.print(&(table.render() + &told.collect::<String>()))?;
    }
    Ok(if faults.is_empty() { Exit::Good } else { Exit::NodeFailed })
}
