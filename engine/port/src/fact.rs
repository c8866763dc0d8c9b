//! What is known of values before anything runs, and what a node says when a plan asks it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::{Literal, PathForm, PlannedFile, format_bytes};

/// What is known of one value while planning.
#[derive(Clone, Default)]
pub enum Fact {
    /// Nothing but its type.
    #[default]
    Unknown,
    /// The value itself.
    Literal(Literal),
    /// What is known of each item of a list, with its name where it has one.
    List(Vec<(Option<Arc<str>>, Fact)>),
    /// A description that the nodes agree on among themselves: a shape, a model's configuration.
    Typed(Arc<dyn Any + Send + Sync>),
}

impl Fact {
    /// A description to be read back by [`Fact::get`].
    pub fn typed<T: Any + Send + Sync>(description: T) -> Self {
        Fact::Typed(Arc::new(description))
    }

    /// The description, if it is one of type `T`.
    pub fn get<T: Any>(&self) -> Option<&T> {
        match self {
            Fact::Typed(description) => description.downcast_ref(),
            _ => None,
        }
    }

    /// The value itself, if it is known.
    pub fn literal(&self) -> Option<&Literal> {
        match self {
            Fact::Literal(literal) => Some(literal),
            _ => None,
        }
    }
}

impl fmt::Debug for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Unknown => f.write_str("Unknown"),
            Fact::Literal(literal) => write!(f, "Literal({literal})"),
            Fact::List(items) => {
                f.debug_list().entries(items.iter().map(|(_, fact)| fact)).finish()
            }
            Fact::Typed(_) => f.write_str("Typed(…)"),
        }
    }
}

/// What is known of a node's inputs while planning, one entry a port of its signature, in its
/// order.
///
/// A port that is not fed has its default as a literal, or `None` where it has no default.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    names: Arc<[Arc<str>]>,
    values: Vec<Option<Fact>>,
}

impl Facts {
    /// Facts by port name, in the signature's order.
    pub fn new(entries: Vec<(Arc<str>, Option<Fact>)>) -> Self {
        let (names, values): (Vec<_>, _) = entries.into_iter().unzip();
        Facts { names: names.into(), values }
    }

    /// The same of names that many nodes share: one value for each.
    pub fn shared(names: Arc<[Arc<str>]>, values: Vec<Option<Fact>>) -> Self {
        Facts { names, values }
    }

    /// The values, in the order of their names.
    pub fn into_values(self) -> Vec<Option<Fact>> {
        self.values
    }

    /// What is known of the port's value; `None` where nothing feeds it.
    pub fn get(&self, port: &str) -> Option<&Fact> {
        let at = self.names.iter().position(|name| **name == *port)?;
        self.values.get(at)?.as_ref()
    }

    /// Whether anything feeds the port.
    pub fn is_fed(&self, port: &str) -> bool {
        self.get(port).is_some()
    }

    /// The description of the port's value, if it is one of type `T`.
    pub fn typed<T: Any>(&self, port: &str) -> Option<&T> {
        self.get(port)?.get()
    }

    /// The whole number at the port, if it is known.
    pub fn int(&self, port: &str) -> Option<i128> {
        match self.get(port)?.literal()? {
            Literal::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The real number at the port, if it is known; whole numbers widen.
    pub fn real(&self, port: &str) -> Option<f64> {
        match self.get(port)?.literal()? {
            Literal::Int(value) => Some(*value as f64),
            Literal::Real(value) => Some(*value),
            _ => None,
        }
    }

    /// The truth value at the port, if it is known.
    pub fn bool(&self, port: &str) -> Option<bool> {
        match self.get(port)?.literal()? {
            Literal::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The text at the port, if it is known.
    pub fn text(&self, port: &str) -> Option<&str> {
        match self.get(port)?.literal()? {
            Literal::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What is known of each value of a list port; one value where a single one feeds it.
    pub fn items(&self, port: &str) -> Vec<&Fact> {
        match self.get(port) {
            None => Vec::new(),
            Some(Fact::List(items)) => items.iter().map(|(_, fact)| fact).collect(),
            Some(one) => vec![one],
        }
    }
}

/// What a node says of itself when a plan asks: its results as far as they are known, and what its
/// key needs.
#[derive(Clone, Debug, Default)]
pub struct StepInfo {
    /// What is known of each output, in the signature's order; missing ones are unknown.
    pub outputs: Vec<Fact>,
    /// Whatever else changes the result: hashes of files and weights. Empty where the inputs say it
    /// all.
    pub key: Vec<u8>,
    /// The files that the node will read, with their hashes: recorded in what the graph writes.
    pub reads: Vec<PlannedRead>,
    /// An estimate of the bytes that the node needs while it runs, its outputs and weights
    /// included.
    pub memory: u64,
    /// How many of these bytes are frames that it gives, which go to temporary files where memory
    /// ends.
    pub spillable: u64,
    /// The weights among these bytes, which may be resident already.
    pub weights: Vec<PlannedWeights>,
    /// Weights beside these bytes that the node uses where there is room for them, and does
    /// without where there is none.
    pub optional: Vec<PlannedWeights>,
    /// Where its weights do not fit into memory: what becomes of them.
    pub streamed: Option<StreamedWeights>,
    /// The one lazy input that is needed, where that is already known; the others are then not
    /// evaluated.
    pub chosen: Option<&'static str>,
    /// How the path of a sink names what it writes.
    pub path_form: PathForm,
    /// What the node will do that is probably not meant; it runs all the same.
    pub warnings: Vec<PlanError>,
    /// While a graph is only checked: planning would look into a file for what is not known here.
    pub unseen: bool,
}

/// Weights that a node computes with: those of one part of a model, in one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedWeights {
    /// What identifies them.
    pub id: [u8; 32],
    /// The bytes that they take.
    pub bytes: u64,
}

/// Weights that do not fit into memory: some blocks of the network stay there, the others are read
/// from disk in every pass, ahead of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamedWeights {
    /// The blocks of the network.
    pub blocks: usize,
    /// How many of them stay in memory.
    pub resident: usize,
    /// The bytes of the others.
    pub bytes: u64,
}

impl fmt::Display for StreamedWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StreamedWeights { blocks, resident, bytes } = *self;
        write!(f, "its weights do not fit into memory: {resident} of {blocks} blocks stay there")?;
        match bytes {
            0 => f.write_str(", and what is needed once is read from disk and let go"),
            _ => {
                let bytes = format_bytes(bytes);
                write!(f, ", the others ({bytes}) are read from disk in every pass")
            }
        }
    }
}

/// A file that a graph reads, or a folder of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedRead {
    /// Its path as the graph writes it.
    pub path: String,
    /// The hash of its contents, in hexadecimal.
    pub hash: String,
    /// That of its contents alone, where `hash` is also of what else tells it from others, such as
    /// when its files were touched; else empty.
    pub content: String,
    /// What was hashed. A step whose files are not like this any more when it has run fails, as
    /// its result is not that of its key. Empty where the node itself sees to that, and where
    /// nothing can change.
    pub files: Vec<PlannedFile>,
}

impl PlannedRead {
    /// The hash of its contents that a copy has, too.
    pub fn content(&self) -> &str {
        if self.content.is_empty() { &self.hash } else { &self.content }
    }
}

/// Why a node cannot run with what it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The input that is to blame, if it is one.
    pub port: Option<String>,
    /// What is wrong, what was expected.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Who decides it.
    pub kind: PlanErrorKind,
}

/// Who decides that a node cannot run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlanErrorKind {
    /// The graph, with the models that it names: it can run nowhere.
    #[default]
    Graph,
    /// This machine: a file or program is not here, or there is no room. A graph that is checked
    /// may be meant for another one.
    Machine,
    /// Nobody yet: only planning looks, as with the contents of files. Nothing is said of it.
    Unseen,
}

impl PlanError {
    /// An error to what one input is given.
    pub fn at(port: &str, message: impl Into<String>) -> Self {
        PlanError { port: Some(port.to_owned()), ..PlanError::new(message) }
    }

    /// An error to the node as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        PlanError { port: None, message: message.into(), hint: None, kind: PlanErrorKind::Graph }
    }

    /// What a node says while its graph is only checked, where planning would look into a file or
    /// ask a program.
    pub fn unseen() -> Self {
        PlanError { kind: PlanErrorKind::Unseen, ..PlanError::new("only planning looks at this") }
    }

    /// The same error as one of this machine.
    pub fn of_machine(mut self) -> Self {
        self.kind = PlanErrorKind::Machine;
        self
    }

    /// The same error with advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
