//! Tensor files: what is written comes back; what is broken or a pickle is refused.

use std::fs;

use candle_core::{DType, Device, Tensor};
use kino_world::{read_tensor, tensor_info, write_tensors};

#[test]
fn tensors_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    let ramp = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap().reshape((2, 3, 4)).unwrap();
    let turned = ramp.transpose(0, 2).unwrap();
    let half = ramp.to_dtype(DType::BF16).unwrap();
    let bytes = Tensor::new(&[1u8, 2, 3], &Device::Cpu).unwrap();
    let all = [("ramp", ramp), ("turned", turned.clone()), ("half", half), ("bytes", bytes)];
    write_tensors(&path, &all.map(|(name, tensor)| (name.to_owned(), tensor))).unwrap();
    let infos: Vec<_> = tensor_info(&path)
        .unwrap()
        .into_iter()
        .map(|info| (info.name, info.dtype, info.shape))
        .collect();
    assert_eq!(infos[1], ("half".to_owned(), DType::BF16, vec![2, 3, 4]));
    let back = read_tensor(&path, "turned").unwrap();
    assert_eq!(back.to_vec3::<f32>().unwrap(), turned.to_vec3::<f32>().unwrap());
    let missing = read_tensor(&path, "turnt").unwrap_err();
    assert!(missing.to_string().ends_with("there is no tensor `turnt`"));
    assert_eq!(missing.hint(), Some("did you mean `turned`?"));
}

#[test]
fn broken_files_are_refused_and_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let (path, broken) = (folder.path().join("t.safetensors"), folder.path().join("b.safetensors"));
    let tensor = Tensor::arange(0f32, 8.0, &Device::Cpu).unwrap();
    write_tensors(&path, &[("x".to_owned(), tensor)]).unwrap();
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&broken, &whole[..cut]).unwrap();
        let said = read_tensor(&broken, "x").unwrap_err().to_string();
        assert!(said.contains("ends early"), "{cut}: {said}");
    }
    for (bytes, expected) in [
        (&b"PK\x03\x04aaaaaaaaaaaa"[..], "zip archive"),
        (b"\x80\x02}q\x00XXXXXXXX", "Python pickle"),
        (b"hello, this is text", "found text"),
    ] {
        fs::write(&broken, bytes).unwrap();
        let error = read_tensor(&broken, "x").unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let seed = 0xfeed_5eedu64;
    println!("seed {seed:#x}");
    let mut state = seed;
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 24) as u8;
        }
        fs::write(&broken, &bytes).unwrap();
        let _ = (tensor_info(&broken), read_tensor(&broken, "x"));
    }
}

/// A header of 384, 640, 896… bytes begins with the same two bytes as a pickle.
#[test]
fn no_length_of_a_header_is_taken_for_a_pickle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    let mut lengths = Vec::new();
    for letters in (1..1500).step_by(8) {
        let name = "x".repeat(letters);
        let tensor = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        write_tensors(&path, &[(name.clone(), tensor)]).unwrap();
        let start = fs::read(&path).unwrap();
        lengths.push(u64::from_le_bytes(start[..8].try_into().unwrap()));
        let back = read_tensor(&path, &name).unwrap();
        assert_eq!(back.to_vec1::<f32>().unwrap(), [1.0, 2.0]);
    }
    assert!([384, 640, 896, 1152, 1408].iter().all(|length| lengths.contains(length)));
}
