//! `kino plan`: what would run and why, what is cached, and the memory that it takes. Nothing runs.

use kino_session::{CacheStatus, Plan};

use crate::args;
use crate::failure::{Exit, Failure};
use crate::json::{Map, Value, json};
use crate::nodes::literal;
use crate::render::diagnostics;
use crate::render::quantity::{bytes, count};
use crate::render::table::{Align, Table};
use crate::screen::{Paint, Screen};
use crate::setup;

/// Plans a graph and shows the plan.
///
/// # Errors
/// Everything that stands against running it.
pub(crate) fn run(args: &args::Plan, screen: &Screen) -> Result<Exit, Failure> {
    let graph = setup::engine(
        &args.source,
        (&args.target, &[]),
        false,
        (screen, setup::notice(screen, None, false)),
    )?
    .open(&args.source.graph)?;
    let plan = setup::request(&graph, &args.target).plan()?;
    let status = plan.status();
    if screen.json {
        screen.print_json(&as_json(&plan, &status))?;
    } else {
        diagnostics::warn(screen, &plan.as_plan().warnings);
        screen.print(&as_text(&plan, &status, screen.out))?;
    }
    Ok(Exit::Good)
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
    for (at, (step, own)) in plan.steps().iter().zip(status).enumerate() {
        let memory = if step.memory == 0 { "–".to_owned() } else { bytes(step.memory) };
        table.row([
            paint.name(&step.name),
            step.op.to_string(),
            coloured(*own, paint),
            memory,
            paint.dim(&step.key.to_string()[..10]),
            plan.reason(at, status),
        ]);
    }
    let mut streamed = String::new();
    for (step, _) in plan.steps().iter().zip(status).filter(|(_, own)| **own == CacheStatus::Run) {
        if let Some(weights) = step.streamed {
            streamed += &format!("\n{}: {weights}", paint.name(&step.name));
        }
    }
    let of =
        |wanted: &[CacheStatus]| status.iter().filter(|status| wanted.contains(status)).count();
    let will_run = of(&[CacheStatus::Run, CacheStatus::Lazy]);
    format!(
        "{}{streamed}\n{} to run, {} cached, {} not needed; peak memory about {}\n",
        table.render(),
        count(will_run, "node"),
        of(&[CacheStatus::Memory, CacheStatus::Disk]),
        of(&[CacheStatus::Pruned]),
        bytes(plan.peak_memory()),
    )
}

fn as_json(plan: &Plan, status: &[CacheStatus]) -> Value {
    let steps: Vec<Value> = plan
        .steps()
        .iter()
        .zip(status)
        .enumerate()
        .map(|(at, (step, own))| {
            json!({
                "name": &*step.name, "op": &*step.op, "version": &*step.version,
                "key": step.key.to_string(), "status": own, "memory": step.memory,
                "why": plan.reason(at, status), "target": step.target,
                "streamed": step.streamed.map(|weights| json!({
                    "blocks": weights.blocks, "resident": weights.resident, "bytes": weights.bytes,
                })),
                "reads": step.reads.iter().map(|read| &read.path).collect::<Vec<_>>(),
            })
        })
        .collect();
    let inputs: Map<String, Value> =
        plan.as_plan().inputs.iter().map(|(name, value)| (name.clone(), literal(value))).collect();
    json!({
        "steps": steps, "inputs": inputs, "peak_memory": plan.peak_memory(),
        "diagnostics": plan.as_plan().warnings,
    })
}
