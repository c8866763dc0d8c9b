//! Steps: a node to run, with its key and what feeds it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use kino_port::{
    Fact, Literal, NodeTraits, PathForm, PlannedRead, PlannedWeights, StreamedWeights,
};
use serde::Serialize;
use serde::ser::SerializeStruct;

use crate::diagnostic::Location;

/// A hash of everything that can change a step's results.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// The key of the `n`th of several that have this one; the first has it itself.
    pub(crate) fn nth(self, n: u64) -> Key {
        match n {
            0 => self,
            n => Key(*blake3::keyed_hash(&self.0, &n.to_le_bytes()).as_bytes()),
        }
    }
}

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
    pub inputs: Vec<StepInput>,
    /// What is known of its outputs.
    pub facts: Vec<Fact>,
    /// The files that it reads.
    pub reads: Vec<PlannedRead>,
    /// The indices of the inputs that name a file which it writes; each is known, as a text or as
    /// a list of texts.
    pub writes: Vec<u32>,
    /// How these inputs name what it writes.
    pub path_form: PathForm,
    /// Where a path that it writes has a number for `{n}`: which part of the path that is, counted
    /// from its end, and what makes the file but for that number.
    pub counted: Option<Box<Counted>>,
    /// An estimate of the bytes that it needs.
    pub memory: u64,
    /// How many of these are frames, which go to temporary files where memory ends.
    pub spillable: u64,
    /// The weights among these bytes.
    pub weights: Vec<PlannedWeights>,
    /// Weights that it uses where there is room for them.
    pub optional: Vec<PlannedWeights>,
    /// Where its weights do not fit into memory: what becomes of them.
    pub streamed: Option<StreamedWeights>,
    /// How the engine treats it.
    pub traits: NodeTraits,
    /// Whether it is wanted for itself: an output of the graph, a sink, or the node to stop at.
    pub target: bool,
    /// The turn of a `repeat` that it is part of.
    pub turn: Option<Turn>,
    /// Where it is written.
    pub location: Location,
    /// A hash of what inference added to the key: files, weights.
    pub(crate) extra: u64,
}

/// A number that was put into the path of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// How many names stand behind the one that has the number: 0 for the file's own.
    pub behind: usize,
    /// What makes the file but for its number.
    pub key: Key,
}

/// A turn of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The number of the loop among those of its graph.
    pub of: u32,
    /// Which turn, from 0.
    pub number: u32,
}

/// What feeds an input.
#[derive(Clone, Debug, PartialEq)]
pub enum StepInput {
    /// Nothing.
    Absent,
    /// A value known while planning.
    Literal(Literal),
    /// An output of an earlier step.
    Edge(StepOutput),
    /// Several, each with its name where it has one.
    List(Vec<(Option<Arc<str>>, ValueSource)>),
}

/// One item of a list, or one output of the graph.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueSource {
    /// A value known while planning.
    Literal(Literal),
    /// An output of a step.
    Edge(StepOutput),
}

/// An output of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepOutput {
    /// The index of the step in [`crate::Plan::steps`].
    pub step: u32,
    /// The index of the output in its signature.
    pub output: u32,
}

impl StepInput {
    /// The steps that feed this input.
    pub fn sources(&self) -> impl Iterator<Item = StepOutput> + '_ {
        let (one, many) = match self {
            StepInput::Edge(source) => (Some(*source), &[][..]),
            StepInput::List(items) => (None, &items[..]),
            _ => (None, &[][..]),
        };
        let edges = many.iter().filter_map(|(_, item)| match item {
            ValueSource::Edge(source) => Some(*source),
            ValueSource::Literal(_) => None,
        });
        one.into_iter().chain(edges)
    }

    /// Changes the texts among the values known while planning.
    pub(crate) fn each_text(&mut self, change: &mut impl FnMut(&mut String)) {
        fn within(literal: &mut Literal, change: &mut impl FnMut(&mut String)) {
            match literal {
                Literal::Text(text) => change(text.to_mut()),
                Literal::List(items) => items.iter_mut().for_each(|item| within(item, change)),
                _ => {}
            }
        }
        match self {
            StepInput::Literal(literal) => within(literal, change),
            StepInput::List(items) => items.iter_mut().for_each(|(_, item)| {
                if let ValueSource::Literal(literal) = item {
                    within(literal, change);
                }
            }),
            StepInput::Absent | StepInput::Edge(_) => {}
        }
    }

    /// The texts among the values known while planning.
    pub(crate) fn texts(&self) -> Vec<&str> {
        let mut texts = Vec::new();
        match self {
            StepInput::Literal(literal) => literal.texts(&mut texts),
            StepInput::List(items) => items.iter().for_each(|(_, item)| {
                if let ValueSource::Literal(literal) = item {
                    literal.texts(&mut texts);
                }
            }),
            StepInput::Absent | StepInput::Edge(_) => {}
        }
        texts
    }
}

/// The step of the first turn of a loop that a step of any turn is like: `film/0/noise` for
/// `film/7/noise`. Steps outside of loops are as they were.
pub fn first_turn(step: &str) -> Cow<'_, str> {
    // Names of nodes begin with a letter, so a number is that of a turn.
    let is_turn = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    match step.split('/').any(is_turn) {
        false => Cow::Borrowed(step),
        true => {
            let parts = step.split('/').map(|part| if is_turn(part) { "0" } else { part });
            Cow::Owned(parts.collect::<Vec<_>>().join("/"))
        }
    }
}

impl Step {
    /// A step made by hand rather than by planning a graph: nothing is known of its outputs.
    pub fn new(name: &str, op: &str, key: Key, inputs: Vec<StepInput>, traits: NodeTraits) -> Self {
        Step {
            name: name.into(),
            op: op.into(),
            version: "".into(),
            key,
            ports: Arc::new([]),
            inputs,
            facts: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            path_form: PathForm::OneFile,
            counted: None,
            memory: 0,
            spillable: 0,
            weights: Vec::new(),
            optional: Vec::new(),
            streamed: None,
            traits,
            target: traits.sink,
            turn: None,
            location: Location::default(),
            extra: 0,
        }
    }

    /// The files that it writes: the index of the input that names each, and the path, relative to
    /// the folder of outputs.
    pub fn written(&self) -> impl Iterator<Item = (usize, &str)> {
        let named = self
            .writes
            .iter()
            .filter_map(|index| Some((*index as usize, self.inputs.get(*index as usize)?)));
        named.flat_map(|(index, input)| input.texts().into_iter().map(move |text| (index, text)))
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
