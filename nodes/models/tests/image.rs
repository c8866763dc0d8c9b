//! The CLIP vision encoder and what makes pictures ready for it, against transformers.

mod common;

use std::sync::Arc;

use candle_core::{DType, Device, IndexOp, Tensor};
use common::{close, golden, model};
use kino_models::ModelFolder;
use kino_models::image::{ClipConfig, ClipVision, PrepareConfig, prepare};
use kino_models::weight::{Probe, Weights};

/// The reference's picture, `[h, w, 3]` in 0…1.
fn picture() -> Tensor {
    let bytes = golden("wan_i2v/golden/image_cond.safetensors").get("picture_u8");
    (bytes.to_dtype(DType::F32).unwrap() / 255.0).unwrap()
}

fn configs(folder: &ModelFolder) -> (ClipConfig, PrepareConfig) {
    let config = ClipConfig::read(folder).unwrap();
    let prepare = PrepareConfig::read(folder, &config).unwrap();
    (config, prepare)
}

#[test]
fn a_picture_is_made_ready_and_encoded_as_the_reference_does() {
    let folder = model("wan_i2v/model");
    let (config, how) = configs(&folder);
    let golden = golden("wan_i2v/golden/image_cond.safetensors");
    let pixels = prepare(&picture(), &how).unwrap();
    close("pixels", &pixels, &golden.get("pixel_values").i(0).unwrap(), 1e-5);
    let weights = folder.weights("image_encoder", DType::F32, &Device::Cpu).unwrap();
    let clip = ClipVision::load(&config, &weights).unwrap();
    let states = clip.encode(&pixels, &mut || Ok(())).unwrap();
    assert_eq!(states.dims(), [config.rows(), config.hidden_size]);
    close("states", &states, &golden.get("penultimate").i(0).unwrap(), 2e-5);
    let wrong = clip.encode(&pixels.narrow(1, 0, 55).unwrap(), &mut || Ok(())).unwrap_err();
    assert!(wrong.to_string().contains("this encoder reads [3, 56, 56]"), "{wrong}");
}

/// The last layer, what follows it and the projection stand in every published file, and are no
/// fault of it.
#[test]
fn nothing_of_a_whole_file_is_left_over() {
    let folder = model("wan_i2v/model");
    let files = Arc::new(folder.part("image_encoder").unwrap());
    assert!(files.shape("visual_projection.weight").is_some());
    let probe = Arc::new(Probe::default());
    let weights = Weights::new(Arc::clone(&files), DType::F32, &Device::Cpu).unwrap();
    ClipVision::load(&configs(&folder).0, &weights.probing(&probe)).unwrap();
    assert!(probe.left_over(&files).is_empty(), "{:?}", probe.left_over(&files));
}

/// A picture of another size is resized as Pillow does, and cut: the same bytes.
#[test]
fn a_picture_is_resized_as_the_reference_does() {
    let (_, how) = configs(&model("wan_flf2v/model"));
    let golden = golden("wan_flf2v/golden.safetensors");
    let picture = (golden.get("large_u8").to_dtype(DType::F32).unwrap() / 255.0).unwrap();
    let pixels = prepare(&picture, &how).unwrap();
    close("bytes", &pixels, &golden.get("large_pixels"), 1e-5);
}

/// One frame of any shape becomes the encoder's square: also a line of pixels, also one pixel.
#[test]
fn pictures_of_any_shape_are_made_ready() {
    let (_, how) = configs(&model("wan_i2v/model"));
    for (height, width) in [(1, 1), (1, 5000), (5000, 1), (56, 57), (200, 100), (30, 44)] {
        let grey = Tensor::full(0.4f32, (height, width, 3), &Device::Cpu).unwrap();
        let ready = prepare(&grey, &how).unwrap();
        assert_eq!(ready.dims(), [3, 56, 56], "{height}×{width}");
        let level = (102.0 / 255.0 - how.image_mean[0]) / how.image_std[0];
        let expected = Tensor::full(level as f32, (56, 56), &Device::Cpu).unwrap();
        close("grey", &ready.i(0).unwrap(), &expected, 1e-5);
    }
    let none = Tensor::zeros((0, 4, 3), DType::F32, &Device::Cpu).unwrap();
    assert!(prepare(&none, &how).is_err());
}
