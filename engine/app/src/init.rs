//! `kino init`: writes a built-in graph here, with what it uses, or an example plugin with its
//! graph, to be changed.

use std::path::Path;

use crate::args;
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::plugin::examples;
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
    if let Some(files) = examples::files(name) {
        return example(name, &files, args.force, screen);
    }
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

/// Writes an example plugin with its graph, to be changed.
fn example(
    name: &str,
    all: &[(String, Vec<u8>)],
    force: bool,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let differs = |(path, contents): &&(String, Vec<u8>)| {
        !std::fs::read(path).is_ok_and(|found| found == *contents)
    };
    let missing: Vec<_> = all.iter().filter(differs).collect();
    if let Some((path, _)) = missing.iter().find(|(path, _)| Path::new(path).exists())
        && !force
    {
        let failure = Failure::usage(format!("{path} exists already"));
        return Err(failure.hint("work in another folder; `--force` replaces it"));
    }
    for (path, contents) in missing {
        files::write(Path::new(path), contents)?;
    }
    examples::trust(name)?;
    let paths = all.iter().map(|(path, _)| path);
    if screen.json {
        let (file, besides) = (format!("{name}.ron"), paths.skip(1).collect::<Vec<_>>());
        screen.print_json(&json!({ "file": file, "besides": besides, "plugin": name }))?;
        return Ok(Exit::Good);
    }
    let lines: String = paths.map(|path| format!("{path}\n")).collect();
    let next = format!("next:\n  kino plugin build plugins/{name}\n  kino run {name}.ron\n");
    screen.print(&format!("{lines}{}", screen.out.dim(&next)))?;
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
        let plugins = examples::all().into_iter();
        let plugins = plugins.map(|(name, about)| json!({ "name": name, "about": about }));
        let (graphs, plugins): (Vec<_>, Vec<_>) = (graphs.collect(), plugins.collect());
        screen.print_json(&json!({ "graphs": graphs, "plugins": plugins }))?;
        return Ok(Exit::Good);
    }
    let mut table = Table::new(&[Align::Left, Align::Left]);
    for (name, about) in graphs {
        table.row([screen.out.name(name), about]);
    }
    let mut plugins = Table::new(&[Align::Left, Align::Left]);
    for (name, about) in examples::all() {
        plugins.row([screen.out.name(name), about]);
    }
    let (graphs, plugins) = (table.render(), plugins.render());
    let hint = screen.out.dim(
        "`kino init NAME` writes NAME.ron here, with what it uses; `kino run NAME` runs a graph.",
    );
    screen.print(&format!(
        "{graphs}\nplugins with a graph, to begin one of your own with:\n{plugins}\n{hint}\n"
    ))?;
    Ok(Exit::Good)
}
