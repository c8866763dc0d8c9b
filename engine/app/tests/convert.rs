//! `kino models convert`: what is written, what is refused, and that nothing is there by halves.

mod common;

use std::fs;
use std::io::{Seek, Write};
use std::path::Path;

use common::Place;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn sha256(path: &Path) -> String {
    Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a command says of problems, on one line.
fn flat(said: &str) -> String {
    said.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn convert<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["models", "convert", "embedded:shapes"], args].concat()
}

const DIT: [&str; 2] = ["--part", "transformer"];

#[test]
fn a_part_becomes_a_file_with_the_hash_that_is_told() {
    let place = Place::new();
    let args = convert(&[&["dit.gguf", "--to", "q8_0"], &DIT[..]].concat());
    let told = place.json(&[&args[..], &["--dry-run"]].concat());
    assert!(place.files("").is_empty(), "a dry run writes nothing");
    let done = place.json(&args);
    let part = &done[0]["parts"][0];
    assert_eq!(part["sha256"], sha256(&place.path("dit.gguf")));
    assert_eq!(part["bytes"], fs::metadata(place.path("dit.gguf")).unwrap().len());
    for key in ["bytes", "tensors", "types", "notes", "part", "path"] {
        assert_eq!(part[key], told[0]["parts"][0][key], "{key}");
    }
    assert_eq!(place.files(""), ["dit.gguf"]);
    let shown = place.json(&["models", "show", "dit.gguf"]);
    assert_eq!((&shown[0]["family"], &shown[0]["problem"]), (&json!("Wan"), &Value::Null));
    assert_eq!(shown[0]["parts"][0]["part"], "transformer");
    let said = place.good(&convert(&["vae.safetensors", "--part", "vae"]));
    assert!(said.starts_with("vae  F16  5.2 MB  146 tensors  sha256 "), "{said}");
}

#[test]
fn nothing_is_replaced_unasked() {
    let place = Place::new();
    let args = convert(&[&["dit.safetensors"], &DIT[..]].concat());
    place.write("dit.safetensors", "mine");
    let told = flat(&place.bad(2, &args));
    assert!(told.contains("dit.safetensors exists already help: --force replaces it"), "{told}");
    assert_eq!(fs::read(place.path("dit.safetensors")).unwrap(), b"mine");
    place.good(&[&args[..], &["--force"]].concat());
    // In place, too: what is read is what was there.
    let (before, args) = (
        sha256(&place.path("dit.safetensors")),
        ["models", "convert", "dit.safetensors", "dit.safetensors", "--force"],
    );
    place.good(&args);
    assert_eq!(sha256(&place.path("dit.safetensors")), before);

    place.write("work/notes.txt", "mine");
    for more in [&[][..], &["--force"]] {
        let told = flat(&place.bad(2, &convert(&[&["work"], more].concat())));
        assert!(told.contains("work is a folder with other things in it"), "{told}");
    }
    assert_eq!(place.files("work"), ["notes.txt"]);
    fs::create_dir(place.path("empty")).unwrap();
    place.good(&convert(&["empty"]));
    let told = flat(&place.bad(2, &convert(&["empty"])));
    assert!(told.contains("empty exists already"), "{told}");
    place.good(&convert(&[&["empty", "--force"], &DIT[..]].concat()));
    let files = place.files("empty");
    assert!(files.contains(&"transformer/config.json".to_owned()), "{files:?}");
    assert!(!files.iter().any(|file| file.contains("vae") || file.contains("tokenizer")));
    assert_eq!(fs::read_dir(place.path("")).unwrap().count(), 3, "nothing is left beside");
}

/// The pixels of the one picture in a folder.
fn pixels(place: &Place, folder: &str) -> Vec<u8> {
    let file = place.path(folder).join(place.files(folder).remove(0));
    let file = std::io::BufReader::new(fs::File::open(file).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

/// A folder and files of parts make what the model makes that they were written from: by the inputs
/// that the built-in graphs have for them.
#[test]
fn what_was_written_makes_the_same() {
    let place = Place::new();
    place.good(&convert(&["copy"]));
    place.good(&convert(&["vae.gguf", "--part", "vae"]));
    let shown = place.json(&["models", "show", "copy"]);
    assert_eq!(shown[0]["missing"], json!([]));
    let run = |out: &str, more: &[&str]| {
        let quick = ["width=32", "height=32", "steps=3"];
        let sets = quick.iter().chain(more).flat_map(|set| ["--set", set]);
        let args = ["run", "text_to_image", "--quiet", "--no-cache", "--out", out];
        place.good(&args.into_iter().chain(sets).collect::<Vec<_>>());
        pixels(&place, out)
    };
    let expected = run("embedded", &[]);
    assert!(run("copied", &["model=copy"]) == expected);
    assert!(run("beside", &["vae=vae.gguf"]) == expected);
    assert!(run("cached", &["cache=0.9", "steps=8"]) != run("all", &["steps=8"]));
}

#[test]
fn what_cannot_be_is_told_with_the_way_out() {
    let place = Place::new();
    let bad = |args: &[&str]| flat(&place.bad(2, args));
    let told = bad(&convert(&["x.gguf"]));
    assert!(told.contains("help: name it: --part text_encoder, transformer, vae"), "{told}");
    let told = bad(&convert(&["x.gguf", "--part", "unet"]));
    assert!(told.contains("embedded:shapes has no part unet"), "{told}");
    let told = bad(&convert(&[&["x.gguf", "--to", "q9"], &DIT[..]].concat()));
    assert!(
        told.contains("there is no type q9 help: known are f32, f16, bf16, fp8, q6_k"),
        "{told}"
    );
    let told = bad(&convert(&[&["x.ckpt"], &DIT[..]].concat()));
    assert!(told.contains("no files of this kind are written"), "{told}");
    let told = bad(&convert(&["copy", "--to", "fp8"]));
    assert!(told.contains("diffusers reads no fp8 with scales"), "{told}");
    let told = bad(&["models", "convert", "nowhere.safetensors", "x.gguf"]);
    assert!(told.contains("nowhere.safetensors is not here"), "{told}");
    let told = bad(&["models", "convert", "hf:a/b", "x.gguf"]);
    assert!(told.contains("`kino models pull hf:a/b` fetches it"), "{told}");
    place.write("x4.safetensors", kino_shapes::VIDEO_X4);
    let told = bad(&["models", "convert", "x4.safetensors", "x.gguf"]);
    assert!(told.contains("no part of a model that is known has weights of these names"), "{told}");
    assert_eq!(place.files(""), ["x4.safetensors"]);
}

/// A transformer of a file, and one matrix more of so many rows of zeros, which take no room.
#[cfg(unix)]
fn sparse(place: &Place, name: &str, rows: u64) {
    place.good(&convert(&[&["small.safetensors", "--force", "--to", "f32"], &DIT[..]].concat()));
    let bytes = fs::read(place.path("small.safetensors")).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = &bytes[8 + length..];
    let (start, more) = (data.len() as u64, rows * (1 << 20) * 4);
    header["blocks.0.attn1.to_more.weight"] =
        json!({"dtype": "F32", "shape": [rows, 1 << 20], "data_offsets": [start, start + more]});
    let header = header.to_string().into_bytes();
    let mut file = fs::File::create(place.path(name)).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.write_all(data).unwrap();
    let end = file.stream_position().unwrap();
    file.set_len(end + more).unwrap();
}

#[cfg(unix)]
#[test]
fn a_disk_without_room_is_told_before_anything_is_written() {
    let place = Place::new();
    sparse(&place, "huge.safetensors", 1 << 20);
    let told = flat(&place.bad(1, &["models", "convert", "huge.safetensors", "out.gguf"]));
    assert!(
        told.contains("out.gguf takes 4.4 TB, and ") && told.contains("are free there"),
        "{told}"
    );
    assert!(told.contains("help: make room, or write it to another disk"), "{told}");
    assert_eq!(place.files(""), ["huge.safetensors", "small.safetensors"]);
}

/// A tensor of half a gigabyte passes through, in whatever type, in a few megabytes.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_model() {
    let place = Place::new();
    let peak = |source: &str, args: &[&str]| {
        let command = [&["models", "convert", source], args, &["--force"]].concat();
        let mut child = place.command(&command).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let mut most = 0;
        while child.try_wait().unwrap().is_none() {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
            most = kilobytes.unwrap_or(0u64).max(most);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(child.wait().unwrap().success(), "{command:?}");
        most / 1024
    };
    sparse(&place, "large.safetensors", 128);
    for to in ["q4_k", "f16"] {
        let small = peak("small.safetensors", &["out.gguf", "--to", to]);
        let large = peak("large.safetensors", &["out.gguf", "--to", to]);
        println!("{to}: {small} MiB, {large} MiB with half a gigabyte more");
        assert!(small > 0 && large < small + 48, "{to}: {small} MiB, then {large} MiB");
    }
    let large = peak("large.safetensors", &["out.safetensors", "--to", "fp8"]);
    assert!(large < 200, "{large} MiB");
}

/// One that is killed leaves nothing that has the destination's name.
#[cfg(target_os = "linux")]
#[test]
fn one_that_is_interrupted_leaves_nothing() {
    let place = Place::new();
    sparse(&place, "large.safetensors", 256);
    for destination in ["out.gguf", "folder"] {
        let to = if destination == "folder" { "bf16" } else { "q4_k" };
        let args = ["models", "convert", "large.safetensors", destination, "--to", to];
        let mut child = place.command(&args).spawn().unwrap();
        let is_begun = || {
            let mut list = fs::read_dir(place.path("")).unwrap().flatten();
            list.any(|entry| entry.file_name().to_string_lossy().ends_with(".partial"))
        };
        while !is_begun() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was interrupted");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let id = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{destination}");
        assert_eq!(fs::read_dir(place.path("")).unwrap().count(), 2, "{destination}");
    }
}
