//! Weights that are in memory: shared by what they hold, counted by the ledger, and let go where
//! memory ends and nobody computes with them.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use kino_node::{Lease, Ledger, Pinned, Reclaim, Result};

/// Identifies weights as they are in memory: their files, the network that was read, the type.
pub(super) type WeightsId = [u8; 32];

/// What weights are asked for.
pub(super) struct Wanted<'a> {
    /// What identifies them.
    pub(super) id: WeightsId,
    /// What identifies the files that they are read from.
    pub(super) files: [u8; 32],
    /// The memory that they will take.
    pub(super) bytes: u64,
    /// What they are, for messages.
    pub(super) what: &'a str,
}

/// A loaded part. Its memory is counted until the last user lets go of it.
pub struct Resident<T: ?Sized> {
    part: Arc<T>,
    _lease: Lease,
}

impl<T: ?Sized> Resident<T> {
    /// The part itself; its memory is counted as long as somebody has this [`Resident`].
    pub(super) fn part(&self) -> &Arc<T> {
        &self.part
    }
}

impl<T: ?Sized> Deref for Resident<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.part
    }
}

/// A part that is being loaded, or was; empty where it left.
type Slot = Arc<Mutex<Option<Entry>>>;

struct Entry {
    part: Arc<dyn Any + Send + Sync>,
    files: [u8; 32],
    bytes: u64,
    /// When it was last asked for, on the clock of [`Residents`].
    used: u64,
}

impl Entry {
    /// Whether nobody computes with it.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.part) == 1
    }
}

/// All resident parts of a process.
pub(super) struct Residents {
    ledger: Arc<Ledger>,
    slots: Mutex<HashMap<WeightsId, Slot>>,
    clock: AtomicU64,
}

impl Residents {
    /// None yet; `ledger` counts them, and asks for them back.
    pub(super) fn new(ledger: Arc<Ledger>) -> Arc<Self> {
        let residents = Arc::new(Residents {
            ledger: Arc::clone(&ledger),
            slots: Mutex::default(),
            clock: AtomicU64::default(),
        });
        let reclaim: Arc<dyn Reclaim> = Arc::clone(&residents) as Arc<dyn Reclaim>;
        ledger.reclaim_from(Arc::downgrade(&reclaim));
        residents
    }

    /// The memory that they may take with all else.
    pub(super) fn budget(&self) -> u64 {
        self.ledger.budget()
    }

    /// The part that is wanted, loaded by `load` where it is not there.
    ///
    /// # Errors
    /// When there is no memory for it, or `load` fails.
    pub(super) fn get<T: ?Sized + Send + Sync + 'static>(
        &self,
        wanted: Wanted<'_>,
        load: impl FnOnce() -> Result<Arc<T>>,
    ) -> Result<Arc<Resident<T>>> {
        let Wanted { id, files, bytes, what } = wanted;
        let slot = Arc::clone(lock(&self.slots).entry(id).or_default());
        // Held while loading, so that nobody else loads the same part meanwhile. Whoever asks for
        // memory back passes over it.
        let mut slot = lock(&slot);
        let used = self.clock.fetch_add(1, Ordering::Relaxed);
        if let Some(entry) = slot.as_mut()
            && let Ok(part) = Arc::clone(&entry.part).downcast()
        {
            entry.used = used;
            return Ok(part);
        }
        let started = std::time::Instant::now();
        let lease = self.ledger.lease(bytes, what)?;
        let part = Arc::new(Resident { part: load()?, _lease: lease });
        tracing::debug!(part = what, bytes, elapsed = ?started.elapsed(), "Weights read.");
        let entry = Arc::clone(&part) as Arc<dyn Any + Send + Sync>;
        *slot = Some(Entry { part: entry, files, bytes, used });
        Ok(part)
    }

    /// Lets the parts go that were read from these files; who computes with one still has it.
    pub(super) fn forget(&self, files: &[[u8; 32]]) {
        self.remove(|entry| files.contains(&entry.files));
    }

    /// Lets all parts go; who computes with one still has it.
    pub(super) fn clear(&self) {
        self.remove(|_| true);
    }

    fn remove(&self, which: impl Fn(&Entry) -> bool) {
        let slots = lock(&self.slots);
        let taken = slots.values().filter_map(|slot| try_lock(slot)?.take_if(|entry| which(entry)));
        let gone: Vec<Entry> = taken.collect();
        drop(slots);
        drop(gone); // what a lease gives back comes home to the ledger: no lock is held
    }

    /// The parts that are loaded and that nobody computes with, those first that were not asked for
    /// longest.
    fn idle(&self) -> Vec<(u64, WeightsId, u64)> {
        let slots = lock(&self.slots);
        let mut idle: Vec<_> = slots
            .iter()
            .filter_map(|(id, slot)| {
                let slot = try_lock(slot)?;
                let entry = slot.as_ref().filter(|entry| entry.is_idle())?;
                Some((entry.used, *id, entry.bytes))
            })
            .collect();
        idle.sort_unstable();
        idle
    }

    /// Takes a part out, if nobody computes with it.
    fn take_idle(&self, id: &WeightsId) -> Option<Entry> {
        let mut slots = lock(&self.slots);
        let slot = Arc::clone(slots.get(id)?);
        let taken = try_lock(&slot)?.take_if(|entry| entry.is_idle());
        // The map and this function hold the slot; a third one is about to load the part.
        if taken.is_some() && Arc::strong_count(&slot) == 2 {
            slots.remove(id);
        }
        taken
    }
}

impl Reclaim for Residents {
    fn held(&self) -> u64 {
        self.idle().into_iter().map(|(_, _, bytes)| bytes).sum()
    }

    fn reclaim(&self, bytes: u64) -> u64 {
        let mut given = 0;
        for (_, id, _) in self.idle() {
            if given >= bytes {
                break;
            }
            given += self.take_idle(&id).map_or(0, |entry| entry.bytes);
        }
        given
    }

    fn pin(&self, weights: &[WeightsId]) -> Pinned {
        let weights: HashSet<&WeightsId> = weights.iter().collect();
        let slots = lock(&self.slots);
        let mut pinned = Pinned::default();
        for slot in weights.into_iter().filter_map(|id| slots.get(id)) {
            if let Some(slot) = try_lock(slot)
                && let Some(entry) = slot.as_ref()
            {
                pinned.bytes += entry.bytes;
                pinned.guards.push(Arc::clone(&entry.part));
            }
        }
        pinned
    }
}

/// What a panic left behind is whole: every place is filled in one step.
fn lock<T>(place: &Mutex<T>) -> MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The place, unless somebody works on it.
fn try_lock<T>(place: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match place.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(residents: &Residents, id: u8, bytes: u64) -> Result<Arc<Resident<u8>>> {
        let wanted = Wanted { id: [id; 32], files: [id / 2; 32], bytes, what: "weights" };
        residents.get(wanted, || Ok(Arc::new(id)))
    }

    #[test]
    fn idle_parts_leave_the_longest_unused_first() {
        let ledger = Ledger::new(100);
        let residents = Residents::new(Arc::clone(&ledger));
        for id in [1, 2, 3] {
            load(&residents, id, 30).unwrap();
        }
        let first = load(&residents, 1, 30).unwrap();
        assert_eq!((ledger.used(), residents.held()), (90, 60), "1 is in use");
        load(&residents, 4, 30).unwrap();
        assert_eq!(residents.idle().iter().map(|(_, id, _)| id[0]).collect::<Vec<_>>(), [3, 4]);
        assert!(load(&residents, 5, 80).is_err(), "1 stays");
        assert_eq!((ledger.used(), **first), (30, 1));
        drop(first);
        load(&residents, 5, 80).unwrap();
        assert_eq!(ledger.used(), 80);
        residents.forget(&[[1; 32]]);
        assert_eq!(ledger.used(), 80, "of other files");
        residents.forget(&[[2; 32]]);
        assert_eq!(ledger.used(), 0);
    }

    #[test]
    fn a_pinned_part_stays() {
        let ledger = Ledger::new(100);
        let residents = Residents::new(Arc::clone(&ledger));
        load(&residents, 1, 60).unwrap();
        let pinned = residents.pin(&[[1; 32], [1; 32], [2; 32]]);
        assert_eq!((pinned.bytes, residents.held()), (60, 0));
        assert!(load(&residents, 2, 60).is_err());
        drop(pinned);
        load(&residents, 2, 60).unwrap();
    }

    #[test]
    fn a_part_that_left_is_counted_while_it_is_used() {
        let ledger = Ledger::new(100);
        let residents = Residents::new(Arc::clone(&ledger));
        let used = load(&residents, 1, 60).unwrap();
        residents.clear();
        assert_eq!(ledger.used(), 60);
        drop(used);
        assert_eq!(ledger.used(), 0);
    }
}
