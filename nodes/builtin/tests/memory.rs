//! What does not fit into memory is the node's error.

mod common;

use std::sync::Arc;

use candle_core::{Device, Tensor};
use common::{Rig, reference};
use kino_node::{Frames, Ledger, Value};
use kino_world::Folders;

/// A rig with a gigabyte.
fn rig(name: &str) -> Rig {
    let mut rig = Rig::new(name);
    let folders = Folders { graph: reference(""), out: rig.out.clone() };
    rig.services = kino_nodes::services(Device::Cpu, Ledger::new(1 << 30)).with(Arc::new(folders));
    rig
}

#[test]
fn noise_of_seventy_terabytes_is_an_error() {
    let rig = rig("noise");
    let int = |value: i128| Value::Int(value);
    let model = rig.model("embedded:shapes");
    let failure = rig.fails(
        "latent.noise",
        &[
            ("vae", model.vae),
            ("width", int(16384)),
            ("height", int(16384)),
            ("frames", int(1_048_573)),
            ("seed", int(1)),
        ],
    );
    assert!(failure.starts_with("the noise takes"), "{failure}");
    assert!(failure.contains("1.1 GB are allowed"), "{failure}");
}

#[test]
fn frames_enlarged_beyond_memory_are_an_error() {
    let rig = rig("enlarged");
    let tensor = Tensor::zeros((1, 8, 8, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    for (factor, expect) in
        [(100_000, "a few frames of the new size"), (i128::from(i64::MAX), "`factor`")]
    {
        let frames = Value::from(Frames::from_tensor(&tensor, None).unwrap());
        let failure = rig.fails("upscale", &[("frames", frames), ("factor", Value::Int(factor))]);
        assert!(failure.contains(expect), "{failure}");
    }
}
