//! Tensors cross to a native plugin and back without a copy: it reads them where the engine's
//! tensors lie, and what it writes is what the engine has.

#![cfg(all(unix, target_pointer_width = "64"))]

use std::sync::Arc;

use candle_core::{Device, Storage, Tensor};
use kino_host::{Limits, NoFiles, Plugin, plugin_nodes};
use kino_native::{NativePlugin, TrustedLibrary};
use kino_node::{Cancel, Cx, Frames, Inputs, Ledger, Services, Value};

/// Where a tensor's first element lies.
fn address(tensor: &Tensor) -> i128 {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { panic!("on the CPU") };
    let elements = storage.as_slice::<f32>().expect("f32");
    elements[layout.start_offset()..].as_ptr() as usize as i128
}

#[test]
fn tensors_lie_where_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("addresses.so");
    kino_tests::compile_c("copies/addresses.c", &library, &[]);
    let native =
        NativePlugin::load(TrustedLibrary { path: &library, sha256: None }).expect("a plugin");
    let plugin = Plugin::new("see", "", Arc::new(native), Arc::new(NoFiles), Limits::default());
    let node = plugin_nodes(&plugin).remove(0);

    let tensor =
        |frames: usize| Tensor::rand(0f32, 1.0, (frames, 4, 6, 3), &Device::Cpu).expect("a tensor");
    let frames = Frames::from_tensor(&tensor(3), Some(8.0)).expect("frames");
    let (chunk, all) = (frames.chunk(0).expect("a chunk"), tensor(5));
    let rows = all.narrow(0, 2, 2).expect("a view");
    let inputs = [Some(Value::from(frames)), Some(Value::Tensor(rows.clone()))];
    let services = Services::new(Device::Cpu, Ledger::with_spill(1 << 30, folder.path(), u64::MAX));
    let mut cx = Cx {
        reads: &[],
        name: "see",
        services: &services,
        cancel: &Cancel::default(),
        record: "",
        wanted: &[true; 4],
        report: &|_| {},
    };
    let inputs = Inputs::new(&node.signature().inputs, &inputs);
    let outputs = node.run(&mut cx, &inputs).expect("it runs");
    let [
        Some(Value::Int(seen_chunk)),
        Some(Value::Int(seen_rows)),
        Some(made),
        Some(Value::Int(written)),
    ] = outputs.as_slice()
    else {
        panic!("{outputs:?}")
    };
    let made = made.get::<Frames>().expect("frames").chunk(0).expect("a chunk");
    assert_eq!((*seen_chunk, *seen_rows), (address(&chunk), address(&rows)));
    assert_eq!(*written, address(&made));
    let last = made.flatten_all().unwrap().to_vec1::<f32>().unwrap()[143];
    assert_eq!(last, 0.5);
}
