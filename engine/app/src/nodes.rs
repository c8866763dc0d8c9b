//! `kino nodes`: the list of nodes, and each node's help.

use std::fmt::Write;

use kino_node::Registry;
use kino_port::{Arity, Literal, Port, Range, Signature};

use crate::args;
use crate::failure::{Exit, Failure};
use crate::json::{Value, json};
use crate::render::table::{Align, Table, wrap};
use crate::screen::{Paint, Screen};

/// The columns of help texts, of summaries in the list, and of what is said of a port.
const COLUMNS: usize = 96;
const SUMMARY: usize = 80;
const PORT: usize = 58;

/// Lists the nodes, or explains one.
///
/// # Errors
/// When there is no such node.
pub(crate) fn run(
    args: &args::Nodes,
    screen: &Screen,
    registry: &Registry,
) -> Result<Exit, Failure> {
    let all: Vec<&Signature> = registry.nodes().map(|node| node.signature()).collect();
    match &args.op {
        None if screen.json => screen.print_json(&json!({ "nodes": schema_of(&all) }))?,
        None => screen.print(&list(&all, screen.out))?,
        Some(op) => {
            let found = registry.get(op).map(|node| node.signature());
            let Some(signature) = found else { return Err(unknown(op, &all)) };
            match screen.json {
                true => screen.print_json(&schema(signature))?,
                false => screen.print(&explain(signature, screen.out))?,
            }
        }
    }
    Ok(Exit::Good)
}

fn unknown(op: &str, all: &[&Signature]) -> Failure {
    let failure = Failure::usage(format!("there is no node `{op}`"));
    let names = all.iter().map(|signature| &*signature.name);
    match kino_session::did_you_mean(op, names) {
        Some(near) => failure.hint(near),
        None => failure.hint("`kino nodes` lists them"),
    }
}

/// The part of a name before its point: nodes of one family stand together.
fn family(signature: &Signature) -> &str {
    signature.name.split_once('.').map_or(&*signature.name, |(family, _)| family)
}

fn list(all: &[&Signature], paint: Paint) -> String {
    let mut families: Vec<(&str, Vec<&Signature>)> = Vec::new();
    for signature in all {
        let name = family(signature);
        match families.iter_mut().find(|(family, _)| *family == name) {
            Some((_, members)) => members.push(signature),
            None => families.push((name, vec![signature])),
        }
    }
    let mut table = Table::new(&[Align::Left, Align::Left]);
    for (index, (_, members)) in families.iter().enumerate() {
        let alone =
            members.len() == 1 && families.get(index + 1).is_some_and(|next| next.1.len() == 1);
        for signature in members {
            let mut summary = wrap(signature.summary(), SUMMARY).into_iter();
            table.row([paint.name(&signature.name), summary.next().unwrap_or_default()]);
            summary.for_each(|more| table.row([String::new(), more]));
        }
        if !alone && index + 1 < families.len() {
            table.row([]);
        }
    }
    let hint = paint.dim("`kino nodes OP` explains one: its inputs, outputs and an example.");
    format!("{}\n{hint}\n", table.render())
}

fn explain(signature: &Signature, paint: Paint) -> String {
    let mut to = format!("{} {}\n", paint.bold(&signature.name), paint.dim(&signature.version));
    let (help, written) = split_example(&signature.about);
    for line in wrap(help, COLUMNS) {
        let _ = writeln!(to, "{line}");
    }
    let traits = signature.traits;
    let notes = [
        (traits.sink, "writes a file: it runs even where no output needs it"),
        (traits.expensive, "its results are kept on disk"),
        (traits.heavy, "occupies the device: one such node runs at a time"),
    ];
    let notes: Vec<_> = notes.into_iter().filter_map(|(is, note)| is.then_some(note)).collect();
    if !notes.is_empty() {
        let _ = writeln!(to, "{}", paint.dim(&format!("({})", notes.join("; "))));
    }
    for (title, ports, is_input) in
        [("Inputs", &signature.inputs, true), ("Outputs", &signature.outputs, false)]
    {
        if ports.is_empty() {
            continue;
        }
        let _ = writeln!(to, "\n{}", paint.bold(title));
        let mut table = Table::new(&[Align::Left, Align::Left, Align::Left, Align::Left]);
        for port in ports.iter() {
            let mut about = about(port).into_iter();
            let need = if is_input { need(port) } else { String::new() };
            let first = about.next().unwrap_or_default();
            table.row([
                format!("  {}", paint.name(&port.name)),
                ty(port),
                paint.note(&need),
                first,
            ]);
            for more in about {
                table.row([String::new(), String::new(), String::new(), more]);
            }
        }
        to.push_str(&table.render());
    }
    let example = written.map_or_else(|| example(signature), str::to_owned);
    let _ = writeln!(to, "\n{}\n{example}", paint.bold("Example"));
    to
}

/// The help without the example at its end, and that example.
fn split_example(about: &str) -> (&str, Option<&str>) {
    match about.trim().split_once("\n\nExample:\n") {
        Some((about, example)) => (about, Some(example.trim_end())),
        None => (about.trim(), None),
    }
}

/// The type as graphs write it, with `…` where several values fit, and in brackets where each has
/// a name.
fn ty(port: &Port) -> String {
    match (port.is_list(), port.named) {
        (true, true) => format!("{{{}…}}", port.ty),
        (true, false) => format!("{}…", port.ty),
        (false, _) => port.ty.to_string(),
    }
}

/// The default, or whether the port must be fed.
fn need(port: &Port) -> String {
    match &port.default {
        Some(default) => format!("= {default}"),
        None if port.is_required() => "required".to_owned(),
        None => "optional".to_owned(),
    }
}

/// The help of a port and what fits it, in lines.
fn about(port: &Port) -> Vec<String> {
    let mut notes = Vec::new();
    if !port.choices.is_empty() {
        notes.push(port.expected());
    } else if let Some(range) = &port.range {
        notes.push(format!("{range} {}", port.unit).trim_end().to_owned());
    } else if !port.unit.is_empty() {
        notes.push(format!("in {}", port.unit));
    }
    if port.draws {
        notes.push("or \"random\"".to_owned());
    }
    if port.lazy {
        notes.push("evaluated only when needed".to_owned());
    }
    let notes = notes.join(", ");
    let text = match (port.about.is_empty(), notes.is_empty()) {
        (_, true) => port.about.to_string(),
        (true, false) => notes,
        (false, false) => format!("{} ({notes})", port.about),
    };
    wrap(&text, PORT)
}

/// How the node stands in a graph: what must be fed is fed, and a few values are written.
fn example(signature: &Signature) -> String {
    let name = signature.name.rsplit('.').next().unwrap_or(&signature.name);
    let fed = |port: &Port| match (port.ty.is_literal(), &port.default) {
        (true, Some(default)) => Some((true, default.to_string())),
        (true, None) if port.is_required() => Some((true, sample(port))),
        (false, _) if port.is_required() => {
            Some((false, format!("\"{}\"", port.ty.to_string().to_lowercase())))
        }
        _ => None,
    };
    // An item of a list with names has one.
    let fed = |port: &Port| {
        fed(port).map(|(literal, text)| match port.named && !text.starts_with(['[', '{']) {
            true => (literal, format!("{{\"name\": {text}}}")),
            false => (literal, text),
        })
    };
    let part = |literal: bool, most: usize| {
        let ports = signature.inputs.iter().filter_map(|port| Some((port, fed(port)?)));
        let ports = ports.filter(|(_, (is_literal, _))| *is_literal == literal).take(most);
        let parts: Vec<_> =
            ports.map(|(port, (_, text))| format!("\"{}\": {text}", port.name)).collect();
        parts.join(", ")
    };
    let required = signature.inputs.iter().filter(|port| port.is_required()).count();
    let (edges, values) = (part(false, usize::MAX), part(true, required.max(4)));
    let mut to = format!("  \"{name}\": (op: \"{}\"", signature.name);
    if !edges.is_empty() {
        let _ = write!(to, ", in: {{{edges}}}");
    }
    if !values.is_empty() {
        let _ = write!(to, ", with: {{{values}}}");
    }
    to.push_str("),");
    to
}

fn sample(port: &Port) -> String {
    let choice = port.choices.first().map(|choice| Literal::text(choice.clone()));
    let number = match port.range {
        Some(Range::Int { min, .. }) => Some(Literal::Int(min)),
        Some(Range::Real { min, .. }) => Some(Literal::Real(min)),
        None => None,
    };
    let plain = match port.ty {
        kino_port::PortType::Int => Literal::Int(1),
        kino_port::PortType::Real => Literal::Real(1.0),
        kino_port::PortType::Bool => Literal::Bool(true),
        _ => Literal::text("…"),
    };
    choice.or(number).unwrap_or(plain).to_string()
}

fn schema_of(all: &[&Signature]) -> Vec<Value> {
    all.iter().map(|signature| schema(signature)).collect()
}

/// Everything that a program needs to offer the node.
fn schema(signature: &Signature) -> Value {
    let ports = |ports: &[Port]| ports.iter().map(port_schema).collect::<Vec<_>>();
    json!({
        "op": signature.name,
        "version": signature.version,
        "family": family(signature),
        "summary": signature.summary(),
        "about": signature.about.trim(),
        "sink": signature.traits.sink,
        "expensive": signature.traits.expensive,
        "heavy": signature.traits.heavy,
        "inputs": ports(&signature.inputs),
        "outputs": ports(&signature.outputs),
    })
}

/// Everything that a program needs to offer a port.
pub(crate) fn port_schema(port: &Port) -> Value {
    let range = match port.range {
        Some(Range::Int { min, max, step }) => json!({
            "min": whole(min), "max": (max < i128::MAX).then(|| whole(max)), "step": whole(step),
        }),
        Some(Range::Real { min, max }) => json!({
            "min": min.is_finite().then_some(min), "max": max.is_finite().then_some(max),
        }),
        None => Value::Null,
    };
    json!({
        "name": port.name,
        "type": port.ty.to_string(),
        "list": matches!(port.arity, Arity::List | Arity::OptionalList),
        "named": port.named,
        "required": port.is_required(),
        "default": port.default.as_ref().map(literal),
        "range": range,
        "choices": port.choices,
        "unit": port.unit,
        "about": port.about,
        "lazy": port.lazy,
        "random": port.draws,
    })
}

/// A literal as JSON has it.
pub(crate) fn literal(value: &Literal) -> Value {
    match value {
        Literal::Text(text) => json!(text),
        Literal::Int(value) => whole(*value),
        Literal::Real(value) => json!(value),
        Literal::Bool(value) => json!(value),
        Literal::List(items) => items.iter().map(literal).collect(),
    }
}

/// A whole number as JSON has it: as digits where it fits, else as a text.
fn whole(value: i128) -> Value {
    match (i64::try_from(value), u64::try_from(value)) {
        (Ok(value), _) => json!(value),
        (_, Ok(value)) => json!(value),
        _ => json!(value.to_string()),
    }
}
