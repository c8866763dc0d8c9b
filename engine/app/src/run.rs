//! `kino run`: plans, runs, watches, and lists what was written.

mod preview;
mod result;

use std::io::{self, Write};
use std::sync::Mutex;

use kino_graph::{Diagnostic, Diagnostics, Graph, Plan, Severity};
use kino_node::{Cancel, FileOut};
use kino_runtime::{Event, Report};
use serde_json::json;

use crate::args;
use crate::engine::{self, Engine};
use crate::failure::{Exit, Failure};
use crate::library::Opened;
use crate::nodes::literal;
use crate::record::{self, Made};
use crate::render::diagnostics;
use crate::render::progress::Watch;
use crate::render::table::{Align, Table};
use crate::screen::Screen;
use crate::sweep::{self, Point};
use crate::{interrupt, logs};
use preview::Previews;

/// Runs a graph, once for each point of its sweeps.
///
/// # Errors
/// When the graph does not check or plan, or the machine does not allow it. A node that fails is no
/// error here: it has been told, and the exit code says so.
pub(crate) fn run(args: &args::Run, screen: &Screen, verbose: u8) -> Result<Exit, Failure> {
    let watch = Watch::new(screen);
    let trace = logs::start(screen, verbose, args.trace.as_deref(), watch.bars())?;
    let registry = engine::registry();
    let (opened, graph) = engine::check(&args.source.graph, &registry)?;
    let inputs = engine::read_inputs(&graph, &args.target.set)?;
    let points = sweep::points(&graph, &args.sweep)?;
    let engine = Engine::start(registry.clone(), &opened, &args.target, points.len() > 1)?;
    let until = args.target.until.as_deref();
    let mut plans = Vec::with_capacity(points.len());
    for point in &points {
        let inputs: Vec<_> = inputs.iter().chain(point).cloned().collect();
        plans.push(engine.plan(&opened, &graph, &inputs, until)?);
    }
    sweep::separate(&mut plans, &points, &registry);
    warn(screen, &opened, &engine, &graph, &plans);
    let previews = args.preview.as_deref().map(Previews::into_folder).transpose()?;
    let cancel = Cancel::default();
    interrupt::watch(&cancel);
    let mut session = Session { engine: &engine, graph: &graph, screen, watch, previews, cancel };
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
            let (report, files) = self.run(plan);
            self.tell_failures(plan, &report);
            self.print_results(&report, &files)?;
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

    /// Runs one plan and gathers the files that it wrote or found, each with the seconds it took.
    fn run(&self, plan: &Plan) -> (Report, Vec<Written>) {
        let made = Made::of(plan, self.engine.device);
        let record = record::write(plan.record(), &made);
        let files = Mutex::new(Vec::new());
        let see = |event: Event| {
            if let (Some(previews), Event::Progress { name, preview: Some(picture), .. }) =
                (&self.previews, &event)
            {
                previews.keep(name, picture);
            }
            self.watch.see(&event);
            if let Event::Finished { files: written, cached, .. } = event
                && !written.is_empty()
            {
                let is_new = cached == kino_runtime::Cached::None;
                let mut files = files.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                files.extend(written.into_iter().map(|file| Written { file, is_new }));
            }
        };
        let report = self.engine.runtime.run(plan, &self.cancel, &record, &see);
        (report, files.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Draws every failure at the node that failed.
    fn tell_failures(&self, plan: &Plan, report: &Report) {
        if self.screen.json || report.failed.is_empty() {
            return;
        }
        let failures = report.failed.iter().map(|failure| Diagnostic {
            severity: Severity::Error,
            code: "failed",
            message: format!("`{}` ({}): {}", failure.name, failure.op, failure.message),
            place: plan.step(&failure.name).map(|(_, step)| step.place),
            related: Vec::new(),
            hint: failure.hint.clone(),
        });
        let list = failures.collect();
        let diagnostics = Diagnostics { list, files: self.graph.files().to_vec() };
        let _ = io::stderr().write_all(diagnostics::draw(self.screen, &diagnostics).as_bytes());
    }

    /// The files, a line each, and outputs that are no files.
    fn print_results(&self, report: &Report, files: &[Written]) -> Result<(), Failure> {
        if self.screen.json {
            let outputs = result::as_json(&report.outputs);
            self.screen.print_json(&json!({ "event": "outputs", "outputs": outputs }))?;
            return Ok(());
        }
        let paint = self.screen.out;
        let mut table = Table::new(&[Align::Left, Align::Right, Align::Left]);
        for Written { file, is_new } in files {
            let end = if *is_new {
                crate::render::quantity::seconds(report.seconds)
            } else {
                "unchanged".to_owned()
            };
            let size = crate::render::quantity::bytes(file.bytes);
            table.row([paint.bold(&file.path.display().to_string()), size, paint.dim(&end)]);
        }
        let mut text = table.render();
        text.push_str(&result::as_text(&report.outputs, files.iter().map(|one| &one.file)));
        self.screen.print(&text)?;
        Ok(())
    }
}

/// A file that a run wrote, or found standing as it once wrote it.
struct Written {
    file: FileOut,
    is_new: bool,
}
