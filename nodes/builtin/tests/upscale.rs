//! `upscale` and `frames.interpolate` by networks: what a plan knows of them, what is refused and
//! how, weights in memory.

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use common::{Rig, distance, int, known, number, reference, text};
use kino_node::{Cx, FrameRate, Frames, FramesFact, Inputs, Ledger, Value};
use kino_nodes::Models;
use kino_port::Fact;
use kino_world::Folders;

fn frames(count: usize, height: usize, width: usize) -> Tensor {
    let values = (0..count * height * width * 3).map(|at| (at * 7919 % 1009) as f32 / 1008.0);
    Tensor::from_vec(values.collect::<Vec<_>>(), (count, height, width, 3), &Device::Cpu).unwrap()
}

fn value(tensor: &Tensor) -> Value {
    Value::from(Frames::from_tensor(tensor, Some(8.0)).unwrap())
}

fn frames_fact(count: usize, height: usize, width: usize, fps: f64) -> FramesFact {
    let [count, height, width] = [count, height, width].map(Some);
    FramesFact { count, height, width, fps: FrameRate::Fps(fps) }
}

fn fact(count: usize, height: usize, width: usize) -> Fact {
    Fact::typed(frames_fact(count, height, width, 8.0))
}

fn enlarged(rig: &Rig, given: &[(&str, Value)]) -> Tensor {
    rig.one("upscale", given).shared::<Frames>().expect("frames").whole().unwrap()
}

/// A copy of a small network, in a folder of its own.
struct Copied(tempfile::TempDir);

impl Copied {
    fn new(name: &str) -> Self {
        let copied = Copied(tempfile::tempdir().unwrap());
        std::fs::copy(reference(&format!("upscale/{name}.safetensors")), copied.path()).unwrap();
        copied
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("x.safetensors")
    }

    fn text(&self) -> String {
        self.path().display().to_string()
    }
}

/// The embedded weights are 621 thousand numbers; beside them lie those of 17 kernels of 64×64
/// channels (the last has 48, filled up) for tiles of 4×4.
const VIDEO_X4_BYTES: u64 = 4 * (621_424 + 17 * 16 * 64 * 64);

#[test]
fn a_plan_knows_sizes_memory_and_whose_weights() {
    let rig = Rig::new("upscale-plan");
    let copied = Copied::new("rrdb_x2");
    let infer = |model: &str, factor: i128| {
        let inputs =
            [("frames", fact(5, 30, 40)), ("factor", number(factor)), ("model", known(model))];
        rig.infer("upscale", &inputs).unwrap_or_else(|errors| panic!("{errors:?}"))
    };
    for (model, factor) in [("lanczos", 3), ("video-x4", 4), ("video-x4", 3), (&copied.text(), 2)] {
        let info = infer(model, factor);
        let side = |side: usize| side * factor as usize;
        let expected = frames_fact(5, side(30), side(40), 8.0);
        assert_eq!(info.outputs[0].get(), Some(&expected), "{model}");
        let result = 5 * (side(30) * side(40) * 12) as u64;
        assert_eq!(info.spillable, result, "{model}");
        let weights: u64 = info.weights.iter().map(|weights| weights.bytes).sum();
        assert!(info.memory > result + weights, "{model}");
        assert_eq!(info.weights.is_empty(), model == "lanczos");
        assert_eq!(info.reads.is_empty(), !model.ends_with(".safetensors"));
    }
    // Longer clips need their frames and no more.
    assert_eq!(infer("video-x4", 4).weights[0].bytes, VIDEO_X4_BYTES);
    let key = infer(&copied.text(), 2).key;
    assert_ne!(key, infer("video-x4", 2).key);
    let mut bytes = std::fs::read(copied.path()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(copied.path(), bytes).unwrap();
    assert_ne!(key, infer(&copied.text(), 2).key, "other weights under the same name");
}

#[test]
fn what_cannot_be_enlarged_is_said_before_anything_runs() {
    let rig = Rig::new("upscale-refused");
    let objects = |model: &str, factor: i128| {
        let inputs =
            [("frames", fact(1, 30, 40)), ("factor", number(factor)), ("model", known(model))];
        rig.objects("upscale", &inputs)
    };
    assert_eq!(
        objects("video-x4", 5),
        "factor: SRVGGNetCompact enlarges 4 times, so `factor` is from 1 to 4, found 5 \
         (for more, feed a second `upscale` node; `lanczos` takes every factor)"
    );
    let absent = objects("video-x2", 2);
    assert!(
        absent.starts_with("model: ") && absent.contains("video-x2 does not exist"),
        "{absent}"
    );
    assert!(absent.contains("a model is `lanczos`, `video-x4`, or a safetensors file"), "{absent}");
    let other = objects("wan_t2v/model/vae/diffusion_pytorch_model.safetensors", 2);
    assert!(other.contains("known are SRVGGNetCompact, RRDBNet"), "{other}");
    let folder = tempfile::tempdir().unwrap();
    let pickle = folder.path().join("x.pth");
    std::fs::write(&pickle, b"PK\x03\x04 and so on").unwrap();
    let pickle = objects(pickle.to_str().unwrap(), 2);
    assert!(pickle.contains("is a Python pickle"), "{pickle}");
    assert!(pickle.contains("weights_only=True") && pickle.contains("save_file"), "{pickle}");
    let bytes = std::fs::read(reference("upscale/span_x2.safetensors")).unwrap();
    let cut = folder.path().join("cut.safetensors");
    std::fs::write(&cut, &bytes[..bytes.len() - 9]).unwrap();
    assert!(objects(cut.to_str().unwrap(), 2).contains("is truncated"));
    let a_folder = objects(folder.path().to_str().unwrap(), 2);
    assert!(a_folder.contains("no regular file"), "{a_folder}");
    // What only the run knows is that node's error.
    let run =
        [("frames", value(&frames(1, 4, 4))), ("factor", int(9)), ("model", text("video-x4"))];
    assert!(rig.fails("upscale", &run).contains("`factor` is from 1 to 4, found 9"));
}

#[test]
fn tiles_and_frames_together_change_nothing() {
    let rig = Rig::new("upscale-tiles");
    let clip = frames(6, 40, 52);
    let run = |clip: &Tensor, more: &[(&str, Value)]| {
        let inputs = [("frames", value(clip)), ("model", text("video-x4")), ("factor", int(4))];
        enlarged(&rig, &[&inputs[..], more].concat())
    };
    let whole = run(&clip, &[]);
    assert_eq!(whole.dims(), [6, 160, 208, 3]);
    for frame in [0, 5] {
        let alone = run(&clip.narrow(0, frame, 1).unwrap(), &[]);
        assert!(distance(&alone, &whole.narrow(0, frame, 1).unwrap()) < 2e-6);
    }
    assert!(distance(&run(&clip, &[("tile", int(24))]), &whole) < 2e-6);
    let halved = {
        let inputs = [("frames", value(&clip)), ("model", text("video-x4"))];
        enlarged(&rig, &inputs)
    };
    assert_eq!(halved.dims(), [6, 80, 104, 3], "twice, unless it is said otherwise");
    let progress: Vec<(u64, u64)> =
        rig.reports.lock().unwrap().iter().map(|report| (report.step, report.of)).collect();
    assert!(progress.contains(&(4, 6)) && progress.contains(&(6, 6)), "{progress:?}");
}

#[test]
fn weights_are_shared_counted_and_let_go() {
    let mut rig = Rig::new("upscale-weights");
    let ledger = Ledger::new(64 << 20);
    let folders = Folders { graph: reference(""), out: rig.out.clone() };
    rig.services = kino_nodes::services(Device::Cpu, Arc::clone(&ledger)).with(Arc::new(folders));
    let inputs = [("frames", value(&frames(1, 9, 9))), ("model", text("video-x4"))];
    rig.run("upscale", &inputs);
    let weights = VIDEO_X4_BYTES;
    assert_eq!(ledger.used(), weights, "they stay for the next run");
    rig.run("upscale", &inputs);
    assert_eq!(ledger.used(), weights);
    let more = ledger.lease((64 << 20) - weights / 2, "something else").unwrap();
    assert_eq!(ledger.used(), (64 << 20) - weights / 2, "they leave where memory ends");
    drop(more);
    rig.services.get::<Models>().unwrap().clear();
    let copied = Copied::new("rrdb_x4");
    let inputs = [("frames", value(&frames(1, 9, 9))), ("model", text(&copied.text()))];
    let first = enlarged(&rig, &inputs);
    let small = ledger.used();
    assert!(small > 0 && small < 1 << 20, "{small}");
    let bytes = std::fs::read(reference("upscale/rrdb_x2.safetensors")).unwrap();
    let other = copied.0.path().join("other");
    std::fs::write(&other, bytes).unwrap();
    std::fs::rename(&other, copied.path()).unwrap();
    let second = enlarged(&rig, &inputs);
    assert!(distance(&first, &second) > 0.01, "a file that was exchanged is read again");
    assert!(ledger.used() < small, "the weights of the one before have left");
}

/// A step computes with the network that its plan saw, or fails.
#[test]
fn a_network_that_changed_since_the_plan_is_refused() {
    let rig = Rig::new("upscale-changed");
    let copied = Copied::new("rrdb_x4");
    let facts = [("frames", fact(1, 9, 9)), ("model", known(&copied.text()))];
    let reads = rig.infer("upscale", &facts).unwrap().reads;
    let run = |rig: &Rig| {
        let node = common::node("upscale");
        let given =
            [Some(value(&frames(1, 9, 9))), Some(int(2)), Some(text(&copied.text())), Some(int(0))];
        let mut cx = Cx {
            reads: &reads,
            name: "test",
            services: &rig.services,
            cancel: &rig.cancel,
            record: "",
            wanted: &[true],
            report: &|_| {},
        };
        (node.run)(&mut cx, &Inputs::new(&node.signature.inputs, &given))
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(run(&rig), Ok(()));
    // Another file at its place: the plan's stays open, and is computed with.
    let other = copied.0.path().join("other");
    std::fs::copy(reference("upscale/rrdb_x2.safetensors"), &other).unwrap();
    std::fs::rename(&other, copied.path()).unwrap();
    assert_eq!(run(&rig), Ok(()));
    // A process that never opened the planned one cannot have it.
    let fresh = Rig::new("upscale-changed-fresh");
    assert!(run(&fresh).unwrap_err().contains("changed while it ran"));
}

#[test]
fn frames_between_by_a_network_are_planned_counted_and_refused() {
    let mut rig = Rig::new("interpolate-model");
    let facts =
        |model: &str| [("frames", fact(3, 30, 40)), ("factor", number(4)), ("model", known(model))];
    let model = reference("rife/v4_25.safetensors").display().to_string();
    let info = rig.infer("frames.interpolate", &facts(&model)).unwrap();
    let expected = frames_fact(9, 30, 40, 32.0);
    assert_eq!(info.outputs[0].get(), Some(&expected));
    assert_eq!((info.reads.len(), info.weights.len(), info.key.len()), (1, 1, 32));
    let plain = rig.infer("frames.interpolate", &facts("motion")).unwrap();
    assert_eq!((plain.reads.len(), plain.weights.len(), plain.key.len()), (0, 0, 0));
    assert!(info.memory > plain.memory, "sides of 64, and what a network finds");
    let other = reference("upscale/span_x2.safetensors").display().to_string();
    let refused = rig.objects("frames.interpolate", &facts(&other));
    assert!(refused.contains("known is RIFE from 4.13 on"), "{refused}");
    let absent = rig.objects("frames.interpolate", &facts("rife.safetensors"));
    assert!(absent.contains("(a model is `motion`, or a safetensors file"), "{absent}");

    let ledger = Ledger::new(64 << 20);
    let folders = Folders { graph: reference(""), out: rig.out.clone() };
    rig.services = kino_nodes::services(Device::Cpu, Arc::clone(&ledger)).with(Arc::new(folders));
    let clip = frames(3, 30, 40);
    let inputs = [("frames", value(&clip)), ("factor", int(2)), ("model", text(&model))];
    let found = rig.one("frames.interpolate", &inputs).shared::<Frames>().unwrap();
    assert_eq!((found.count(), found.fps()), (5, Some(16.0)));
    let whole = found.whole().unwrap();
    for (at, from) in [(0, 0), (2, 1), (4, 2)] {
        let given = clip.narrow(0, from, 1).unwrap();
        assert_eq!(distance(&whole.narrow(0, at, 1).unwrap(), &given), 0.0);
    }
    drop(found);
    assert_eq!(ledger.used(), info.weights[0].bytes, "the weights stay");
    rig.cancel.cancel();
    assert_eq!(rig.fails("frames.interpolate", &inputs), "cancelled");
}
