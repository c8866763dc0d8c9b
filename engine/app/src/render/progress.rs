//! A run as people watch it: bars on a terminal, a line a node elsewhere, JSON lines for programs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kino_runtime::{Cached, Event, Outlook};
use serde::Serialize;

use super::gather::{Gather, Stream};
use super::quantity::{clock, count, seconds};
use super::table::width;
use crate::screen::{Paint, Screen};

/// Above so many steps, quick ones get no line on a terminal, and one bar counts them.
const MANY: usize = 100;
/// What took less than this is quick, in seconds.
const QUICK: f64 = 0.25;

/// Shows the events of runs.
pub(crate) struct Watch {
    mode: Mode,
}

enum Mode {
    Silent,
    Json(Gather),
    Lines(Lines),
    Bars(Mutex<Bars>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// A way to watch that suits the screen. Logs go to the error stream through [`Watch::bars`].
    pub(crate) fn new(screen: &Screen) -> Self {
        let mode = match (screen.json, screen.quiet, screen.is_terminal) {
            (true, ..) => Mode::Json(Gather::new(Stream::Out)),
            (_, true, _) => Mode::Silent,
            (_, _, true) => Mode::Bars(Mutex::new(Bars::new(screen.err))),
            _ => {
                let to = Gather::new(Stream::Err);
                Mode::Lines(Lines { paint: screen.err, wide: Mutex::default(), to })
            }
        };
        Watch { mode }
    }

    /// The bars, where there are any: whoever writes to the error stream lets them step aside.
    pub(crate) fn bars(&self) -> Option<MultiProgress> {
        match &self.mode {
            Mode::Bars(bars) => Some(lock(bars).all.clone()),
            _ => None,
        }
    }

    /// Shows one event of the only run, or of the first.
    pub(crate) fn see(&self, event: &Event) {
        self.see_of(None, event);
    }

    /// Shows one event of a run with this number, beside which others may be under way.
    pub(crate) fn see_of(&self, run: Option<u64>, event: &Event) {
        match &self.mode {
            Mode::Silent => {}
            Mode::Json(to) => print_json(run, event, to),
            Mode::Lines(lines) => lines.see(event),
            Mode::Bars(bars) => lock(bars).see(run, event),
        }
    }

    /// Writes to the streams in order with what was shown before; bars step aside meanwhile.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.mode {
            Mode::Silent => write(),
            Mode::Json(to) | Mode::Lines(Lines { to, .. }) => {
                to.flush();
                write()
            }
            Mode::Bars(bars) => {
                let all = lock(bars).all.clone();
                all.suspend(write)
            }
        }
    }

    /// Whether nobody reads any more what programs read.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(&self.mode, Mode::Json(to) if to.is_closed())
    }
}

/// An event with the number of its run.
#[derive(Serialize)]
struct Numbered<'e> {
    #[serde(flatten)]
    event: &'e Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<u64>,
}

fn print_json(run: Option<u64>, event: &Event, to: &Gather) {
    if let Ok(mut line) = serde_json::to_vec(&Numbered { event, run }) {
        line.push(b'\n');
        to.push(&line);
    }
    if matches!(event, Event::Done { .. }) {
        to.flush();
    }
}

/// What one node's line says when it has an end.
fn line(event: &Event, paint: Paint, wide: usize) -> Option<String> {
    let padded = |name: &str| {
        let space = " ".repeat(wide.saturating_sub(width(name)));
        format!("{}{space}", paint.name(name))
    };
    match event {
        Event::Finished { name, op, cached, seconds: took, .. } => {
            let end = match cached {
                Cached::None => seconds(*took),
                Cached::Memory | Cached::Disk => paint.good("cached"),
            };
            Some(format!("  {}  {} {end}", padded(name), paint.dim(&format!("{op:<14}"))))
        }
        Event::Failed { name, op, .. } => {
            let end = paint.bad("failed");
            Some(format!("  {}  {} {end}", padded(name), paint.dim(&format!("{op:<14}"))))
        }
        Event::Skipped { name, op, because } => {
            let end = paint.note(&format!("skipped, as {because} failed"));
            Some(format!("  {}  {} {end}", padded(name), paint.dim(&format!("{op:<14}"))))
        }
        _ => None,
    }
}

/// What of a plan will happen, and how wide its names are.
fn overview(event: &Event) -> Option<(usize, usize)> {
    let Event::Planned { steps } = event else { return None };
    let shown = steps.iter().filter(|step| step.outlook != Outlook::Unneeded);
    let wide = shown.clone().map(|step| width(&step.name)).max().unwrap_or(0).min(24);
    Some((shown.count(), wide))
}

/// One line a finished node, for logs and pipes.
struct Lines {
    paint: Paint,
    wide: Mutex<usize>,
    to: Gather,
}

impl Lines {
    fn see(&self, event: &Event) {
        if let Some((_, wide)) = overview(event) {
            *lock(&self.wide) = wide;
        }
        let wide = *lock(&self.wide);
        if let Some(mut line) = line(event, self.paint, wide) {
            line.push('\n');
            self.to.push(line.as_bytes());
        }
        if matches!(event, Event::Done { .. }) {
            self.to.flush();
        }
    }
}

/// Whose bar it is: of which run, of which node.
type Bar = (Option<u64>, Arc<str>);

/// Bars for what runs, lines for what is done.
struct Bars {
    all: MultiProgress,
    paint: Paint,
    wide: usize,
    running: HashMap<Bar, ProgressBar>,
    total: Option<ProgressBar>,
}

impl Bars {
    fn new(paint: Paint) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(15));
        Bars { all, paint, wide: 0, running: HashMap::new(), total: None }
    }

    fn see(&mut self, run: Option<u64>, event: &Event) {
        match event {
            Event::Planned { .. } => self.begin(event),
            Event::Started { name, op } if self.total.is_none() => {
                self.bar((run, Arc::clone(name)), op);
            }
            Event::Progress { name, step, of, seconds_left, .. } => {
                let bar = self.bar((run, Arc::clone(name)), "");
                if bar.length() != Some(*of) {
                    bar.set_style(steps(self.paint.0));
                    bar.set_length(*of);
                }
                bar.set_position(*step);
                let left = seconds_left.filter(|left| *left >= 1.0).map(clock);
                bar.set_message(left.map(|left| format!("{left} left")).unwrap_or_default());
            }
            Event::Finished { name, .. }
            | Event::Failed { name, .. }
            | Event::Skipped { name, .. } => self.end(&(run, Arc::clone(name)), event),
            Event::Started { .. } => {}
            Event::Done { .. } => self.clear(run),
        }
    }

    fn begin(&mut self, event: &Event) {
        let Some((shown, wide)) = overview(event) else { return };
        self.wide = wide;
        self.total.take().inspect(ProgressBar::finish_and_clear);
        if shown > MANY {
            let total = ProgressBar::new(shown as u64).with_style(totals(self.paint.0));
            self.total = Some(self.all.add(total.with_message(count(shown, "node"))));
        }
    }

    /// The bar of a node, made when it is first asked for.
    fn bar(&mut self, of: Bar, op: &str) -> ProgressBar {
        if let Some(bar) = self.running.get(&of) {
            return bar.clone();
        }
        let name = &of.1;
        let space = " ".repeat(self.wide.saturating_sub(width(name)));
        let bar = ProgressBar::no_length()
            .with_style(spinner(self.paint.0))
            .with_prefix(format!("{name}{space}"))
            .with_message(op.to_owned());
        let bar = match &self.total {
            Some(total) => self.all.insert_before(total, bar),
            None => self.all.add(bar),
        };
        bar.enable_steady_tick(Duration::from_millis(120));
        self.running.insert(of, bar.clone());
        bar
    }

    fn end(&mut self, of: &Bar, event: &Event) {
        if let Some(bar) = self.running.remove(of) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        if let Some(total) = &self.total {
            total.inc(1);
        }
        let is_quick = match event {
            Event::Finished { seconds, .. } => *seconds < QUICK,
            _ => false,
        };
        if self.total.is_some() && is_quick {
            return;
        }
        if let Some(line) = line(event, self.paint, self.wide) {
            let _ = self.all.println(line);
        }
    }

    fn clear(&mut self, run: Option<u64>) {
        for (_, bar) in self.running.extract_if(|(of, _), _| *of == run) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        if self.running.is_empty() {
            self.total.take().inspect(ProgressBar::finish_and_clear);
            let _ = self.all.clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn spinner(colours: bool) -> ProgressStyle {
    match colours {
        true => style("{spinner:.cyan} {prefix:.cyan}  {msg:.dim} {elapsed:.dim}"),
        false => style("{spinner} {prefix}  {msg} {elapsed}"),
    }
}

fn steps(colours: bool) -> ProgressStyle {
    let style = match colours {
        true => style("{spinner:.cyan} {prefix:.cyan}  {bar:30.cyan/dim} {pos}/{len}  {msg:.dim}"),
        false => style("{spinner} {prefix}  {bar:30} {pos}/{len}  {msg}"),
    };
    style.progress_chars("━╸─")
}

fn totals(colours: bool) -> ProgressStyle {
    let style = match colours {
        true => style("  {bar:30.green/dim} {pos}/{len} nodes  {eta} left"),
        false => style("  {bar:30} {pos}/{len} nodes  {eta} left"),
    };
    style.progress_chars("━╸─")
}
