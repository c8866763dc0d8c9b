//! `kino show`: the graph stored in a file that Kinograph wrote.

use crate::args;
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::screen::Screen;

/// Prints the stored graph; it runs as it is.
///
/// # Errors
/// When the file cannot be read, or holds no graph.
pub(crate) fn run(args: &args::Show, screen: &Screen) -> Result<Exit, Failure> {
    let shown = args.file.display();
    let stored =
        kino_world::read_metadata(&args.file).map_err(|error| Failure::usage(error.to_string()))?;
    let Some(text) = stored else {
        let failure = Failure::usage(format!("{shown} holds no graph"));
        return Err(failure.hint("videos and images that `kino run` wrote hold one"));
    };
    if screen.json {
        let (made, graph) = kino_session::provenance::split(&text);
        screen.print_json(&json!({ "file": args.file, "made": made, "graph": graph }))?;
    } else {
        screen.print(&text)?;
    }
    Ok(Exit::Good)
}
