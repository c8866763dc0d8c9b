//! Pictures at any frames, without the engine.

use given_keys::given_keys;
use kino_plugin::prelude::*;
use kino_plugin::testing::{self, assert_close};

fn latent(seed: u64, frames: usize) -> Latent {
    Latent::new(Tensor::random(seed, &[3, frames, 2, 4]))
}

fn given(latents: Vec<Latent>, at: Vec<usize>, strengths: Option<Vec<f64>>) -> Result<Given> {
    let mut run = testing::run::<given_keys>().input("latents", latents).input("at", at);
    if let Some(strengths) = strengths {
        run = run.input("strengths", strengths);
    }
    run.param("frames", 17).call()?.get("given")
}

#[test]
fn pictures_lie_where_they_show() -> Result<()> {
    let (a, b) = (latent(1, 1), latent(2, 2));
    let made = given(vec![a.clone(), b.clone()], vec![0, 9], Some(vec![1.0, 0.25]))?;
    assert_eq!((made.frames()?, made.tensor()?.dims()), (17, &[3, 5, 2, 4][..]));
    assert_close(&made.tensor()?.slice(1, 0, 1)?, &a.tensor, 0.0);
    // Frame 9 lies in the latent frame of frames 9 to 12.
    assert_close(&made.tensor()?.slice(1, 3, 1)?, &b.tensor.slice(1, 1, 1)?, 0.0);
    let mask = made.mask()?;
    assert_eq!(mask.dims(), [5, 2, 4]);
    let held: Vec<f32> = mask.to_vec::<f32>()?.chunks_exact(8).map(|frame| frame[0]).collect();
    assert_eq!(held, [1.0, 0.0, 0.0, 0.25, 0.0]);
    Ok(())
}

#[test]
fn what_cannot_be_is_told() {
    let pair = || vec![latent(1, 1), latent(2, 2)];
    let check = |latents, at, strengths, expected: &str| {
        let error = given(latents, at, strengths).err().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(pair(), vec![0], None, "2 pictures, and places for 1");
    check(pair(), vec![0, 4], Some(vec![1.0]), "2 pictures, and strengths for 1");
    check(pair(), vec![0, 17], None, "frame 17 of a clip of 17");
    check(pair(), vec![0, 4], Some(vec![1.0, 1.5]), "a strength lies in 0…1, found 1.5");
    check(vec![latent(1, 2), latent(2, 2)], vec![5, 8], None, "two pictures within 4 frames");
    check(vec![latent(1, 1)], vec![4], None, "encode it standing still for five frames");
    let uneven = testing::run::<given_keys>().input("latents", pair()).input("at", vec![0, 4]);
    let error = uneven.param("frames", 18).call().err().unwrap();
    assert_eq!(error.message(), "a clip has 4k+1 frames, found 18");
    let other = Latent::new(Tensor::random(3, &[3, 1, 2, 5]));
    check(vec![latent(1, 1), other], vec![0, 4], None, "picture 1 is encoded as [3, 1, 2, 5]");
}
