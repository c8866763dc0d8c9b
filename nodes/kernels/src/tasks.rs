//! Tasks of a kernel, on the threads that it computes with.

use rayon::prelude::*;

/// Runs `work` on each task. The caller does a task alone, and all where there is one thread: to
/// hand them over takes two changes of context, as long as a small task, and the caller would wait.
pub(crate) fn each<T: Send>(tasks: Vec<T>, work: impl Fn(T) + Sync + Send) {
    match tasks.len() == 1 || rayon::current_num_threads() == 1 {
        true => tasks.into_iter().for_each(work),
        false => tasks.into_par_iter().for_each(work),
    }
}
