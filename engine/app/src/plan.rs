//! `kino plan`: what would run and why, what is cached, and the memory that it takes. Nothing runs.

use kino_graph::{Input, Plan, Step};
use kino_runtime::CacheStatus;
use serde_json::{Value, json};

use crate::args;
use crate::engine::{self, Engine};
use crate::failure::{Exit, Failure};
use crate::nodes::literal;
use crate::render::diagnostics;
use crate::render::quantity::{bytes, count};
use crate::render::table::{Align, Table};
use crate::screen::{Paint, Screen};

/// Plans a graph and shows the plan.
///
/// # Errors
/// Everything that stands against running it.
pub(crate) fn run(args: &args::Plan, screen: &Screen) -> Result<Exit, Failure> {
    let (opened, graph, registry) = engine::check(&args.source)?;
    let inputs = engine::read_inputs(&graph, &args.target.set)?;
    let engine = Engine::start(&opened, &args.target, false)?;
    let plan = engine.plan(&opened, &graph, &registry, &inputs, args.target.until.as_deref())?;
    let status = engine.runtime.status(&plan, &registry);
    if screen.json {
        screen.print_json(&as_json(&plan, &status))?;
    } else {
        diagnostics::warn(screen, &plan.warnings);
        screen.print(&as_text(&plan, &status, screen.out))?;
    }
    Ok(Exit::Good)
}

/// Why a step will or will not run, in a few words.
fn reason(plan: &Plan, status: &[CacheStatus], step: &Step, own: CacheStatus) -> String {
    match own {
        CacheStatus::Memory => "its result is in memory".to_owned(),
        CacheStatus::Disk if step.traits.sink => "its file stands as it was written".to_owned(),
        CacheStatus::Disk => "its result is on disk".to_owned(),
        CacheStatus::Pruned => "whatever reads it is cached".to_owned(),
        CacheStatus::Lazy => "only if a node asks for it".to_owned(),
        CacheStatus::Run => {
            let mut before = step.inputs.iter().flat_map(Input::sources);
            let news = before.find(|source| {
                let at = source.step as usize;
                status[at] == CacheStatus::Run && plan.steps[at].traits.expensive
            });
            match news {
                Some(source) => format!("`{}` runs", plan.steps[source.step as usize].name),
                None if step.traits.sink => "its file is missing or other".to_owned(),
                None if step.traits.expensive => "its result is not in the cache".to_owned(),
                None => "cheap enough not to be kept".to_owned(),
            }
        }
    }
}

fn word(status: CacheStatus) -> &'static str {
    match status {
        CacheStatus::Run => "run",
        CacheStatus::Lazy => "lazy",
        CacheStatus::Memory | CacheStatus::Disk => "cached",
        CacheStatus::Pruned => "not needed",
    }
}

fn coloured(status: CacheStatus, paint: Paint) -> String {
    match status {
        CacheStatus::Run | CacheStatus::Lazy => paint.note(word(status)),
        CacheStatus::Memory | CacheStatus::Disk => paint.good(word(status)),
        CacheStatus::Pruned => paint.dim(word(status)),
    }
}

/// The most that steps need at one time: heavy steps take turns, so the largest counts.
fn peak(plan: &Plan, status: &[CacheStatus]) -> u64 {
    let steps = plan.steps.iter().zip(status);
    let runs = steps.filter(|(_, status)| matches!(status, CacheStatus::Run | CacheStatus::Lazy));
    runs.map(|(step, _)| step.memory).max().unwrap_or(0)
}

fn as_text(plan: &Plan, status: &[CacheStatus], paint: Paint) -> String {
    let mut table = Table::new(&[
        Align::Left,
        Align::Left,
        Align::Left,
        Align::Right,
        Align::Left,
        Align::Left,
    ]);
    let heads = ["NODE", "OP", "", "MEMORY", "KEY", "WHY"];
    table.row(heads.map(|head| paint.bold(head)));
    for (step, own) in plan.steps.iter().zip(status) {
        let memory = if step.memory == 0 { "–".to_owned() } else { bytes(step.memory) };
        table.row([
            paint.name(&step.name),
            step.op.to_string(),
            coloured(*own, paint),
            memory,
            paint.dim(&step.key.to_string()[..10]),
            reason(plan, status, step, *own),
        ]);
    }
    let of =
        |wanted: &[CacheStatus]| status.iter().filter(|status| wanted.contains(status)).count();
    let will_run = of(&[CacheStatus::Run, CacheStatus::Lazy]);
    format!(
        "{}\n{} to run, {} cached, {} not needed; peak memory about {}\n",
        table.render(),
        count(will_run, "node"),
        of(&[CacheStatus::Memory, CacheStatus::Disk]),
        of(&[CacheStatus::Pruned]),
        bytes(peak(plan, status)),
    )
}

fn as_json(plan: &Plan, status: &[CacheStatus]) -> Value {
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .zip(status)
        .map(|(step, own)| {
            json!({
                "name": &*step.name, "op": &*step.op, "version": &*step.version,
                "key": step.key.to_string(), "status": own, "memory": step.memory,
                "why": reason(plan, status, step, *own), "target": step.target,
                "reads": step.reads.iter().map(|read| &read.path).collect::<Vec<_>>(),
            })
        })
        .collect();
    let inputs: serde_json::Map<String, Value> =
        plan.inputs.iter().map(|(name, value)| (name.clone(), literal(value))).collect();
    json!({
        "steps": steps, "inputs": inputs, "peak_memory": peak(plan, status),
        "diagnostics": plan.warnings,
    })
}
