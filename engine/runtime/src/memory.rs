//! The cache in memory: results by key under a budget of bytes in memory, and one of bytes in
//! temporary files.
//!
//! What goes first is decided by GreedyDual-Size (Cao and Irani, 1997): an entry's priority is its
//! cost in seconds a byte, wherever the bytes lie, plus the priority that the last evicted entry
//! had, renewed at each use. So among entries of equal cost the least recently used goes, and a
//! costly small one outlives many cheap large ones.
//!
//! The bytes of entries stand in the ledger: frames by leases of their own, the rest by one that
//! the entry holds. Where the ledger needs room, entries leave, too.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kino_node::{Lease, Ledger, Outputs, Reclaim, Value};

use crate::by_key::ByKey;
use crate::wanted::has;

/// What an entry costs beside its tensors, so that numbers and texts are not free.
const OVERHEAD: u64 = 256;
/// Parts of models count no bytes: they are weights that stay loaded. Of steps that give them so
/// many are kept.
const PARTS: usize = 8;

/// Results of earlier runs.
pub(crate) struct MemoryCache {
    budget: u64,
    /// How many bytes may lie in temporary files.
    spill_budget: u64,
    bytes: u64,
    spilled: u64,
    /// The priority of what was evicted last.
    floor: f64,
    clock: u64,
    entries: ByKey<Entry>,
    /// By rising priority: the first goes first.
    order: BTreeSet<(Priority, [u8; 32])>,
    /// Of these, the ones with bytes in temporary files.
    spilled_order: BTreeSet<(Priority, [u8; 32])>,
    parts: BTreeSet<(u64, [u8; 32])>,
    ledger: Arc<Ledger>,
}

/// A priority as the bits of a float that is never negative, so that it has an order; then the time
/// of the last use.
type Priority = (u64, u64);

/// Entries by rising priority: the first goes first.
type Order = BTreeSet<(Priority, [u8; 32])>;

/// The outputs of one step.
pub(crate) struct Entry {
    outputs: Outputs,
    size: Size,
    seconds: f64,
    rank: Rank,
    lease: Lease,
}

/// How large an entry is.
#[derive(Clone, Copy)]
struct Size {
    bytes: u64,
    spilled: u64,
}

/// Where an entry stands in the order of eviction.
enum Rank {
    Budget(Priority),
    Parts(u64),
}

impl MemoryCache {
    /// A cache of at most `budget` bytes in memory and as many in temporary files; of 0 bytes it
    /// keeps nothing.
    pub(crate) fn new(budget: u64, ledger: &Arc<Ledger>) -> Self {
        MemoryCache {
            budget,
            spill_budget: budget,
            bytes: 0,
            spilled: 0,
            floor: 0.0,
            clock: 0,
            entries: ByKey::default(),
            order: BTreeSet::new(),
            spilled_order: BTreeSet::new(),
            parts: BTreeSet::new(),
            ledger: Arc::clone(ledger),
        }
    }

    /// Whether it keeps anything at all.
    pub(crate) fn is_on(&self) -> bool {
        self.budget > 0
    }

    /// Whether all `wanted` outputs are here.
    pub(crate) fn holds(&self, key: &[u8; 32], wanted: &[bool]) -> bool {
        self.entries.get(key).is_some_and(|entry| has(&entry.outputs, wanted))
    }

    /// The outputs, if all `wanted` ones are here; they count as used now.
    pub(crate) fn find(&mut self, key: &[u8; 32], wanted: &[bool]) -> Option<Outputs> {
        let entry = self.entries.get(key).filter(|entry| has(&entry.outputs, wanted))?;
        let outputs = entry.outputs.clone();
        if let Some(entry) = self.remove(key) {
            self.insert(*key, entry.outputs, entry.size, entry.seconds, entry.lease);
        }
        Some(outputs)
    }

    /// What is kept of a step of which some outputs were computed anew, where that is more.
    pub(crate) fn beside(&self, key: &[u8; 32], computed: &[Option<Value>]) -> Option<Outputs> {
        let kept = &self.entries.get(key)?.outputs;
        let mut both = kept.iter().zip(computed);
        let has_more = both.any(|(kept, computed)| kept.is_some() && computed.is_none());
        has_more.then(|| kept.clone())
    }

    /// Keeps outputs that took `seconds` to compute, if they fit.
    pub(crate) fn store(&mut self, key: &[u8; 32], outputs: &[Option<Value>], seconds: f64) {
        if !self.is_on() {
            return;
        }
        let sum = |of: fn(&Value) -> u64| outputs.iter().flatten().map(of).sum::<u64>();
        let size = Size { bytes: OVERHEAD + sum(Value::bytes), spilled: sum(Value::spilled) };
        self.remove(key);
        if size.bytes > self.budget || size.spilled > self.spill_budget {
            return;
        }
        let lease = self.ledger.charge(OVERHEAD + sum(Value::unleased));
        self.insert(*key, outputs.to_vec(), size, seconds, lease);
        while self.bytes > self.budget {
            let Some(first) = self.order.first().copied() else { break };
            self.evict(first);
        }
        while self.spilled > self.spill_budget {
            let Some(first) = self.spilled_order.first().copied() else { break };
            self.evict(first);
        }
        while self.parts.len() > PARTS {
            let Some((_, key)) = self.parts.first().copied() else { break };
            self.remove(&key);
        }
    }

    fn insert(&mut self, key: [u8; 32], outputs: Outputs, size: Size, seconds: f64, lease: Lease) {
        self.clock += 1;
        let rank = if outputs.iter().flatten().any(is_part) {
            self.parts.insert((self.clock, key));
            Rank::Parts(self.clock)
        } else {
            let bytes = (size.bytes + size.spilled) as f64;
            let priority = self.floor + seconds.max(0.0) / bytes;
            let priority = (priority.to_bits(), self.clock);
            self.order.insert((priority, key));
            if size.spilled > 0 {
                self.spilled_order.insert((priority, key));
            }
            self.bytes += size.bytes;
            self.spilled += size.spilled;
            Rank::Budget(priority)
        };
        self.entries.insert(key, Entry { outputs, size, seconds, rank, lease });
    }

    fn evict(&mut self, ((priority, _), key): (Priority, [u8; 32])) -> Option<Entry> {
        // What leaves for its bytes in temporary files, or as others are held, is not always of the
        // least priority. The floor must not fall after it: old entries would outlive new ones.
        self.floor = self.floor.max(f64::from_bits(priority));
        self.remove(&key)
    }

    /// Drops an entry.
    pub(crate) fn remove(&mut self, key: &[u8; 32]) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        match entry.rank {
            Rank::Parts(at) => {
                self.parts.remove(&(at, *key));
            }
            Rank::Budget(priority) => {
                self.order.remove(&(priority, *key));
                self.spilled_order.remove(&(priority, *key));
                self.bytes -= entry.size.bytes;
                self.spilled -= entry.size.spilled;
            }
        }
        Some(entry)
    }

    /// Evicts entries of `order` until at least `bytes` are free. One that somebody else holds
    /// frees nothing, and stays.
    fn evict_for(
        &mut self,
        bytes: u64,
        order: fn(&Self) -> &Order,
        of: fn(&Size) -> u64,
    ) -> (u64, Vec<Entry>) {
        let (mut freed, mut first) = (0, Vec::new());
        for (priority, key) in order(self) {
            if freed >= bytes {
                break;
            }
            let Some(entry) = self.entries.get(key).filter(|entry| !entry.is_shared()) else {
                continue;
            };
            freed += of(&entry.size);
            first.push((*priority, *key));
        }
        (freed, first.into_iter().filter_map(|first| self.evict(first)).collect())
    }
}

impl Entry {
    fn is_shared(&self) -> bool {
        self.outputs.iter().flatten().any(Value::is_shared)
    }
}

/// The cache as all runs share it, and as the ledger asks it for room.
pub(crate) struct SharedCache(Mutex<MemoryCache>);

impl SharedCache {
    /// A cache of `budget` bytes that gives back what `ledger` needs.
    pub(crate) fn new(budget: u64, ledger: &Arc<Ledger>) -> Arc<Self> {
        let cache = Arc::new(SharedCache(Mutex::new(MemoryCache::new(budget, ledger))));
        let reclaim: Arc<dyn Reclaim> = Arc::clone(&cache) as _;
        ledger.reclaim_from(Arc::downgrade(&reclaim));
        cache
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, MemoryCache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reclaim for SharedCache {
    fn held(&self) -> u64 {
        let cache = self.lock();
        let entries = cache.order.iter().filter_map(|(_, key)| cache.entries.get(key));
        entries.filter(|entry| !entry.is_shared()).map(|entry| entry.size.bytes).sum()
    }

    fn reclaim(&self, bytes: u64) -> u64 {
        // What is evicted is dropped when the lock is free: its leases go back to the ledger.
        let (freed, _evicted) = {
            let mut cache = self.lock();
            cache.evict_for(bytes, |cache| &cache.order, |size| size.bytes)
        };
        freed
    }

    fn reclaim_spilled(&self, bytes: u64) -> u64 {
        let (freed, _evicted) = {
            let mut cache = self.lock();
            cache.evict_for(bytes, |cache| &cache.spilled_order, |size| size.spilled)
        };
        freed
    }
}

fn is_part(value: &Value) -> bool {
    match value {
        Value::Part(_) => true,
        Value::List(items) => items.iter().any(|(_, item)| is_part(item)),
        Value::Typed(typed) => typed.more().iter().any(|(_, field)| is_part(field)),
        Value::Custom(record) => record.fields.iter().any(|(_, field)| is_part(field)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Device, Tensor};
    use kino_node::{FramesBuilder, ModelPart};
    use kino_port::PortType;

    use super::*;

    /// Which of the keys 0…9 are kept.
    fn kept(cache: &MemoryCache) -> Vec<u8> {
        (0..10).filter(|key| cache.holds(&[*key; 32], &[true])).collect()
    }

    fn cache_of(budget: u64) -> MemoryCache {
        MemoryCache::new(budget, &Ledger::new(u64::MAX))
    }

    /// One frame of 12,000 bytes.
    fn frames(ledger: &Arc<Ledger>) -> Outputs {
        let mut builder = FramesBuilder::new(ledger, None);
        builder.push(&Tensor::zeros((1, 10, 100, 3), DType::F32, &Device::Cpu).unwrap()).unwrap();
        vec![Some(Value::from(builder.finish().unwrap()))]
    }

    fn text(bytes: usize) -> Outputs {
        vec![Some(Value::Text("x".repeat(bytes).into()))]
    }

    #[test]
    fn among_equals_the_least_recently_used_goes() {
        let mut cache = cache_of(3 * (1000 + OVERHEAD));
        (0..3).for_each(|key| cache.store(&[key; 32], &text(1000), 1.0));
        assert!(cache.find(&[0; 32], &[true]).is_some());
        cache.store(&[3; 32], &text(1000), 1.0);
        assert_eq!(kept(&cache), [0, 2, 3]);
        cache.store(&[4; 32], &text(1000), 1.0);
        assert_eq!(kept(&cache), [0, 3, 4]);
    }

    #[test]
    fn what_is_costly_stays_until_it_is_old() {
        let mut cache = cache_of(3 * (1000 + OVERHEAD));
        cache.store(&[0; 32], &text(1000), 3.0);
        for key in 1..6 {
            cache.store(&[key; 32], &text(1000), 1.0);
        }
        assert_eq!(kept(&cache), [0, 4, 5]);
        for _ in 0..20 {
            (1..10).for_each(|key| cache.store(&[key; 32], &text(1000), 1.0));
        }
        assert!(!kept(&cache).contains(&0));
    }

    #[test]
    fn nothing_is_kept_without_a_budget_or_above_it() {
        let mut cache = cache_of(0);
        cache.store(&[0; 32], &text(0), 1.0);
        assert!(kept(&cache).is_empty());
        let mut cache = cache_of(1000);
        cache.store(&[0; 32], &text(2000), 1.0);
        assert!(kept(&cache).is_empty());
    }

    #[test]
    fn a_wanted_output_that_is_missing_is_a_miss() {
        let mut cache = cache_of(10_000);
        cache.store(&[0; 32], &[Some(Value::Int(1)), None], 1.0);
        assert!(cache.find(&[0; 32], &[true, false]).is_some());
        assert!(cache.find(&[0; 32], &[true, true]).is_none());
        assert!(cache.find(&[0; 32], &[true]).is_none());
    }

    #[test]
    fn parts_of_models_stay_whatever_the_budget() {
        let mut cache = cache_of(2 * OVERHEAD);
        let part = Value::Part(ModelPart { ty: PortType::Vae, handle: Arc::new(()) });
        cache.store(&[0; 32], &[Some(part)], 0.0);
        (1..6).for_each(|key| cache.store(&[key; 32], &[Some(Value::Int(1))], 9.0));
        assert_eq!(kept(&cache), [0, 4, 5]);
    }

    #[test]
    fn an_eviction_never_lowers_what_new_entries_begin_at() {
        let ledger = Ledger::new(0);
        let mut cache = MemoryCache::new(30_000, &ledger);
        cache.store(&[0; 32], &text(14_000), 1.0);
        // One of them leaves for its bytes in a file, though the text is worth less.
        (1..4).for_each(|key| cache.store(&[key; 32], &frames(&ledger), 1e9));
        let floor = cache.floor;
        assert!(floor > 80_000.0, "{floor}");
        (4..6).for_each(|key| cache.store(&[key; 32], &text(14_000), 1.0));
        assert_eq!(kept(&cache), [2, 3, 4, 5]);
        assert_eq!(cache.floor, floor);
    }

    #[test]
    fn frames_in_temporary_files_have_a_budget_and_no_priority_over_others() {
        let ledger = Ledger::new(0);
        let mut cache = MemoryCache::new(30_000, &ledger);
        for key in 0..10 {
            cache.store(&[key; 32], &frames(&ledger), 1.0);
            assert_eq!(ledger.spilled(), 12_000 * u64::from(key + 1).min(2));
        }
        assert_eq!(kept(&cache), [8, 9]);
        (0..3).for_each(|key| cache.store(&[key; 32], &text(1000), 1.0));
        assert_eq!(kept(&cache), [0, 1, 2, 8, 9], "each of the two budgets is its own");
        cache.store(&[3; 32], &[frames(&ledger), frames(&ledger), frames(&ledger)].concat(), 9.0);
        assert_eq!(ledger.spilled(), 24_000, "what is larger than the budget is not kept");
    }

    #[test]
    fn cached_frames_leave_where_the_ledger_needs_room() {
        let ledger = Ledger::new(40_000);
        let cache = SharedCache::new(1 << 20, &ledger);
        for key in 0..10 {
            let outputs = frames(&ledger);
            cache.lock().store(&[key; 32], &outputs, 1.0);
        }
        assert_eq!((kept(&cache.lock()), ledger.spilled()), (vec![7, 8, 9], 0));
        let held = cache.lock().find(&[7; 32], &[true]);
        let new = (frames(&ledger), frames(&ledger));
        assert_eq!(kept(&cache.lock()), [7], "what a run holds frees nothing and stays");
        drop((held, new));
        assert_eq!(ledger.used(), 12_000 + OVERHEAD);
    }

    #[test]
    fn a_view_is_charged_by_all_that_it_keeps_alive() {
        let mut cache = cache_of(10_000);
        let whole = Tensor::zeros(100_000, DType::F32, &Device::Cpu).unwrap();
        let part = whole.narrow(0, 0, 10).unwrap();
        cache.store(&[0; 32], &[Some(Value::Tensor(part.clone()))], 1.0);
        assert!(kept(&cache).is_empty());
        cache.store(&[0; 32], &[Some(Value::Tensor(part.force_contiguous().unwrap()))], 1.0);
        assert_eq!(kept(&cache), [0]);
    }
}
