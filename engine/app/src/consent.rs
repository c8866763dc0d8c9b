//! `kino consent`: what you have agreed to on this machine, and taking it back.

use std::path::{Path, PathBuf};

use kino_session::plugins;

use crate::args::{self, ConsentAction};
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::screen::Screen;
use crate::setup;

/// Lists what was agreed to, or withdraws what graphs may read.
///
/// # Errors
/// When it cannot be read or written, or nothing of the kind was agreed to.
pub(crate) fn run(args: &args::Consent, screen: &Screen) -> Result<Exit, Failure> {
    match &args.action {
        ConsentAction::List => list(screen),
        ConsentAction::Withdraw { folder, place } => withdraw(folder, place.as_deref(), screen),
    }
}

fn list(screen: &Screen) -> Result<Exit, Failure> {
    let consent = plugins::consent(&setup::settings()?)?;
    if screen.json {
        let graphs =
            consent.readings().map(|(graphs, read)| json!({ "graphs": graphs, "read": read }));
        let accepted = consent.accepted().iter().map(|it| {
            json!({
                "plugin": it.plugin, "graphs": it.graphs, "sha256": it.sha256, "read": it.read,
                "limits": it.limits, "isolate": it.isolate, "by": it.by, "at": it.at,
            })
        });
        let (graphs, accepted): (Vec<_>, Vec<_>) = (graphs.collect(), accepted.collect());
        screen.print_json(&json!({ "graphs": graphs, "plugins": accepted }))?;
        return Ok(Exit::Good);
    }
    let mut text = String::new();
    for (graphs, read) in consent.readings() {
        text += &format!("graphs in {} read\n", screen.out.bold(&graphs.display().to_string()));
        read.iter().for_each(|place| text += &format!("  {}\n", place.display()));
    }
    for it in consent.accepted() {
        let (id, graphs) = (screen.out.bold(&it.plugin), it.graphs.display());
        text += &format!("plugin {id} for graphs in {graphs}\n");
    }
    if text.is_empty() {
        text = "you have agreed to nothing on this machine\n".to_owned();
    }
    screen.print(&text)?;
    Ok(Exit::Good)
}

fn withdraw(folder: &Path, place: Option<&Path>, screen: &Screen) -> Result<Exit, Failure> {
    let gone: Vec<PathBuf> = plugins::withdraw_reading(&setup::settings()?, folder, place)?;
    if gone.is_empty() {
        let what = place.map_or("anything".to_owned(), |place| place.display().to_string());
        let message = format!("graphs in {} were not allowed to read {what}", folder.display());
        return Err(Failure::usage(message).hint("`kino consent list` shows what was agreed to"));
    }
    if screen.json {
        screen.print_json(&json!({ "graphs": folder, "withdrawn": gone }))?;
    } else {
        let line = |place: &PathBuf| format!("{} is not read any more\n", place.display());
        screen.print(&gone.iter().map(line).collect::<String>())?;
    }
    Ok(Exit::Good)
}
