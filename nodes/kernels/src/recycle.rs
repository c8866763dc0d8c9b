//! Memory that is let go and taken again, instead of freed and allocated anew.
//!
//! What an allocator gives back to the system comes again page by page, each cleared by a fault:
//! for weights that are read in every pass that costs as much as reading them.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use candle_core::bail;

use crate::Result;

/// Memory of matrices that were let go, for those that are packed next. Cheap to clone; what it
/// holds is freed with the last clone.
///
/// It never adds to what is held: memory that fits nothing is freed before other memory is taken.
#[derive(Clone, Default)]
pub struct Recycler(Arc<Free>);

/// What nobody uses at the moment.
#[derive(Default)]
pub(crate) struct Free {
    words: Mutex<Vec<Vec<u32>>>,
    bytes: Mutex<Vec<Vec<u8>>>,
}

/// What memory holds that is recycled.
pub(crate) trait Unit: Copy + Default + Send + Sync {
    fn list(free: &Free) -> MutexGuard<'_, Vec<Vec<Self>>>;
}

impl Unit for u32 {
    fn list(free: &Free) -> MutexGuard<'_, Vec<Vec<Self>>> {
        free.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unit for u8 {
    fn list(free: &Free) -> MutexGuard<'_, Vec<Vec<Self>>> {
        free.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Free {
    /// Frees as much as `bytes`, or all.
    fn shrink(&self, bytes: usize) {
        let mut freed = 0;
        while freed < bytes {
            let words = u32::list(self).pop().map(|words| words.capacity() * size_of::<u32>());
            match words.or_else(|| u8::list(self).pop().map(|bytes| bytes.capacity())) {
                Some(more) => freed += more,
                None => break,
            }
        }
    }
}

impl Recycler {
    /// An empty vector with room for so many: memory that was let go of just this size, or new.
    ///
    /// # Errors
    /// When there is no memory.
    pub(crate) fn take<T: Unit>(&self, length: usize) -> Result<Vec<T>> {
        let mut list = T::list(&self.0);
        if let Some(found) = list.iter().position(|memory| memory.capacity() == length) {
            let mut memory = list.swap_remove(found);
            memory.clear();
            return Ok(memory);
        }
        drop(list);
        let bytes = length * size_of::<T>();
        self.0.shrink(bytes);
        let mut memory = Vec::new();
        if memory.try_reserve_exact(length).is_err() {
            bail!("there is no memory for a weight of {bytes} bytes");
        }
        Ok(memory)
    }

    /// What is let go to here.
    pub(crate) fn keep<T: Unit>(&self, memory: Vec<T>) -> Reused<T> {
        Reused { memory, home: Arc::downgrade(&self.0) }
    }
}

impl fmt::Debug for Recycler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, bytes) = (u32::list(&self.0).len(), u8::list(&self.0).len());
        write!(f, "Recycler({words} of words, {bytes} of bytes)")
    }
}

/// Memory that goes back to where it came from, if that is still there.
pub(crate) struct Reused<T: Unit> {
    memory: Vec<T>,
    home: Weak<Free>,
}

impl<T: Unit> From<Vec<T>> for Reused<T> {
    /// Memory that is freed.
    fn from(memory: Vec<T>) -> Self {
        Self { memory, home: Weak::new() }
    }
}

impl<T: Unit> Deref for Reused<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.memory
    }
}

impl<T: Unit> Drop for Reused<T> {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            T::list(&home).push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_in_its_size_and_what_fits_nothing_is_freed() {
        let recycler = Recycler::default();
        let [a, b] = [1000, 2000].map(|length| recycler.take::<u32>(length).unwrap());
        let place = a.as_ptr();
        for memory in [a, b] {
            drop(recycler.keep(memory));
        }
        assert_eq!(format!("{recycler:?}"), "Recycler(2 of words, 0 of bytes)");
        let again = recycler.take::<u32>(1000).unwrap();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        drop(recycler.keep(again));
        // 4,000 bytes are freed of the two, then the rest.
        let other = recycler.take::<u8>(4000).unwrap();
        assert_eq!(format!("{recycler:?}"), "Recycler(1 of words, 0 of bytes)");
        let more = recycler.take::<u8>(1 << 20).unwrap();
        assert_eq!(format!("{recycler:?}"), "Recycler(0 of words, 0 of bytes)");
        let kept = [other, more].map(|memory| recycler.keep(memory));
        drop(recycler);
        assert!(kept.iter().all(|kept| kept.home.upgrade().is_none()), "it is freed");
        assert!(Recycler::default().take::<u32>(usize::MAX / 8).is_err());
    }
}
