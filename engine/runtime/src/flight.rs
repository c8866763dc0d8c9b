//! Steps in flight: what one run is computing, another run of the same runtime waits for rather
//! than computes again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kino_node::{Cancel, GraphId, Outputs, Result, RunId};

use crate::disk::covers;
use crate::stop::Stop;

/// How often a step that waits for another run looks whether its own run was cancelled.
const LOOK: Duration = Duration::from_millis(20);

/// The steps in flight of all runs.
#[derive(Default)]
pub(crate) struct Flights {
    by_key: Mutex<HashMap<[u8; 32], Arc<Flight>>>,
    /// By graph and run: how many sinks are writing.
    sinks: Mutex<BTreeMap<(Option<GraphId>, RunId), usize>>,
    /// Told when a sink has ended.
    written: Condvar,
}

/// One step in flight.
pub(crate) struct Flight {
    run: RunId,
    wanted: Vec<bool>,
    landed: Mutex<Landed>,
    told: Condvar,
}

enum Landed {
    Not,
    With(Outputs),
    /// It failed or was cancelled.
    Without,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    /// The flight of another run that will give what is wanted.
    pub(crate) fn of_others(
        &self,
        key: &[u8; 32],
        wanted: &[bool],
        run: RunId,
    ) -> Option<Arc<Flight>> {
        let flight = lock(&self.by_key).get(key).cloned()?;
        (flight.run != run && covers(&flight.wanted, wanted)).then_some(flight)
    }

    /// Enters a flight, unless there is one of this key. It ends when the ticket is dropped.
    pub(crate) fn begin(&self, key: [u8; 32], wanted: &[bool], run: RunId) -> Option<Ticket<'_>> {
        let (wanted, landed) = (wanted.to_vec(), Mutex::new(Landed::Not));
        let flight = Arc::new(Flight { run, wanted, landed, told: Condvar::new() });
        let mut flights = lock(&self.by_key);
        if flights.contains_key(&key) {
            return None;
        }
        flights.insert(key, Arc::clone(&flight));
        Some(Ticket { flights: self, key, flight })
    }

    /// A sink of a run begins to write, until the guard is dropped.
    pub(crate) fn write(&self, run: RunId, graph: Option<&GraphId>) -> Writing<'_> {
        let of = (graph.cloned(), run);
        *lock(&self.sinks).entry(of.clone()).or_default() += 1;
        Writing { flights: self, of }
    }

    /// Waits until no older run of the same graph is writing: what stands in files is what the
    /// newest run wrote, and a run sees what those before it left. Runs of other graphs go on.
    pub(crate) fn let_older_write(&self, run: RunId, graph: Option<&GraphId>, stop: &Stop) {
        let older = (graph.cloned(), RunId(0))..(graph.cloned(), run);
        let mut sinks = lock(&self.sinks);
        while sinks.range(older.clone()).next().is_some() && !stop.is_stopping() {
            let waited = self.written.wait_timeout(sinks, LOOK);
            sinks = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A sink that writes.
pub(crate) struct Writing<'f> {
    flights: &'f Flights,
    of: (Option<GraphId>, RunId),
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut sinks = lock(&self.flights.sinks);
        if let Some(count) = sinks.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                sinks.remove(&self.of);
            }
        }
        drop(sinks);
        self.flights.written.notify_all();
    }
}

impl Flight {
    /// Waits for the outputs; none if the other run did not come to have them.
    ///
    /// # Errors
    /// When the run that waits is cancelled.
    pub(crate) fn wait(&self, cancel: &Cancel) -> Result<Option<Outputs>> {
        let mut landed = lock(&self.landed);
        loop {
            match &*landed {
                Landed::With(outputs) => return Ok(Some(outputs.clone())),
                Landed::Without => return Ok(None),
                Landed::Not => cancel.check()?,
            }
            landed = self.told.wait_timeout(landed, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A step in flight, for the run that computes it.
pub(crate) struct Ticket<'f> {
    flights: &'f Flights,
    key: [u8; 32],
    flight: Arc<Flight>,
}

impl Ticket<'_> {
    /// Gives the outputs to all who wait for them.
    pub(crate) fn land(self, outputs: &Outputs) {
        *lock(&self.flight.landed) = Landed::With(outputs.clone());
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        lock(&self.flights.by_key).remove(&self.key);
        let mut landed = lock(&self.flight.landed);
        if matches!(*landed, Landed::Not) {
            *landed = Landed::Without;
        }
        drop(landed);
        self.flight.told.notify_all();
    }
}
