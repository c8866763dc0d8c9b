//! The graph language: RON text → document → checked graph → plan; diff; diagnostics.
//!
#![doc = include_str!("../LANGUAGE.md")]
//!
//! # The code
//!
//! [`check`] resolves everything and reports every problem of every file at once, each with its
//! place; only a broken syntax ends a file at its first. [`Graph::plan`] asks the nodes what is
//! known before anything runs, and gives each step a key over all that can change its results, in
//! time linear in nodes and edges. [`diff`] says why keys differ, and [`Plan::embedded_workflow`]
//! writes the workflow down as one text that plans to the same keys. [`Parsed::ops`] says which
//! nodes have to be found before any of that. Nodes are known through a [`Catalog`] alone, other
//! graphs through [`GraphLoader`]; this crate touches no file and no tensor.
//!
//! Each pass is a function from the result of the one before to its own:
//!
//! | pass | from | to |
//! |---|---|---|
//! | `parse` | a text | a document: every part with its place |
//! | `expand` | documents | one scope for each use of each graph, and what is written for every port |
//! | `resolve` | scopes | a binding for every port: the node, value or graph input behind its edge |
//! | `check` | bindings | a [`Graph`]: types fit, nodes are in order |
//! | `turns` | a graph, and values for its inputs | how often each loop repeats; with it the passes from `expand` to `check` are gone through again |
//! | `infer` | a graph, and values for its inputs | facts and a key for every node |
//! | `plan` | facts | a [`Plan`]: the steps that are needed |
//!
//! Up to `check`, a loop has two turns: the first takes what it is fed, the second what the first
//! gives, and all others are like it.
//!
//! `graph` joins them. The time and memory that a graph takes are bounded by its length, whatever
//! it says: lists are shared, what goes through their items again is counted, texts are counted at
//! each use, names and nesting are limited.

#![forbid(unsafe_code)]

mod binding;
mod check;
mod convert;
mod declare;
mod diagnostic;
mod diff;
mod expand;
mod graph;
mod infer;
mod key;
mod literal;
mod names;
mod ops;
mod order;
mod parse;
mod paths;
mod plan;
mod raw;
mod resolve;
pub mod ron;
mod step;
mod template;
mod turns;
mod values;
mod workflow;
mod written;

use kino_port::{Facts, PlanError, Signature, StepInfo};

/// The language on one page of Markdown, whose examples are graphs.
pub const LANGUAGE: &str = include_str!("../LANGUAGE.md");

pub use diagnostic::{
    Diagnostic, Diagnostics, Location, Positions, Severity, SourceFile, Span, SyntaxError,
};
pub use diff::{Diff, StepChange, diff};
pub use graph::{BindingView, Graph, NodeView, Parsed, check, ops, parse};
pub use parse::VERSION;
pub use plan::{Plan, PlannedWrite};
pub use step::{Key, Step, StepInput, StepOutput, Turn, ValueSource, first_turn};
pub use values::{Access, Locate, PlanSettings};
pub use written::WrittenFiles;

/// The nodes that graphs can name.
pub trait Catalog {
    /// The signature of an op.
    fn signature(&self, op: &str) -> Option<&Signature>;

    /// All ops, in the order in which they are listed.
    fn names(&self) -> Vec<&str>;

    /// What to do about an op that there is not, where that is known.
    fn advice(&self, _op: &str) -> Option<String> {
        None
    }

    /// Asks a node what is known of its results.
    ///
    /// # Errors
    /// Every reason why it cannot run with what it is given.
    fn infer(&self, op: &str, facts: &Facts) -> Result<StepInfo, Vec<PlanError>>;
}

/// Where the texts of other graphs come from.
pub trait GraphLoader {
    /// The text of the graph at `path`, relative to the root graph's folder, with `.` and `..`
    /// resolved.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, path: &str) -> Result<String, String>;
}
