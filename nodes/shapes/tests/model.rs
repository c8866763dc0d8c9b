//! What the binary holds is what lies in `model/`, all of it.

use std::collections::BTreeMap;
use std::path::Path;

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

#[test]
fn every_file_of_the_model_is_embedded() {
    let mut on_disk = BTreeMap::new();
    collect(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/model")), "", &mut on_disk);
    let embedded: BTreeMap<String, Vec<u8>> = kino_shapes::FILES
        .iter()
        .map(|(path, bytes, _)| (path.to_string(), bytes.to_vec()))
        .collect();
    assert_eq!(
        on_disk.keys().collect::<Vec<_>>(),
        embedded.keys().collect::<Vec<_>>(),
        "a new file of model/ is added to FILES"
    );
    assert!(on_disk == embedded, "model/ changed after it was embedded");
}

#[test]
fn the_digests_of_weights_are_theirs() {
    let network = ("VIDEO_X4", kino_shapes::VIDEO_X4, Some(kino_shapes::VIDEO_X4_DIGEST));
    let of_model = kino_shapes::FILES.iter().filter(|(path, ..)| path.ends_with(".safetensors"));
    let wrong: Vec<String> = of_model
        .chain([&network])
        .map(|(path, bytes, digest)| (path, blake3::hash(bytes).to_hex(), digest))
        .filter(|(_, found, digest)| **digest != Some(found.as_str()))
        .map(|(path, found, _)| format!("    embedded!(\"{path}\", \"{found}\"),"))
        .collect();
    assert!(wrong.is_empty(), "put these lines into FILES:\n{}", wrong.join("\n"));
}

#[test]
fn what_others_made_carries_their_licence() {
    let header = u64::from_le_bytes(kino_shapes::VIDEO_X4[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&kino_shapes::VIDEO_X4[8..8 + header]).unwrap();
    assert!(header.contains("\"body.34.weight\"") && header.contains("BSD-3-Clause"));
    assert!(kino_shapes::VIDEO_X4_LICENSE.contains("Copyright (c) 2021, Xintao Wang"));
}
