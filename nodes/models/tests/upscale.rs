//! Networks that enlarge frames: the values of spandrel and of the embedded one, what files are
//! taken for, and tiles.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use common::{Random, close, golden, reference, values};
use kino_models::checkpoint::{DataFile, PartFiles};
use kino_models::model::{Upscaler, UpscalerSpec};
use kino_models::upscale::{Tiling, read_upscaler};
use kino_models::{Result, Weights};

/// A network from a file.
struct Opened {
    spec: Arc<dyn UpscalerSpec>,
    network: Arc<dyn Upscaler>,
}

impl Opened {
    fn new(path: &Path) -> Result<Self> {
        let file = DataFile::open(path, &path.display().to_string())?;
        let files = Arc::new(PartFiles::of_file(file)?);
        let spec = read_upscaler(&files)?;
        let network = spec.load(&Weights::new(files, DType::F32, &Device::Cpu)?)?;
        Ok(Self { spec, network })
    }

    fn upscale(&self, frames: &Tensor) -> Tensor {
        self.network.upscale(frames, &mut || Ok(())).unwrap()
    }

    fn tiled(&self, frames: &Tensor, factor: usize, side: usize) -> Tensor {
        let (_, h, w, _) = frames.dims4().unwrap();
        let tiling = Tiling::new(Arc::clone(&self.spec), [h, w], factor, side).unwrap();
        tiling.upscale(&*self.network, frames, &mut || Ok(())).unwrap()
    }
}

fn embedded() -> Opened {
    Opened::new(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../shapes/upscale/video-x4.safetensors"
    )))
    .unwrap()
}

fn weights(name: &str) -> PathBuf {
    reference(&format!("upscale/{name}.safetensors"))
}

/// A file of weights that a test makes, in a folder that goes with it.
struct Made(tempfile::TempDir);

impl Made {
    fn new(tensors: &HashMap<String, Tensor>) -> Self {
        let made = Made(tempfile::tempdir().unwrap());
        candle_core::safetensors::save(tensors, made.path()).unwrap();
        made
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("weights.safetensors")
    }

    fn fails(&self) -> String {
        match Opened::new(&self.path()) {
            Ok(_) => panic!("it loads"),
            Err(error) => error.to_string(),
        }
    }
}

fn tensors(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(weights(name), &Device::Cpu).unwrap()
}

#[test]
fn the_embedded_network_gives_its_reference_values() {
    let (opened, golden) = (embedded(), golden("upscale/video_x4.safetensors"));
    assert_eq!((opened.spec.name(), opened.spec.factor()), ("SRVGGNetCompact", 4));
    assert_eq!(opened.spec.reach(), 18);
    for case in ["circle", "noise", "one_row"] {
        let found = opened.upscale(&golden.get(&format!("{case}.input")));
        close(case, &found, &golden.get(&format!("{case}.output")), 4e-6);
    }
}

#[test]
fn small_random_networks_give_the_values_of_spandrel() {
    let golden = golden("upscale/values.safetensors");
    for (name, network, factor) in [
        ("rrdb_x4", "RRDBNet", 4),
        ("rrdb_x2", "RRDBNet", 2),
        ("rrdb_x1", "RRDBNet", 1),
        ("rrdb_x8", "RRDBNet", 8),
        ("srvgg_x2", "SRVGGNetCompact", 2),
        ("span_x2", "SPAN", 2),
        ("span_x4", "SPAN", 4),
    ] {
        let opened = Opened::new(&weights(name)).unwrap();
        assert_eq!((opened.spec.name(), opened.spec.factor()), (network, factor), "{name}");
        let found = opened.upscale(&golden.get(&format!("{name}.input")));
        let expected = golden.get(&format!("{name}.output"));
        let largest = values(&expected).iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        close(name, &found, &expected, 3e-6 * largest);
    }
}

/// The same weights under the names of each layout, as spandrel reads them, also as some training
/// programs wrap them.
#[test]
fn every_layout_of_the_family_holds_the_same_network() {
    let golden = golden("upscale/values.safetensors");
    let (input, expected) = (golden.get("rrdb_x4.input"), golden.get("rrdb_x4.output"));
    let layouts: HashMap<String, HashMap<String, String>> =
        serde_json::from_slice(&std::fs::read(reference("upscale/layouts.json")).unwrap()).unwrap();
    assert_eq!(layouts.len(), 3);
    let own = tensors("rrdb_x4");
    for (layout, names) in &layouts {
        for wrapper in ["", "params_ema."] {
            let renamed =
                names.iter().map(|(name, old)| (format!("{wrapper}{name}"), own[old].clone()));
            let opened = Opened::new(&Made::new(&renamed.collect()).path()).unwrap();
            let what = format!("{layout} {wrapper}");
            close(&what, &opened.upscale(&input), &expected, 3e-7);
        }
    }
}

/// SPAN's convolutions are built of their chains, whatever was left in their place while training;
/// of files that carry the results alone, those are taken.
#[test]
fn chains_of_convolutions_win_over_what_stands_beside_them() {
    let golden = golden("upscale/values.safetensors");
    let (input, expected) = (golden.get("span_x2.input"), golden.get("span_x2.output"));
    let own = tensors("span_x2");
    let mut stale = own.clone();
    for (name, tensor) in &mut stale {
        if name.contains("eval_conv") {
            *tensor = tensor.zeros_like().unwrap();
        }
    }
    let largest = values(&expected).iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let found = Opened::new(&Made::new(&stale).path()).unwrap().upscale(&input);
    close("stale", &found, &expected, 3e-6 * largest);
    let is_result = |name: &String| !name.contains(".conv.") && !name.contains(".sk.");
    let bare: HashMap<_, _> = own.into_iter().filter(|(name, _)| is_result(name)).collect();
    let found = Opened::new(&Made::new(&bare).path()).unwrap().upscale(&input);
    // They are stored in float16.
    close("results alone", &found, &expected, 3e-3 * largest);
}

#[test]
fn tiles_give_what_the_whole_frame_gives() {
    let noise = |h: usize, w: usize| {
        let mut random = Random(9);
        let pixels = (0..h * w * 3).map(|_| random.below(1000) as f32 / 1000.0);
        Tensor::from_vec(pixels.collect::<Vec<f32>>(), (1, h, w, 3), &Device::Cpu).unwrap()
    };
    let opened = embedded();
    let frames = noise(47, 71);
    let whole = opened.tiled(&frames, 4, 512);
    close("whole", &whole, &opened.upscale(&frames).clamp(0f32, 1f32).unwrap(), 0.0);
    for side in [16, 24, 50] {
        close("tiles", &opened.tiled(&frames, 4, side), &whole, 2e-6);
    }
    for name in ["rrdb_x4", "rrdb_x2", "rrdb_x1", "span_x4"] {
        let opened = Opened::new(&weights(name)).unwrap();
        let (frames, factor) = (noise(75, 67), opened.spec.factor());
        let whole = opened.tiled(&frames, factor, 512);
        close(name, &opened.tiled(&frames, factor, 32), &whole, 1e-5);
    }
}

/// A network that enlarges more than was asked: means of the areas that pixels cover.
#[test]
fn smaller_factors_are_averaged_by_area() {
    let (opened, golden) = (embedded(), golden("upscale/video_x4.safetensors"));
    let frames = golden.get("noise.input");
    let large = opened.upscale(&frames); // [1, 4h, 4w, 3]
    let (_, h, w, _) = frames.dims4().unwrap();
    let squares = large.reshape(&[1, h * 2, 2, w * 2, 2, 3][..]).unwrap();
    let halved = squares.mean(4).unwrap().mean(2).unwrap().clamp(0f32, 1f32).unwrap();
    close("x2", &opened.tiled(&frames, 2, 0), &halved, 1e-6);
    let rows = |pixels: [usize; 2], weights: [f64; 2]| {
        let row = |at: usize| large.narrow(1, 0, 1).unwrap().narrow(2, at, 1).unwrap();
        ((row(pixels[0]) * weights[0]).unwrap() + (row(pixels[1]) * weights[1]).unwrap()).unwrap()
    };
    // The first of three pixels takes all of the first of four and a third of the second.
    let tripled = opened.tiled(&frames, 3, 8);
    assert_eq!(tripled.dims(), [1, 3 * h, 3 * w, 3]);
    let line = rows([0, 1], [0.75, 0.25]);
    let large_second = large.narrow(1, 1, 1).unwrap();
    let second = {
        let row = |at: usize| large_second.narrow(2, at, 1).unwrap();
        ((row(0) * 0.75).unwrap() + (row(1) * 0.25).unwrap()).unwrap()
    };
    let expected = ((line * 0.75).unwrap() + (second * 0.25).unwrap()).unwrap();
    let expected = expected.clamp(0f32, 1f32).unwrap();
    let first = tripled.narrow(1, 0, 1).unwrap().narrow(2, 0, 1).unwrap();
    close("x3", &first, &expected, 1e-6);
    for factor in [0, 5] {
        let size = [h, w];
        let error = Tiling::new(Arc::clone(&opened.spec), size, factor, 0).err().unwrap();
        let expected = format!("so `factor` is from 1 to 4, found {factor}");
        assert!(error.to_string().contains(&expected), "{error}");
    }
}

#[test]
fn a_network_can_be_stopped() {
    let (opened, golden) = (embedded(), golden("upscale/video_x4.safetensors"));
    let mut asked = 0;
    let result = opened.network.upscale(&golden.get("noise.input"), &mut || {
        asked += 1;
        if asked < 7 { Ok(()) } else { Err(kino_models::Error::Cancelled) }
    });
    assert!(matches!(result, Err(kino_models::Error::Cancelled)));
    assert_eq!(asked, 7);
}

#[test]
fn values_that_are_no_numbers_are_refused() {
    let opened = embedded();
    let frames = Tensor::full(f32::NAN, (1, 8, 8, 3), &Device::Cpu).unwrap();
    let tiling = Tiling::new(Arc::clone(&opened.spec), [8, 8], 4, 0).unwrap();
    let error = tiling.upscale(&*opened.network, &frames, &mut || Ok(())).unwrap_err();
    assert!(error.to_string().contains("left the range of numbers"), "{error}");
}

#[test]
fn files_that_are_no_such_network_are_refused_by_what_is_wrong() {
    let own = tensors("rrdb_x4");
    let mut missing = own.clone();
    missing.remove("model.1.sub.1.RDB2.conv3.0.weight");
    assert!(
        Made::new(&missing).fails().contains("no weight `model.1.sub.1.RDB2.conv3.0.weight`"),
        "{}",
        Made::new(&missing).fails()
    );
    let mut other = own.clone();
    let twice = Tensor::cat(&[&own["model.3.weight"]; 2], 0).unwrap();
    other.insert("model.3.weight".to_owned(), twice);
    let said = Made::new(&other).fails();
    assert!(said.contains("weight `model.3.weight`: expected [8, 8, 3, 3]"), "{said}");
    let mut endless = own.clone();
    endless.remove("model.10.weight");
    let said = Made::new(&endless).fails();
    assert!(said.contains("the layers behind the blocks are missing"), "{said}");
    let mut plus = own.clone();
    let narrow = Tensor::zeros((6, 8, 1, 1), DType::F32, &Device::Cpu).unwrap();
    plus.insert("model.1.sub.0.RDB1.conv1x1.weight".to_owned(), narrow);
    assert!(Made::new(&plus).fails().contains("ESRGAN+"), "{}", Made::new(&plus).fails());
    let mut grey = tensors("srvgg_x2");
    let one = grey["body.0.weight"].narrow(1, 0, 1).unwrap().contiguous().unwrap();
    grey.insert("body.0.weight".to_owned(), one);
    assert!(Made::new(&grey).fails().contains("for 1 colours"), "{}", Made::new(&grey).fails());
    let strange = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
    let strange = HashMap::from([("layers.0.qkv.weight".to_owned(), strange)]);
    let said = Made::new(&strange).fails();
    assert!(said.contains("weights `layers.0.qkv.weight`; known are"), "{said}");
}

/// Shapes that a stranger writes: an error or a network, never a panic or memory without bounds.
#[test]
fn headers_of_any_kind_are_errors() {
    let mut random = Random(0x5eed_0012);
    println!("seed {:#x}", random.0);
    for name in ["rrdb_x4", "srvgg_x2", "span_x2"] {
        let bytes = std::fs::read(weights(name)).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for _ in 0..60 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random.below(3) {
                let at = 8 + random.below(length);
                if damaged[at].is_ascii_digit() {
                    damaged[at] = b'0' + random.below(10) as u8;
                } else if damaged[at].is_ascii_alphabetic() {
                    damaged[at] = b'a' + random.below(26) as u8;
                }
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.safetensors");
            std::fs::write(&path, damaged).unwrap();
            if let Ok(opened) = Opened::new(&path) {
                let _ = opened.spec.memory([480, 832]);
            }
        }
    }
    // Sizes far beyond what a file holds, of an empty tensor.
    let empty = r#"{"body.0.weight":{"dtype":"F32","shape":[4611686018427387904,3,3,0],"data_offsets":[0,0]},"body.1.weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
    let mut bytes = (empty.len() as u64).to_le_bytes().to_vec();
    bytes.extend(empty.as_bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    std::fs::write(&path, bytes).unwrap();
    assert!(Opened::new(&path).is_err());
    std::fs::write(&path, b"PK\x03\x04 a pickle in an archive").unwrap();
    let said = Opened::new(&path).err().unwrap().to_string();
    assert!(said.contains("is a Python pickle"), "{said}");
}
