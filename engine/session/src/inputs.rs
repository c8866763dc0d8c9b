//! Values for the inputs of a graph.

use std::fmt::Display;

use kino_graph::{Diagnostics, Graph};
use kino_port::Literal;

use crate::error::{Error, Result};

/// Values for inputs of a graph, by name. They are read by the types that the graph declares, so a
/// number may be given as a text, and `"random"` is a seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    set: Vec<(String, String)>,
}

/// Makes [`Inputs`]: `inputs! { "prompt" => "a red circle", "seed" => 7 }`.
#[macro_export]
macro_rules! inputs {
    ($($name:expr => $value:expr),* $(,)?) => {
        $crate::Inputs::new()$(.with($name, $value))*
    };
}

impl Inputs {
    /// None: every input has its default.
    pub fn new() -> Self {
        Inputs::default()
    }

    /// The same inputs with one more.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.set(name, value);
        self
    }

    /// Sets an input, in place of what was set before.
    pub fn set(&mut self, name: impl Into<String>, value: impl Display) {
        let name = name.into();
        self.set.retain(|(known, _)| *known != name);
        self.set.push((name, value.to_string()));
    }

    /// The values by the types that the graph declares, one for each input, all problems at once.
    pub(crate) fn read(&self, graph: &Graph) -> Result<Vec<(String, Literal)>> {
        let mut values = Vec::with_capacity(self.set.len());
        self.read_each(graph)?.into_iter().for_each(|(name, value)| add(&mut values, name, value));
        Ok(values)
    }

    /// The same, each value as often as it is set.
    pub(crate) fn read_each(&self, graph: &Graph) -> Result<Vec<(String, Literal)>> {
        let mut values = Vec::with_capacity(self.set.len());
        let mut problems = Diagnostics::default();
        for (name, raw) in &self.set {
            match graph.read_input(name, raw) {
                Ok(value) => values.push((name.clone(), value)),
                Err(found) => {
                    problems.list.extend(found.list);
                    problems.files = found.files;
                }
            }
        }
        if problems.list.is_empty() { Ok(values) } else { Err(Error::Graph(problems)) }
    }
}

/// Adds a value to those before it: to a list more items, in place of any other value.
fn add(values: &mut Vec<(String, Literal)>, name: String, value: Literal) {
    match values.iter_mut().find(|(known, _)| *known == name) {
        Some((_, Literal::List(items))) => match value {
            Literal::List(more) => items.extend(more),
            one => items.push(one),
        },
        Some((_, known)) => *known = value,
        None => values.push((name, value)),
    }
}

/// As on the command line: a list that is set several times has all their items, of any other input
/// the last value counts.
impl FromIterator<(String, String)> for Inputs {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(set: I) -> Self {
        Inputs { set: set.into_iter().collect() }
    }
}

impl From<&[(String, String)]> for Inputs {
    fn from(set: &[(String, String)]) -> Self {
        set.iter().cloned().collect()
    }
}
