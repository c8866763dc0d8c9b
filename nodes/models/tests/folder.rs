//! Reading models: what fits is read, what does not is refused by name, and nothing panics.

mod common;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use common::{Random, close, model, reference};
use kino_models::checkpoint::ModelFiles;
use kino_models::{Error, ModelFolder, Weights};

fn tensors() -> HashMap<String, Tensor> {
    let tensor = |values: &[f32], shape: (usize, usize)| {
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
    };
    HashMap::from([
        ("blocks.0.weight".to_owned(), tensor(&[1.0, 2.5, -3.0, 4.0, 0.5, 6.0], (2, 3))),
        ("blocks.0.bias".to_owned(), tensor(&[0.25, -0.75], (1, 2))),
    ])
}

/// A folder with a transformer whose one weight file has these bytes.
fn folder_with(bytes: &[u8]) -> (tempfile::TempDir, ModelFolder) {
    let place = tempfile::tempdir().unwrap();
    let part = place.path().join("transformer");
    std::fs::create_dir(&part).unwrap();
    std::fs::write(part.join("diffusion_pytorch_model.safetensors"), bytes).unwrap();
    let folder = ModelFolder::directory(place.path()).unwrap();
    (place, folder)
}

fn saved(tensors: &HashMap<String, Tensor>) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    candle_core::safetensors::save(tensors, file.path()).unwrap();
    std::fs::read(file.path()).unwrap()
}

fn open(bytes: &[u8]) -> Result<Weights, Error> {
    let (_place, folder) = folder_with(bytes);
    folder.weights("transformer", DType::F32, &Device::Cpu)
}

#[test]
fn weights_are_read_by_scope_in_every_stored_type() {
    for stored in [DType::F32, DType::F16, DType::BF16] {
        let converted: HashMap<_, _> =
            tensors().into_iter().map(|(k, t)| (k, t.to_dtype(stored).unwrap())).collect();
        let (_place, folder) = folder_with(&saved(&converted));
        assert_eq!(folder.stored_dtype("transformer").unwrap(), stored);
        for compute in [DType::F32, DType::BF16] {
            let weights = folder.weights("transformer", compute, &Device::Cpu).unwrap();
            let block = weights.scope("blocks").scope(0);
            assert!(block.contains("weight") && !block.contains("blocks.0.weight"));
            assert_eq!(block.shape("bias"), Some(&[1, 2][..]));
            let weight = block.get("weight", (2, 3)).unwrap();
            assert_eq!(weight.dtype(), compute);
            close("weight", &weight, &tensors()["blocks.0.weight"], 0.0);
            assert_eq!(block.get_as("bias", (1, 2), DType::F32).unwrap().dtype(), DType::F32);
        }
    }
    let bytes = saved(&tensors());
    let (_place, folder) = folder_with(&bytes);
    let refused = folder.weights("transformer", DType::F16, &Device::Cpu).unwrap_err();
    assert!(refused.to_string().contains("f32 or bf16"), "{refused}");
}

#[test]
fn shards_are_joined() {
    let (mut first, mut second) = (tensors(), tensors());
    first.remove("blocks.0.bias");
    second.remove("blocks.0.weight");
    let place = tempfile::tempdir().unwrap();
    let part = place.path().join("text_encoder");
    std::fs::create_dir(&part).unwrap();
    std::fs::write(part.join("model-1.safetensors"), saved(&first)).unwrap();
    std::fs::write(part.join("model-2.safetensors"), saved(&second)).unwrap();
    let index = r#"{"metadata": {}, "weight_map": {"blocks.0.weight": "model-1.safetensors",
        "blocks.0.bias": "model-2.safetensors"}}"#;
    let index_file = part.join("model.safetensors.index.json");
    std::fs::write(&index_file, index).unwrap();
    let folder = ModelFolder::directory(place.path()).unwrap();
    let weights = folder.weights("text_encoder", DType::F32, &Device::Cpu).unwrap();
    close("bias", &weights.get("blocks.0.bias", (1, 2)).unwrap(), &tensors()["blocks.0.bias"], 0.0);
    weights.get("blocks.0.weight", (2, 3)).unwrap();

    std::fs::remove_file(part.join("model-2.safetensors")).unwrap();
    let refused = folder.weights("text_encoder", DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(refused.contains("model-2.safetensors is missing"), "{refused}");
    assert!(refused.contains("put the file there, or get the model anew"), "{refused}");
    std::fs::write(&index_file, index.replace("model-2", "../model-2")).unwrap();
    let refused = folder.weights("text_encoder", DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(refused.contains("not a file beside the index"), "{refused}");
}

/// Files that are named by a variant, as `variant=` of diffusers reads them.
#[test]
fn a_variant_is_read_and_two_are_named() {
    let (place, folder) = folder_with(&saved(&tensors()));
    let part = place.path().join("transformer");
    let plain = part.join("diffusion_pytorch_model.safetensors");
    let names = || folder.weight_files("transformer");
    std::fs::rename(&plain, part.join("diffusion_pytorch_model.fp16.safetensors")).unwrap();
    assert_eq!(names().unwrap(), ["transformer/diffusion_pytorch_model.fp16.safetensors"]);
    assert!(folder.weights("transformer", DType::F32, &Device::Cpu).is_ok());
    let other = part.join("diffusion_pytorch_model.bf16.safetensors");
    std::fs::write(&other, saved(&tensors())).unwrap();
    let told = names().unwrap_err().to_string();
    assert!(told.contains("there are the variants bf16, fp16: rename"), "{told}");
    // An index of several files; and the plain one counts before all.
    std::fs::remove_file(other).unwrap();
    std::fs::rename(
        part.join("diffusion_pytorch_model.fp16.safetensors"),
        part.join("diffusion_pytorch_model.fp16-00001-of-00001.safetensors"),
    )
    .unwrap();
    let file = "diffusion_pytorch_model.fp16-00001-of-00001.safetensors";
    let index = format!("{{\"weight_map\": {{\"blocks.0.bias\": {file:?}}}}}");
    std::fs::write(part.join("diffusion_pytorch_model.safetensors.index.fp16.json"), index)
        .unwrap();
    assert_eq!(names().unwrap(), [format!("transformer/{file}")]);
}

/// What lacks a file that its index names can be fetched again.
#[test]
fn an_incomplete_snapshot_names_the_command_that_completes_it() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join("models--Wan-AI--Tiny/snapshots/abc123");
    std::fs::create_dir_all(snapshot.join("transformer")).unwrap();
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#;
    std::fs::write(snapshot.join("transformer/model.safetensors.index.json"), index).unwrap();
    let folder = ModelFolder::directory(&snapshot).unwrap();
    let told = folder.weights("transformer", DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(told.contains("model-00001-of-00002.safetensors is missing"), "{told}");
    let commands = "`kino models pull hf:Wan-AI/Tiny` (or `hf download Wan-AI/Tiny`) completes it";
    assert!(told.contains(commands), "{told}");
    // Of another commit than that of `main`, its own.
    std::fs::create_dir_all(cache.path().join("models--Wan-AI--Tiny/refs")).unwrap();
    std::fs::write(cache.path().join("models--Wan-AI--Tiny/refs/main"), "fed987").unwrap();
    let told = folder.weights("transformer", DType::F32, &Device::Cpu).unwrap_err().to_string();
    let commands = "`kino models pull hf:Wan-AI/Tiny@abc123` (or `hf download Wan-AI/Tiny \
        --revision abc123`) completes it";
    assert!(told.contains(commands), "{told}");
}

/// A link to contents that are not there, as a download leaves it that was cut off.
#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_is_told_as_one() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join("models--Wan-AI--Tiny/snapshots/abc123");
    std::fs::create_dir_all(snapshot.join("vae")).unwrap();
    let link = snapshot.join("vae/diffusion_pytorch_model.safetensors");
    std::os::unix::fs::symlink("../../../blobs/feed", &link).unwrap();
    let folder = ModelFolder::directory(&snapshot).unwrap();
    let told = folder.weights("vae", DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(told.contains("vae/diffusion_pytorch_model.safetensors is missing"), "{told}");
    assert!(told.contains("its link leads nowhere; `kino models pull hf:Wan-AI/Tiny`"), "{told}");
}

#[test]
fn a_weight_that_does_not_fit_is_named() {
    let weights = open(&saved(&tensors())).unwrap();
    let refused = weights.get("blocks.0.weight", (3, 2)).unwrap_err().to_string();
    assert!(refused.contains("diffusion_pytorch_model.safetensors"), "{refused}");
    assert!(refused.contains("`blocks.0.weight`: expected [3, 2], found [2, 3]"), "{refused}");
    let refused = weights.scope("blocks.0").get("weigth", (2, 3)).unwrap_err();
    assert!(matches!(&refused, Error::MissingWeight { name, nearest: Some(nearest), .. }
        if &*name.name == "blocks.0.weigth" && name.in_file.is_none() && nearest == "blocks.0.weight"));
    let refused = refused.to_string();
    assert!(refused.contains("nearest name it has is `blocks.0.weight`"), "{refused}");
}

#[test]
fn other_types_are_refused_by_name() {
    let integers = Tensor::new(&[1i64, 2], &Device::Cpu).unwrap();
    let weights = open(&saved(&HashMap::from([("ids".to_owned(), integers)]))).unwrap();
    let refused = weights.get("ids", 2).unwrap_err().to_string();
    assert!(refused.contains("`ids` is stored as I64"), "{refused}");
}

/// As `tensor.read` has it, since one parser serves both.
#[test]
fn types_of_tensors_that_are_not_read_stand_in_nobodys_way() {
    for (dtype, elements, bytes) in
        [("I128", 1, 16), ("X7", 3, 7), ("F4", 16, 8), ("F6_E3M2", 16, 12), ("BOOL", 3, 3)]
    {
        let header = format!(
            r#"{{"a": {{"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
                "b": {{"dtype": "{dtype}", "shape": [{elements}], "data_offsets": [8, {}]}}}}"#,
            8 + bytes
        );
        let length = (header.len() as u64).to_le_bytes();
        let file = [&length, header.as_bytes(), &vec![0; 8 + bytes]].concat();
        let weights = open(&file).unwrap();
        weights.get("a", 2).unwrap();
        let refused = weights.get("b", elements).unwrap_err().to_string();
        assert!(refused.contains(&format!("`b` is stored as {dtype}")), "{refused}");
    }
    let twice = r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}"#;
    let file = [&(twice.len() as u64).to_le_bytes(), twice.as_bytes(), &[0]].concat();
    assert!(open(&file).unwrap_err().to_string().contains("names `a` twice"));
}

#[test]
fn truncated_files_say_how_much_is_missing() {
    let bytes = saved(&tensors());
    let refused = open(&bytes[..bytes.len() - 4]).unwrap_err();
    assert!(
        matches!(refused, Error::Truncated { expected, found, .. }
            if expected == bytes.len() as u64 && found == expected - 4),
        "{refused}"
    );
    for cut in [0, 1, 7, 8, 20] {
        let refused = open(&bytes[..cut]).unwrap_err();
        assert!(matches!(refused, Error::Truncated { .. }), "{cut} bytes: {refused}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(open(&longer), Err(Error::Safetensors { .. })));
}

#[test]
fn what_was_downloaded_wrongly_is_recognised() {
    for (bytes, expected) in [
        (&b"\n<!DOCTYPE html><html>"[..], "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it is a Git LFS pointer"),
        (
            b"Invalid username or password.",
            "it is a text, \"Invalid username or password.\"; download",
        ),
        (br#"{"error":"Repository not found"}"#, "Repository not found"),
        (b"Access to model org/gated is restricted. You must be", "Access to model org/gated"),
        (&[0; 4096], "it begins with zeros, as a file does whose download was not finished"),
        (&[0; 8], "it begins with zeros"),
        (b"", "is truncated: expected 8 bytes, found 0; download it again"),
    ] {
        let refused = open(bytes).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    let place = tempfile::tempdir().unwrap();
    for (text, expected) in [("{\"a\":", true), ("<html>", true), ("[1]", false)] {
        std::fs::write(place.path().join("model_index.json"), text).unwrap();
        let folder = ModelFolder::directory(place.path()).unwrap();
        let read = folder.json::<HashMap<String, String>>("model_index.json");
        let refused = read.unwrap_err().to_string();
        assert!(refused.contains("model_index.json: "), "{refused}");
        assert_eq!(refused.contains("not JSON or cut off"), expected, "{refused}");
    }
}

#[test]
fn pickles_are_refused_by_content() {
    for start in
        [&b"PK\x03\x04archive/data.pkl"[..], b"\x80\x02}q\x00.", b"\x80\x04\x95\x10\0\0\0."]
    {
        let refused = open(start).unwrap_err();
        assert!(matches!(refused, Error::Pickle { .. }), "{refused}");
        let refused = refused.to_string();
        assert!(refused.contains("runs the code inside it"), "{refused}");
        assert!(refused.contains("convert it to safetensors"), "{refused}");
    }
    // By content, not by name: under the usual name of a pickle too, and no header of 640 bytes
    // (0x80 0x02) is taken for one.
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("vae")).unwrap();
    std::fs::write(place.path().join("vae/diffusion_pytorch_model.bin"), b"PK\x03\x04").unwrap();
    let folder = ModelFolder::directory(place.path()).unwrap();
    let refused = folder.weights("vae", DType::F32, &Device::Cpu).unwrap_err();
    assert!(matches!(refused, Error::Pickle { .. }), "{refused}");
    let mut header = b"{}".to_vec();
    header.resize(640, b' ');
    open(&[&640u64.to_le_bytes()[..], &header].concat()).unwrap();
}

/// Arbitrary bytes and cuts of a good file are refused or read, and never panic.
#[test]
fn no_bytes_make_the_reader_panic() {
    let seed = 0x5afe_7e45;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let good = saved(&tensors());
    for round in 0..400 {
        let mut bytes = match round % 4 {
            0 => (0..random.below(200)).map(|_| random.next() as u8).collect(),
            1 => good[..random.below(good.len())].to_vec(),
            _ => good.clone(),
        };
        for _ in 0..random.below(4) {
            if !bytes.is_empty() {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            }
        }
        if round % 4 == 3 && bytes.len() > 8 {
            // Digits of shapes and offsets are where a header can lie.
            let digits: Vec<usize> =
                (8..bytes.len()).filter(|i| bytes[*i].is_ascii_digit()).collect();
            for _ in 0..3 {
                bytes[digits[random.below(digits.len())]] = b'0' + random.below(10) as u8;
            }
        }
        if let Ok(weights) = open(&bytes) {
            for name in ["blocks.0.weight", "blocks.0.bias"] {
                let shape = weights.shape(name).map(<[usize]>::to_vec);
                if let Some(shape) = shape.filter(|s| s.iter().product::<usize>() < 1000) {
                    let _ = weights.get(name, shape);
                }
            }
        }
    }
}

static EMBEDDED: &[(&str, &[u8], Option<&str>)] = &[
    ("model_index.json", include_bytes!("../../../tests/ref/wan_t2v/model/model_index.json"), None),
    (
        "text_encoder/config.json",
        include_bytes!("../../../tests/ref/wan_t2v/model/text_encoder/config.json"),
        None,
    ),
    (
        "text_encoder/model.safetensors",
        include_bytes!("../../../tests/ref/wan_t2v/model/text_encoder/model.safetensors"),
        None,
    ),
];

#[test]
fn embedded_bytes_are_read_like_a_folder() {
    let (embedded, on_disk) =
        (ModelFolder::embedded("embedded:tiny", EMBEDDED), model("wan_t2v/model"));
    let path = "text_encoder/config.json";
    assert_eq!(embedded.text(path).unwrap(), on_disk.text(path).unwrap());
    let read = |folder: &ModelFolder| {
        let weights = folder.weights("text_encoder", DType::F32, &Device::Cpu).unwrap();
        weights.get("shared.weight", (608, 40)).unwrap()
    };
    close("embedded", &read(&embedded), &read(&on_disk), 0.0);
    let missing = embedded.weights("vae", DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(missing.contains("embedded:tiny/vae/diffusion_pytorch_model.safetensors"), "{missing}");
    assert!(!embedded.contains("vae/config.json"));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn the_fingerprint_follows_every_file() {
    let place = tempfile::tempdir().unwrap();
    copy(&reference("wan_t2v/model"), place.path());
    let folder = ModelFolder::directory(place.path()).unwrap();
    let print = || folder.fingerprint().unwrap();
    let first = print();
    assert_eq!(first, print());
    // A config.
    let config = place.path().join("scheduler/scheduler_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"flow_shift\": 3.0", "\"flow_shift\": 5.0")).unwrap();
    let second = print();
    assert_ne!(first, second);
    // A weight file that was replaced by one of the same length and header.
    let file = place.path().join("vae/diffusion_pytorch_model.safetensors");
    let handle = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
    handle.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000)).unwrap();
    let third = print();
    assert_ne!(second, third);
    // A truncated one is no error here: it is refused when it is opened.
    handle.set_len(5).unwrap();
    assert_ne!(third, print());
    let embedded = ModelFolder::embedded("embedded:tiny", EMBEDDED);
    assert_eq!(embedded.fingerprint().unwrap(), embedded.clone().fingerprint().unwrap());
    let fewer = ModelFolder::embedded("embedded:tiny", &EMBEDDED[..2]);
    assert_ne!(embedded.fingerprint().unwrap(), fewer.fingerprint().unwrap());
}

#[test]
fn a_folder_that_is_no_model_is_refused() {
    let refused = ModelFolder::directory("/nowhere/at/all").unwrap_err().to_string();
    assert!(refused.contains("/nowhere/at/all is missing"), "{refused}");
    let place = tempfile::tempdir().unwrap();
    let folder = ModelFolder::directory(place.path()).unwrap();
    let refused = folder.text("model_index.json").unwrap_err().to_string();
    assert!(refused.contains("model_index.json is missing"), "{refused}");
    let refused = folder.weights("vae", DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(refused.contains("looked for"), "{refused}");
}
