//! A family that exists only here: its own sizes, latents, conditioning, extra channels and a
//! timestep for each token. The nodes run it as they run any other.

mod common;
#[path = "common/toy.rs"]
mod toy;

use std::path::PathBuf;
use std::sync::Arc;

use common::{Rig, close, fact_list, int, known, number, text, values};
use kino_node::{ConditioningFact, Frames, Latent, Value};
use toy::{CHANNELS, Calls, EXTRA, MOOD, Toy, WORDS};

/// A checkpoint of the family in a folder of its own, and a rig whose models know the family.
fn toy(name: &str) -> (Rig, PathBuf, Calls) {
    let folder = std::env::temp_dir().join(format!("kino-toy-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    toy::checkpoint(&folder);
    let calls = Calls::default();
    let rig = Rig::with_family(name, Arc::new(Toy(Arc::clone(&calls))));
    (rig, folder, calls)
}

#[test]
fn a_family_of_a_test_runs_through_the_nodes() {
    let (rig, folder, calls) = toy("runs");
    let model = rig.model(folder.to_str().unwrap());
    let prompt = [("encoder", model.text), ("prompt", text("four"))];
    let prompt = rig.one("text.encode", &prompt);
    let noise = [
        ("vae", model.vae.clone()),
        ("width", int(16)),
        ("height", int(8)),
        ("frames", int(4)),
        ("seed", int(1)),
    ];
    let noise = rig.one("latent.noise", &noise);
    let x = noise.tensor().unwrap();
    assert_eq!(x.dims(), [CHANNELS, 2, 2, 4]);
    let patches = rig.one("patchify", &[("dit", model.dit.clone()), ("latents", noise)]);
    let sigmas = rig.one("schedule", &[("dit", model.dit.clone()), ("steps", int(2))]);
    let levels = values(&sigmas.tensor().unwrap());
    let sample = [
        ("dit", model.dit),
        ("patches", patches),
        ("text", prompt),
        ("steps", int(2)),
        ("guidance", Value::Real(1.0)),
    ];
    let sampled = rig.one("dit.sample", &sample);
    // 2 latent frames, 2 rows, 2 patches of 1×1×2 in each; a timestep for each token.
    let call = format!("[8, {}] [8, {}] 8", CHANNELS * 2, EXTRA * 2);
    assert_eq!(*calls.lock().unwrap(), [call.clone(), call]);
    let latent = rig.one("unpatchify", &[("patches", sampled)]);
    let mood = 4.0 * (0.01 + 0.02 + 0.01);
    let mut expected = x;
    for level in levels.windows(2) {
        let velocity = ((&expected * 0.5).unwrap() + mood).unwrap();
        expected = (&expected + (velocity * (level[1] - level[0])).unwrap()).unwrap();
    }
    close("latent", &latent.tensor().unwrap(), &expected, 1e-5);

    let decode = [("vae", model.vae.clone()), ("latent", latent.clone())];
    let frames = rig.one("vae.decode", &decode);
    assert_eq!(frames.shared::<Frames>().unwrap().count(), 4);
    let encode = [("vae", model.vae), ("frames", frames)];
    let encoded = rig.one("vae.encode", &encode);
    assert!(encoded.shared::<Latent>().unwrap().space.is_some());
    let within = (expected * 0.25).unwrap().clamp(-1f32, 1f32).unwrap();
    let encoded = (encoded.tensor().unwrap() * 0.25).unwrap();
    close("there and back", &encoded, &within, 1e-5);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_a_family_says_of_itself_is_known_before_anything_runs() {
    let (rig, folder, _) = toy("facts");
    let model = rig.model_facts(folder.to_str().unwrap());
    let encoded = rig.fact("text.encode", &[("encoder", model.text), ("prompt", known("x"))], 0);
    let fact: &ConditioningFact = encoded.get().unwrap();
    assert_eq!(fact.shape("words"), Some(&[WORDS.0, WORDS.1][..]));
    assert_eq!(fact.shape("mood"), Some(&[MOOD][..]));
    let noise = [
        ("vae", model.vae),
        ("width", number(12)),
        ("height", number(8)),
        ("frames", number(5)),
        ("seed", number(1)),
    ];
    assert_eq!(
        rig.objects("latent.noise", &noise),
        "width: width must be a multiple of 8 for this model, found 12; near it: 8 and 16\n\
         frames: frames must be 2k for this VAE, found 5; near it: 4 and 6"
    );
    let other = rig.model_facts("embedded:shapes");
    let text = rig.fact("text.encode", &[("encoder", other.text), ("prompt", known("x"))], 0);
    let patches = fact_list(&[]);
    let inputs = [("dit", model.dit), ("text", text), ("patches", patches)];
    let refused = rig.objects("dit.sample", &inputs);
    assert!(refused.contains("reads `words` of the conditioning, found text"), "{refused}");
    assert!(refused.contains("reads `mood` of the conditioning, found text"), "{refused}");
    std::fs::remove_dir_all(folder).unwrap();
}
