//! `kino draw`: a graph as a picture.

mod layout;
mod picture;
mod size;
mod svg;
mod text;

use std::collections::HashMap;
use std::path::Path;

use kino_graph::{BindingView, Graph, NodeView};
use kino_port::{Literal, Port, PortType};

use crate::args::{self, Format};
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::screen::Screen;
use crate::{files, setup};
use picture::{Kind, Picture, Row, Shape, Wire};

/// Draws a graph to a file or the output stream.
///
/// # Errors
/// When the graph does not check, or the file cannot be written.
pub(crate) fn run(args: &args::Draw, screen: &Screen) -> Result<Exit, Failure> {
    let graph = setup::check(&args.source, screen)?;
    let format = args.format.map_or_else(|| by_ending(args.output.as_deref()), Ok)?;
    let picture = picture_of(graph.checked());
    let drawn = match format {
        Format::Svg => svg::svg(&picture),
        Format::Dot => text::dot(&picture),
        Format::Mermaid => text::mermaid(&picture),
    };
    if let Some(path) = &args.output {
        files::write(path, drawn.as_bytes())?;
    }
    let name = match format {
        Format::Svg => "svg",
        Format::Dot => "dot",
        Format::Mermaid => "mermaid",
    };
    match &args.output {
        Some(path) if screen.json => screen.print_json(&json!({ "format": name, "file": path }))?,
        None if screen.json => screen.print_json(&json!({ "format": name, "drawing": drawn }))?,
        Some(_) => {}
        None => screen.print(&drawn)?,
    }
    Ok(Exit::Good)
}

fn by_ending(path: Option<&Path>) -> Result<Format, Failure> {
    let ending = path.and_then(Path::extension).map(|ending| ending.to_string_lossy());
    match ending.as_deref() {
        Some("dot" | "gv") => Ok(Format::Dot),
        Some("mmd" | "mermaid" | "md") => Ok(Format::Mermaid),
        Some("svg" | "SVG") | None => Ok(Format::Svg),
        Some(other) => {
            let what = format!("`kino draw` writes SVG, DOT and Mermaid, not .{other}");
            Err(Failure::usage(what).hint(
                "browsers and `rsvg-convert` make PNG and PDF of x.svg; --format writes one of the \
                 three under any name",
            ))
        }
    }
}

/// A wire whose source is still a name.
struct Loose<'a> {
    from: Origin<'a>,
    to: (usize, usize),
    ty: PortType,
}

/// Where a wire comes from.
enum Origin<'a> {
    /// An input of the graph.
    Input(&'a str),
    /// A node and its output.
    Node(&'a str, &'a str),
}

impl<'a> Origin<'a> {
    /// The origin of a feed, and what travels from there to a port of type `ty`; none for written
    /// values.
    fn of(feed: &BindingView<'a>, ty: &PortType) -> Option<(Self, PortType)> {
        match feed {
            BindingView::Literal(_) => None,
            BindingView::Input(name) => Some((Origin::Input(name), ty.clone())),
            BindingView::Edge { node, port } => {
                Some((Origin::Node(node, &port.name), port.ty.clone()))
            }
        }
    }
}

fn picture_of(graph: &Graph) -> Picture {
    let mut picture = Picture { about: graph.about().to_owned(), ..Picture::default() };
    let mut inputs: HashMap<String, usize> = HashMap::new();
    for port in graph.inputs() {
        inputs.insert(port.name.to_string(), picture.boxes.len());
        picture.boxes.push(input(port));
    }
    let sketch = graph.nodes();
    let mut nodes: HashMap<&str, (usize, &NodeView<'_>)> = HashMap::new();
    let mut loose = Vec::new();
    for node in &sketch {
        nodes.insert(node.name, (picture.boxes.len(), node));
        let shape = shape(node, picture.boxes.len(), &mut loose);
        picture.boxes.push(shape);
    }
    for (name, feed) in graph.outputs() {
        let at = picture.boxes.len();
        let origin = Origin::of(&feed, &PortType::Any);
        let ty = origin.as_ref().map_or(PortType::Any, |(_, ty)| ty.clone());
        let row = Row { name: name.to_owned(), ty: ty.clone(), value: None };
        let (name, op) = (name.to_owned(), ty.to_string());
        let (kind, outputs) = (Kind::Output, Vec::new());
        picture.boxes.push(Shape { kind, name, op, inputs: vec![row], outputs });
        loose.extend(origin.map(|(from, ty)| Loose { from, to: (at, 0), ty }));
    }
    for wire in loose {
        let from = match &wire.from {
            Origin::Input(name) => inputs.get(*name).map(|at| (*at, 0)),
            Origin::Node(node, port) => nodes
                .get(node)
                .and_then(|(at, sketch)| Some((*at, sketch.signature.output(port)?.0))),
        };
        picture.wires.extend(from.map(|from| Wire { from, to: wire.to, ty: wire.ty }));
    }
    only_what_is_read(&mut picture);
    picture
}

/// A graph's input: its name, and its default or its type.
fn input(port: &Port) -> Shape {
    let value = port.default.as_ref().map(|default| match default {
        Literal::Text(text) => format!("“{text}”"),
        other => other.to_string(),
    });
    let row = Row { name: port.name.to_string(), ty: port.ty.clone(), value };
    let (name, op) = (port.name.to_string(), port.ty.to_string());
    Shape { kind: Kind::Input, name, op, inputs: Vec::new(), outputs: vec![row] }
}

fn shape<'a>(node: &NodeView<'a>, at: usize, loose: &mut Vec<Loose<'a>>) -> Shape {
    let mut inputs = Vec::new();
    for (port, feeds) in &node.inputs {
        let mut literals = Vec::new();
        let index = inputs.len();
        for feed in feeds {
            if let BindingView::Literal(text) = feed {
                literals.push(text.clone());
            }
            let origin = Origin::of(feed, &port.ty);
            loose.extend(origin.map(|(from, ty)| Loose { from, to: (at, index), ty }));
        }
        let value = (!literals.is_empty()).then(|| literals.join(", "));
        inputs.push(Row { name: port.name.to_string(), ty: port.ty.clone(), value });
    }
    let output =
        |port: &Port| Row { name: port.name.to_string(), ty: port.ty.clone(), value: None };
    Shape {
        kind: if node.signature.traits.sink { Kind::Sink } else { Kind::Node },
        name: node.name.to_owned(),
        op: node.signature.name.to_string(),
        inputs,
        outputs: node.signature.outputs.iter().map(output).collect(),
    }
}

/// Leaves out outputs of nodes that nothing reads, where another one is read.
fn only_what_is_read(picture: &mut Picture) {
    let mut read: Vec<Vec<bool>> =
        picture.boxes.iter().map(|shape| vec![false; shape.outputs.len()]).collect();
    for wire in &picture.wires {
        read[wire.from.0][wire.from.1] = true;
    }
    for wire in &mut picture.wires {
        let read = &read[wire.from.0];
        wire.from.1 = read[..wire.from.1].iter().filter(|read| **read).count();
    }
    for (shape, read) in picture.boxes.iter_mut().zip(&read) {
        if read.contains(&true) {
            let mut read = read.iter();
            shape.outputs.retain(|_| *read.next().unwrap_or(&true));
        }
    }
}
