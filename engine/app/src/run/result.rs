//! What a run left, as people and programs read it: files, outputs, failures.

use kino_graph::{Diagnostic, Diagnostics, Severity};
use kino_node::{OutputFile, Value};
use kino_port::escape_line;
use kino_session::{FileState, Plan, RunResult, WrittenFile};

use crate::failure::Failure;
use crate::json::{Map, Value as Json, json};
use crate::render::diagnostics;
use crate::render::quantity;
use crate::render::table::{Align, Table};
use crate::screen::Screen;

/// A value of more characters is cut where people read it.
const LONGEST_VALUE: usize = 4000;

/// Draws every failure at the node that failed; programs have seen them as events.
pub(crate) fn tell_failures(done: &RunResult, screen: &Screen, plan: &Plan) {
    let failed = &done.report.failed;
    if screen.json || failed.is_empty() {
        return;
    }
    let failures = failed.iter().map(|failure| Diagnostic {
        severity: Severity::Error,
        code: "failed",
        message: format!("`{}` ({}): {}", failure.name, failure.op, failure.message),
        location: plan.as_plan().step(&failure.name).map(|(_, step)| step.location),
        related: Vec::new(),
        hint: failure.hint.clone(),
    });
    let files = plan.graph().files().to_vec();
    let diagnostics = Diagnostics { list: failures.collect(), files };
    screen.tell(&diagnostics::draw(screen, &diagnostics));
}

/// The files, a line each, and outputs that are no files.
///
/// # Errors
/// When the output stream is closed or full.
pub(crate) fn print(done: &RunResult, screen: &Screen) -> Result<(), Failure> {
    let RunResult { report, files, .. } = done;
    if screen.json {
        let outputs = as_json(&report.outputs);
        let memory = json!({ "predicted": done.predicted_memory, "peak": done.process_memory });
        let files = files.iter().map(|WrittenFile { file, state }| {
            let OutputFile { path, hash, bytes } = file;
            json!({ "path": path, "bytes": bytes, "hash": hash, "state": state.name() })
        });
        let files: Vec<Json> = files.collect();
        screen.print_json(&json!({
            "event": "outputs", "outputs": outputs, "files": files, "memory": memory,
        }))?;
        return Ok(());
    }
    let paint = screen.out;
    let mut table = Table::new(&[Align::Left, Align::Right, Align::Left]);
    for WrittenFile { file, state } in files {
        let end = match state {
            FileState::UpToDate => state.name().to_owned(),
            _ => format!("{}, {}", state.name(), quantity::seconds(report.seconds)),
        };
        let size = quantity::bytes(file.bytes);
        table.row([paint.bold(&file.path.display().to_string()), size, paint.dim(&end)]);
    }
    let mut text = table.render();
    text.push_str(&as_text(&report.outputs, files.iter().map(|one| &one.file)));
    screen.print(&text)?;
    Ok(())
}

/// Outputs that are no files, a line each; files among `listed` have been told already.
fn as_text<'a>(
    outputs: &[(String, Value)],
    listed: impl Iterator<Item = &'a OutputFile> + Clone,
) -> String {
    let mut text = String::new();
    for (name, value) in outputs {
        let told =
            matches!(value, Value::File(file) if listed.clone().any(|one| one.path == file.path));
        if !told {
            let shown = format!("{value:?}");
            let cut = match shown.char_indices().nth(LONGEST_VALUE) {
                Some((end, _)) => format!("{}… (`--json` gives all of it)", &shown[..end]),
                None => shown,
            };
            text.push_str(&format!("{} = {cut}\n", escape_line(name)));
        }
    }
    text
}

/// All outputs by name: numbers and texts as they are, files by path and size, anything else by its
/// kind and shape.
fn as_json(outputs: &[(String, Value)]) -> Json {
    let outputs: Map<String, Json> =
        outputs.iter().map(|(name, value)| (name.clone(), one(value))).collect();
    Json::Object(outputs)
}

fn one(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!(&**text),
        Value::Int(value) => {
            i64::try_from(*value).map_or_else(|_| json!(value.to_string()), Json::from)
        }
        Value::Real(value) => json!(value),
        Value::Bool(value) => json!(value),
        Value::File(file) => json!({ "path": file.path, "bytes": file.bytes, "hash": file.hash }),
        Value::List(items) => items.iter().map(|(_, item)| one(item)).collect(),
        other => json!({ "kind": other.type_name(), "value": format!("{other:?}") }),
    }
}
