//! The values that a plan begins with: inputs set, drawn or left at their defaults, and paths
//! filled with them.

use kino_port::{Fact, Literal, Port, PortType, Range};

use crate::diagnostic::{Diagnostic, Diagnostics, Place, suggest};
use crate::graph::{FeedSource, Graph, GraphInput, Node, Piece, Template};
use crate::literal::from_command_line;
use crate::planner::Planner;
use crate::record::Edit;
use crate::template::{self, Part, sanitise};

impl Graph {
    /// Decodes a value from the command line, unquoted, by the type of the graph's input `name`.
    ///
    /// # Errors
    /// When there is no such input, or the value does not fit it.
    pub fn read_input(&self, name: &str, raw: &str) -> Result<Literal, Diagnostics> {
        let problem = |code, message: String, hint: Option<String>| {
            let diagnostic =
                Diagnostic { place: None, ..Diagnostic::error(code, Place::default(), message) };
            Diagnostics::new(vec![diagnostic.maybe_hint(hint)], self.files.clone())
        };
        let Some(input) = self.inputs.iter().find(|input| input.port.name == name) else {
            let names = self.inputs.iter().map(|input| &*input.port.name);
            let message = format!("the graph has no input `{name}`");
            return Err(problem("unknown-input", message, suggest(name, names)));
        };
        from_command_line(raw, &input.port).map_err(|refusal| {
            problem("value", format!("input `{name}`: {}", refusal.message), refusal.hint)
        })
    }
}

impl Planner<'_> {
    /// Takes the value of every graph input: set, default, or drawn.
    pub(crate) fn set_values(&mut self) {
        let graph = self.graph;
        for (name, _) in self.settings.inputs {
            if !graph.inputs.iter().any(|input| input.port.name == *name) {
                let hint = suggest(name, graph.inputs.iter().map(|input| &*input.port.name));
                let message = format!("the graph has no input `{name}`");
                self.refuse("unknown-input", None, message, hint);
            }
        }
        for input in &graph.inputs {
            let value = self.value_of(input);
            if let Some(value) =
                value.as_ref().filter(|value| input.port.default.as_ref() != Some(*value))
            {
                self.edits.push(Edit::input(input, &value.to_string()));
            }
            self.values.push(value);
        }
        for (index, input) in graph.inputs.iter().enumerate() {
            if input.port.ty == PortType::Path {
                self.values[index] = self.filled_value(index, input);
            }
        }
    }

    fn value_of(&mut self, input: &GraphInput) -> Option<Literal> {
        let port = &input.port;
        let set = self.settings.inputs.iter().rev().find(|(name, _)| *name == port.name);
        let value = set.map(|(_, value)| value).or(port.default.as_ref())?.clone();
        match port.admit(value) {
            Ok(Literal::Text(text)) if port.draws && text == "random" => {
                Some(self.draw(&format!("inputs.{}", port.name), port.range))
            }
            Ok(value) => Some(value),
            Err(refusal) => {
                let message = format!("input `{}`: {}", port.name, refusal.message);
                self.refuse("value", Some(input.place), message, refusal.hint);
                None
            }
        }
    }

    /// The value of an input of type Path, its `{names}` filled with the values of others.
    fn filled_value(&mut self, index: usize, input: &GraphInput) -> Option<Literal> {
        let Literal::Text(text) = self.values[index].clone()? else {
            return self.values[index].clone();
        };
        let refused = match template::parse(&text) {
            Ok(parts) => {
                let mut path = String::new();
                let unfilled = parts.iter().find_map(|part| self.fill_part(part, &mut path).err());
                match unfilled {
                    None => return Some(Literal::text(path)),
                    Some(reason) => reason,
                }
            }
            Err(reason) => reason,
        };
        let message = format!("input `{}`: {refused}", input.port.name);
        self.refuse("template", Some(input.place), message, None);
        None
    }

    fn fill_part(&self, part: &Part, path: &mut String) -> Result<(), String> {
        match part {
            Part::Text(text) => path.push_str(text),
            Part::Stem => path.push_str(&sanitise(self.settings.stem)),
            Part::Input(name) => {
                let inputs = &self.graph.inputs;
                let found = inputs
                    .iter()
                    .position(|input| input.port.name == *name && input.port.ty != PortType::Path);
                let value = found.and_then(|index| self.values[index].as_ref());
                let value = value.ok_or_else(|| {
                    format!(
                        "there is no value to put for `{{{name}}}`; a bracket is written `{{{{`"
                    )
                })?;
                path.push_str(&as_part(value));
            }
        }
        Ok(())
    }

    /// A number within a range, for the `"random"` of a name.
    pub(crate) fn draw(&self, name: &str, range: Option<Range>) -> Literal {
        let drawn = i128::from((self.settings.draw)(name));
        match range {
            Some(Range::Int { min, max, step }) => {
                let places = (max.saturating_sub(min) / step).saturating_add(1);
                Literal::Int(min + drawn.rem_euclid(places.max(1)) * step)
            }
            _ => Literal::Int(drawn),
        }
    }

    /// The number drawn for the `"random"` that stands at `place`: one for all that read it.
    pub(crate) fn drawn(&mut self, name: &str, range: Option<Range>, place: Place) -> Literal {
        if let Some(drawn) = self.drawn.get(&place) {
            return drawn.clone();
        }
        let drawn = self.draw(name, range);
        self.edits.push(Edit::replace(place, drawn.to_string()));
        self.drawn.insert(place, drawn.clone());
        drawn
    }

    /// Checks the values known so far against the inputs of graphs used as nodes.
    pub(crate) fn check_calls(&mut self) {
        let graph = self.graph;
        let inferred = self.known.iter().any(Option::is_some);
        for call in &graph.calls {
            call.feed.walk_placed(&mut |feed| {
                let value = match &feed.source {
                    FeedSource::Input(index) if !inferred => self.values[*index].clone(),
                    FeedSource::Edge(node, output) => {
                        let facts =
                            self.known(*node).and_then(|known| known.facts.get(*output as usize));
                        facts.and_then(Fact::literal).cloned()
                    }
                    _ => None,
                };
                let Some(Err(refusal)) = value.map(|value| call.port.admit(value)) else { return };
                let message =
                    format!("`{}` of `{}`: {}", call.port.name, call.node, refusal.message);
                self.refuse("value", Some(feed.place), message, refusal.hint);
            });
        }
    }

    /// The value of a graph's input, as `port` sees it.
    pub(crate) fn value(
        &mut self,
        node: &Node,
        port: &Port,
        index: usize,
        place: Place,
    ) -> Option<Literal> {
        let input = &self.graph.inputs[index];
        let Some(value) = self.values[index].clone() else {
            self.unset(input);
            return None;
        };
        match port.admit(value) {
            Ok(value) => Some(value),
            Err(refusal) => {
                let message = format!(
                    "input `{}`: `{}` of `{}` {}",
                    input.port.name, port.name, node.name, refusal.message
                );
                let diagnostic =
                    Diagnostic::error("value", input.place, message).maybe_hint(refusal.hint);
                self.problems.push(diagnostic.related(place, "used here"));
                None
            }
        }
    }

    fn unset(&mut self, input: &GraphInput) {
        let name = &input.port.name;
        let message = format!("input `{name}` has no value");
        let hint = if input.port.ty.is_literal() {
            format!("set it with `--set {name}=…`; it takes {}", input.port.expected())
        } else {
            format!("a value of type {} comes from another graph that uses this one", input.port.ty)
        };
        self.refuse("unset-input", Some(input.place), message, Some(hint));
    }

    /// A path with the values of its names; those that are read lie beside the graph that names
    /// them.
    pub(crate) fn fill(&mut self, template: &Template, place: Place, sink: bool) -> Option<String> {
        let mut path = String::new();
        for piece in &template.pieces {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Stem => path.push_str(&sanitise(self.settings.stem)),
                Piece::Value(feed) => match self.known_value(feed)? {
                    Some(value) => path.push_str(&as_part(&value)),
                    None => {
                        let message = "this path needs a value that is not known before running";
                        self.refuse("template", Some(place), message.to_owned(), None);
                        return None;
                    }
                },
            }
        }
        Some(if sink { path } else { template::within(&template.dir, path) })
    }

    /// The value of a feed as far as it is known; none at all where that is an error of its own.
    fn known_value(&mut self, feed: &crate::graph::Feed) -> Option<Option<Literal>> {
        Some(match &feed.source {
            FeedSource::Literal(literal) => Some(literal.clone()),
            FeedSource::Draw(range) => {
                let name = format!("a path in file {}", feed.place.file);
                Some(self.drawn(&name, *range, feed.place))
            }
            FeedSource::Template(inner) => Some(Literal::text(self.fill(inner, feed.place, true)?)),
            FeedSource::Input(index) => {
                let value = self.values[*index].clone();
                if value.is_none() {
                    self.unset(&self.graph.inputs[*index]);
                }
                Some(value?)
            }
            FeedSource::Edge(from, output) => {
                let fact = self.known(*from).and_then(|known| known.facts.get(*output as usize));
                fact.and_then(Fact::literal).cloned()
            }
            FeedSource::Absent | FeedSource::Broken | FeedSource::List(_) => None,
        })
    }
}

/// A value as part of a file name.
fn as_part(value: &Literal) -> String {
    match value {
        Literal::Text(text) => sanitise(text),
        other => sanitise(&other.to_string()),
    }
}
