//! Plans: what runs, in which order, with a key for every step.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kino_port::{Fact, Literal, Read, Traits, Weights};
use serde::Serialize;
use serde::ser::SerializeStruct;

use crate::diagnostic::{Diagnostics, Place};

/// A hash of everything that can change a step's results.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The steps that a graph needs, in topological order.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The steps; sources come before their readers.
    pub steps: Vec<Step>,
    /// The graph's outputs: name and source.
    pub outputs: Vec<(String, Item)>,
    /// The graph's inputs with the values used; drawn ones as the numbers drawn.
    pub inputs: Vec<(String, Literal)>,
    /// What is probably not meant.
    pub warnings: Diagnostics,
    /// The whole workflow as one text that runs again.
    pub(crate) record: String,
}

/// One node to run.
#[derive(Clone, Debug)]
pub struct Step {
    /// The node's name; `outer/inner` within a graph used as a node.
    pub name: Arc<str>,
    /// Its definition.
    pub op: Arc<str>,
    /// The version of its definition.
    pub version: Arc<str>,
    /// What its results depend on.
    pub key: Key,
    /// The names of its inputs, in the signature's order.
    pub ports: Arc<[Arc<str>]>,
    /// What feeds each input, in the signature's order; defaults are filled in.
    pub inputs: Vec<Input>,
    /// What is known of its outputs.
    pub facts: Vec<Fact>,
    /// The files that it reads.
    pub reads: Vec<Read>,
    /// An estimate of the bytes that it needs.
    pub memory: u64,
    /// How many of these are frames, which go to temporary files where memory ends.
    pub spillable: u64,
    /// The weights among these bytes.
    pub weights: Vec<Weights>,
    /// How the engine treats it.
    pub traits: Traits,
    /// Whether it is wanted for itself: an output of the graph, a sink, or the node to stop at.
    pub target: bool,
    /// Where it is written.
    pub place: Place,
    /// A hash of what inference added to the key: files, weights.
    pub(crate) extra: u64,
}

/// What feeds an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Nothing.
    Absent,
    /// A value known while planning.
    Literal(Literal),
    /// An output of an earlier step.
    Edge(Source),
    /// Several, each with its name where it has one.
    List(Vec<(Option<Arc<str>>, Item)>),
}

/// One item of a list, or one output of the graph.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A value known while planning.
    Literal(Literal),
    /// An output of a step.
    Edge(Source),
}

/// An output of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The index of the step in [`Plan::steps`].
    pub step: u32,
    /// The index of the output in its signature.
    pub output: u32,
}

impl Input {
    /// The steps that feed this input.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        let (one, many) = match self {
            Input::Edge(source) => (Some(*source), &[][..]),
            Input::List(items) => (None, &items[..]),
            _ => (None, &[][..]),
        };
        let edges = many.iter().filter_map(|(_, item)| match item {
            Item::Edge(source) => Some(*source),
            Item::Literal(_) => None,
        });
        one.into_iter().chain(edges)
    }
}

impl Step {
    /// A step made by hand rather than by planning a graph: nothing is known of its outputs.
    pub fn new(name: &str, op: &str, key: Key, inputs: Vec<Input>, traits: Traits) -> Self {
        Step {
            name: name.into(),
            op: op.into(),
            version: "".into(),
            key,
            ports: Arc::new([]),
            inputs,
            facts: Vec::new(),
            reads: Vec::new(),
            memory: 0,
            spillable: 0,
            weights: Vec::new(),
            traits,
            target: traits.sink,
            place: Place::default(),
            extra: 0,
        }
    }
}

impl Plan {
    /// The step of this name, with its index.
    pub fn step(&self, name: &str) -> Option<(usize, &Step)> {
        self.steps.iter().enumerate().find(|(_, step)| *step.name == *name)
    }

    /// The workflow as one text: the graph and those it uses, with the inputs used as defaults and
    /// drawn seeds as numbers. It plans to the same keys.
    pub fn record(&self) -> &str {
        &self.record
    }

    /// All files that the steps read, each once.
    pub fn reads(&self) -> Vec<&Read> {
        let mut reads: Vec<&Read> = self.steps.iter().flat_map(|step| &step.reads).collect();
        reads.sort_by(|a, b| (&a.path, &a.hash).cmp(&(&b.path, &b.hash)));
        reads.dedup_by(|a, b| (&a.path, &a.hash) == (&b.path, &b.hash));
        reads
    }
}

impl Serialize for Step {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Step", 5)?;
        fields.serialize_field("name", &*self.name)?;
        fields.serialize_field("op", &*self.op)?;
        fields.serialize_field("version", &*self.version)?;
        fields.serialize_field("key", &self.key.to_string())?;
        fields.serialize_field("memory", &self.memory)?;
        fields.end()
    }
}

impl Serialize for Plan {
    /// The inputs as RON writes them, the steps in order, and all files read.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inputs: BTreeMap<&str, String> =
            self.inputs.iter().map(|(name, value)| (&**name, value.to_string())).collect();
        let reads: Vec<_> =
            self.reads().into_iter().map(|read| (read.path.as_str(), read.hash.as_str())).collect();
        let mut fields = serializer.serialize_struct("Plan", 3)?;
        fields.serialize_field("inputs", &inputs)?;
        fields.serialize_field("steps", &self.steps)?;
        fields.serialize_field("reads", &reads.into_iter().collect::<BTreeMap<_, _>>())?;
        fields.end()
    }
}
