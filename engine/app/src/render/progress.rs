//! A run as people watch it: bars on a terminal, a line a node elsewhere, JSON lines for programs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kino_port::escape_line;
use kino_runtime::{CacheStatus, Cached, Event};
use kino_session::RunEvent;
use serde::Serialize;

use super::base64;
use super::gather::{Gather, Stream};
use super::quantity::{clock, count, seconds};
use super::table::width;
use crate::screen::{Paint, Screen};
use crate::terminal::{self, visible};

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
    Json {
        to: Gather,
        /// Whether pictures are among it.
        previews: bool,
    },
    Lines(Lines),
    Bars(Mutex<Bars>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// A way to watch that suits the screen; `previews` puts pictures into JSON. Logs go to the
    /// error stream through [`Watch::bars`].
    pub(crate) fn new(screen: &Screen, previews: bool) -> Self {
        let mode = match (screen.json, screen.quiet, screen.is_terminal) {
            (true, ..) => Mode::Json { to: Gather::new(Stream::Out), previews },
            (_, true, _) => Mode::Silent,
            (_, _, true) => {
                let target = ProgressDrawTarget::stderr_with_hz(15);
                Mode::Bars(Mutex::new(Bars::new(screen.err, target)))
            }
            _ => {
                let to = Gather::new(Stream::Err);
                Mode::Lines(Lines { paint: screen.err, columns: Mutex::default(), to })
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

    /// Whether it shows nothing.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.mode, Mode::Silent)
    }

    /// Shows one event of the only run, or of the first.
    pub(crate) fn see(&self, event: &RunEvent) {
        self.see_of(None, event);
    }

    /// Shows one event of a run with this number, beside which others may be under way.
    pub(crate) fn see_of(&self, run: Option<u64>, event: &RunEvent) {
        match &self.mode {
            Mode::Silent => {}
            Mode::Json { to, previews } => print_json(run, event, to, *previews),
            Mode::Lines(lines) => lines.see(&event.event),
            Mode::Bars(bars) => lock(bars).see(run, &event.event),
        }
    }

    /// Writes to the streams in order with what was shown before; bars step aside meanwhile.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.mode {
            Mode::Silent => write(),
            Mode::Json { to, .. } | Mode::Lines(Lines { to, .. }) => {
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
        matches!(&self.mode, Mode::Json { to, .. } if to.is_closed())
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

fn print_json(run: Option<u64>, event: &RunEvent, to: &Gather, previews: bool) {
    let numbered = Numbered { event: &event.event, run };
    let picture = if previews { event.preview_png() } else { None };
    let line = match picture {
        Some(png) => serde_json::to_value(&numbered).map_err(Into::into).and_then(|mut value| {
            value["preview"]["png"] = base64::encode(&png).into();
            terminal::json_line(&value)
        }),
        None => terminal::json_line(&numbered),
    };
    if let Ok(line) = line {
        match &event.event {
            Event::Progress { name, .. } => to.push_progress((run, Arc::clone(name)), line),
            _ => to.push(&line),
        }
    }
    if matches!(event.event, Event::Done { .. }) {
        to.flush();
    }
}

/// How wide the columns of a run are.
#[derive(Clone, Copy, Default)]
struct Columns {
    name: usize,
    op: usize,
}

/// What one node's line says when it has an end.
fn line(event: &Event, paint: Paint, columns: Columns) -> Option<String> {
    let padded = |name: &str, op: &str| {
        let space = |wide: usize, text: &str| " ".repeat(wide.saturating_sub(width(text)));
        let (after_name, after_op) = (space(columns.name, name), space(columns.op, op));
        format!("  {}{after_name}  {}{after_op}", paint.name(name), paint.dim(op))
    };
    match event {
        Event::Finished { name, op, cached, seconds: took, notes, .. } => {
            let end = match cached {
                Cached::None => seconds(*took),
                Cached::Memory | Cached::Disk => paint.good("cached"),
            };
            let said = notes.iter().map(|note| format!("  {}", paint.dim(note)));
            Some(format!("{} {end}{}", padded(name, op), said.collect::<String>()))
        }
        Event::Failed { name, op, .. } => {
            let end = paint.bad("failed");
            Some(format!("{} {end}", padded(name, op)))
        }
        Event::Skipped { name, op, because } => {
            let end = paint.note(&format!("skipped, as {because} failed"));
            Some(format!("{} {end}", padded(name, op)))
        }
        _ => None,
    }
}

/// How much of a plan will happen, and how wide its columns are.
fn overview(event: &Event) -> Option<(usize, Columns)> {
    let Event::Planned { steps } = event else { return None };
    let shown = steps.iter().filter(|step| step.status != CacheStatus::Pruned);
    let name = shown.clone().map(|step| width(&step.name)).max().unwrap_or(0).min(24);
    let op = shown.clone().map(|step| width(&step.op)).max().unwrap_or(0).clamp(14, 32);
    Some((shown.count(), Columns { name, op }))
}

/// One line a finished node, for logs and pipes.
struct Lines {
    paint: Paint,
    columns: Mutex<Columns>,
    to: Gather,
}

impl Lines {
    fn see(&self, event: &Event) {
        if let Some((_, columns)) = overview(event) {
            *lock(&self.columns) = columns;
        }
        let columns = *lock(&self.columns);
        if let Some(mut line) = line(event, self.paint, columns) {
            line.push('\n');
            self.to.push(visible(&line, self.paint.0).as_bytes());
        }
        if matches!(event, Event::Done { .. }) {
            self.to.flush();
        }
    }
}

/// Whose bar it is: of which run, of which node.
type Bar = (Option<u64>, Arc<str>);

/// Bars for what runs, lines for what is done. A newer run may begin before an older one is out.
struct Bars {
    all: MultiProgress,
    paint: Paint,
    runs: HashMap<Option<u64>, Running>,
    running: HashMap<Bar, ProgressBar>,
}

/// What is shown of a run as a whole.
#[derive(Default)]
struct Running {
    columns: Columns,
    /// The bar that counts its nodes, where they are many.
    total: Option<ProgressBar>,
}

impl Bars {
    fn new(paint: Paint, target: ProgressDrawTarget) -> Self {
        let all = MultiProgress::with_draw_target(target);
        Bars { all, paint, runs: HashMap::new(), running: HashMap::new() }
    }

    fn see(&mut self, run: Option<u64>, event: &Event) {
        match event {
            Event::Planned { .. } => self.begin(run, event),
            Event::Started { name, op } if self.total(run).is_none() => {
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

    fn total(&self, run: Option<u64>) -> Option<&ProgressBar> {
        self.runs.get(&run)?.total.as_ref()
    }

    fn columns(&self, run: Option<u64>) -> Columns {
        self.runs.get(&run).map(|run| run.columns).unwrap_or_default()
    }

    fn begin(&mut self, run: Option<u64>, event: &Event) {
        let Some((shown, columns)) = overview(event) else { return };
        let total = (shown > MANY).then(|| {
            let total = ProgressBar::new(shown as u64).with_style(totals(self.paint.0));
            self.all.add(total.with_message(count(shown, "node")))
        });
        self.finish(run);
        self.runs.insert(run, Running { columns, total });
    }

    /// Takes the bar away that counts the nodes of a run.
    fn finish(&mut self, run: Option<u64>) {
        if let Some(total) = self.runs.remove(&run).and_then(|run| run.total) {
            total.finish_and_clear();
            self.all.remove(&total);
        }
    }

    /// The bar of a node, made when it is first asked for.
    fn bar(&mut self, of: Bar, op: &str) -> ProgressBar {
        if let Some(bar) = self.running.get(&of) {
            return bar.clone();
        }
        let (run, name) = (of.0, &of.1);
        let columns = self.columns(run);
        let space = " ".repeat(columns.name.saturating_sub(width(name)));
        let bar = ProgressBar::no_length()
            .with_style(spinner(self.paint.0))
            .with_prefix(escape_line(&format!("{name}{space}")).into_owned())
            .with_message(escape_line(op).into_owned());
        let bar = match self.total(run) {
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
        let is_quick = match event {
            Event::Finished { seconds, notes, .. } => *seconds < QUICK && notes.is_empty(),
            _ => false,
        };
        let total = self.total(of.0);
        if let Some(total) = total {
            total.inc(1);
            if is_quick {
                return;
            }
        }
        if let Some(line) = line(event, self.paint, self.columns(of.0)) {
            let _ = self.all.println(&*visible(&line, self.paint.0));
        }
    }

    fn clear(&mut self, run: Option<u64>) {
        for (_, bar) in self.running.extract_if(|(of, _), _| *of == run) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        self.finish(run);
        if self.running.is_empty() && self.runs.is_empty() {
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use indicatif::InMemoryTerm;
    use kino_runtime::PlannedStep;

    use super::*;

    struct Shown {
        bars: Bars,
        term: InMemoryTerm,
    }

    impl Shown {
        fn new() -> Self {
            let term = InMemoryTerm::new(12, 80);
            let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
            Shown { bars: Bars::new(Paint(false), target), term }
        }

        /// Shows an event, and waits until some texts stand on the screen and others do not: it is
        /// drawn a few times a second.
        #[track_caller]
        fn see(&mut self, run: u64, event: Event, there: &[&str], gone: &[&str]) {
            self.bars.see(Some(run), &event);
            let begun = Instant::now();
            loop {
                let totals = self.bars.runs.values().filter_map(|run| run.total.as_ref());
                self.bars.running.values().chain(totals).for_each(ProgressBar::tick);
                let screen = self.term.contents();
                let holds = there.iter().all(|text| screen.contains(text))
                    && !gone.iter().any(|text| screen.contains(text));
                if holds {
                    return;
                }
                let waited = begun.elapsed() < Duration::from_secs(5);
                assert!(waited, "{there:?}, without {gone:?}, expected on:\n{screen}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn planned(steps: usize) -> Event {
        let step = |index| PlannedStep {
            name: format!("step{index}").into(),
            op: "math".into(),
            status: CacheStatus::Run,
            memory: 0,
        };
        Event::Planned { steps: (0..steps).map(step).collect() }
    }

    fn started(name: &str) -> Event {
        Event::Started { name: name.into(), op: "math".into() }
    }

    fn progress(name: &str, step: u64) -> Event {
        Event::Progress { name: name.into(), step, of: 20, seconds_left: Some(7.0), preview: None }
    }

    fn finished(name: &str, seconds: f64, cached: Cached) -> Event {
        let (name, op) = (name.into(), "math".into());
        Event::Finished {
            name,
            op,
            cached,
            seconds,
            bytes: 0,
            files: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn done() -> Event {
        let (evaluated, cached, failed, skipped) = (0, 0, 0, 0);
        Event::Done { seconds: 1.0, evaluated, cached, failed, skipped, cancelled: false }
    }

    /// Nodes are shown as they begin, with how far they are; a line stays when they end.
    #[test]
    fn nodes_progress_and_times_are_shown() {
        let mut shown = Shown::new();
        shown.see(1, planned(2), &[], &[]);
        shown.see(1, started("sample"), &["sample", "math"], &[]);
        shown.see(1, progress("sample", 5), &["5/20", "0:07 left"], &[]);
        shown.see(1, finished("sample", 2.5, Cached::None), &["sample", "2.50 s"], &["5/20"]);
        shown.see(1, finished("text", 0.0, Cached::Disk), &["text", "cached"], &[]);
        let failed = Event::Failed {
            name: "decode".into(),
            op: "vae.decode".into(),
            message: "no room".into(),
            hint: None,
            code: String::new(),
        };
        shown.see(1, failed, &["decode", "failed"], &[]);
        let skipped =
            Event::Skipped { name: "out".into(), op: "x".into(), because: "decode".into() };
        shown.see(1, skipped, &["skipped, as decode failed"], &[]);
        shown.see(1, done(), &["sample", "2.50 s", "skipped"], &[]);
    }

    /// A newer run begins before an older one is out: each counts its own nodes.
    #[test]
    fn runs_side_by_side_do_not_count_each_others_nodes() {
        let mut shown = Shown::new();
        shown.see(1, planned(150), &[], &[]);
        shown.see(1, finished("a", 0.0, Cached::None), &["1/150"], &[]);
        shown.see(2, planned(120), &[], &[]);
        shown.see(2, finished("b", 0.0, Cached::None), &["1/150", "1/120"], &[]);
        shown.see(2, finished("c", 0.0, Cached::None), &["1/150", "2/120"], &[]);
        shown.see(1, finished("d", 0.0, Cached::None), &["2/150", "2/120"], &[]);
        shown.see(1, done(), &["2/120"], &["/150"]);
        shown.see(2, done(), &[], &["/120"]);
    }
}
