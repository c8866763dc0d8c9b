//! Between `check` and `infer`, [`CheckedGraph`] → [`Turns`]: how often loops repeat. A number that
//! nodes compute is asked of them; nothing of a loop may be among those.

use kino_port::Literal;
use petgraph::graph::NodeIndex;

use crate::Catalog;
use crate::binding::BindingSource;
use crate::check::CheckedGraph;
use crate::diagnostic::Report;
use crate::expand::{Turns, times_port};
use crate::infer::{Asked, before, infer_before, lies_in};
use crate::resolve::RepeatTimes;
use crate::values::{PlanSettings, Values, unset};

/// How often each loop repeats, where that differs from the turns that the graph has; what stands
/// against it is said.
pub(crate) fn turns(
    graph: &CheckedGraph,
    catalog: &dyn Catalog,
    settings: &PlanSettings<'_>,
    values: &mut Values<'_>,
    report: &mut Report,
) -> Option<Turns> {
    let (mut all, mut differ) = (Turns::new(), false);
    for repeat in &graph.repeats {
        let before = report.list.len();
        let times = times(graph, catalog, settings, repeat, values, report);
        let times = match times {
            Some(Times::Open) => {
                values.uncounted.push(repeat.name.clone());
                continue;
            }
            Some(Times::Known(times)) => Some(times),
            None => None,
        };
        let Some(turns) = times.and_then(|times| fitting(repeat, times, report)) else {
            if report.list.len() == before {
                let message = format!("`{}`: nobody says how often it repeats", repeat.name);
                report.error("repeat", repeat.times.location, message);
            }
            continue;
        };
        differ |= turns != repeat.turns;
        all.insert(repeat.name.clone(), turns);
    }
    (differ && !report.has_errors()).then_some(all)
}

/// What is known of a number of turns.
enum Times {
    Known(Literal),
    /// Planning knows it, and a check does not.
    Open,
}

/// The number as one of turns.
fn fitting(repeat: &RepeatTimes, times: Literal, report: &mut Report) -> Option<usize> {
    match times_port().coerce(times) {
        Ok(Literal::Int(turns)) => usize::try_from(turns).ok(),
        Ok(_) => None,
        Err(error) => {
            let message = format!("`times` of `{}`: {}", repeat.name, error.message);
            report.error("value", repeat.times.location, message).hint = error.hint;
            None
        }
    }
}

/// The value of `times`; nothing, and said, where it is not known before anything runs.
fn times(
    graph: &CheckedGraph,
    catalog: &dyn Catalog,
    settings: &PlanSettings<'_>,
    repeat: &RepeatTimes,
    values: &mut Values<'_>,
    report: &mut Report,
) -> Option<Times> {
    match &repeat.times.source {
        BindingSource::Literal(literal) => Some(Times::Known((**literal).clone())),
        BindingSource::Input(index) if values.open[*index] => Some(Times::Open),
        BindingSource::Input(index) => {
            let value = values.inputs[*index].clone();
            if value.is_none() && !report.has_errors() {
                unset(&graph.inputs[*index], report);
            }
            value.map(Times::Known)
        }
        BindingSource::Draw(_) if values.only_check => Some(Times::Open),
        BindingSource::Edge(node, output) => {
            let from = (*node, *output as usize);
            computed(graph, catalog, settings, (repeat, from), values, report)
        }
        _ => None,
    }
}

/// What a node computes while planning.
fn computed(
    graph: &CheckedGraph,
    catalog: &dyn Catalog,
    settings: &PlanSettings<'_>,
    (repeat, (node, output)): (&RepeatTimes, (NodeIndex, usize)),
    values: &mut Values<'_>,
    report: &mut Report,
) -> Option<Times> {
    let name = &graph.nodes[node].name;
    let reached = before(graph, &[node]);
    let within = |index: &&NodeIndex| {
        let of = &graph.nodes[**index].name;
        reached[index.index()] && graph.repeats.iter().any(|repeat| lies_in(of, &repeat.name))
    };
    if let Some(inner) = graph.order.iter().find(within) {
        let inner = &graph.nodes[*inner].name;
        let message = format!(
            "`times` of `{}` depends on `{inner}`, which is part of a loop: how often a loop \
             repeats must be known before any loop is laid out",
            repeat.name
        );
        report.error("repeat", repeat.times.location, message);
        return None;
    }
    let mut inferred = infer_before(graph, catalog, settings, vec![node], values, report);
    let known = inferred.nodes[node.index()].take();
    let literal = known.as_ref().and_then(|known| known.facts.get(output)?.literal().cloned());
    if literal.is_some() || report.has_errors() {
        return literal.map(Times::Known);
    }
    let asked = known.as_ref().map_or(Asked::Refused, |known| known.asked);
    if (Asked::InDoubt..Asked::Refused).contains(&asked) {
        return Some(Times::Open);
    }
    for index in graph.order.iter().filter(|index| reached[index.index()]) {
        let asked = if *index == node { &known } else { &inferred.nodes[index.index()] };
        report.list.extend(asked.iter().flat_map(|asked| asked.problems().iter().cloned()));
    }
    if !report.has_errors() {
        let message = format!(
            "`times` of `{}`: only running `{name}` tells how often, but that must be known before \
             anything runs",
            repeat.name
        );
        report.error("repeat", repeat.times.location, message).hint =
            Some("write the number out, or make an input of the graph of it".to_owned());
    }
    None
}
