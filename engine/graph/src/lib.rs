//! The graph language: RON text → document → checked graph → plan; diff; diagnostics.
//!
//! A graph is one RON struct:
//!
//! | field | what it holds |
//! |---|---|
//! | `version` | 1 |
//! | `about` | one sentence on what the graph makes |
//! | `inputs` | `"name": (type: "Int", default: 17, range: (1, 257), step: 4, choices: […], unit: "px", about: "…")` |
//! | `nodes` | `"name": (op: "dit.sample", in: {port: edge}, with: {port: value}, bypass: false)` |
//! | `outputs` | `"name": "node.port"` |
//! | `graphs` | graphs carried inside the file: `"./upscale.ron": Graph(…)`, looked up before files |
//!
//! - A port is fed by an edge in `in` or by a value in `with`. An edge is `"node.port"`, `"node"` where the node has
//!   one output, or `"inputs.NAME"`. A list port takes one edge, a list of edges, or a map of named edges.
//! - An `op` that is a path ending in `.ron` is another graph used as a node: its inputs and outputs are its ports.
//! - Values are read by the declared type. Whole numbers widen to Real, never back. An input of type Int takes
//!   `"random"`: a number drawn while planning.
//! - In values of type Path, `{graph}` is the stem of the graph's file and `{NAME}` the value of an input.
//! - `bypass: true` passes a node's first input of the output's type through.
//!
//! [`check`] resolves everything and reports every problem at once. [`Graph::plan`] asks the nodes what is known before
//! anything runs, and gives each step a key over all that can change its results. Nodes are known through a
//! [`Catalog`] alone, other graphs through [`Sources`]; this crate touches no file and no tensor.

#![forbid(unsafe_code)]

mod check;
mod diagnostic;
mod diff;
mod document;
mod graph;
mod literal;
mod plan;
mod planner;
mod record;
mod ron;
mod scope;
mod template;
mod wire;

use kino_port::{Facts, Objection, Signature, Survey};

pub use check::check;
pub use diagnostic::{Diagnostic, Diagnostics, File, Place, Severity, Span};
pub use diff::{Change, Diff, diff};
pub use document::VERSION;
pub use graph::{FeedSketch, Graph, NodeSketch};
pub use plan::{Input, Item, Key, Plan, Source, Step};
pub use planner::Settings;

/// The nodes that graphs can name.
pub trait Catalog {
    /// The signature of an op.
    fn signature(&self, op: &str) -> Option<&Signature>;

    /// All ops, in palette order.
    fn names(&self) -> Vec<&str>;

    /// Asks a node what is known of its results.
    ///
    /// # Errors
    /// Every reason why it cannot run with what it is given.
    fn survey(&self, op: &str, facts: &Facts) -> Result<Survey, Vec<Objection>>;
}

/// Where the texts of other graphs come from.
pub trait Sources {
    /// The text of the graph at `path`, relative to the root graph's folder, with `.` and `..` resolved.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, path: &str) -> Result<String, String>;
}
