//! What the caches hold of a plan's steps: first what they claim, by which a run is announced, then
//! what was found right, on which it relies.
//!
//! Verifying an entry reads all of it. Of a long video that is many gigabytes, so it is done after
//! the run was announced, by several threads, and ends as soon as the run is stopped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kino_node::Services;

use crate::demand::Demand;
use crate::event::CacheStatus;
use crate::store::{Ahead, Claim, Hit, Store};
use crate::waiting::Waiting;
use crate::wanted::covers;
use crate::wiring::Wiring;

/// What is known of one step.
enum State {
    /// Nobody has asked.
    Unknown,
    /// An entry says that it holds these outputs.
    Claimed(Vec<bool>),
    /// It was found.
    Found(Hit),
    /// There is nothing, or it was broken.
    Missing,
}

/// What the caches hold of the steps of one run.
pub(crate) struct Hits<'r> {
    store: &'r Store,
    wiring: &'r Wiring<'r>,
    services: &'r Services,
    /// The keys of entries that could not be read: they count as missing.
    unreadable: &'r [[u8; 32]],
    by_step: Vec<State>,
    waiting: &'r Waiting<'r>,
    /// What is open or was read before its turn comes.
    ahead: Ahead,
    /// Whether claims count no more: there was no time to verify them.
    given_up: bool,
}

impl<'r> Hits<'r> {
    pub(crate) fn new(
        store: &'r Store,
        wiring: &'r Wiring<'r>,
        services: &'r Services,
        waiting: &'r Waiting<'r>,
        unreadable: &'r [[u8; 32]],
    ) -> Self {
        let by_step = (0..wiring.steps()).map(|_| State::Unknown).collect();
        let ahead = Ahead::default();
        Hits { store, wiring, services, unreadable, by_step, waiting, ahead, given_up: false }
    }

    /// What is needed, going by what is known so far.
    pub(crate) fn demand(&mut self) -> Demand<CacheStatus> {
        Demand::new(self.wiring, |step, wanted: &[bool]| self.status(step, wanted))
    }

    /// Verifies what was only claimed until all that a demand relies on was found, and returns that
    /// demand with what was found, by step. Once `stopped` says so, what was not verified by then
    /// counts as missing.
    pub(crate) fn verified(
        mut self,
        mut demand: Demand<CacheStatus>,
        threads: usize,
        stopped: &(dyn Fn() -> bool + Sync),
    ) -> (Demand<CacheStatus>, Vec<Option<Hit>>) {
        loop {
            let steps = demand.hits.iter().enumerate().filter(|(_, hit)| hit.is_some());
            let claimed = |step: &usize| matches!(self.by_step[*step], State::Claimed(_));
            let claimed: Vec<usize> = steps.map(|(step, _)| step).filter(claimed).collect();
            if claimed.is_empty() {
                break;
            }
            self.verify(&claimed, &demand, threads, stopped);
            self.given_up = stopped();
            // Without the entries that were broken, inputs are needed that were not before; what
            // the caches claim to hold of those is verified in the next turn.
            demand = self.demand();
        }
        let hits = self.by_step.into_iter().zip(&demand.hits);
        let hits = hits.map(|(state, hit)| match state {
            State::Found(found) if hit.is_some() => Some(found),
            _ => None,
        });
        let hits = hits.collect();
        (demand, hits)
    }

    fn status(&mut self, step: usize, wanted: &[bool]) -> Option<CacheStatus> {
        match &self.by_step[step] {
            State::Found(hit) if hit.covers(wanted) => return Some(hit.status()),
            State::Claimed(holds) if !self.given_up && covers(holds, wanted) => {
                return Some(CacheStatus::Disk);
            }
            State::Missing => return None,
            _ if self.given_up => return None,
            _ if self.unreadable.contains(self.wiring.key(step)) => return None,
            // Not asked yet, or for fewer outputs.
            _ => {}
        }
        let (state, status) = match self.store.claim(self.wiring, step, wanted) {
            Some(Claim::Found(hit)) => {
                let status = hit.status();
                (State::Found(hit), Some(status))
            }
            Some(Claim::Stored(holds)) => (State::Claimed(holds), Some(CacheStatus::Disk)),
            None => (State::Missing, None),
        };
        self.by_step[step] = state;
        status
    }

    fn verify(
        &mut self,
        steps: &[usize],
        demand: &Demand<CacheStatus>,
        threads: usize,
        stopped: &(dyn Fn() -> bool + Sync),
    ) {
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Vec::with_capacity(steps.len()));
        let (store, wiring, services, ahead) =
            (self.store, self.wiring, self.services, &self.ahead);
        let work = || {
            while let Some(step) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stopped() {
                    return;
                }
                let wanted = &demand.wanted[wiring.slots(*step)];
                let hit = store.find(wiring, *step, wanted, services, ahead, stopped);
                let hit = hit.map(|hit| hit.set_aside(*step, self.waiting));
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.push((*step, hit));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(steps.len()) {
                let thread = std::thread::Builder::new().name("verify".into());
                // This thread does what no other one does.
                if thread.spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        for (step, hit) in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            self.by_step[step] = hit.map_or(State::Missing, State::Found);
        }
    }
}
