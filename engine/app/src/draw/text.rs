//! The picture for other programs: DOT for Graphviz, Mermaid for Markdown.

use std::fmt::Write;

use super::picture::{Kind, Picture, Row, Shape, colour, shorten};
use super::svg::escape;

/// Draws a picture in the language of Graphviz.
pub(crate) fn dot(picture: &Picture) -> String {
    let mut to = String::from(
        "digraph kino {\n  rankdir=LR;\n  node [shape=plain, fontname=\"Helvetica\", fontsize=11];\n  \
         edge [penwidth=1.6, arrowsize=0.6];\n",
    );
    if !picture.about.is_empty() {
        let _ = writeln!(to, "  labelloc=t; label={};", quote(&picture.about));
    }
    for (at, shape) in picture.boxes.iter().enumerate() {
        let _ = writeln!(to, "  n{at} [label=<{}>];", table(shape));
    }
    for wire in &picture.wires {
        let (from, into) = (wire.from, wire.to);
        let colour = colour(&wire.ty);
        let tip = quote(&wire.ty.to_string());
        let _ = writeln!(
            to,
            "  n{}:o{}:e -> n{}:i{}:w [color=\"{colour}\", tooltip={tip}];",
            from.0, from.1, into.0, into.1
        );
    }
    to.push_str("}\n");
    to
}

/// A box as a table with a cell a port.
fn table(shape: &Shape) -> String {
    let fill = if matches!(shape.kind, Kind::Input | Kind::Output) { "#f3f4f6" } else { "#eef2f7" };
    let mut to = format!(
        "<table border=\"1\" cellborder=\"0\" cellspacing=\"0\" cellpadding=\"4\" color=\"#9ca3af\">\
         <tr><td colspan=\"2\" bgcolor=\"{fill}\"><b>{}</b><br/>{}</td></tr>",
        escape(&shape.name),
        escape(&shape.op)
    );
    let cell = |row: Option<&Row>, port: String, align: &str| {
        let Some(row) = row else { return "<td></td>".to_owned() };
        let value = row.value.as_ref().map(|value| format!(" {}", escape(&shorten(value, 32))));
        let (name, value) = (escape(&row.name), value.unwrap_or_default());
        format!("<td port=\"{port}\" align=\"{align}\">{name}{value}</td>")
    };
    for at in 0..shape.inputs.len().max(shape.outputs.len()) {
        let left = cell(shape.inputs.get(at), format!("i{at}"), "left");
        let right = cell(shape.outputs.get(at), format!("o{at}"), "right");
        let _ = write!(to, "<tr>{left}{right}</tr>");
    }
    to.push_str("</table>");
    to
}

fn quote(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
    format!("\"{text}\"")
}

/// Draws a picture in the language of Mermaid.
pub(crate) fn mermaid(picture: &Picture) -> String {
    let mut to = String::from("flowchart LR\n");
    for (at, shape) in picture.boxes.iter().enumerate() {
        let (name, op) = (entities(&shape.name), entities(&shape.op));
        let label = format!("{name}<br/><small>{op}</small>");
        let _ = match shape.kind {
            Kind::Input | Kind::Output => writeln!(to, "  n{at}([\"{label}\"])"),
            Kind::Node => writeln!(to, "  n{at}[\"{label}\"]"),
            Kind::Sink => writeln!(to, "  n{at}[[\"{label}\"]]"),
        };
    }
    for wire in &picture.wires {
        let shape = &picture.boxes[wire.to.0];
        let port = shape.inputs.get(wire.to.1).filter(|_| shape.kind != Kind::Output);
        let label = port.map(|row| format!("|\"{}\"|", entities(&row.name))).unwrap_or_default();
        let _ = writeln!(to, "  n{} -->{label} n{}", wire.from.0, wire.to.0);
    }
    for (at, wire) in picture.wires.iter().enumerate() {
        let _ = writeln!(to, "  linkStyle {at} stroke:{}", colour(&wire.ty));
    }
    to
}

/// A text as Mermaid holds it within quotes: letters, digits and plain marks stay, the rest become
/// entities.
fn entities(text: &str) -> String {
    let mut to = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_alphanumeric() || " _-./,:+=*{}".contains(c) => to.push(c),
            c if c.is_control() => to.push(' '),
            c => {
                let _ = write!(to, "#{};", c as u32);
            }
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_break_out() {
        assert_eq!(quote("a\"b\\c\nd"), "\"a\\\"b\\\\c d\"");
        assert_eq!(entities("a\"]<b>"), "a#34;#93;#60;b#62;");
    }
}
