//! `kino init`: writes a built-in graph here, with what it uses, to be changed.

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
    // Graphs share parts and pictures: one that is there already as it should be is no obstacle.
    let mut besides = kino_session::files_of_graph(text);
    besides.retain(|(path, contents)| !std::fs::read(path).is_ok_and(|found| found == *contents));
    if let Some((path, _)) = besides.iter().find(|(path, _)| Path::new(path).exists())
        && !args.force
    {
        let failure = Failure::usage(format!("{path}, which {file} uses, exists already"));
        return Err(failure.hint("work in another folder; `--force` replaces it"));
    }
    for (path, contents) in &besides {
        files::write(Path::new(path), contents)?;
    }
    files::write(path, text.as_bytes())?;
    let besides: Vec<&str> = besides.iter().map(|(path, _)| *path).collect();
    match screen.json {
        true => screen.print_json(&json!({ "file": file, "besides": besides }))?,
        false => {
            let lines: Vec<_> = [&*file].into_iter().chain(besides).collect();
            screen.print(&format!("{}\n", lines.join("\n")))?;
        }
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
    let hint = screen
        .out
        .dim("`kino init NAME` writes NAME.ron here, with what it uses; `kino run NAME` runs it.");
    screen.print(&format!("{}\n{hint}\n", table.render()))?;
    Ok(Exit::Good)
}
