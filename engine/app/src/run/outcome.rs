//! One run of a plan, and what it leaves: files, outputs, failures.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use kino_graph::{Diagnostic, Diagnostics, File, Plan, Severity};
use kino_node::{FileOut, Registry};
use kino_runtime::{Cached, Event, Report, RunRequest, Stop};
use serde_json::json;

use super::preview::Previews;
use super::result;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::record::{self, Made};
use crate::render::diagnostics;
use crate::render::quantity;
use crate::render::table::{Align, Table};
use crate::screen::Screen;

/// A plan that is to be run.
pub(crate) struct Turn<'a> {
    /// What it runs on.
    pub(crate) engine: &'a Engine,
    /// The nodes that it was planned with.
    pub(crate) registry: &'a Registry,
    /// The plan.
    pub(crate) plan: &'a Plan,
}

/// A file that a run wrote, or found standing as it once wrote it.
pub(crate) struct Written {
    file: FileOut,
    is_new: bool,
}

/// What a run left.
pub(crate) struct Outcome {
    /// What became of it.
    pub(crate) report: Report,
    /// The files, in the order in which they were written.
    pub(crate) files: Vec<Written>,
}

impl Turn<'_> {
    /// Runs the plan to its end, or until it is stopped.
    pub(crate) fn take(
        &self,
        stop: &Stop,
        previews: Option<&Previews>,
        see: &(dyn Fn(&Event) + Sync),
    ) -> Outcome {
        let made = Made::of(self.plan, self.engine.device);
        let record = record::write(self.plan.embedded_workflow(), &made);
        let files = Mutex::new(Vec::new());
        let events = |event: Event| {
            if let (Some(previews), Event::Progress { name, preview: Some(picture), .. }) =
                (previews, &event)
            {
                previews.keep(name, picture);
            }
            see(&event);
            if let Event::Finished { files: written, cached, .. } = event
                && !written.is_empty()
            {
                let is_new = cached == Cached::None;
                let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
                files.extend(written.into_iter().map(|file| Written { file, is_new }));
            }
        };
        let runtime = &self.engine.runtime;
        let request = RunRequest::new(self.plan, self.registry, &self.engine.services, stop);
        let report =
            runtime.run(RunRequest { embedded_workflow: &record, events: &events, ..request });
        Outcome { report, files: files.into_inner().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl Outcome {
    /// Draws every failure at the node that failed; programs have seen them as events.
    pub(crate) fn tell_failures(&self, screen: &Screen, plan: &Plan, files: &[File]) {
        let failed = &self.report.failed;
        if screen.json || failed.is_empty() {
            return;
        }
        let failures = failed.iter().map(|failure| Diagnostic {
            severity: Severity::Error,
            code: "failed",
            message: format!("`{}` ({}): {}", failure.name, failure.op, failure.message),
            place: plan.step(&failure.name).map(|(_, step)| step.place),
            related: Vec::new(),
            hint: failure.hint.clone(),
        });
        let diagnostics = Diagnostics { list: failures.collect(), files: files.to_vec() };
        let _ = io::stderr().write_all(diagnostics::draw(screen, &diagnostics).as_bytes());
    }

    /// The files, a line each, and outputs that are no files.
    ///
    /// # Errors
    /// When the output stream is closed or full.
    pub(crate) fn print_results(&self, screen: &Screen) -> Result<(), Failure> {
        let Outcome { report, files } = self;
        if screen.json {
            let outputs = result::as_json(&report.outputs);
            screen.print_json(&json!({ "event": "outputs", "outputs": outputs }))?;
            return Ok(());
        }
        let paint = screen.out;
        let mut table = Table::new(&[Align::Left, Align::Right, Align::Left]);
        for Written { file, is_new } in files {
            let end =
                if *is_new { quantity::seconds(report.seconds) } else { "unchanged".to_owned() };
            let size = quantity::bytes(file.bytes);
            table.row([paint.bold(&file.path.display().to_string()), size, paint.dim(&end)]);
        }
        let mut text = table.render();
        text.push_str(&result::as_text(&report.outputs, files.iter().map(|one| &one.file)));
        screen.print(&text)?;
        Ok(())
    }
}
