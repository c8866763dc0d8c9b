//! The memory ledger: who holds how much of the memory that a process may use.
//!
//! There is one for main memory; a device with memory of its own gets one of its own. What lives
//! long takes a [`Lease`]: values in flight, cached values, resident weights. A step takes an
//! [`Admission`] for what it will need and draws its own leases from it, so nothing is counted
//! twice. Where room is missing, the ledger asks what can do without ([`Reclaim`]) before it
//! refuses. What is moved to temporary files is counted apart.
//!
//! **Overcommit.** A step that must wait for memory waits only while other steps are admitted:
//! those end, and give back. When none is, the next one goes on although values of several runs
//! fill the budget; otherwise two runs that hold values and need more would wait for each other
//! for ever. So what a ledger counts can exceed the budget, by what is in flight when one step at
//! a time goes on.
//!
//! **Order.** Steps that wait stand in a queue. One that fits may overtake those before it, but
//! each of them only so often; then all wait for the first. What can be done without leaves for the
//! first in line alone, and only where that lets it go on.
//!
//! It knows nothing of values, nodes or models.

mod queue;
mod reserve;
mod room;

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kino_port::{code, format_bytes};

use crate::{Error, Result};
use queue::Queue;
use reserve::Reserve;
pub use room::spill_room;

/// How often a step that waits for memory looks whether its run was cancelled.
const LOOK: Duration = Duration::from_millis(20);
/// What may be used of main memory and of temporary files, and who uses it.
pub struct Ledger {
    budget: u64,
    folder: PathBuf,
    spill_budget: u64,
    counts: Mutex<Counts>,
    /// Told when something was given back.
    freed: Condvar,
    reclaimers: Mutex<Vec<Weak<dyn Reclaim>>>,
}

#[derive(Default)]
struct Counts {
    /// Leases, and what admitted steps may still draw.
    used: u64,
    peak: u64,
    spilled: u64,
    /// Steps that are admitted.
    admitted: usize,
    /// Steps that wait.
    queue: Queue,
}

/// A place in the queue, until dropped.
struct Place<'l> {
    ledger: &'l Ledger,
    ticket: u64,
}

/// Something that holds memory which it can do without: cached values, idle weights.
pub trait Reclaim: Send + Sync {
    /// The bytes that it would give back if it were asked for everything.
    fn held(&self) -> u64;

    /// Gives back at least `bytes` where it can, what matters least first, and returns how many.
    fn reclaim(&self, bytes: u64) -> u64;

    /// The same for bytes in temporary files.
    fn reclaim_spilled(&self, _bytes: u64) -> u64 {
        0
    }

    /// Keeps those of the resident weights that are named until the result is dropped.
    fn pin(&self, _weights: &[[u8; 32]]) -> Pinned {
        Pinned::default()
    }
}

/// Weights that are resident and stay so as long as this lives.
#[derive(Default)]
pub struct Pinned {
    /// Their bytes, which the ledger counts already.
    pub bytes: u64,
    /// What keeps them.
    pub guards: Vec<Arc<dyn Any + Send + Sync>>,
}

/// Memory that was asked for and cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} takes {}, more than there is: {} are allowed and {} in use",
    format_bytes(*needed), format_bytes(*allowed), format_bytes(*used)
)]
pub struct OutOfMemory {
    /// What the memory is for.
    pub what: String,
    /// The bytes asked for.
    pub needed: u64,
    /// The bytes that all may use together.
    pub allowed: u64,
    /// The bytes in use at the time.
    pub used: u64,
}

/// What helps where memory ends.
pub const OUT_OF_MEMORY_HINT: &str = "make fewer or smaller frames, set a `tile`, compute in bf16, or allow more \
with --memory or KINO_MEMORY";

/// What helps where frames fit neither into memory nor into temporary files.
pub const OUT_OF_SPILL_HINT: &str = "make fewer or smaller frames, allow more memory with --memory or KINO_MEMORY, or more \
temporary files: free some space, name another folder in TMPDIR, or set KINO_SPILL";

impl From<OutOfMemory> for Error {
    fn from(error: OutOfMemory) -> Self {
        Error::advised(error.to_string(), OUT_OF_MEMORY_HINT).with_code(code::OUT_OF_MEMORY)
    }
}

/// Bytes that somebody holds, until dropped.
pub struct Lease {
    ledger: Arc<Ledger>,
    bytes: u64,
}

/// Bytes in temporary files, until dropped.
pub(crate) struct SpillLease {
    ledger: Arc<Ledger>,
    bytes: u64,
}

/// A step's right to run: what it asked for is set aside, until this is dropped.
pub struct Admission {
    ledger: Arc<Ledger>,
    reserve: Arc<Reserve>,
    _pinned: Vec<Pinned>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// A ledger of `budget` bytes; what is moved out of memory goes to the folder for temporary
    /// files, as much as is free there less a reserve.
    pub fn new(budget: u64) -> Arc<Self> {
        let folder = std::env::temp_dir();
        let spill = spill_room(&folder);
        Ledger::with_spill(budget, folder, spill)
    }

    /// A ledger of `budget` bytes; what is moved out of memory goes to files in `folder`, up to
    /// `spill_budget` bytes.
    pub fn with_spill(budget: u64, folder: impl Into<PathBuf>, spill_budget: u64) -> Arc<Self> {
        Arc::new(Ledger {
            budget,
            folder: folder.into(),
            spill_budget,
            counts: Mutex::default(),
            freed: Condvar::new(),
            reclaimers: Mutex::default(),
        })
    }

    /// The bytes that all may use together.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// The bytes in use, or set aside for steps that run.
    pub fn used(&self) -> u64 {
        lock(&self.counts).used
    }

    /// The most that was ever in use.
    pub fn peak(&self) -> u64 {
        lock(&self.counts).peak
    }

    /// The bytes that lie in temporary files.
    pub fn spilled(&self) -> u64 {
        lock(&self.counts).spilled
    }

    /// The bytes that may lie in temporary files.
    pub fn spill_budget(&self) -> u64 {
        self.spill_budget
    }

    /// How much of these weights is resident.
    pub fn resident(&self, weights: &[[u8; 32]]) -> u64 {
        let pinned = self.reclaimers().into_iter().map(|reclaimer| reclaimer.pin(weights).bytes);
        pinned.sum()
    }

    /// The bytes that would leave if room were needed: cached values, idle weights.
    pub fn reclaimable(&self) -> u64 {
        self.reclaimers().iter().map(|reclaimer| reclaimer.held()).sum()
    }

    /// Where temporary files are made.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Who is asked when room is missing, after those that were named before.
    pub fn reclaim_from(&self, reclaimer: Weak<dyn Reclaim>) {
        let mut reclaimers = lock(&self.reclaimers);
        reclaimers.retain(|reclaimer| reclaimer.strong_count() > 0);
        reclaimers.push(reclaimer);
    }

    /// A lease on `bytes` for `what`: from what was set aside for the step that this thread runs,
    /// else from what is free, else from what others can do without.
    ///
    /// # Errors
    /// When that is not enough.
    pub fn lease(self: &Arc<Self>, bytes: u64, what: &str) -> Result<Lease, OutOfMemory> {
        if let Some(lease) = self.try_lease(bytes) {
            return Ok(lease);
        }
        self.make_room(bytes, u64::MAX);
        self.try_lease(bytes).ok_or_else(|| self.out_of_memory(bytes, what))
    }

    /// A lease on bytes that are in use already, whatever the budget says.
    pub fn charge(self: &Arc<Self>, bytes: u64) -> Lease {
        let drawn = reserve::draw(self.number(), bytes);
        let mut counts = lock(&self.counts);
        counts.take(bytes - drawn);
        Lease { ledger: Arc::clone(self), bytes }
    }

    /// Whether `bytes` for `what` could be had if nobody else held anything: large buffers are
    /// checked by this before they are allocated, since an allocation that fails ends the process.
    ///
    /// # Errors
    /// When they could not.
    pub fn check(&self, bytes: u64, what: &str) -> Result<(), OutOfMemory> {
        if bytes <= self.budget { Ok(()) } else { Err(self.out_of_memory(bytes, what)) }
    }

    /// An empty vector with room for `count` elements.
    ///
    /// # Errors
    /// When so much is not allowed, or the machine does not have it.
    pub fn reserve<T>(&self, count: usize, what: &str) -> Result<Vec<T>, OutOfMemory> {
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        self.check(bytes, what)?;
        let mut elements = Vec::new();
        let reserved = elements.try_reserve_exact(count);
        reserved.map_err(|_| self.out_of_memory(bytes, what))?;
        Ok(elements)
    }

    /// Sets `bytes` aside for a step, but for what is resident of the `weights` that it names.
    /// Waits until they fit or no other step is admitted; cached values and idle weights leave
    /// first. `check` ends the waiting.
    ///
    /// # Errors
    /// That of `check`.
    pub fn admit(
        self: &Arc<Self>,
        bytes: u64,
        weights: &[[u8; 32]],
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Admission> {
        let pinned: Vec<Pinned> = match weights {
            [] => Vec::new(),
            _ => self.reclaimers().iter().map(|reclaimer| reclaimer.pin(weights)).collect(),
        };
        let resident = pinned.iter().map(|pinned| pinned.bytes).sum();
        let bytes = bytes.saturating_sub(resident);
        let place = self.queue_up();
        loop {
            check()?;
            let (room, alone) = self.room_to_make(place.ticket, bytes);
            self.make_room(bytes, room);
            let mut counts = lock(&self.counts);
            if counts.may_begin(place.ticket, bytes, self.budget, alone) {
                counts.admitted += 1;
                counts.take(bytes);
                drop(counts);
                let reserve = Reserve::new(self.number(), bytes);
                return Ok(Admission { ledger: Arc::clone(self), reserve, _pinned: pinned });
            }
            if counts.admitted == 0 && !alone && counts.queue.is_first(place.ticket) {
                // The last one has gone since room was looked for: nobody would wake this one.
                continue;
            }
            let waited = self.freed.wait_timeout(counts, LOOK);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn queue_up(&self) -> Place<'_> {
        Place { ledger: self, ticket: lock(&self.counts).queue.join() }
    }

    /// What tells it from other ledgers of the process, as long as it is there.
    fn number(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// What has to leave for a step that waits, and whether no other step holds anything: then it
    /// goes on whatever is missing. Nothing leaves unless it is the first and goes on after it.
    fn room_to_make(&self, ticket: u64, bytes: u64) -> (u64, bool) {
        let (missing, alone) = {
            let counts = lock(&self.counts);
            if !counts.queue.is_first(ticket) {
                return (0, false);
            }
            let missing = counts.used.saturating_add(bytes).saturating_sub(self.budget);
            (missing, counts.admitted == 0)
        };
        let goes_on = alone || missing <= self.reclaimable();
        (if goes_on { missing } else { 0 }, alone)
    }

    /// Counts bytes that go to a temporary file.
    ///
    /// # Errors
    /// When more may not lie there, and what is cached there is not enough.
    pub(crate) fn spill(self: &Arc<Self>, bytes: u64) -> Result<SpillLease> {
        let missing = |ledger: &Ledger| {
            ledger.spilled().saturating_add(bytes).saturating_sub(ledger.spill_budget)
        };
        self.ask_reclaimers(missing, |reclaimer, bytes| reclaimer.reclaim_spilled(bytes));
        let mut counts = lock(&self.counts);
        if counts.spilled.saturating_add(bytes) > self.spill_budget {
            drop(counts);
            let (folder, allowed) = (self.folder.display(), format_bytes(self.spill_budget));
            return Err(Error::advised(
                format!("frames would take more than {allowed} of temporary files in {folder}"),
                OUT_OF_SPILL_HINT,
            )
            .with_code(code::OUT_OF_MEMORY));
        }
        counts.spilled += bytes;
        Ok(SpillLease { ledger: Arc::clone(self), bytes })
    }

    fn try_lease(self: &Arc<Self>, bytes: u64) -> Option<Lease> {
        let drawn = reserve::draw(self.number(), bytes);
        let mut counts = lock(&self.counts);
        let more = bytes - drawn;
        if more > 0 && counts.used.saturating_add(more) > self.budget {
            drop(counts);
            reserve::put_back(self.number(), drawn);
            return None;
        }
        counts.take(more);
        Some(Lease { ledger: Arc::clone(self), bytes })
    }

    fn reclaimers(&self) -> Vec<Arc<dyn Reclaim>> {
        lock(&self.reclaimers).iter().filter_map(Weak::upgrade).collect()
    }

    /// Lets what can be done without leave until `bytes` more fit, or nothing is left that could;
    /// `most` of it, whatever others take meanwhile.
    fn make_room(&self, bytes: u64, most: u64) {
        if bytes > 0 && most > 0 {
            let missing = |ledger: &Ledger| {
                ledger.used().saturating_add(bytes).saturating_sub(ledger.budget).min(most)
            };
            self.ask_reclaimers(missing, |reclaimer, bytes| reclaimer.reclaim(bytes));
        }
    }

    /// Asks one reclaimer after the other for what is missing. No lock is held: what is given back
    /// comes home to this ledger.
    fn ask_reclaimers(
        &self,
        missing: impl Fn(&Ledger) -> u64,
        ask: impl Fn(&dyn Reclaim, u64) -> u64,
    ) {
        if missing(self) == 0 {
            return;
        }
        for reclaimer in self.reclaimers() {
            match missing(self) {
                0 => return,
                bytes => ask(&*reclaimer, bytes),
            };
        }
    }

    fn out_of_memory(&self, needed: u64, what: &str) -> OutOfMemory {
        OutOfMemory { what: what.to_owned(), needed, allowed: self.budget, used: self.used() }
    }

    fn give_back(&self, f: impl FnOnce(&mut Counts)) {
        f(&mut lock(&self.counts));
        self.freed.notify_all();
    }
}

impl Counts {
    /// Whether a step that waits may begin now; `alone`: what can be done without has been asked to
    /// leave while no other step held anything. If so, those that came before it were overtaken.
    fn may_begin(&mut self, ticket: u64, bytes: u64, budget: u64, alone: bool) -> bool {
        let fits = self.used.saturating_add(bytes) <= budget;
        match self.queue.is_first(ticket) {
            true => fits || (alone && self.admitted == 0),
            false => fits && self.queue.overtake(ticket),
        }
    }

    fn take(&mut self, bytes: u64) {
        self.used = self.used.saturating_add(bytes);
        self.peak = self.peak.max(self.used);
    }
}

impl Lease {
    /// The bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Admission {
    /// Does `f` on this thread; leases that it takes meanwhile are drawn from what was set aside.
    pub fn scope<T>(&self, f: impl FnOnce() -> T) -> T {
        self.reserve.scope(f)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.ledger.give_back(|counts| counts.queue.leave(self.ticket));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ledger.give_back(|counts| counts.used = counts.used.saturating_sub(self.bytes));
    }
}

impl Drop for SpillLease {
    fn drop(&mut self) {
        self.ledger.give_back(|counts| counts.spilled = counts.spilled.saturating_sub(self.bytes));
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let left = self.reserve.take_rest();
        self.ledger.give_back(|counts| {
            counts.used = counts.used.saturating_sub(left);
            counts.admitted -= 1;
        });
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = lock(&self.counts);
        f.debug_struct("Ledger")
            .field("budget", &self.budget)
            .field("used", &counts.used)
            .field("peak", &counts.peak)
            .field("spilled", &counts.spilled)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({})", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::queue::OVERTAKINGS;
    use super::*;

    /// Something that holds leases of one byte count each.
    #[derive(Default)]
    struct Hoard(Mutex<Vec<Lease>>);

    impl Reclaim for Hoard {
        fn held(&self) -> u64 {
            lock(&self.0).iter().map(Lease::bytes).sum()
        }

        fn reclaim(&self, bytes: u64) -> u64 {
            let mut given = 0;
            while given < bytes {
                let Some(lease) = lock(&self.0).pop() else { break };
                given += lease.bytes();
            }
            given
        }
    }

    fn go_on() -> Result<()> {
        Ok(())
    }

    #[test]
    fn a_lease_counts_until_it_is_dropped() {
        let ledger = Ledger::new(100);
        let first = ledger.lease(60, "a").unwrap();
        assert_eq!(
            ledger.lease(50, "frames").unwrap_err(),
            OutOfMemory { what: "frames".into(), needed: 50, allowed: 100, used: 60 }
        );
        drop(first);
        let second = ledger.lease(100, "b").unwrap();
        assert_eq!((second.bytes(), ledger.used(), ledger.peak()), (100, 100, 100));
        assert!(ledger.lease(u64::MAX, "c").is_err());
        drop(ledger.charge(50));
        drop(second);
        assert_eq!((ledger.used(), ledger.peak()), (0, 150));
    }

    #[test]
    fn what_can_be_done_without_leaves_first_and_no_more_of_it_than_needed() {
        let ledger = Ledger::new(100);
        let hoard = Arc::new(Hoard::default());
        let as_reclaim: Arc<dyn Reclaim> = hoard.clone();
        ledger.reclaim_from(Arc::downgrade(&as_reclaim));
        (0..9).for_each(|_| lock(&hoard.0).push(ledger.lease(10, "cached").unwrap()));
        let lease = ledger.lease(35, "frames").unwrap();
        assert_eq!((hoard.held(), ledger.used()), (60, 95));
        assert!(ledger.lease(70, "frames").is_err());
        assert_eq!(hoard.held(), 0, "all of it was tried");
        drop(lease);
        assert_eq!(ledger.used(), 0);
    }

    #[test]
    fn a_step_draws_its_leases_from_what_was_set_aside() {
        let ledger = Ledger::new(100);
        let admission = ledger.admit(80, &[], &go_on).unwrap();
        assert_eq!(ledger.used(), 80);
        let (inside, beyond) = admission
            .scope(|| (ledger.lease(60, "frames").unwrap(), ledger.lease(40, "more").unwrap()));
        assert_eq!(ledger.used(), 100, "60 and 20 of 40 were set aside");
        assert!(ledger.lease(1, "another's").is_err());
        assert!(admission.scope(|| ledger.lease(1, "its own")).is_err());
        drop(admission);
        assert_eq!(ledger.used(), 100, "what it made lives on");
        drop((inside, beyond));
        assert_eq!((ledger.used(), ledger.peak()), (0, 100));
    }

    #[test]
    fn a_lease_that_fails_leaves_what_was_set_aside() {
        let ledger = Ledger::new(100);
        let admission = ledger.admit(80, &[], &go_on).unwrap();
        assert!(admission.scope(|| ledger.lease(120, "frames")).is_err());
        let lease = admission.scope(|| ledger.lease(80, "frames")).unwrap();
        drop(admission);
        assert_eq!(ledger.used(), 80);
        drop(lease);
    }

    #[test]
    fn the_second_of_two_large_steps_waits_for_the_first() {
        let ledger = Ledger::new(100);
        let first = ledger.admit(60, &[], &go_on).unwrap();
        let (said, heard) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let second = ledger.admit(60, &[], &go_on).unwrap();
                said.send(ledger.used()).unwrap();
                drop(second);
            });
            assert!(heard.recv_timeout(Duration::from_millis(100)).is_err(), "it waits");
            drop(first);
            assert_eq!(heard.recv().unwrap(), 60);
        });
        assert_eq!((ledger.used(), ledger.peak()), (0, 60));
    }

    #[test]
    fn one_step_may_always_go_on_although_values_fill_the_budget() {
        let ledger = Ledger::new(100);
        let of_two_runs = (ledger.lease(50, "a").unwrap(), ledger.lease(50, "b").unwrap());
        let admission = ledger.admit(40, &[], &go_on).unwrap();
        assert_eq!(ledger.used(), 140);
        drop((admission, of_two_runs));
    }

    #[test]
    fn waiting_ends_when_the_run_is_cancelled() {
        let ledger = Ledger::new(100);
        let _first = ledger.admit(60, &[], &go_on).unwrap();
        let cancelled = || Err(Error::Cancelled);
        assert!(matches!(ledger.admit(60, &[], &cancelled), Err(Error::Cancelled)));
    }

    /// Waits until so many steps stand in the queue.
    fn until_waiting(ledger: &Ledger, steps: usize) {
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while lock(&ledger.counts).queue.len() < steps {
            assert!(std::time::Instant::now() < until, "{steps} steps wait");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_large_step_is_overtaken_by_small_ones_only_so_often() {
        let ledger = Ledger::new(100);
        let mut held = ledger.admit(10, &[], &go_on).unwrap();
        let (tell, told) = mpsc::channel();
        let large = std::thread::spawn({
            let ledger = Arc::clone(&ledger);
            move || {
                let admission = ledger.admit(95, &[], &go_on).unwrap();
                tell.send(ledger.used()).unwrap();
                drop(admission);
            }
        });
        until_waiting(&ledger, 1);
        let mut overtook = 0;
        for _ in 0..1000 {
            // Asked a second time, a step waits.
            let looks = std::cell::Cell::new(0);
            let once = || {
                looks.set(looks.get() + 1);
                if looks.get() > 1 { Err(Error::Cancelled) } else { Ok(()) }
            };
            // The next one is there before the last one goes: the large one never has room.
            let Ok(next) = ledger.admit(10, &[], &once) else { break };
            held = next;
            overtook += 1;
        }
        assert_eq!(overtook, OVERTAKINGS);
        assert!(told.try_recv().is_err());
        drop(held);
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(95));
        large.join().unwrap();
        assert_eq!((ledger.used(), lock(&ledger.counts).queue.len()), (0, 0));
    }

    #[test]
    fn nothing_leaves_for_a_step_that_waits_all_the_same() {
        let ledger = Ledger::new(100);
        let hoard = Arc::new(Hoard::default());
        let as_reclaim: Arc<dyn Reclaim> = hoard.clone();
        ledger.reclaim_from(Arc::downgrade(&as_reclaim));
        (0..3).for_each(|_| lock(&hoard.0).push(ledger.lease(10, "cached").unwrap()));
        let first = ledger.admit(60, &[], &go_on).unwrap();
        let wait = |bytes: u64| {
            let ledger = Arc::clone(&ledger);
            std::thread::spawn(move || drop(ledger.admit(bytes, &[], &go_on).unwrap()))
        };
        let large = wait(90);
        until_waiting(&ledger, 1);
        // Behind it one for which enough could leave, which is not its turn.
        let small = wait(35);
        until_waiting(&ledger, 2);
        std::thread::sleep(3 * LOOK);
        assert_eq!((hoard.held(), ledger.used()), (30, 90));
        drop(first);
        large.join().unwrap();
        small.join().unwrap();
        assert_eq!((hoard.held(), ledger.used()), (10, 10), "as much left as the large one needed");
    }

    #[test]
    fn weights_that_are_resident_are_not_asked_for_again() {
        struct Weights(Arc<u8>);
        impl Reclaim for Weights {
            fn held(&self) -> u64 {
                0
            }
            fn reclaim(&self, _: u64) -> u64 {
                0
            }
            fn pin(&self, weights: &[[u8; 32]]) -> Pinned {
                let here = weights.contains(&[7; 32]);
                let guards: Vec<Arc<dyn Any + Send + Sync>> =
                    if here { vec![self.0.clone()] } else { Vec::new() };
                Pinned { bytes: if here { 70 } else { 0 }, guards }
            }
        }
        let ledger = Ledger::new(100);
        let weights: Arc<Weights> = Arc::new(Weights(Arc::new(1)));
        let as_reclaim: Arc<dyn Reclaim> = weights.clone();
        ledger.reclaim_from(Arc::downgrade(&as_reclaim));
        let _resident = ledger.charge(70);
        let admission = ledger.admit(90, &[[7; 32]], &go_on).unwrap();
        assert_eq!((ledger.used(), Arc::strong_count(&weights.0)), (90, 2));
        drop(admission);
        assert_eq!((ledger.used(), Arc::strong_count(&weights.0)), (70, 1));
    }

    #[test]
    fn a_buffer_of_seventy_terabytes_is_an_error() {
        let error = Ledger::new(1 << 30).reserve::<f32>(1 << 44, "noise").unwrap_err();
        assert_eq!(
            error.to_string(),
            "noise takes 70 TB, more than there is: 1.1 GB are allowed and 0 B in use"
        );
        assert!(Ledger::new(u64::MAX).reserve::<f32>(1 << 46, "noise").is_err());
        assert!(Ledger::new(u64::MAX).reserve::<f32>(usize::MAX, "noise").is_err());
        assert_eq!(Ledger::new(400).reserve::<f32>(100, "noise").unwrap().capacity(), 100);
    }

    #[test]
    fn temporary_files_have_a_budget_of_their_own() {
        let ledger = Ledger::with_spill(0, std::env::temp_dir(), 100);
        let lease = ledger.spill(80).unwrap();
        assert!(ledger.spill(30).is_err());
        assert_eq!((ledger.used(), ledger.spilled()), (0, 80));
        drop(lease);
        assert_eq!(ledger.spilled(), 0);
        #[cfg(unix)]
        assert!(Ledger::new(1).spill_budget() < u64::MAX, "unless it is said, what the disk has");
    }
}
