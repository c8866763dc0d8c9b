//! `kino run`: plans, runs, watches, and lists what was written.

pub(crate) mod outcome;
pub(crate) mod preview;
mod result;

use std::io::{self, Write};

use kino_graph::{Graph, Plan};
use kino_node::{Cancel, Registry};
use kino_runtime::Stop;
use serde_json::json;

use crate::args;
use crate::engine::{self, Engine};
use crate::failure::{Exit, Failure};
use crate::library::Opened;
use crate::nodes::literal;
use crate::record::{self, Made};
use crate::render::diagnostics;
use crate::render::progress::Watch;
use crate::screen::Screen;
use crate::sweep::{self, Point};
use crate::{interrupt, logs};
use outcome::{Outcome, Turn};
use preview::Previews;

/// Runs a graph, once for each point of its sweeps.
///
/// # Errors
/// When the graph does not check or plan, or the machine does not allow it. A node that fails is no
/// error here: it has been told, and the exit code says so.
pub(crate) fn run(args: &args::Run, screen: &Screen, verbose: u8) -> Result<Exit, Failure> {
    let watch = Watch::new(screen);
    let trace = logs::start(screen, verbose, args.trace.as_deref(), watch.bars())?;
    let (opened, graph, registry) = engine::check(&args.source)?;
    let inputs = engine::read_inputs(&graph, &args.target.set)?;
    let points = sweep::points(&graph, &args.sweep)?;
    let engine = Engine::start(&opened, &args.target, points.len() > 1)?;
    let until = args.target.until.as_deref();
    let mut plans = Vec::with_capacity(points.len());
    for point in &points {
        let inputs: Vec<_> = inputs.iter().chain(point).cloned().collect();
        plans.push(engine.plan(&opened, &graph, &registry, &inputs, until)?);
    }
    sweep::separate(&mut plans, &points, &registry);
    warn(screen, &opened, &engine, &graph, &plans);
    let previews = args.preview.as_deref().map(Previews::into_folder).transpose()?;
    let cancel = Cancel::default();
    interrupt::watch(&cancel);
    let (engine, registry) = (&engine, &*registry);
    let mut session = Session { engine, registry, graph: &graph, screen, watch, previews, cancel };
    let exit = session.runs(&plans, &points);
    drop(trace);
    exit
}

/// Says what is probably not meant, and what has changed since a stored graph was recorded.
fn warn(screen: &Screen, opened: &Opened, engine: &Engine, graph: &Graph, plans: &[Plan]) {
    diagnostics::warn(screen, &graph.warnings());
    let (Some(was), Some(plan)) = (record::split(&opened.text).0, plans.first()) else { return };
    let now = Made::of(plan, engine.device);
    for difference in was.differences(&now) {
        diagnostics::warn_plain(
            screen,
            &difference,
            Some("the result may differ from the recorded one"),
        );
    }
}

/// The runs of one command: one engine, one way to watch.
struct Session<'a> {
    engine: &'a Engine,
    registry: &'a Registry,
    graph: &'a Graph,
    screen: &'a Screen,
    watch: Watch,
    previews: Option<Previews>,
    cancel: Cancel,
}

impl Session<'_> {
    fn runs(&mut self, plans: &[Plan], points: &[Point]) -> Result<Exit, Failure> {
        let mut exit = Exit::Good;
        for (index, (plan, point)) in plans.iter().zip(points).enumerate() {
            self.announce(index, point, points.len())?;
            let outcome = self.run(plan);
            outcome.tell_failures(self.screen, plan, self.graph.files());
            outcome.print_results(self.screen)?;
            let Outcome { report, .. } = outcome;
            if report.cancelled {
                if !self.screen.json {
                    let _ = writeln!(io::stderr(), "cancelled");
                }
                return Ok(Exit::Cancelled);
            }
            if !report.failed.is_empty() {
                exit = Exit::NodeFailed;
            }
        }
        Ok(exit)
    }

    /// Says which of several runs begins.
    fn announce(&self, index: usize, point: &Point, of: usize) -> Result<(), Failure> {
        if point.is_empty() {
            return Ok(());
        }
        let run = index + 1;
        if self.screen.json {
            let inputs: serde_json::Map<_, _> =
                point.iter().map(|(name, value)| (name.clone(), literal(value))).collect();
            let line = json!({ "event": "sweep", "run": run, "of": of, "inputs": inputs });
            self.screen.print_json(&line)?;
        } else if !self.screen.quiet {
            let head = format!("{run}/{of}  {}", sweep::describe(point));
            let _ = writeln!(io::stderr(), "{}", self.screen.err.bold(&head));
        }
        Ok(())
    }

    /// Runs one plan.
    fn run(&self, plan: &Plan) -> Outcome {
        let turn = Turn { engine: self.engine, registry: self.registry, plan };
        let stop = Stop::whole(&self.cancel);
        turn.take(&stop, self.previews.as_ref(), &|event| self.watch.see(event))
    }
}
