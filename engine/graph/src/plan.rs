//! Last pass, [`Inferred`] → [`Plan`]: what is needed, in order, and everything that stands against
//! it.

use std::collections::{BTreeMap, HashMap};

use kino_port::{Fact, Literal, PathForm, PlannedRead, Port};
use petgraph::graph::NodeIndex;
use serde::Serialize;
use serde::ser::SerializeStruct;

use crate::binding::{Binding, BindingSource};
use crate::check::CheckedGraph;
use crate::diagnostic::{Diagnostic, Diagnostics, Report};
use crate::infer::{Inferred, InferredNode, StepParts};
use crate::paths::join;
use crate::resolve::Node;
use crate::step::{Step, StepInput, StepOutput, ValueSource};
use crate::template::as_written;
use crate::values::{Access, PlanSettings, Values};
use crate::workflow::embedded_workflow;
use crate::written::WrittenFiles;

/// The steps that a graph needs, in topological order.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The steps; sources come before their readers.
    pub steps: Vec<Step>,
    /// The graph's outputs: name and source.
    pub outputs: Vec<(String, ValueSource)>,
    /// The graph's inputs with the values used; drawn ones as the numbers drawn.
    pub inputs: Vec<(String, Literal)>,
    /// What is probably not meant.
    pub warnings: Diagnostics,
    /// The whole workflow as one text that runs again.
    pub(crate) embedded_workflow: String,
}

/// A file that a plan writes, or several that one path numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedWrite<'p> {
    /// The index of the step that writes it.
    pub step: usize,
    /// The index of the input that names it.
    pub input: usize,
    /// Its path, relative to the folder of outputs.
    pub path: &'p str,
    /// Whether that path names one file, or several by a number.
    pub form: PathForm,
}

impl Plan {
    /// The step of this name, with its index.
    pub fn step(&self, name: &str) -> Option<(usize, &Step)> {
        self.steps.iter().enumerate().find(|(_, step)| *step.name == *name)
    }

    /// The workflow as one text: the graph and those it uses, with the inputs used as defaults and
    /// drawn seeds as numbers. It plans to the same keys.
    pub fn embedded_workflow(&self) -> &str {
        &self.embedded_workflow
    }

    /// The files that the plan's sinks write, in the order of the steps. All are known before
    /// anything runs, so that two runs can be compared: no two may write one file.
    pub fn writes(&self) -> impl Iterator<Item = PlannedWrite<'_>> {
        self.steps.iter().enumerate().flat_map(|(index, step)| {
            let file = move |(input, path)| PlannedWrite {
                step: index,
                input,
                path,
                form: step.path_form,
            };
            step.written().map(file)
        })
    }

    /// All files that the steps read, each once.
    pub fn reads(&self) -> Vec<&PlannedRead> {
        let mut reads: Vec<&PlannedRead> = self.steps.iter().flat_map(|step| &step.reads).collect();
        reads.sort_by(|a, b| (&a.path, &a.hash).cmp(&(&b.path, &b.hash)));
        reads.dedup_by(|a, b| (&a.path, &a.hash) == (&b.path, &b.hash));
        reads
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

/// Makes a plan of what is needed.
///
/// # Errors
/// Every problem of every node that is needed, and of the passes before.
pub(crate) fn plan(
    graph: &CheckedGraph,
    settings: &PlanSettings<'_>,
    values: Values<'_>,
    mut inferred: Inferred,
    mut report: Report,
) -> Result<Plan, Diagnostics> {
    let order = needed(graph, &mut inferred, &mut report);
    if !report.has_errors() {
        check_files(graph, &order, &inferred, settings, &mut report);
    }
    if report.has_errors() {
        return Err(Diagnostics::new(report.list, graph.files.clone()));
    }
    let mut numbers = vec![0u32; graph.nodes.node_count()];
    order.iter().enumerate().for_each(|(number, index)| numbers[index.index()] = number as u32);
    let mut wanted = vec![false; graph.nodes.node_count()];
    inferred.targets.iter().for_each(|index| wanted[index.index()] = true);
    // Made at its whole length: growing would copy it, and end with a third more than it needs.
    let mut steps = Vec::with_capacity(order.len());
    steps.extend(order.iter().filter_map(|index| {
        let InferredNode { facts, parts, .. } = inferred.nodes[index.index()].take()?;
        Some(step(&graph.nodes[*index], facts, *parts?, &numbers, wanted[index.index()]))
    }));
    let outputs = match settings.until {
        Some(_) => Vec::new(),
        None => outputs(graph, &values, &numbers),
    };
    let names = graph.inputs.iter().map(|input| input.port.name.to_string());
    let inputs = names.zip(&values.inputs);
    let inputs = inputs.filter_map(|(name, value)| Some((name, as_written(value.clone()?))));
    let inputs = inputs.collect();
    let embedded_workflow = embedded_workflow(graph, values.edits);
    let warnings = graph.warnings.iter().cloned().chain(report.list).collect();
    let warnings = Diagnostics::new(warnings, graph.files.clone());
    Ok(Plan { steps, outputs, inputs, warnings, embedded_workflow })
}

/// What stands against planning a graph that is only checked, as far as that is known; what of it
/// this machine alone decides is no more than a warning.
///
/// # Errors
/// Every problem of every node that is needed, and of the passes before.
pub(crate) fn check_plan(
    graph: &CheckedGraph,
    settings: &PlanSettings<'_>,
    mut inferred: Inferred,
    mut report: Report,
) -> Result<Diagnostics, Diagnostics> {
    let order = needed(graph, &mut inferred, &mut report);
    if !report.has_errors() {
        check_files(graph, &order, &inferred, settings, &mut report);
    }
    let is_sound = !report.has_errors();
    let found = Diagnostics::new(report.list, graph.files.clone());
    if is_sound { Ok(found) } else { Err(found) }
}

/// The nodes that are needed, in the graph's order; what stands against them is said.
fn needed(graph: &CheckedGraph, inferred: &mut Inferred, report: &mut Report) -> Vec<NodeIndex> {
    let needed = inferred.needed(graph);
    let order: Vec<_> = graph.order.iter().copied().filter(|index| needed[index.index()]).collect();
    // What stands against a node in one turn of a loop mostly stands against it in all that follow:
    // it is said of the first.
    let mut told = HashMap::new();
    for index in &order {
        let turn = graph.nodes[*index].turn;
        let known = inferred.nodes[index.index()].as_mut();
        let Some(parts) = known.and_then(|known| known.parts.as_mut()) else { continue };
        let mut problems = std::mem::take(&mut parts.problems);
        if let Some(turn) = turn {
            problems.retain(|problem| {
                let first = told.entry((turn.of, problem.code, problem.location));
                *first.or_insert(turn.number) == turn.number
            });
        }
        report.list.append(&mut problems);
    }
    order
}

/// The step of a node, whose sources are given the numbers of their steps.
fn step(
    node: &Node,
    facts: Vec<Fact>,
    mut known: StepParts,
    numbers: &[u32],
    target: bool,
) -> Step {
    let number = |source: &mut StepOutput| source.step = numbers[source.step as usize];
    for input in &mut known.inputs {
        match input {
            StepInput::Edge(source) => number(source),
            StepInput::List(items) => items.iter_mut().for_each(|(_, item)| {
                if let ValueSource::Edge(source) = item {
                    number(source);
                }
            }),
            _ => {}
        }
    }
    let signature = &node.op.signature;
    let names_file = signature.inputs.iter().enumerate().filter(|(_, port)| port.names_file());
    let writes = names_file.filter(|_| signature.traits.sink).map(|(index, _)| index as u32);
    let extra = match known.info.key.as_slice() {
        [] => 0,
        key => {
            let hash = blake3::hash(key);
            u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default())
        }
    };
    Step {
        name: node.name.clone(),
        op: node.op.name.clone(),
        version: node.op.version.clone(),
        key: known.key,
        ports: node.op.ports.clone(),
        writes: writes.collect(),
        inputs: known.inputs,
        facts,
        reads: known.info.reads,
        path_form: known.info.path_form,
        counted: known.counted.map(Box::new),
        memory: known.info.memory,
        spillable: known.info.spillable,
        weights: known.info.weights,
        optional: known.info.optional,
        streamed: known.info.streamed,
        traits: signature.traits,
        target,
        turn: node.turn,
        location: node.location,
        extra,
    }
}

/// The graph's outputs.
fn outputs(
    graph: &CheckedGraph,
    values: &Values<'_>,
    numbers: &[u32],
) -> Vec<(String, ValueSource)> {
    let item = |binding: &Binding| match &binding.source {
        BindingSource::Edge(node, output) => {
            Some(ValueSource::Edge(StepOutput { step: numbers[node.index()], output: *output }))
        }
        BindingSource::Input(index) => {
            values.inputs[*index].clone().map(|value| ValueSource::Literal(as_written(value)))
        }
        BindingSource::Literal(literal) => Some(ValueSource::Literal((**literal).clone())),
        _ => None,
    };
    let outputs = graph.outputs.iter();
    outputs.filter_map(|(name, binding)| Some((name.clone(), item(binding)?))).collect()
}

/// No two nodes of a plan write one file, and none reads what another one writes: when it ran, and
/// whether it ran before, would decide what the other one sees.
fn check_files(
    graph: &CheckedGraph,
    order: &[NodeIndex],
    inferred: &Inferred,
    settings: &PlanSettings<'_>,
    report: &mut Report,
) {
    let with_parts = || {
        order.iter().filter_map(|index| {
            let known = inferred.nodes[index.index()].as_ref()?;
            Some((&graph.nodes[*index], &**known.parts.as_ref()?))
        })
    };
    let mut writers: WrittenFiles<&Node> = WrittenFiles::default();
    for (node, parts) in with_parts().filter(|(node, _)| node.op.signature.traits.sink) {
        for (_, path) in named_files(node, parts) {
            let file = match settings.locate {
                Some(locate) => locate(Access::Write, path),
                None => join("", path),
            };
            if let Some(other) = writers.in_the_way(&file) {
                let message = format!(
                    "`{}` writes `{path}`, but what `{}` writes is a file where a folder must be, \
                     or lies in it",
                    node.name, other.name
                );
                let problem = Diagnostic::error("same-file", node.location, message);
                let hint = "a file is no folder: give each a `path` beside the other's";
                report.push(problem.related(other.location, "the other").hint(hint));
            }
            let Some(other) = writers.insert(file, parts.info.path_form, node) else { continue };
            let message = match other.name == node.name {
                true => format!("`{}` writes the file `{path}` twice", node.name),
                false => {
                    format!("`{}` and `{}` write the same file `{path}`", other.name, node.name)
                }
            };
            let problem = Diagnostic::error("same-file", node.location, message);
            let hint = "give each a `path` of its own";
            report.push(problem.related(other.location, "the other").hint(hint));
        }
    }
    let Some(locate) = settings.locate.filter(|_| !writers.is_empty()) else { return };
    // Many nodes may read one file, and asking where it lies asks the file system.
    let mut known: HashMap<&str, Option<&Node>> = HashMap::new();
    for (node, parts) in with_parts() {
        let is_sink = node.op.signature.traits.sink;
        let named = named_files(node, parts).filter(|(port, path)| !is_sink && port.is_path(path));
        let named = named.map(|(_, path)| path);
        let mut paths: Vec<&str> =
            named.chain(parts.info.reads.iter().map(|read| &*read.path)).collect();
        paths.sort_unstable();
        paths.dedup();
        for path in paths {
            let find = || writers.writer(&locate(Access::Read, path));
            let Some(writer) = *known.entry(path).or_insert_with(find) else { continue };
            let message =
                format!("`{}` reads the file `{path}`, which `{}` writes", node.name, writer.name);
            let problem = Diagnostic::error("same-file", node.location, message);
            let hint = "write to another file, or feed the reader with an edge";
            report.push(problem.related(writer.location, "the writer").hint(hint));
        }
    }
}

/// The texts that are known at the ports of a node that name files.
fn named_files<'a>(
    node: &'a Node,
    parts: &'a StepParts,
) -> impl Iterator<Item = (&'a Port, &'a str)> {
    let named = node.op.signature.inputs.iter().zip(&parts.inputs);
    let named = named.filter(|(port, _)| port.names_file());
    named.flat_map(|(port, input)| input.texts().into_iter().map(move |text| (port, text)))
}
