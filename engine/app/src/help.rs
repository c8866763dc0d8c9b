//! `kino help`: pages on the graph language and on types of values, and the help of commands.

use std::fmt::Write;
use std::sync::Arc;

use kino_node::Registry;
use kino_port::{FieldPresence, FieldRule, NamedType, PortType, Signature};

use crate::args;
use crate::failure::{Exit, Failure};
use crate::json::{Value, json};
use crate::render::table::{Align, Table, wrap};
use crate::screen::{Paint, Screen};
use crate::usage;

/// The columns of texts: those of the narrowest terminal that is common.
const COLUMNS: usize = 78;
/// The columns of what is said of a type beside its name.
const BESIDE: usize = 58;
/// So many nodes are named that make a type.
const MAX_MAKERS: usize = 6;

/// Prints a page; `nodes` are those that make and take values.
///
/// # Errors
/// When there is no such page or command, or nothing can be printed.
pub(crate) fn run(
    args: &args::Help,
    screen: &Screen,
    nodes: impl FnOnce() -> Result<Arc<Registry>, Failure>,
) -> Result<Exit, Failure> {
    let topics: Vec<&str> = args.topics.iter().map(String::as_str).collect();
    match (topics.as_slice(), screen.json) {
        (["graph"], true) => {
            screen.print_json(&json!({ "topic": "graph", "text": kino_graph::LANGUAGE }))?;
        }
        (["graph"], false) => screen.print(&page(kino_graph::LANGUAGE, screen.out))?,
        (["types"], true) => {
            let types: Vec<Value> = PortType::NAMED.iter().map(schema).collect();
            screen.print_json(&json!({ "types": types }))?;
        }
        (["types"], false) => {
            let nodes = nodes()?;
            screen.print(&types(&nodes, screen.out))?;
        }
        (commands, _) => return of_command(commands, screen),
    }
    Ok(Exit::Good)
}

/// The help of a command, as `kino COMMAND --help` prints it.
fn of_command(commands: &[&str], screen: &Screen) -> Result<Exit, Failure> {
    let line = ["kino"].into_iter().chain(commands.iter().copied()).chain(["--help"]);
    let told = match args::command().try_get_matches_from(line) {
        Err(told) if !told.use_stderr() && screen.json => {
            screen.print_json(&usage::help(commands, &told.render().to_string()))?;
            return Ok(Exit::Good);
        }
        Err(told) if !told.use_stderr() => told.render(),
        _ => {
            let topic = commands.join(" ");
            let failure = Failure::usage(format!("there is no help on `{topic}`"));
            return Err(
                failure.hint("`kino help` lists the commands, and the pages `graph` and `types`")
            );
        }
    };
    let text = if screen.out.0 { told.ansi().to_string() } else { told.to_string() };
    screen.print(&text)?;
    Ok(Exit::Good)
}

/// A page of Markdown for a terminal: texts wrapped, headings bold, examples indented.
fn page(markdown: &str, paint: Paint) -> String {
    let (mut to, mut text, mut is_code) = (String::new(), String::new(), false);
    let end = |to: &mut String, text: &mut String| {
        let (first, rest) = if text.starts_with("- ") { ("", "  ") } else { ("", "") };
        let lines = wrap(text, COLUMNS - rest.len());
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
            let _ = writeln!(to, "{}{line}", if at == 0 { first } else { rest });
        }
        text.clear();
    };
    for line in markdown.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if is_code {
            let _ = writeln!(to, "    {line}");
        } else if let Some(heading) = line.strip_prefix('#') {
            let _ = writeln!(to, "{}", paint.bold(heading.trim_start_matches('#').trim()));
        } else if line.is_empty() {
            end(&mut to, &mut text);
            to.push('\n');
        } else {
            if line.starts_with("- ") {
                end(&mut to, &mut text);
            }
            // A paragraph is wrapped as a whole, wherever its lines end in the file.
            text.push_str(line);
            text.push(' ');
        }
    }
    end(&mut to, &mut text);
    to
}

/// The table of types: what each is, its tensor, its fields as plugins see them, and who makes it.
fn types(nodes: &Registry, paint: Paint) -> String {
    let signatures: Vec<&Signature> = nodes.nodes().map(|node| node.signature()).collect();
    let mut table = Table::new(&[Align::Left, Align::Left]);
    for row in PortType::NAMED {
        let written = if row.literal { "; can be written in a graph" } else { "" };
        let mut lines = wrap(&format!("{}{written}", row.about), BESIDE);
        if let Some(rule) = row.tensor.as_ref().filter(|rule| !rule.dims.is_empty()) {
            lines.extend(wrap(&rule.expected(), BESIDE));
        }
        let makes = |signature: &&&Signature| {
            signature.outputs.iter().any(|port| port.ty == row.ty) && row.ty != PortType::Any
        };
        let makers: Vec<&str> =
            signatures.iter().filter(makes).map(|signature| &*signature.name).collect();
        if !makers.is_empty() {
            let more = if makers.len() > MAX_MAKERS { ", …" } else { "" };
            let named = makers.iter().take(MAX_MAKERS).copied().collect::<Vec<_>>().join(", ");
            lines.extend(wrap(&format!("from {named}{more}"), BESIDE));
        }
        for field in row.fields {
            lines.extend(wrap(&format!("· {}", in_words(field)), BESIDE));
        }
        let mut lines = lines.into_iter();
        table.row([paint.name(row.name), lines.next().unwrap_or_default()]);
        lines.for_each(|line| table.row([String::new(), line]));
    }
    let hint = "Fields (·) are what plugins see. List(…) is a list of any, and a plugin has types of its own, \
                such as example.depth. Which types fit each other: `kino help graph`.";
    let hint: Vec<String> = wrap(hint, COLUMNS).iter().map(|line| paint.dim(line)).collect();
    format!("{}\n{}\n", table.render(), hint.join("\n"))
}

/// A field in one line: `fps: a number (frames/s): the rate; may be missing`.
fn in_words(field: &FieldRule) -> String {
    let unit = if field.unit.is_empty() { String::new() } else { format!(" ({})", field.unit) };
    let presence = match field.presence {
        FieldPresence::Needed => "",
        FieldPresence::Optional => "; may be missing",
        FieldPresence::Derived => "; follows from the others",
    };
    format!("{}: {}{unit}, {}{presence}", field.name, field.expected(), field.about)
}

/// A type for programs.
fn schema(row: &NamedType) -> Value {
    let fields: Vec<Value> = row
        .fields
        .iter()
        .map(|field| {
            let presence = match field.presence {
                FieldPresence::Needed => "always",
                FieldPresence::Optional => "optional",
                FieldPresence::Derived => "derived",
            };
            json!({
                "name": field.name, "content": field.expected(), "unit": field.unit,
                "presence": presence, "about": field.about,
            })
        })
        .collect();
    json!({
        "name": row.name, "about": row.about, "literal": row.literal,
        "tensor": row.tensor.as_ref().map(|rule| rule.expected()), "fields": fields,
    })
}
