//! The graph language: RON text → document → checked graph → plan; diff; diagnostics.
//!
//! # The language
//!
//! A graph is a set of named nodes in one RON text:
//!
//! ```ron
//! Graph(
//!     version: 1,
//!     inputs: {"seed": (type: "Int", default: 7, about: "The same seed gives the same video")},
//!     nodes: {
//!         "noise": (op: "latent.noise", in: {"seed": "inputs.seed"}, with: {"width": 96}),
//!         "file":  (op: "video.write", in: {"frames": "noise"}, with: {"path": "{graph}.mp4"}),
//!     },
//!     outputs: {"video": "file"},
//! )
//! ```
//!
//! | in | field | what it holds |
//! |---|---|---|
//! | graph | `version` | 1; required |
//! | | `about` | one sentence on what the graph makes |
//! | | `inputs`, `nodes`, `outputs` | maps from names to what is below |
//! | | `graphs` | graphs carried inside the file: `"./upscale.ron": Graph(…)`, looked up before files |
//! | input | `type` | a type in quotes; required |
//! | | `default` | the value unless another is set; without one, it must be set |
//! | | `range`, `step` | `(least, greatest)`, both included; the distance between values, counted from the least, or from 0 without a range |
//! | | `choices` | the texts that fit |
//! | | `unit`, `about` | for help |
//! | node | `op` | a node's definition, or the path of another graph; required |
//! | | `in` | edges: `{"port": "node.port"}` |
//! | | `with` | values: `{"port": 96}` |
//! | | `bypass` | `true`: each output passes the first fed input of its type through, and the node does not run |
//! | output | | an edge |
//!
//! - **Names** of nodes, inputs and outputs match `[a-z][a-z0-9_]*`; `inputs` is reserved. Order
//!   means nothing.
//! - **Edges** are `"node.port"`, `"node"` where the node has one output, or `"inputs.NAME"`. A
//!   list port takes one edge, a list of edges, or a map of named ones. A port is fed by an edge or
//!   by a value, never by both.
//! - **Types** are Text, Int, Real, Bool, Path; TextEncoder, ImageEncoder, Dit, Vae; Conditioning,
//!   ImageConditioning, Latent, Patches, Given, Control, Sigmas, Guider, Frames, Mask, Tensor,
//!   File; `List(…)` of any; Any; and a plugin's own, such as `example.depth`. The first five can
//!   be written out. A Tensor connects to any port that holds a tensor. The inputs of type Any of
//!   one node have one type, and its outputs of type Any have that type, too.
//! - **Values** are read by the declared type, not by their looks: an Int widens to Real, never
//!   back. An input of type Int that feeds a seed takes `"random"`: a number drawn within its range
//!   while planning, and recorded. A `"random"` in a graph that is used twice is one number.
//! - **Paths** may hold `{graph}`, the stem of the graph's file, and `{NAME}`, the value of an
//!   input of the graph that the path stands in, made fit for a file name. A bracket is written
//!   `{{` or `}}`. What is read is looked for beside the file that names it: the one in which the
//!   path is written, or, where a node computes it, the one with the edge that takes it from the
//!   node. The name of a file is known before anything runs: what only a run tells names none. No
//!   graph reads what it writes, and no two nodes write one file.
//! - **Graphs as nodes**: an `op` that ends in `.ron` is another graph, its path relative to the
//!   file. Its inputs and outputs are the node's ports, with their types, ranges and defaults; they
//!   may be of any type. Inside, its nodes are called `outer/inner`.
//! - **Loops**: the op `repeat` runs a graph, its body, a number of times. `with` names it in
//!   `graph`, as a path relative to the file; `times` is written, an input, or computed from them
//!   before anything runs; all else that is fed are the body's own inputs. An output of the body
//!   whose name is also one of its inputs is carried to the next turn, and the last turn gives the
//!   result. Any other is collected: what a node joins (Frames) becomes one value, anything else a
//!   list. An input `index` of type Int of the body is given the number of the turn, from 0. Turn 3
//!   of `film` has the nodes `film/3/…`. A `"random"` is one number for all turns: add `index` to a
//!   seed to draw others. Loops hold no loops.
//! - **RON**: comments, trailing commas, raw strings, numbers in every base, `Some(…)` and
//!   extensions are all read. Duplicate keys are refused.
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
