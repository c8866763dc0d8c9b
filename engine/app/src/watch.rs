//! `kino watch`: runs a graph, and again whatever changes, until it is interrupted.
//!
//! One thread waits for signals: files changed, a run ended, Ctrl-C. After a change everything is
//! read anew; what checks and plans becomes the current generation, and its run begins at once. The
//! run before it makes way: it starts no further step, and what it is computing is cancelled unless
//! the new run needs just that, which then waits for it rather than computes it again.

mod reading;
mod runs;
mod view;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use kino_node::Cancel;
use kino_world::{Change, FileWatch};

use crate::args;
use crate::engine::{self, Engine};
use crate::failure::{Exit, Failure};
use crate::palette::Palettes;
use crate::render::progress::Watch;
use crate::run::preview::Previews;
use crate::screen::Screen;
use crate::{interrupt, library, logs};
use reading::{Generation, Reader, Reading};
use runs::{Ended, Runs};
use view::View;

/// What the watch waits for.
enum Signal {
    /// Files changed.
    Changed(Vec<Change>),
    /// A run ended.
    Ended(Box<Ended>),
    /// Ctrl-C, or a signal like it.
    Interrupted,
}

/// Files may appear in a plan as long as others appear; nobody means that to go on for ever.
const MOST_LOOKS: usize = 8;

/// Runs a graph and watches it.
///
/// # Errors
/// When there is no such graph to begin with, or the machine does not allow it.
pub(crate) fn run(args: &args::Watch, screen: &Screen, verbose: u8) -> Result<Exit, Failure> {
    if args.source.graph == "-" {
        return Err(Failure::usage("the standard input cannot be watched")
            .hint("write the graph to a file"));
    }
    let watch = Watch::new(screen);
    let _trace = logs::start(screen, verbose, None, watch.bars())?;
    let opened = library::open(&args.source.graph)?;
    let mut palettes = Palettes::new(args.source.locked);
    let engine = Engine::start(&opened, &args.target, true)?;
    let engine = Arc::new(engine);
    let view = Arc::new(View::new(screen, watch));
    let previews = args.preview.as_deref().map(Previews::into_folder).transpose()?;
    let (signals, inbox) = mpsc::channel();
    let cancel = Cancel::default();
    let interrupted = signals.clone();
    interrupt::watch_and(&cancel, move || drop(interrupted.send(Signal::Interrupted)));
    let runs = Runs::new(&engine, &view, previews, &cancel, &signals);
    let reader = Reader { args, engine: &engine, luck: engine::draw() };
    let files = watch_files(signals)?;
    let mut session = Session {
        reader,
        palettes: &mut palettes,
        engine: &engine,
        view: &view,
        files,
        watched: BTreeSet::new(),
        current: None,
        runs,
    };
    session.look();
    Ok(session.until_interrupted(&inbox))
}

fn watch_files(signals: Sender<Signal>) -> Result<FileWatch, Failure> {
    let files = FileWatch::start(move |changes| drop(signals.send(Signal::Changed(changes))));
    files.map_err(|error| Failure::world(error.to_string()))
}

/// A watch under way.
struct Session<'a> {
    reader: Reader<'a>,
    palettes: &'a mut Palettes,
    engine: &'a Engine,
    view: &'a View,
    files: FileWatch,
    watched: BTreeSet<PathBuf>,
    /// The last that checked and planned.
    current: Option<Arc<Generation>>,
    runs: Runs,
}

impl Session<'_> {
    fn until_interrupted(mut self, inbox: &Receiver<Signal>) -> Exit {
        while let Ok(signal) = inbox.recv() {
            match signal {
                Signal::Changed(changes) => {
                    self.view.changed(&changes);
                    self.runs.doubt(&changes);
                    self.look();
                }
                Signal::Ended(ended) => {
                    if self.runs.end(&ended) {
                        self.view.outcome(&ended.generation, &ended.outcome);
                        self.view.waiting(&self.watched);
                    }
                }
                Signal::Interrupted => {
                    self.runs.stop();
                    return Exit::Cancelled;
                }
            }
            if self.view.is_closed() {
                self.runs.stop();
                return Exit::Good;
            }
        }
        Exit::Good
    }

    /// Reads what stands there now, and runs what is new of it.
    fn look(&mut self) {
        let reading = self.read();
        match reading.found {
            Ok(generation) => self.take_on(generation),
            Err(failure) => {
                self.view.failed(&failure, self.current.is_some());
                self.look_at_last();
            }
        }
        if !self.runs.is_running() {
            self.view.waiting(&self.watched);
        }
    }

    /// Reads until all that the reading depends on is watched, so that no change is lost between.
    fn read(&mut self) -> Reading {
        let mut looks = 0;
        loop {
            let reading = self.reader.read(self.palettes);
            let mut files = reading.files.clone();
            if reading.found.is_err() {
                // The last good graph goes on, with whatever it reads.
                files.extend(self.watched.iter().cloned());
            }
            let grew = self.files.set(files.iter().cloned());
            self.watched = files;
            looks += 1;
            if !grew || looks == MOST_LOOKS {
                return reading;
            }
        }
    }

    /// The graph as it stands is no good: the last good one goes on with what it reads.
    fn look_at_last(&mut self) {
        let Some(last) = self.current.clone() else { return };
        match self.reader.read_again(&last.sheet).found {
            Ok(generation) if generation.differs_from(&last) => self.take_on(generation),
            Ok(_) => {}
            Err(failure) => tracing::debug!("The last good graph does not plan either: {failure}."),
        }
    }

    /// Makes a generation the current one, and runs it unless it is what runs or ran already.
    fn take_on(&mut self, new: Generation) {
        let new = Arc::new(new);
        let last = self.current.replace(Arc::clone(&new));
        let status = self.engine.runtime.status(&new.plan, &new.sheet.registry);
        if let Some(last) = &last {
            let diff = kino_graph::diff(&last.plan, &new.plan);
            self.view.diff(&diff, &new.plan, &status);
            if !new.differs_from(last) && self.runs.is_good() {
                return;
            }
        }
        let warnings = new.sheet.graph.warnings();
        if last.is_none_or(|last| last.sheet.graph.warnings().list != warnings.list) {
            self.view.warn(&warnings);
        }
        self.runs.begin(new, &status);
    }
}
