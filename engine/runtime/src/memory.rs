//! The cache in memory: results by key under a byte budget.
//!
//! What goes first is decided by GreedyDual-Size (Cao and Irani, 1997): an entry's worth is its
//! cost in seconds a byte plus the worth that the last evicted entry had, renewed at each use. So
//! among entries of equal cost the least recently used goes, and a dear small one outlives many
//! cheap large ones.

use std::collections::{BTreeSet, HashMap};

use kino_node::{Outputs, Value};

use crate::wanted::{covers, holds};

/// What an entry costs beside its tensors, so that numbers and texts are not free.
const OVERHEAD: u64 = 256;
/// Parts of models count no bytes: they are weights that stay loaded. Of steps that give them so
/// many are kept.
const PARTS: usize = 8;

/// Results of earlier runs.
#[derive(Default)]
pub(crate) struct MemoryCache {
    budget: u64,
    bytes: u64,
    /// The worth of what was evicted last.
    floor: f64,
    clock: u64,
    entries: HashMap<[u8; 32], Entry>,
    /// By rising worth: the first goes first.
    order: BTreeSet<(Worth, [u8; 32])>,
    parts: BTreeSet<(u64, [u8; 32])>,
}

/// Worth as the bits of a float that is never negative, so that it has an order; then the time of
/// the last use.
type Worth = (u64, u64);

/// The outputs of one step.
pub(crate) struct Entry {
    outputs: Outputs,
    bytes: u64,
    seconds: f64,
    place: Place,
}

enum Place {
    Budget(Worth),
    Parts(u64),
}

impl MemoryCache {
    /// A cache of at most `budget` bytes; of 0 bytes it keeps nothing.
    pub(crate) fn new(budget: u64) -> Self {
        MemoryCache { budget, ..MemoryCache::default() }
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
            self.insert(*key, entry.outputs, entry.bytes, entry.seconds);
        }
        Some(outputs)
    }

    /// Keeps outputs that took `seconds` to compute, if they fit.
    pub(crate) fn store(&mut self, key: &[u8; 32], outputs: &[Option<Value>], seconds: f64) {
        if !self.is_on() {
            return;
        }
        let bytes = OVERHEAD + outputs.iter().flatten().map(Value::bytes).sum::<u64>();
        self.remove(key);
        if bytes > self.budget {
            return;
        }
        self.insert(*key, outputs.to_vec(), bytes, seconds);
        while self.bytes > self.budget {
            let Some(((worth, _), key)) = self.order.first().copied() else { break };
            self.floor = f64::from_bits(worth);
            self.remove(&key);
        }
        while self.parts.len() > PARTS {
            let Some((_, key)) = self.parts.first().copied() else { break };
            self.remove(&key);
        }
    }

    fn insert(&mut self, key: [u8; 32], outputs: Outputs, bytes: u64, seconds: f64) {
        self.clock += 1;
        let place = if outputs.iter().flatten().any(is_part) {
            self.parts.insert((self.clock, key));
            Place::Parts(self.clock)
        } else {
            let worth = self.floor + seconds.max(0.0) / bytes as f64;
            let worth = (worth.to_bits(), self.clock);
            self.order.insert((worth, key));
            self.bytes += bytes;
            Place::Budget(worth)
        };
        self.entries.insert(key, Entry { outputs, bytes, seconds, place });
    }

    /// Drops an entry.
    pub(crate) fn remove(&mut self, key: &[u8; 32]) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        match entry.place {
            Place::Parts(at) => {
                self.parts.remove(&(at, *key));
            }
            Place::Budget(worth) => {
                self.order.remove(&(worth, *key));
                self.bytes -= entry.bytes;
            }
        }
        Some(entry)
    }
}

fn has(outputs: &[Option<Value>], wanted: &[bool]) -> bool {
    covers(&holds(outputs), wanted)
}

fn is_part(value: &Value) -> bool {
    match value {
        Value::Part(_) => true,
        Value::List(items) => items.iter().any(|(_, item)| is_part(item)),
        Value::Custom(record) => record.fields.iter().any(|(_, field)| is_part(field)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kino_node::Part;
    use kino_port::PortType;

    use super::*;

    /// Which of the keys 0…9 are kept.
    fn kept(cache: &MemoryCache) -> Vec<u8> {
        (0..10).filter(|key| cache.holds(&[*key; 32], &[true])).collect()
    }

    fn text(bytes: usize) -> Outputs {
        vec![Some(Value::Text("x".repeat(bytes).into()))]
    }

    #[test]
    fn among_equals_the_least_recently_used_goes() {
        let mut cache = MemoryCache::new(3 * (1000 + OVERHEAD));
        (0..3).for_each(|key| cache.store(&[key; 32], &text(1000), 1.0));
        assert!(cache.find(&[0; 32], &[true]).is_some());
        cache.store(&[3; 32], &text(1000), 1.0);
        assert_eq!(kept(&cache), [0, 2, 3]);
        cache.store(&[4; 32], &text(1000), 1.0);
        assert_eq!(kept(&cache), [0, 3, 4]);
    }

    #[test]
    fn what_is_dear_stays_until_it_is_old() {
        let mut cache = MemoryCache::new(3 * (1000 + OVERHEAD));
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
        let mut cache = MemoryCache::new(0);
        cache.store(&[0; 32], &text(0), 1.0);
        assert!(kept(&cache).is_empty());
        let mut cache = MemoryCache::new(1000);
        cache.store(&[0; 32], &text(2000), 1.0);
        assert!(kept(&cache).is_empty());
    }

    #[test]
    fn a_wanted_output_that_is_missing_is_a_miss() {
        let mut cache = MemoryCache::new(10_000);
        cache.store(&[0; 32], &[Some(Value::Int(1)), None], 1.0);
        assert!(cache.find(&[0; 32], &[true, false]).is_some());
        assert!(cache.find(&[0; 32], &[true, true]).is_none());
        assert!(cache.find(&[0; 32], &[true]).is_none());
    }

    #[test]
    fn parts_of_models_stay_whatever_the_budget() {
        let mut cache = MemoryCache::new(2 * OVERHEAD);
        let part = Value::Part(Part { ty: PortType::Vae, handle: Arc::new(()) });
        cache.store(&[0; 32], &[Some(part)], 0.0);
        (1..6).for_each(|key| cache.store(&[key; 32], &[Some(Value::Int(1))], 9.0));
        assert_eq!(kept(&cache), [0, 4, 5]);
    }
}
