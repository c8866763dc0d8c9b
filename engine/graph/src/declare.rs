//! The inputs that a graph declares, as ports: [`InputDecl`] → [`GraphInput`].

use std::borrow::Cow;
use std::collections::HashMap;

use kino_port::{Literal, Port, PortType, Range};

use crate::diagnostic::{Location, Report};
use crate::literal::decode;
use crate::parse::InputDecl;
use crate::ron::{Ast, AstKind};
use crate::template::{self, Late, Part};

/// The most choices of an input: each value is compared with all of them.
const MAX_CHOICES: usize = 1_000;

/// An input of a graph.
#[derive(Clone, Debug)]
pub(crate) struct GraphInput {
    pub(crate) port: Port,
    /// The whole declaration.
    pub(crate) location: Location,
    /// Just behind its opening bracket.
    pub(crate) opening: u32,
    /// The default, where one is written.
    pub(crate) default: Option<Location>,
}

/// An input's declaration as a port; what is wrong with it is said.
pub(crate) fn declared(file: u32, decl: &InputDecl<'_>, report: &mut Report) -> GraphInput {
    let mut port = bare_input(file, decl, report);
    let mut default = decl.default.as_ref().map(|tree| Location { file, span: tree.span });
    if let Some(tree) = &decl.default {
        match decode(tree, &port.ty).and_then(|literal| port.coerce(literal)) {
            Ok(literal) => port.default = Some(literal),
            Err(refusal) => {
                let location = Location { file, span: tree.span };
                let message = format!("default of input `{}`: {}", port.name, refusal.message);
                report.error("value", location, message).hint = refusal.hint;
                // So that it is not called missing as well.
                port.default = Some(Literal::text(""));
                default = None;
            }
        }
    }
    let location = Location { file, span: decl.span };
    GraphInput { port, location, opening: decl.opening, default }
}

/// Checks the names in the defaults of inputs of type Path.
pub(crate) fn check_templates(inputs: &[GraphInput], report: &mut Report) {
    let named = inputs.iter().map(|input| (&*input.port.name, &input.port)).collect();
    for input in inputs.iter().filter(|input| input.port.ty == PortType::Path) {
        let (Some(Literal::Text(text)), Some(location)) = (&input.port.default, input.default)
        else {
            continue;
        };
        match template::parse(text) {
            Err(message) => {
                report.error("template", location, message);
            }
            Ok(parts) => {
                for part in parts {
                    let Part::Input(name) = part else { continue };
                    check_named(&name, inputs, &named, location, report);
                }
            }
        }
    }
}

fn check_named(
    name: &str,
    inputs: &[GraphInput],
    named: &HashMap<&str, &Port>,
    location: Location,
    report: &mut Report,
) {
    match named.get(name) {
        None if Late::named(name).is_some() => {}
        None => {
            let names = || inputs.iter().map(|input| &*input.port.name).chain(template::NAMES);
            let hint = report.advice(name, names);
            let message = format!("the graph has no input `{name}` to fill this path with");
            report.error("unknown-input", location, message).hint = hint;
        }
        Some(port) if port.ty == PortType::Path => {
            let message = format!("`{name}` is a path itself and cannot be part of another");
            report.error("template", location, message);
        }
        Some(_) => {}
    }
}

fn bare_input(file: u32, decl: &InputDecl<'_>, report: &mut Report) -> Port {
    let mut ty = PortType::Any;
    if let Some(word) = &decl.ty {
        match word.text.parse() {
            Ok(known) => ty = known,
            Err(message) => {
                let names = || PortType::NAMED.iter().map(|row| row.name);
                let hint = report.advice(&word.text, names);
                let location = Location { file, span: word.span };
                report.error("unknown-type", location, message).hint = hint;
            }
        }
    }
    let (ty, is_list) = match ty {
        PortType::List(of) => (*of, true),
        ty => (ty, false),
    };
    let draws = ty == PortType::Int && !is_list;
    let make = if is_list { kino_port::list } else { kino_port::edge };
    let mut port = make("", ty);
    port.name = decl.name.text.clone().into();
    (port.about, port.unit) = (decl.about.clone().into(), decl.unit.clone().into());
    port.draws = draws;
    port.range = range(file, decl, &port.ty, report);
    if let Some(tree) = &decl.choices {
        port.choices = choices(file, tree, report).into();
    }
    port
}

fn choices(file: u32, tree: &Ast<'_>, report: &mut Report) -> Vec<Cow<'static, str>> {
    let text = |item: &Ast<'_>| match &item.kind {
        AstKind::Text(text) => Some(Cow::Owned(text.to_string())),
        _ => None,
    };
    let texts = match &tree.kind {
        AstKind::List(items) => items.iter().map(text).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    if let Some(texts) = &texts
        && texts.len() > MAX_CHOICES
    {
        let message = format!("an input has at most {MAX_CHOICES} choices, found {}", texts.len());
        report.error("too-large", Location { file, span: tree.span }, message);
        return Vec::new();
    }
    texts.unwrap_or_else(|| {
        malformed(report, file, tree, "a list of texts");
        Vec::new()
    })
}

fn malformed(report: &mut Report, file: u32, tree: &Ast<'_>, expected: &str) {
    let message = format!("expected {expected}, found {}", tree.kind.noun());
    report.error("malformed", Location { file, span: tree.span }, message);
}

fn range(file: u32, decl: &InputDecl<'_>, ty: &PortType, report: &mut Report) -> Option<Range> {
    let step = match decl.step.as_ref().map(|tree| (tree, decode(tree, &PortType::Int))) {
        None => 1,
        Some((_, Ok(Literal::Int(step)))) if step > 0 && *ty == PortType::Int => step,
        Some((tree, _)) => {
            let expected = "a whole number of at least 1, for an input of type Int";
            malformed(report, file, tree, expected);
            1
        }
    };
    let Some(tree) = &decl.range else {
        return (step > 1).then(|| Range::every(step));
    };
    let ends = match &tree.kind {
        AstKind::Tuple(ends) => {
            ends.iter().map(|end| decode(end, ty)).collect::<Result<Vec<_>, _>>().ok()
        }
        _ => None,
    };
    match (ty, ends.as_deref()) {
        (PortType::Int, Some([Literal::Int(min), Literal::Int(max)])) if min <= max => {
            Some(Range::Int { min: *min, max: *max, step })
        }
        (PortType::Real, Some([Literal::Real(min), Literal::Real(max)])) if min <= max => {
            Some(Range::Real { min: *min, max: *max })
        }
        _ => {
            let expected = "a range `(least, greatest)` of the input's type, Int or Real";
            malformed(report, file, tree, expected);
            None
        }
    }
}
