//! What a watch shows beside the events of its runs: changes, differences, diagnostics, results.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kino_graph::{Diagnostics, Diff, StepChange};
use kino_session::{CacheStatus, Plan, RunResult, WatchEvent};
use kino_world::FileChangeKind;

use crate::failure::Failure;
use crate::json::{Value, json};
use crate::render::diagnostics;
use crate::render::progress::Watch;
use crate::render::quantity;
use crate::run::result;
use crate::screen::Screen;

/// The screen of a watch.
pub(crate) struct View {
    screen: Screen,
    watch: Watch,
    closed: AtomicBool,
}

impl View {
    pub(crate) fn new(screen: &Screen, watch: Watch) -> Self {
        View { screen: *screen, watch, closed: AtomicBool::new(false) }
    }

    /// Whether nobody reads any more what programs read.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed) || self.watch.is_closed()
    }

    /// Shows what happened.
    pub(crate) fn see(&self, event: WatchEvent) {
        match event {
            WatchEvent::Changed(changes) => self.changed(&changes),
            WatchEvent::Diff { diff, plan, status } => self.diff(&diff, &plan, &status),
            WatchEvent::Failed { error, has_last } => self.failed(&error.into(), has_last),
            WatchEvent::Warnings(warnings) => self.warn(&warnings),
            WatchEvent::Run(event) => self.watch.see_of(Some(event.run.0), &event),
            WatchEvent::RunResult { plan, done } => self.done(&plan, &done),
            WatchEvent::Waiting(files) => self.waiting(&files),
            _ => {}
        }
    }

    fn json(&self, value: &Value) {
        self.printed(self.watch.aside(|| self.screen.print_json(value)));
    }

    fn printed(&self, result: io::Result<()>) {
        let closed = result.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        self.closed.fetch_or(closed, Ordering::Relaxed);
    }

    /// A text between those of the nodes, unless only results are wanted.
    fn text(&self, text: &str) {
        if !self.screen.quiet {
            self.watch.aside(|| self.screen.tell(text));
        }
    }

    /// Files that changed.
    fn changed(&self, changes: &[kino_world::FileChange]) {
        if self.screen.json {
            let paths = changes.iter().map(|one| {
                let change = match one.kind {
                    FileChangeKind::Appeared => "appeared",
                    FileChangeKind::Changed => "changed",
                    FileChangeKind::Vanished => "vanished",
                };
                json!({ "path": one.path, "change": change })
            });
            let paths: Vec<Value> = paths.collect();
            return self.json(&json!({ "event": "changed", "paths": paths }));
        }
        let told = changes.iter().map(|one| {
            let path = self.screen.err.bold(&one.path.display().to_string());
            match one.kind {
                FileChangeKind::Appeared => format!("{path} appeared\n"),
                FileChangeKind::Changed => format!("{path} changed\n"),
                FileChangeKind::Vanished => format!("{path} was removed\n"),
            }
        });
        self.text(&format!("\n{}", told.collect::<String>()));
    }

    /// What a new plan changes: which nodes will run, and why.
    fn diff(&self, diff: &Diff, plan: &Plan, status: &[CacheStatus]) {
        let status = |name: &str| plan.as_plan().step(name).map(|(at, _)| status[at]);
        if self.screen.json {
            let changes = diff.changes.iter().map(|(name, change)| {
                let (kind, why) = match change {
                    StepChange::Added => ("added", &[][..]),
                    StepChange::Removed => ("removed", &[][..]),
                    StepChange::Changed(why) => ("changed", &why[..]),
                };
                json!({ "name": &**name, "change": kind, "why": why, "status": status(name) })
            });
            let changes: Vec<Value> = changes.collect();
            let unchanged = diff.unchanged;
            return self.json(&json!({
                "event": "diff", "changes": changes, "unchanged": unchanged,
            }));
        }
        let paint = self.screen.err;
        let mut text = String::new();
        for (name, change) in &diff.changes {
            let cached = match status(name) {
                Some(CacheStatus::Memory | CacheStatus::Disk) => paint.good("  cached"),
                Some(CacheStatus::Pruned) => paint.dim("  not needed"),
                _ => String::new(),
            };
            let name = paint.name(name);
            text.push_str(&match change {
                StepChange::Added => format!("  {} {name}{cached}\n", paint.good("+")),
                StepChange::Removed => format!("  {} {name}\n", paint.bad("-")),
                StepChange::Changed(why) => {
                    format!("  {} {name}: {}{cached}\n", paint.note("~"), why.join(", "))
                }
            });
        }
        if text.is_empty() {
            text = paint.dim("  no node changed\n");
        }
        self.text(&text);
    }

    /// A plugin is being built.
    pub(crate) fn building(&self, id: &str) {
        if !self.screen.json {
            self.text(&self.screen.err.dim(&format!("\nbuilding {id}\n")));
        }
    }

    /// A plugin was built, or was not: what has changed in its manifest, and what the compiler said.
    pub(crate) fn built(
        &self,
        id: &str,
        took: Duration,
        built: &Result<Vec<String>, Failure>,
        said: &str,
    ) {
        if self.screen.json {
            let mut value = match built {
                Ok(manifest) => json!({ "manifest": manifest }),
                Err(failure) => diagnostics::as_json(failure),
            };
            value["event"] = "build".into();
            value["plugin"] = id.into();
            value["seconds"] = took.as_secs_f64().into();
            value["compiler"] = said.into();
            return self.json(&value);
        }
        match built {
            Ok(manifest) => {
                let told = manifest.iter().map(|changed| format!("plugin.ron: {changed}\n"));
                let told: String = told.collect();
                let took = self.screen.err.dim(&quantity::seconds(took.as_secs_f64()));
                self.text(&format!("built {} {took}\n{told}", self.screen.err.bold(id)));
            }
            Err(failure) => self.watch.aside(|| {
                self.screen.tell(said);
                diagnostics::fail(&self.screen, failure);
            }),
        }
    }

    /// Why there is nothing new to run.
    fn failed(&self, failure: &Failure, has_last: bool) {
        if self.screen.json {
            let mut value = diagnostics::as_json(failure);
            value["event"] = "diagnostics".into();
            return self.json(&value);
        }
        self.watch.aside(|| diagnostics::fail(&self.screen, failure));
        if has_last {
            self.text(&self.screen.err.dim("the last valid graph stays in use\n"));
        }
    }

    /// What is probably not meant.
    fn warn(&self, warnings: &Diagnostics) {
        if self.screen.json && !warnings.list.is_empty() {
            return self.json(&json!({ "event": "diagnostics", "diagnostics": warnings }));
        }
        self.watch.aside(|| diagnostics::warn(&self.screen, warnings));
    }

    /// What a run left.
    fn done(&self, plan: &Plan, done: &RunResult) {
        self.watch.aside(|| {
            result::tell_failures(done, &self.screen, plan);
            if let Err(Failure::Print(error)) = result::print(done, &self.screen) {
                self.printed(Err(error));
            }
        });
    }

    /// Nothing is left to do until something changes.
    fn waiting(&self, files: &BTreeSet<PathBuf>) {
        if self.screen.json {
            return self.json(&json!({ "event": "waiting", "watched": files }));
        }
        let what = match files.iter().collect::<Vec<_>>().as_slice() {
            [] => "nothing: a built-in graph that reads no file".to_owned(),
            [one] => one.display().to_string(),
            many => format!("{} and {} more", first(many), many.len() - 1),
        };
        self.text(&self.screen.err.dim(&format!("watching {what}; Ctrl-C ends\n")));
    }
}

/// The graph itself, if it is among them.
fn first(paths: &[&PathBuf]) -> String {
    let graph = paths.iter().find(|path| path.extension().is_some_and(|end| end == "ron"));
    graph.map_or(Path::new("files"), |path| path).display().to_string()
}
