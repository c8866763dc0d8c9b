//! Tables by key. A key is a hash already, and nobody chooses it: part of it will do in place of
//! another hash of it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Something of each of many keys.
pub(crate) type ByKey<V> = HashMap<[u8; 32], V, BuildHasherDefault<KeyHasher>>;

/// The first bytes of a key.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, key: &[u8]) {
        let first = key.first_chunk().copied().unwrap_or_default();
        self.0 = u64::from_le_bytes(first);
    }

    /// The length, which is the same for all keys.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_same_beginning_are_told_apart() {
        let key = |last: u8| std::array::from_fn(|at| if at == 31 { last } else { 7 });
        let table: ByKey<u8> = (0..100).map(|last| (key(last), last)).collect();
        assert!((0..100).all(|last| table.get(&key(last)) == Some(&last)));
    }
}
