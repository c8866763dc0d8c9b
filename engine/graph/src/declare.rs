//! The inputs that a graph declares, as ports.

use kino_port::{Literal, Port, PortType, Range};

use crate::diagnostic::{Place, suggest};
use crate::document::InputDecl;
use crate::graph::GraphInput;
use crate::literal::decode;
use crate::ron::{Form, Tree};
use crate::scope::Opener;
use crate::template::{self, Part};

impl Opener<'_> {
    /// An input's declaration as a port; what is wrong with it is said.
    pub(crate) fn declared(&mut self, file: u32, decl: &InputDecl<'_>) -> GraphInput {
        let mut port = self.bare_input(file, decl);
        let mut default = decl.default.as_ref().map(|tree| Place { file, span: tree.span });
        if let Some(tree) = &decl.default {
            match decode(tree, &port.ty).and_then(|literal| port.admit(literal)) {
                Ok(literal) => port.default = Some(literal),
                Err(refusal) => {
                    let place = Place { file, span: tree.span };
                    let message = format!("default of input `{}`: {}", port.name, refusal.message);
                    self.problem("value", place, message).hint = refusal.hint;
                    // So that it is not called missing as well.
                    port.default = Some(Literal::text(""));
                    default = None;
                }
            }
        }
        let place = Place { file, span: decl.span };
        GraphInput { port, place, opening: decl.opening, default }
    }

    /// Checks the names in the defaults of inputs of type Path.
    pub(crate) fn check_templates(&mut self, inputs: &[GraphInput]) {
        for input in inputs.iter().filter(|input| input.port.ty == PortType::Path) {
            let (Some(Literal::Text(text)), Some(place)) = (&input.port.default, input.default)
            else {
                continue;
            };
            match template::parse(text) {
                Err(message) => {
                    self.problem("template", place, message);
                }
                Ok(parts) => {
                    for part in parts {
                        let Part::Input(name) = part else { continue };
                        self.check_named(&name, inputs, place);
                    }
                }
            }
        }
    }

    fn check_named(&mut self, name: &str, inputs: &[GraphInput], place: Place) {
        match inputs.iter().find(|input| input.port.name == name) {
            None => {
                let names = inputs.iter().map(|input| &*input.port.name);
                let hint = self.advice(name, names.chain(["graph"]));
                let message = format!("the graph has no input `{name}` to fill this path with");
                self.problem("unknown-input", place, message).hint = hint;
            }
            Some(input) if input.port.ty == PortType::Path => {
                let message = format!("`{name}` is a path itself and cannot be part of another");
                self.problem("template", place, message);
            }
            Some(_) => {}
        }
    }

    fn bare_input(&mut self, file: u32, decl: &InputDecl<'_>) -> Port {
        let mut ty = PortType::Any;
        if let Some(word) = &decl.ty {
            match word.text.parse() {
                Ok(known) => ty = known,
                Err(message) => {
                    let hint = suggest(&word.text, PortType::NAMED.iter().map(|row| row.name));
                    let place = Place { file, span: word.span };
                    self.problem("unknown-type", place, message).hint = hint;
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
        port.range = self.range(file, decl, &port.ty);
        if let Some(tree) = &decl.choices {
            port.choices = self.choices(file, tree).into();
        }
        port
    }

    fn choices(&mut self, file: u32, tree: &Tree<'_>) -> Vec<std::borrow::Cow<'static, str>> {
        let text = |item: &Tree<'_>| match &item.form {
            Form::Text(text) => Some(text.to_string().into()),
            _ => None,
        };
        let texts = match &tree.form {
            Form::List(items) => items.iter().map(text).collect(),
            _ => None,
        };
        texts.unwrap_or_else(|| {
            self.malformed(file, tree, "a list of texts");
            Vec::new()
        })
    }

    fn malformed(&mut self, file: u32, tree: &Tree<'_>, expected: &str) {
        let message = format!("expected {expected}, found {}", tree.form.kind());
        self.problem("malformed", Place { file, span: tree.span }, message);
    }

    fn range(&mut self, file: u32, decl: &InputDecl<'_>, ty: &PortType) -> Option<Range> {
        let step = match decl.step.as_ref().map(|tree| (tree, decode(tree, &PortType::Int))) {
            None => 1,
            Some((_, Ok(Literal::Int(step)))) if step > 0 && *ty == PortType::Int => step,
            Some((tree, _)) => {
                let expected = "a whole number of at least 1, for an input of type Int";
                self.malformed(file, tree, expected);
                1
            }
        };
        let Some(tree) = &decl.range else {
            return (step > 1).then_some(Range::Int { min: 0, max: i128::MAX, step });
        };
        let ends = match &tree.form {
            Form::Tuple(ends) => {
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
                self.malformed(file, tree, expected);
                None
            }
        }
    }
}
