//! `kino run`: plans, runs, watches, and lists what was written.

pub(crate) mod preview;
pub(crate) mod result;

use std::sync::Arc;

use kino_session::{Cancel, Graph, Plan, RunResult, SweepPoint};

use crate::args;
use crate::failure::{Exit, Failure};
use crate::json::{Map, json};
use crate::nodes::literal;
use crate::render::diagnostics;
use crate::render::progress::Watch;
use crate::screen::Screen;
use crate::{interrupt, logs, setup};
use preview::Previews;

/// Runs a graph, once for each point of its sweeps.
///
/// # Errors
/// When the graph does not check or plan, or the machine does not allow it. A node that fails is no
/// error here: it has been told, and the exit code says so.
pub(crate) fn run(args: &args::Run, screen: &Screen, verbose: u8) -> Result<Exit, Failure> {
    let watch = Watch::new(screen, args.json_previews);
    let trace = logs::start(screen, verbose, args.trace.as_deref(), watch.bars())?;
    // Reading, loading and planning take time, too.
    let cancel = Cancel::default();
    interrupt::watch(&cancel);
    let notice = setup::notice(screen, watch.bars().as_ref(), true);
    let engine = setup::engine(
        &args.source,
        (&args.target, &args.sweep),
        !args.sweep.is_empty(),
        (screen, notice),
    )?;
    let graph = engine.open_with(&args.source.graph, &cancel)?;
    let plans = setup::request(&graph, &args.target).cancelled_by(&cancel).sweep(&args.sweep)?;
    warn(screen, &graph, &plans);
    let previews = args.preview.as_deref().map(Previews::into_folder).transpose()?;
    let (watch, previews) = (Arc::new(watch), previews.map(Arc::new));
    let exit = Session { screen, watch, previews, cancel }.runs(&plans);
    drop(trace);
    exit
}

/// Says what is probably not meant, and what has changed since a stored graph was recorded.
fn warn(screen: &Screen, graph: &Graph, plans: &[(SweepPoint, Plan)]) {
    let Some((_, plan)) = plans.first() else { return };
    let mut warnings = plan.as_plan().warnings.clone();
    // Of a sweep each is told once.
    for (_, plan) in &plans[1..] {
        let news = plan.as_plan().warnings.list.iter();
        let news: Vec<_> = news.filter(|it| !warnings.list.contains(it)).cloned().collect();
        warnings.list.extend(news);
    }
    let warnings = &warnings;
    diagnostics::warn(screen, warnings);
    if screen.json && !warnings.list.is_empty() {
        let _ = screen.print_json(&json!({ "event": "diagnostics", "diagnostics": warnings }));
    }
    for difference in graph.differences(plan) {
        diagnostics::warn_plain(
            screen,
            &difference,
            Some("the result may differ from the recorded one"),
        );
    }
}

/// The runs of one command: one way to watch.
struct Session<'a> {
    screen: &'a Screen,
    watch: Arc<Watch>,
    previews: Option<Arc<Previews>>,
    cancel: Cancel,
}

impl Session<'_> {
    fn runs(&self, plans: &[(SweepPoint, Plan)]) -> Result<Exit, Failure> {
        let mut exit = Exit::Good;
        for (index, (point, plan)) in plans.iter().enumerate() {
            self.announce(index, point, plans.len())?;
            let done = self.run(plan)?;
            result::tell_failures(&done, self.screen, plan);
            result::print(&done, self.screen)?;
            if done.report.cancelled {
                if !self.screen.json {
                    self.screen.tell("cancelled\n");
                }
                return Ok(Exit::Cancelled);
            }
            if !done.report.failed.is_empty() {
                exit = Exit::NodeFailed;
            }
        }
        Ok(exit)
    }

    /// Says which of several runs begins.
    fn announce(&self, index: usize, point: &SweepPoint, of: usize) -> Result<(), Failure> {
        if point.is_empty() {
            return Ok(());
        }
        let run = index + 1;
        if self.screen.json {
            let inputs: Map<_, _> =
                point.iter().map(|(name, value)| (name.clone(), literal(value))).collect();
            let line = json!({ "event": "sweep", "run": run, "of": of, "inputs": inputs });
            self.screen.print_json(&line)?;
        } else if !self.screen.quiet {
            let head = format!("{run}/{of}  {}", kino_session::describe_point(point));
            self.screen.tell(&format!("{}\n", self.screen.err.bold(&head)));
        }
        Ok(())
    }

    /// Runs one plan.
    fn run(&self, plan: &Plan) -> Result<Arc<RunResult>, Failure> {
        if self.watch.is_silent() && self.previews.is_none() {
            return Ok(plan.run(&self.cancel)?);
        }
        let (watch, previews) = (Arc::clone(&self.watch), self.previews.clone());
        Ok(plan.run_with(&self.cancel, move |event| {
            if let Some(previews) = &previews {
                previews.see(&event);
            }
            watch.see(&event);
        })?)
    }
}
