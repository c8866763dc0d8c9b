//! The values that a plan begins with: inputs set, drawn or left at their defaults.

use std::collections::HashMap;
use std::sync::Arc;

use kino_port::{Literal, Port, Range};

use crate::check::CheckedGraph;
use crate::declare::GraphInput;
use crate::diagnostic::{Diagnostic, Location, Report};
use crate::step::Key;
use crate::template::{self, Late, Part, sanitise};
use crate::workflow::Edit;

/// What a plan depends on besides the graph.
pub struct PlanSettings<'s> {
    /// Values for the graph's inputs; the others take their defaults.
    pub inputs: &'s [(String, Literal)],
    /// Stop at this node, rather than run everything that is wanted.
    pub until: Option<&'s str>,
    /// The versions of what computes. They enter every key.
    pub versions: &'s [u8],
    /// What of the machine changes numbers: device, kernels, threads. It enters the keys of all
    /// nodes but portable ones, and is asked for once for each other op.
    pub machine: &'s dyn Fn() -> Vec<u8>,
    /// Draws a random number, for the `"random"` of this name: `inputs.seed`, or `noise.seed`.
    pub draw: &'s dyn Fn(&str) -> u64,
    /// What `{graph}` stands for: the stem of the graph's file.
    pub stem: &'s str,
    /// The number for `{n}` in a path of a file that is written: the next one that no file has, or
    /// the one that the same step was given before. Without it, it is always 1.
    pub number: Option<&'s Number<'s>>,
    /// Where a path of the graph leads: the same text for the same file. Without it, nobody can say
    /// whether a graph reads what it writes, and files that are written are compared by their paths.
    pub locate: Option<&'s Locate<'s>>,
}

/// Tells the number for the `{n}` between two parts of a path, relative to the folder of outputs,
/// that a step of this key writes. The key holds all that makes the file but the number.
pub type Number<'s> = dyn Fn(&str, &str, Key) -> u64 + 's;

/// Tells where a path leads that is used in one way.
pub type Locate<'s> = dyn Fn(Access, &str) -> String + 's;

/// What a graph does with a file that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// It is read: the path is relative to the root graph's folder.
    Read,
    /// It is written: the path is relative to the folder of outputs.
    Write,
}

/// The values of a graph's inputs and of every `"random"`, and what has to be written into an
/// embedded workflow for them.
pub(crate) struct Values<'s> {
    settings: &'s PlanSettings<'s>,
    /// The graph is only checked: whoever plans it may set or draw other values.
    pub(crate) only_check: bool,
    /// By input; nothing where it has no value.
    pub(crate) inputs: Vec<Option<Literal>>,
    /// By input: whether only planning knows its value.
    pub(crate) open: Vec<bool>,
    /// The loops, by their names, of which only planning knows how often they repeat.
    pub(crate) uncounted: Vec<Arc<str>>,
    /// Numbers drawn, by the place of the `"random"`.
    drawn: HashMap<Location, Literal>,
    pub(crate) edits: Vec<Edit>,
}

/// Takes the value of every graph input: set, default, or drawn. Of a graph that is only checked,
/// inputs may lack a value.
pub(crate) fn take<'s>(
    graph: &CheckedGraph,
    settings: &'s PlanSettings<'s>,
    only_check: bool,
    report: &mut Report,
) -> Values<'s> {
    let mut values = Values {
        settings,
        only_check,
        inputs: Vec::with_capacity(graph.inputs.len()),
        open: vec![false; graph.inputs.len()],
        uncounted: Vec::new(),
        drawn: HashMap::new(),
        edits: Vec::new(),
    };
    let names = || graph.inputs.iter().map(|input| &*input.port.name);
    let index: HashMap<&str, usize> = names().enumerate().map(|(at, name)| (name, at)).collect();
    let mut set = HashMap::new();
    for (name, value) in settings.inputs {
        if index.contains_key(name.as_str()) {
            set.insert(name.as_str(), value);
        } else {
            let hint = report.advice(name, names);
            nowhere(report, "unknown-input", format!("the graph has no input `{name}`"), hint);
        }
    }
    for (at, input) in graph.inputs.iter().enumerate() {
        let value = set.get(&*input.port.name).copied().or(input.port.default.as_ref());
        let is_drawn = input.port.draws && value == Some(&Literal::text("random"));
        values.open[at] = only_check && (value.is_none() || is_drawn);
        let value = value.and_then(|value| values.value_of(input, value, report));
        values.inputs.push(value);
    }
    let is_part = |name: &str| {
        let at = index.get(name).copied();
        at.filter(|at| !graph.inputs[*at].port.names_file())
    };
    for (at, input) in graph.inputs.iter().enumerate() {
        if input.port.names_file() && !values.open[at] {
            values.open[at] = values.waits_for_open(at, &is_part);
            values.inputs[at] = match values.open[at] {
                true => None,
                false => values.filled(at, input, &is_part, report),
            };
        }
    }
    values
}

/// A problem of the command line, which stands in no file.
pub(crate) fn nowhere(
    report: &mut Report,
    code: &'static str,
    message: String,
    hint: Option<String>,
) {
    let diagnostic = Diagnostic::error(code, Location::default(), message).maybe_hint(hint);
    report.push(Diagnostic { location: None, ..diagnostic });
}

impl Values<'_> {
    fn value_of(
        &mut self,
        input: &GraphInput,
        value: &Literal,
        report: &mut Report,
    ) -> Option<Literal> {
        let port = &input.port;
        let value = match port.coerce(value.clone()) {
            Ok(Literal::Text(text)) if port.draws && text == "random" => {
                self.draw(&format!("inputs.{}", port.name), port.range)
            }
            Ok(value) => value,
            Err(error) => {
                let message = format!("input `{}`: {}", port.name, error.message);
                report.error("value", input.location, message).hint = error.hint;
                return None;
            }
        };
        if port.default.as_ref() != Some(&value) {
            self.edits.push(Edit::input(input, &value.to_string()));
        }
        Some(value)
    }

    /// The value of an input that names a file, its `{names}` filled with the values of others.
    fn filled(
        &self,
        at: usize,
        input: &GraphInput,
        is_part: &dyn Fn(&str) -> Option<usize>,
        report: &mut Report,
    ) -> Option<Literal> {
        let Literal::Text(text) = self.inputs[at].as_ref()? else {
            return self.inputs[at].clone();
        };
        let mut path = String::new();
        let filled = template::parse(text).and_then(|parts| {
            parts.iter().try_for_each(|part| self.fill(part, is_part, &mut path))
        });
        match filled {
            Ok(()) => Some(Literal::text(path)),
            Err(reason) => {
                let message = format!("input `{}`: {reason}", input.port.name);
                report.error("template", input.location, message);
                None
            }
        }
    }

    /// The value of an input as a part of a path. What is drawn for it while a graph is only checked
    /// goes by its name: two such inputs hardly name one file.
    pub(crate) fn of_path(&self, index: usize, name: &str) -> Option<Literal> {
        let value = self.inputs[index].as_ref()?;
        Some(match self.open[index] {
            true => Literal::text(format!("random_{name}")),
            false => value.clone(),
        })
    }

    /// Whether a value that only planning knows stands in the path of an input.
    fn waits_for_open(&self, at: usize, is_part: &dyn Fn(&str) -> Option<usize>) -> bool {
        let Some(Literal::Text(text)) = &self.inputs[at] else { return false };
        let parts = template::parse(text).unwrap_or_default();
        parts.iter().any(|part| match part {
            Part::Input(name) => {
                is_part(name).is_some_and(|index| self.open[index] && self.inputs[index].is_none())
            }
            Part::Text(_) | Part::Stem => false,
        })
    }

    fn fill(
        &self,
        part: &Part,
        is_part: &dyn Fn(&str) -> Option<usize>,
        path: &mut String,
    ) -> Result<(), String> {
        match part {
            Part::Text(text) => path.push_str(text),
            Part::Stem => path.push_str(&self.stem()),
            Part::Input(name) => {
                let index = is_part(name);
                if let Some(late) = Late::named(name).filter(|_| index.is_none()) {
                    path.push_str(late.place());
                    return Ok(());
                }
                let value = index.and_then(|index| self.of_path(index, name));
                let value = value.ok_or_else(|| {
                    format!(
                        "there is no value to put for `{{{name}}}`; a bracket is written `{{{{`"
                    )
                })?;
                path.push_str(&as_part(&value));
            }
        }
        Ok(())
    }

    /// What tells the number for `{n}`.
    pub(crate) fn number(&self) -> Option<&Number<'_>> {
        self.settings.number
    }

    /// What `{graph}` stands for.
    pub(crate) fn stem(&self) -> String {
        sanitise(self.settings.stem)
    }

    /// A number within a range, for the `"random"` of a name.
    fn draw(&self, name: &str, range: Option<Range>) -> Literal {
        let drawn = i128::from((self.settings.draw)(name));
        match range {
            Some(Range::Int { min, max, step }) => {
                // Without a range there is a step alone, which counts from 0.
                let min = if range == Some(Range::every(step)) { 0 } else { min };
                let places = (max.saturating_sub(min) / step).saturating_add(1);
                Literal::Int(min + drawn.rem_euclid(places.max(1)) * step)
            }
            _ => Literal::Int(drawn),
        }
    }

    /// The number drawn for the `"random"` that stands at `location`: one for all that read it.
    pub(crate) fn drawn(
        &mut self,
        name: &str,
        range: Option<Range>,
        location: Location,
    ) -> Literal {
        if let Some(drawn) = self.drawn.get(&location) {
            return drawn.clone();
        }
        let drawn = self.draw(name, range);
        self.edits.push(Edit::replace(location, drawn.to_string()));
        self.drawn.insert(location, drawn.clone());
        drawn
    }
}

/// Says that an input has no value.
pub(crate) fn unset(input: &GraphInput, report: &mut Report) {
    let Port { name, ty, .. } = &input.port;
    let message = format!("input `{name}` has no value");
    let hint = if ty.is_literal() {
        format!("set it with `--set {name}=…`; it takes {}", input.port.expected())
    } else {
        format!("a value of type {ty} comes from another graph that uses this one")
    };
    report.error("unset-input", input.location, message).hint = Some(hint);
}

/// A value as part of a file name.
pub(crate) fn as_part(value: &Literal) -> String {
    match value {
        Literal::Text(text) => sanitise(text),
        other => sanitise(&other.to_string()),
    }
}
