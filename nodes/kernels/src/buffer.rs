//! Memory for results, first touched by the task that fills it.
//!
//! A large vector of zeros costs a pass over memory, and page faults on one thread. Here each task
//! zeroes its own part, which then still lies in its cache, and writes over it.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use crate::Result;
use crate::cancel::CancelFlag;
use crate::tasks::each;

/// A vector filled in parallel: `fill(index of the part, part)` for parts of `part` elements. Fails
/// when it is cancelled between two parts.
pub(crate) fn filled<T: Copy + Default + Send>(
    length: usize,
    part: usize,
    fill: impl Fn(usize, &mut [T]) + Sync + Send,
) -> Result<Vec<T>> {
    let cancel = CancelFlag::of_thread();
    let mut out = Vec::with_capacity(length);
    let spare = &mut out.spare_capacity_mut()[..length];
    each(spare.chunks_mut(part.max(1)).enumerate().collect(), |(index, part)| {
        if !cancel.is_raised() {
            fill(index, zeroed(part));
        }
    });
    cancel.check()?;
    // SAFETY: the capacity is at least `length`, and the parts, which cover `..length`, were each
    // initialised by `zeroed`: `check` fails where one was left out.
    unsafe { out.set_len(length) };
    Ok(out)
}

/// Initialises memory with zeros.
pub(crate) fn zeroed<T: Copy + Default>(memory: &mut [MaybeUninit<T>]) -> &mut [T] {
    memory.fill(MaybeUninit::new(T::default()));
    // SAFETY: every element was written just now.
    unsafe { memory.assume_init_mut() }
}

thread_local! {
    static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` on a buffer of this thread; what it holds at first is left from earlier work.
pub(crate) fn with_scratch<R>(length: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken out meanwhile, so that work which comes back here gets a buffer of its own.
    let mut buffer = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    let result = work(&mut buffer[..length]);
    SCRATCH.with_borrow_mut(|buffers| buffers.push(buffer));
    result
}
