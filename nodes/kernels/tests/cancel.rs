//! A kernel that is cancelled ends between its tiles; one that is not computes the same bits.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use candle_core::{Result, Tensor};
use common::{Random, same};
use kino_kernels::{
    ConvInput, ConvWeights, Filter, attention, cancelled_by, channel_norm_silu, conv, gelu_tanh,
    is_cancelled, layer_norm, linear, resize,
};

/// A kernel by its name, with what it computes on.
type Kernel = (&'static str, Box<dyn Fn() -> Result<Tensor>>);

/// Every way in which kernels cut their work, each into several tiles.
fn kernels(random: &mut Random) -> Vec<Kernel> {
    let x = random.tensor(&[2000, 64]);
    let heads = random.tensor(&[2, 400, 32]);
    let weight = random.tensor(&[1100, 64]);
    let frames = random.tensor(&[3, 40, 40, 8]);
    let (narrow, wide) = (random.tensor(&[8, 8, 1, 3, 3]), random.tensor(&[48, 8, 1, 3, 3]));
    let pack = |weight: &Tensor| ConvWeights::pack(weight, None, [1; 3]).unwrap();
    let (narrow, wide) = (pack(&narrow), pack(&wide));
    let gamma = random.tensor(&[8]);
    let (y, f, g) = (x.clone(), frames.clone(), frames.clone());
    vec![
        ("linear", Box::new(move || linear(&x, &weight, None))),
        ("attention", Box::new(move || attention(&heads, &heads, &heads, 0.2))),
        (
            "layer_norm",
            Box::new({
                let y = y.clone();
                move || layer_norm(&y, None, None, 1e-6)
            }),
        ),
        ("gelu", Box::new(move || gelu_tanh(&y))),
        ("conv", Box::new(move || conv(ConvInput::new(&frames), &wide, None))),
        ("direct conv", Box::new(move || conv(ConvInput::new(&f), &narrow, None))),
        (
            "channel_norm",
            Box::new({
                let g = g.clone();
                move || channel_norm_silu(&g, &gamma, [1; 4])
            }),
        ),
        ("resize", Box::new(move || resize(&g, 90, 90, Filter::Lanczos))),
    ]
}

#[test]
fn every_kernel_ends_when_it_is_cancelled_and_is_the_same_when_it_is_not() {
    for (name, kernel) in kernels(&mut Random::new(11)) {
        let whole = kernel().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&asked);
        let guard = cancelled_by(Arc::new(move || {
            counting.fetch_add(1, Ordering::Relaxed);
            false
        }));
        same(&kernel().unwrap(), &whole);
        drop(guard);
        let tiles = asked.load(Ordering::Relaxed);
        assert!(tiles > 1, "{name}: it looks {tiles} times");
        // Cancelled at once, in the middle, and before the last tile.
        for at in [0, tiles / 2, tiles - 1] {
            let turns = AtomicUsize::new(0);
            let flag = move || turns.fetch_add(1, Ordering::Relaxed) >= at;
            let guard = cancelled_by(Arc::new(flag));
            let error = kernel().map(|_| ()).unwrap_err();
            assert!(is_cancelled(&error), "{name} at {at}: {error}");
            drop(guard);
        }
        same(&kernel().unwrap(), &whole);
    }
}

/// A long attention ends soon after the flag is raised: within a small part of the time that the
/// whole of it takes in the same process.
#[test]
fn a_long_attention_ends_soon() {
    let mut random = Random::new(12);
    let x = random.tensor(&[2, 6000, 64]);
    let begun = Instant::now();
    attention(&x, &x, &x, 0.125).unwrap();
    let whole = begun.elapsed();
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    std::thread::scope(|scope| {
        let cancelling = scope.spawn(|| {
            std::thread::sleep(whole / 10);
            flag.store(true, Ordering::SeqCst);
            Instant::now()
        });
        let guard = cancelled_by(Arc::new(move || raised.load(Ordering::SeqCst)));
        let result = attention(&x, &x, &x, 0.125);
        let ended = Instant::now();
        drop(guard);
        let late = ended.duration_since(cancelling.join().unwrap());
        println!("whole {whole:?}, cancelled within {late:?}");
        assert!(is_cancelled(&result.unwrap_err()));
        assert!(late < whole / 2 + Duration::from_millis(20), "{late:?} of {whole:?}");
    });
}
