//! Where the pool has one thread, a kernel computes on its caller's: handing over would cost more
//! than many a small kernel.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use candle_core::{Result, Tensor};
use common::{Random, same};
use kino_kernels::{attention, cancelled_by, gelu_tanh, linear};
use rayon::ThreadPoolBuilder;

/// Kernels that cut their work into several tiles, packing included.
fn kernels(x: &Tensor, weight: &Tensor, heads: &Tensor) -> Result<[Tensor; 3]> {
    Ok([gelu_tanh(x)?, linear(x, weight, None)?, attention(heads, heads, heads, 0.2)?])
}

/// The only test of this program, since it builds the pool of the whole process.
#[test]
fn kernels_stay_on_the_thread_that_calls_them() {
    ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    let mut random = Random::new(17);
    let (x, weight) = (random.tensor(&[2000, 64]), random.tensor(&[1100, 64]));
    let heads = random.tensor(&[2, 400, 32]);
    let (caller, [here, elsewhere]) = (thread::current().id(), [0; 2].map(AtomicUsize::new));
    let counts = Arc::new([here, elsewhere]);
    let counting = Arc::clone(&counts);
    let guard = cancelled_by(Arc::new(move || {
        let place = usize::from(thread::current().id() != caller);
        counting[place].fetch_add(1, Ordering::Relaxed);
        false
    }));
    let alone = kernels(&x, &weight, &heads).unwrap();
    drop(guard);
    let [here, elsewhere] = [0, 1].map(|place| counts[place].load(Ordering::Relaxed));
    assert!(here > 3 && elsewhere == 0, "{here} tiles here, {elsewhere} elsewhere");
    let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let shared = pool.install(|| kernels(&x, &weight, &heads)).unwrap();
    alone.iter().zip(&shared).for_each(|(alone, shared)| same(alone, shared));
}
