//! A graph as callers see it: checked, and ready to be planned. It joins the passes.

use std::collections::BTreeSet;

use kino_port::{Literal, Port, Signature};
use petgraph::graph::NodeIndex;

use crate::binding::{Binding, BindingSource};
use crate::check::{self, CheckedGraph};
use crate::diagnostic::{Diagnostics, Report, SourceFile, Span};
use crate::expand::{Turns, expand};
use crate::infer::infer;
use crate::literal::from_command_line;
use crate::ops::named_ops;
use crate::parse::{self, Document};
use crate::plan::{Plan, check_plan, plan};
use crate::resolve::resolve;
use crate::turns::turns;
use crate::values::{self, PlanSettings, Values, nowhere};
use crate::{Catalog, GraphLoader};

/// A graph without errors, ready to be planned.
///
/// Graphs that it uses as nodes are inlined: their nodes are called `outer/inner`. Of a `repeat`,
/// whose nodes are called `outer/TURN/inner`, the first two turns are; a plan has all of them.
#[derive(Clone, Debug)]
pub struct Graph {
    checked: CheckedGraph,
}

/// A graph's text, parsed: what it says by itself, before anything is known of nodes.
#[derive(Debug)]
pub struct Parsed<'t> {
    name: &'t str,
    text: &'t str,
    /// None where the syntax is broken.
    document: Option<Document<'t>>,
    report: Report,
}

/// Parses a graph's text. What is wrong with it, [`Parsed::check`] says.
pub fn parse<'t>(name: &'t str, text: &'t str) -> Parsed<'t> {
    let mut report = Report::default();
    let document = parse::parse(0, text, Span::new(0, text.len()), &mut report);
    Parsed { name, text, document, report }
}

/// Reads and checks a graph. Graphs that it uses come from `sources`, relative to it.
///
/// # Errors
/// Every problem found, each with its place.
pub fn check(
    name: &str,
    text: &str,
    catalog: &dyn Catalog,
    sources: &dyn GraphLoader,
) -> Result<Graph, Diagnostics> {
    parse(name, text).check(catalog, sources)
}

/// The ops that a graph names, see [`Parsed::ops`].
pub fn ops(name: &str, text: &str, sources: &dyn GraphLoader) -> BTreeSet<String> {
    parse(name, text).ops(sources)
}

impl Parsed<'_> {
    /// The ops that the graph names, and those of the graphs that it uses, by whatever way: what
    /// has to be found before it is checked.
    ///
    /// A graph that cannot be read, or whose syntax is broken, names none, and a node that is
    /// malformed is left out.
    pub fn ops(&self, sources: &dyn GraphLoader) -> BTreeSet<String> {
        named_ops(self.name, self.text, self.document.as_ref(), sources)
    }

    /// Checks the graph. Graphs that it uses come from `sources`, relative to it.
    ///
    /// # Errors
    /// Every problem found, each with its place.
    pub fn check(
        self,
        catalog: &dyn Catalog,
        sources: &dyn GraphLoader,
    ) -> Result<Graph, Diagnostics> {
        Ok(Graph { checked: self.checked(catalog, sources, &Turns::new())? })
    }

    /// The passes up to `check`, with so many turns of each loop.
    pub(crate) fn checked(
        self,
        catalog: &dyn Catalog,
        sources: &dyn GraphLoader,
        turns: &Turns,
    ) -> Result<CheckedGraph, Diagnostics> {
        let Parsed { name, text, document, mut report } = self;
        let expanded = expand(name, text, document, catalog, sources, turns, &mut report);
        if expanded.scopes.is_empty() {
            return Err(Diagnostics::new(report.list, expanded.files));
        }
        let resolved = resolve(expanded, catalog, &mut report);
        check::check(resolved, catalog, report)
    }
}

/// The texts of graphs that were read before.
struct Read<'f>(&'f [SourceFile]);

impl GraphLoader for Read<'_> {
    fn read(&self, path: &str) -> Result<String, String> {
        // The first file is the root's, which no other graph uses.
        let file = self.0.iter().skip(1).find(|file| file.name == path);
        file.map(|file| file.text.to_string()).ok_or_else(|| "it was not read".to_owned())
    }
}

impl Graph {
    /// Plans a run.
    ///
    /// # Errors
    /// Every error of every node, and every value that does not fit.
    pub fn plan(
        &self,
        catalog: &dyn Catalog,
        settings: &PlanSettings<'_>,
    ) -> Result<Plan, Diagnostics> {
        let mut report = Report::default();
        let mut values = values::take(&self.checked, settings, false, &mut report);
        let laid_out = self.laid_out(catalog, settings, &mut values, &mut report)?;
        let checked = laid_out.as_ref().unwrap_or(&self.checked);
        let inferred = infer(checked, catalog, settings, &mut values, &mut report);
        plan(checked, settings, values, inferred, report)
    }

    /// Finds what stands against every plan that takes the inputs' defaults, as far as the graph
    /// and its nodes say it: values, sizes, models, files that two nodes write. Nodes are asked
    /// through a catalog that looks into no file; what this machine lacks is a warning.
    ///
    /// # Errors
    /// Every problem found.
    pub fn check_plan(
        &self,
        catalog: &dyn Catalog,
        settings: &PlanSettings<'_>,
    ) -> Result<Diagnostics, Diagnostics> {
        let mut report = Report::default();
        let mut values = values::take(&self.checked, settings, true, &mut report);
        let laid_out = self.laid_out(catalog, settings, &mut values, &mut report)?;
        let checked = laid_out.as_ref().unwrap_or(&self.checked);
        let inferred = infer(checked, catalog, settings, &mut values, &mut report);
        check_plan(checked, settings, inferred, report)
    }

    /// The graph with all turns of its loops, where it has other ones.
    fn laid_out(
        &self,
        catalog: &dyn Catalog,
        settings: &PlanSettings<'_>,
        values: &mut Values<'_>,
        report: &mut Report,
    ) -> Result<Option<CheckedGraph>, Diagnostics> {
        match turns(&self.checked, catalog, settings, values, report) {
            Some(turns) => {
                let root = &self.checked.files[0];
                let parsed = parse(&root.name, &root.text);
                parsed.checked(catalog, &Read(&self.checked.files), &turns).map(Some)
            }
            None if report.has_errors() && !self.checked.repeats.is_empty() => {
                let list = std::mem::take(&mut report.list);
                Err(Diagnostics::new(list, self.checked.files.clone()))
            }
            None => Ok(None),
        }
    }

    /// Decodes a value from the command line, unquoted, by the type of the graph's input `name`.
    ///
    /// # Errors
    /// When there is no such input, or the value does not fit it.
    pub fn read_input(&self, name: &str, raw: &str) -> Result<Literal, Diagnostics> {
        let inputs = &self.checked.inputs;
        let mut report = Report::default();
        match inputs.iter().find(|input| input.port.name == name) {
            Some(input) => match from_command_line(raw, &input.port) {
                Ok(value) => return Ok(value),
                Err(error) => {
                    let message = format!("input `{name}`: {}", error.message);
                    nowhere(&mut report, "value", message, error.hint);
                }
            },
            None => {
                let hint = report.advice(name, || inputs.iter().map(|input| &*input.port.name));
                let message = format!("the graph has no input `{name}`");
                nowhere(&mut report, "unknown-input", message, hint);
            }
        }
        Err(Diagnostics::new(report.list, self.checked.files.clone()))
    }

    /// What the graph says of itself.
    pub fn about(&self) -> &str {
        &self.checked.about
    }

    /// The graph's inputs, each as a port with type, default, range, choices and help.
    pub fn inputs(&self) -> impl Iterator<Item = &Port> {
        self.checked.inputs.iter().map(|input| &input.port)
    }

    /// The number of nodes, those of inlined graphs included, bypassed ones not.
    pub fn len(&self) -> usize {
        self.checked.order.len()
    }

    /// Whether there is no node at all.
    pub fn is_empty(&self) -> bool {
        self.checked.order.is_empty()
    }

    /// What is probably not meant, though it runs.
    pub fn warnings(&self) -> Diagnostics {
        Diagnostics::new(self.checked.warnings.clone(), self.checked.files.clone())
    }

    /// The files that the graph was read from, its own first: what to watch.
    pub fn files(&self) -> &[SourceFile] {
        &self.checked.files
    }

    /// The name and signature of every node, those of graphs that are used as nodes included.
    pub fn signatures(&self) -> impl Iterator<Item = (&str, &Signature)> {
        let node = |index: &NodeIndex| {
            let node = &self.checked.nodes[*index];
            (&*node.name, &node.op.signature)
        };
        self.checked.order.iter().map(node)
    }

    /// Nodes in topological order, for drawing: name, op, and for each fed port its name and its
    /// feeds.
    pub fn nodes(&self) -> Vec<NodeView<'_>> {
        self.checked.order.iter().map(|index| self.sketch_of(*index)).collect()
    }

    /// The graph's outputs: name and what feeds each.
    pub fn outputs(&self) -> Vec<(&str, BindingView<'_>)> {
        self.checked
            .outputs
            .iter()
            .filter_map(|(name, binding)| {
                Some((name.as_str(), self.bindings_of(binding).into_iter().next()?))
            })
            .collect()
    }

    fn sketch_of(&self, index: NodeIndex) -> NodeView<'_> {
        let node = &self.checked.nodes[index];
        let ports = node.op.signature.inputs.iter().zip(&node.bindings);
        let ports = ports
            .map(|(port, binding)| (port, self.bindings_of(binding)))
            .filter(|(_, bindings)| !bindings.is_empty());
        NodeView { name: &node.name, signature: &node.op.signature, inputs: ports.collect() }
    }

    fn bindings_of(&self, binding: &Binding) -> Vec<BindingView<'_>> {
        match &binding.source {
            BindingSource::Absent | BindingSource::Broken => Vec::new(),
            BindingSource::Literal(literal) => vec![BindingView::Literal(literal.to_string())],
            BindingSource::Draw(_) => vec![BindingView::Literal("random".to_owned())],
            BindingSource::Template(_) => {
                let text = &self.checked.files[binding.location.file as usize].text;
                let span = binding.location.span.start as usize..binding.location.span.end as usize;
                vec![BindingView::Literal(text.get(span).unwrap_or_default().to_owned())]
            }
            BindingSource::Input(index) => {
                vec![BindingView::Input(&self.checked.inputs[*index].port.name)]
            }
            BindingSource::Edge(node, output) => {
                let from = &self.checked.nodes[*node];
                let port = &from.op.signature.outputs[*output as usize];
                vec![BindingView::Edge { node: &from.name, port }]
            }
            BindingSource::List(items) => {
                items.iter().flat_map(|(_, binding)| self.bindings_of(binding)).collect()
            }
        }
    }
}

/// A node, as a drawing needs it.
#[derive(Debug)]
pub struct NodeView<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub signature: &'a Signature,
    /// The fed input ports, each with what feeds it.
    pub inputs: Vec<(&'a Port, Vec<BindingView<'a>>)>,
}

/// What feeds a port, as a drawing needs it.
#[derive(Debug)]
pub enum BindingView<'a> {
    /// A value, as RON writes it.
    Literal(String),
    /// An input of the graph.
    Input(&'a str),
    /// A node's output.
    Edge {
        /// The node's name.
        node: &'a str,
        /// The output.
        port: &'a Port,
    },
}
