//! What workers do: take a job, do it outside the lock, enter what became of it.

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kino_graph::Key;
use kino_node::{
    Admission, Cancel, CancelScope, Cx, Error, GraphId, Inputs, Node, Outputs, Progress, Result,
    RunId, Services, Value, fit_values,
};

use crate::device::Device;
use crate::entry::Verified;
use crate::event::{Cached, Event, Teller};
use crate::forecast::firm;
use crate::in_flight::{Computed, InFlight, Twins};
use crate::pace::Pace;
use crate::panic::catch;
use crate::reads;
use crate::report::StepFailure;
use crate::schedule::{Ended, Job, Schedule};
use crate::stop::StopSignal;
use crate::store::{Store, finished};
use crate::waiting::Waiting;
use crate::wiring::Wiring;

/// Steps of fewer bytes begin without asking for memory.
const UNGOVERNED: u64 = 1 << 20;

/// One run, as all its workers see it.
pub(crate) struct Work<'r> {
    pub(crate) wiring: &'r Wiring<'r>,
    pub(crate) wanted: &'r [bool],
    pub(crate) services: &'r Services,
    pub(crate) store: &'r Store,
    pub(crate) device: &'r Device,
    pub(crate) in_flight: &'r InFlight,
    pub(crate) twins: Twins,
    pub(crate) waiting: &'r Waiting<'r>,
    /// Tells this run from others.
    pub(crate) run: RunId,
    /// The graph whose sinks must write one run after the other.
    pub(crate) graph: Option<&'r GraphId>,
    pub(crate) stop: &'r StopSignal,
    pub(crate) record: &'r str,
    pub(crate) teller: &'r Teller<'r>,
    pub(crate) schedule: Mutex<Schedule<'r>>,
    pub(crate) wake: Condvar,
    pub(crate) failures: Mutex<Vec<StepFailure>>,
    /// The keys of entries that could not be read.
    pub(crate) unreadable: Mutex<Vec<[u8; 32]>>,
}

impl<'r> Work<'r> {
    pub(crate) fn schedule(&self) -> MutexGuard<'_, Schedule<'r>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn failures(&self) -> MutexGuard<'_, Vec<StepFailure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys of entries that could not be read.
    pub(crate) fn unreadable(&self) -> Vec<[u8; 32]> {
        std::mem::take(&mut *self.unreadable.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends an event.
    pub(crate) fn say(&self, event: Event) {
        self.teller.say(event);
    }

    /// Does jobs until none is left.
    pub(crate) fn until_done(&self) {
        let mut ended = None;
        while let Some((job, heavy)) = self.next(ended.take()) {
            let (done, place) = self.carry_out(job, heavy);
            ended = Some((self.set_aside(done), place));
        }
    }

    /// Enters what became of the last job, and waits for the next.
    fn next(&self, ended: Option<(Ended, Option<bool>)>) -> Option<(Job, bool)> {
        let mut schedule = self.schedule();
        if let Some((ended, occupied)) = ended {
            occupied.into_iter().for_each(|heavy| schedule.free(heavy));
            let step = ended.step();
            if let Err(message) = catch(|| schedule.end(ended)) {
                // A value could not say how large it is: what the step was worth is not known.
                schedule.stopped = true;
                drop(schedule);
                if let Some(step) = step {
                    self.fail(step, &panicked("the step", &message));
                }
                schedule = self.schedule();
            }
        }
        loop {
            schedule.stopped |= self.stop.is_stopping();
            let job = schedule.next();
            let over = job.is_none() && schedule.running == 0;
            let events = std::mem::take(&mut schedule.outbox);
            let garbage = std::mem::take(&mut schedule.garbage);
            if over {
                self.wake.notify_all();
            } else if schedule.idle > 0 && schedule.has_work() {
                self.wake.notify_one();
            }
            let nothing_else = events.is_empty() && garbage.is_empty();
            if job.is_some() || over || !nothing_else {
                drop(schedule);
                events.into_iter().for_each(|event| self.say(event));
                drop(garbage);
                if job.is_some() || over {
                    return job;
                }
                schedule = self.schedule();
                continue;
            }
            schedule.idle += 1;
            schedule = self.wake.wait(schedule).unwrap_or_else(PoisonError::into_inner);
            schedule.idle -= 1;
        }
    }

    /// Does one job; also says whether its place is still occupied, and of which kind. A panic of
    /// anything in it, such as a type that an embedding program adds, fails the step: a worker that
    /// left would let the others wait for ever.
    fn carry_out(&self, job: Job, heavy: bool) -> (Ended, Option<bool>) {
        let place = Cell::new(Some(heavy));
        let step = job.step();
        let done = catch(|| match job {
            Job::Load(step, found) => self.load(step, found),
            Job::Reload(step) => self.reload(step),
            Job::Choose(step, values) => self.choose(step, values),
            Job::Run(step, values) => self.run(step, values, &place),
        });
        (
            done.unwrap_or_else(|message| self.fail(step, &panicked("the step", &message))),
            place.get(),
        )
    }

    /// Lets outputs that wait long for their reader do so outside memory.
    fn set_aside(&self, ended: Ended) -> Ended {
        let aside = |step: u32, outputs| self.waiting.set_aside(step as usize, outputs);
        match ended {
            Ended::Finished(step, outputs) => Ended::Finished(step, aside(step, outputs)),
            Ended::Loaded(step, outputs) => Ended::Loaded(step, aside(step, outputs)),
            Ended::Adopted(step, outputs) => Ended::Adopted(step, aside(step, outputs)),
            other => other,
        }
    }

    /// Verifies once more an entry that was not kept open, and reads it.
    fn reload(&self, step: u32) -> Ended {
        let at = step as usize;
        let (key, wanted) = (self.wiring.key(at), &self.wanted[self.wiring.slots(at)]);
        let disk = self.store.disk.as_ref();
        let found = disk.and_then(|disk| disk.find(key, wanted, &|| self.stop.is_stopping()));
        match found {
            Some(found) => self.load(step, found),
            None => {
                // It is gone, or the run was stopped: if not, it begins anew without the entry.
                self.note_unreadable(key);
                Ended::Stopped
            }
        }
    }

    fn note_unreadable(&self, key: &[u8; 32]) {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).push(*key);
    }

    fn load(&self, step: u32, found: Verified) -> Ended {
        let (begun, at) = (Instant::now(), step as usize);
        let going_on = || if self.stop.is_stopping() { Err(Error::Cancelled) } else { Ok(()) };
        let bytes = found.header.memory;
        // Frames are not waited for: they take their own leases.
        let admission = (bytes >= UNGOVERNED)
            .then(|| self.services.ledger.admit(bytes, &[], &going_on))
            .transpose();
        if admission.is_err() {
            return Ended::Stopped;
        }
        let key = self.wiring.key(at);
        match self.store.read(key, found, self.services) {
            Ok(outputs) => {
                let seconds = begun.elapsed().as_secs_f64();
                self.say(finished(self.wiring, at, &outputs, Cached::Disk, seconds));
                Ended::Loaded(step, outputs)
            }
            Err(error) => {
                let name = self.wiring.name(at);
                tracing::warn!("The cached result of `{name}` could not be read: {error}.");
                self.note_unreadable(key);
                // The run begins anew without the entry.
                Ended::Stopped
            }
        }
    }

    fn choose(&self, step: u32, values: Vec<Option<Value>>) -> Ended {
        let chosen = self.node(step).and_then(|node| {
            let ports = &node.signature().inputs;
            let inputs = Inputs::new(ports, &values);
            let names = guarded(|| node.choose(self.services, &inputs))?;
            let index = |name: String| {
                let port = ports.iter().position(|port| port.name == name && port.lazy);
                let port = port.map(|port| port as u32);
                port.ok_or_else(|| Error::failed(format!("it has no input `{name}` to choose")))
            };
            names.into_iter().map(index).collect::<Result<Vec<_>>>()
        });
        match chosen {
            Ok(ports) => Ended::Chose(step, values, ports),
            Err(error) => {
                self.say(self.started(step));
                self.fail(step, &error)
            }
        }
    }

    /// Computes a step. `place` is emptied once its place was freed.
    fn run(&self, step: u32, mut values: Vec<Option<Value>>, place: &Cell<Option<bool>>) -> Ended {
        let (at, heavy) = (step as usize, place.get() == Some(true));
        // In this order: a sink of a run that was superseded meanwhile has begun, or never will.
        let _writing =
            self.wiring.traits(at).sink.then(|| self.in_flight.begin_sink(self.run, self.graph));
        let here = self.stop.begin(step, Key(*self.wiring.key(at)));
        let cancel = here.cancel();
        if cancel.is_cancelled() {
            return Ended::Stopped;
        }
        let joined = self.may_share(at).then(|| (Instant::now(), self.join_or_start(at, cancel)));
        let guard = match joined {
            None => None,
            Some((_, Ok(Computed::Here(guard)))) => guard,
            Some((begun, Ok(Computed::There(outputs)))) => {
                let seconds = begun.elapsed().as_secs_f64();
                self.twins.leave(at, &outputs);
                self.say(finished(self.wiring, at, &outputs, Cached::Memory, seconds));
                return Ended::Adopted(step, outputs);
            }
            Some((_, Err(_))) => return Ended::Stopped,
        };
        self.say(self.started(step));
        let begun = Instant::now();
        let told = Mutex::default();
        let result = self.occupied(heavy, cancel, || {
            let admission = self.admit(at, cancel)?;
            let mut compute = || self.compute(at, &mut values, (cancel, &told), begun);
            match &admission {
                Some(admission) => admission.scope(compute),
                None => compute(),
            }
        });
        let seconds = begun.elapsed().as_secs_f64();
        drop(values);
        match result {
            Ok(outputs) => {
                // The device need not wait for the disk.
                if heavy {
                    place.set(None);
                    self.schedule().free(true);
                    self.wake.notify_one();
                }
                self.store.keep(self.wiring, at, &outputs, seconds, self.services);
                self.twins.leave(at, &outputs);
                guard.into_iter().for_each(|guard| guard.complete(&outputs));
                let mut event = finished(self.wiring, at, &outputs, Cached::None, seconds);
                if let Event::Finished { notes, .. } = &mut event {
                    *notes = told.into_inner().unwrap_or_else(PoisonError::into_inner);
                }
                self.say(event);
                Ended::Finished(step, outputs)
            }
            Err(Error::Cancelled) if cancel.is_cancelled() => Ended::Stopped,
            Err(error) => self.fail(step, &error),
        }
    }

    /// Whether another run, or another step of the same key, may compute a step's outputs.
    fn may_share(&self, at: usize) -> bool {
        let shares = self.store.keeps || self.twins.wanted(at).is_some();
        shares && !self.wiring.traits(at).sink
    }

    /// Waits for the outputs if another run, or another step of the same key, is computing them; if
    /// there is none, or it does not come to have them, the step is computed here.
    fn join_or_start(&self, at: usize, cancel: &Cancel) -> Result<Computed<'r>> {
        let (key, wanted) = (self.wiring.key(at), &self.wanted[self.wiring.slots(at)]);
        let kept = || {
            let left = self.twins.find(at, wanted);
            left.or_else(|| self.store.in_memory(self.wiring, at, wanted))
        };
        let all_wanted = self.twins.wanted(at).unwrap_or(wanted);
        self.in_flight.join_or_start(key, (wanted, all_wanted), cancel, kept)
    }

    /// Does `f` while the device is occupied, where the step is a heavy one.
    fn occupied<T>(
        &self,
        heavy: bool,
        cancel: &Cancel,
        f: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let _occupied = if heavy { Some(self.device.occupy(cancel)?) } else { None };
        f()
    }

    /// Waits until there is memory for a step. Frames that it gives are not waited for: where
    /// memory ends, they go to files.
    fn admit(&self, at: usize, cancel: &Cancel) -> Result<Option<Admission>> {
        let step = &self.wiring.plan.steps[at];
        let bytes = firm(step);
        if bytes < UNGOVERNED {
            return Ok(None);
        }
        let weights: Vec<[u8; 32]> = step.weights.iter().map(|weights| weights.id).collect();
        let ledger = match self.wiring.traits(at).heavy {
            true => self.services.device_ledger(),
            false => &self.services.ledger,
        };
        ledger.check(bytes, "the node")?;
        ledger.admit(bytes, &weights, &|| cancel.check()).map(Some)
    }

    fn compute(
        &self,
        at: usize,
        values: &mut Vec<Option<Value>>,
        (cancel, told): (&Cancel, &Mutex<Vec<String>>),
        begun: Instant,
    ) -> Result<Outputs> {
        let node = self.node(at as u32)?;
        let (name, op) = (self.wiring.name(at), self.wiring.op(at));
        let span = tracing::debug_span!("node", %name, %op);
        let pace = Mutex::new(Pace::begin(begun));
        let report = |progress: Progress| {
            let Progress { step, of, preview, note } = progress;
            if let Some(note) = note {
                return told.lock().unwrap_or_else(PoisonError::into_inner).push(note);
            }
            tracing::debug!(parent: &span, step, of, "Step done.");
            let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
            let seconds_left = pace.report(step, of, Instant::now());
            self.say(Event::Progress { name: Arc::clone(name), step, of, seconds_left, preview });
        };
        let wanted = self.twins.wanted(at).unwrap_or(&self.wanted[self.wiring.slots(at)]);
        let mut cx = Cx {
            name,
            services: self.services,
            cancel,
            record: self.record,
            reads: self.wiring.reads(at),
            wanted,
            report: &report,
        };
        // Ranges and choices hold for values that only this run gives, as well.
        let ports = &node.signature().inputs;
        fit_values(ports, values)?;
        let inputs = Inputs::new(ports, values);
        let scope = self.services.find::<CancelScope>().map(|scope| scope.0(cancel));
        let outputs = span.in_scope(|| guarded(|| node.run(&mut cx, &inputs)));
        drop(scope);
        let was_cancelled = matches!(&outputs, Err(Error::Cancelled));
        // A node that fails on a file which is being replaced is not to blame.
        if !was_cancelled {
            reads::verify(self.wiring.reads(at))?;
        }
        let mut outputs = outputs?;
        complete(node.as_ref(), wanted, &mut outputs)?;
        Ok(outputs)
    }

    fn node(&self, step: u32) -> Result<&Arc<dyn Node>> {
        let at = step as usize;
        self.wiring.node(at).ok_or_else(|| {
            Error::advised(
                format!("there is no node `{}`", self.wiring.op(at)),
                "plan again: the nodes have changed since",
            )
        })
    }

    fn started(&self, step: u32) -> Event {
        let at = step as usize;
        Event::Started {
            name: Arc::clone(self.wiring.name(at)),
            op: Arc::clone(self.wiring.op(at)),
        }
    }

    fn fail(&self, step: u32, error: &Error) -> Ended {
        let at = step as usize;
        let failure = StepFailure {
            name: Arc::clone(self.wiring.name(at)),
            op: Arc::clone(self.wiring.op(at)),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
            code: error.code().to_owned(),
        };
        let StepFailure { name, op, message, hint, code } = failure.clone();
        self.failures().push(failure);
        self.say(Event::Failed { name, op, message, hint, code });
        Ended::Failed(step)
    }
}

/// Turns a panic of the node into an error.
fn guarded<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    catch(f).unwrap_or_else(|message| Err(panicked("the node", &message)))
}

/// The error that a panic becomes.
fn panicked(who: &str, message: &str) -> Error {
    Error::advised(
        format!("{who} panicked: {message}"),
        "this is a bug of the node, or of a type of its values; please report it",
    )
}

/// Checks that all wanted outputs are there, and drops those that nobody wants.
fn complete(node: &dyn Node, wanted: &[bool], outputs: &mut Outputs) -> Result<()> {
    let ports = &node.signature().outputs;
    if outputs.len() != ports.len() {
        let (expected, found) = (ports.len(), outputs.len());
        return Err(Error::failed(format!("the node gave {found} outputs instead of {expected}")));
    }
    for ((port, wanted), output) in ports.iter().zip(wanted).zip(outputs) {
        match (wanted, output.is_some()) {
            (true, false) => {
                return Err(Error::failed(format!("the node gave nothing at `{}`", port.name)));
            }
            (false, true) => *output = None,
            _ => {}
        }
    }
    Ok(())
}
