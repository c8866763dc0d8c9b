//! `kino init`: writes a built-in graph here, to be changed.

use std::path::Path;

use crate::args;
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::render::table::{Align, Table};
use crate::screen::Screen;
use crate::{files, setup};

/// Writes a built-in graph, or lists them.
///
/// # Errors
/// When there is no such graph, a file stands there already, or it cannot be written.
pub(crate) fn run(args: &args::Init, screen: &Screen) -> Result<Exit, Failure> {
    let Some(name) = &args.graph else { return list(screen) };
    let name = name.trim_end_matches(".ron");
    let (name, text) =
        kino_session::built_in_graph(name).ok_or_else(|| kino_session::no_such_graph(name))?;
    let file = format!("{name}.ron");
    let path = Path::new(&file);
    if path.exists() && !args.force {
        let failure = Failure::usage(format!("{file} exists already"));
        return Err(failure.hint("`--force` replaces it"));
    }
    files::write(path, text.as_bytes())?;
    match screen.json {
        true => screen.print_json(&json!({ "file": file }))?,
        false => screen.print(&format!("{file}\n"))?,
    }
    Ok(Exit::Good)
}

fn list(screen: &Screen) -> Result<Exit, Failure> {
    let engine = setup::reader(false, screen)?;
    let about = |name: &str| {
        let graph = engine.open(name);
        graph.map(|graph| graph.checked().about().to_owned()).unwrap_or_default()
    };
    let graphs = kino_session::GRAPHS.iter();
    let graphs: Vec<_> = graphs.map(|(name, _)| (*name, about(name))).collect();
    if screen.json {
        let graphs = graphs.iter().map(|(name, about)| json!({ "name": name, "about": about }));
        screen.print_json(&json!({ "graphs": graphs.collect::<Vec<_>>() }))?;
        return Ok(Exit::Good);
    }
    let mut table = Table::new(&[Align::Left, Align::Left]);
    for (name, about) in graphs {
        table.row([screen.out.name(name), about]);
    }
    let hint =
        screen.out.dim("`kino init NAME` writes NAME.ron here; `kino run NAME` runs it as it is.");
    screen.print(&format!("{}\n{hint}\n", table.render()))?;
    Ok(Exit::Good)
}
