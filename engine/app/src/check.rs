//! `kino check`: reads a graph and says what is wrong with it; nothing runs, nothing is written.

use crate::args;
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::render::diagnostics;
use crate::render::quantity::count;
use crate::screen::Screen;
use crate::{nodes, setup};

/// Checks a graph.
///
/// # Errors
/// Every problem of the graph.
pub(crate) fn run(args: &args::Check, screen: &Screen) -> Result<Exit, Failure> {
    let checked = setup::check(&args.source, screen)?;
    let graph = checked.checked();
    let warnings = checked.check()?;
    if screen.json {
        let inputs = graph.inputs().map(nodes::port_schema).collect::<Vec<_>>();
        let outputs = graph.outputs().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        screen.print_json(&json!({
            "nodes": graph.len(), "about": graph.about(), "inputs": inputs, "outputs": outputs,
            "diagnostics": warnings,
        }))?;
        return Ok(Exit::Good);
    }
    diagnostics::warn(screen, &warnings);
    let inputs = count(graph.inputs().count(), "input");
    screen.print(&format!("ok: {}, {inputs}\n", count(graph.len(), "node")))?;
    // The process ends: to take a large graph apart would take as long as to infer it.
    std::mem::forget(checked);
    Ok(Exit::Good)
}
