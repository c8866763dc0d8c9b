//! Tensors that do not lie in main memory: a host that lends none of their memory.

use std::collections::HashSet;
use std::sync::Mutex;

use kino_abi::host_table::lent_bytes;
use kino_abi::{DL_CUDA, DLTensor, KinoCall, KinoError, KinoHost, KinoPlugin, KinoStr, KinoValue};
use kino_plugin::prelude::*;
use kino_plugin::{Device, testing};

#[node(id = "example.nothing", version = "1.0.0")]
fn nothing() -> f64 {
    0.0
}

kino_plugin::plugin!(nothing);

unsafe extern "C" {
    fn kino_plugin(host: *const KinoHost) -> *const KinoPlugin;
}

/// The values that lie in main memory; all others lie on a device.
static NEAR: Mutex<Option<HashSet<usize>>> = Mutex::new(None);

unsafe extern "C" fn op(
    call: *mut KinoCall,
    name: KinoStr,
    tensors: *const *const KinoValue,
    count: usize,
    attributes: KinoStr,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: what the plugin passes is passed on; the name is lent for the call.
    unsafe {
        let error = (testing::table().op)(call, name, tensors, count, attributes, to);
        let near = |value| NEAR.lock().unwrap().get_or_insert_default().contains(&value);
        if error.is_null() && (lent_bytes(name) == b"to_host" || near(tensors.read() as usize)) {
            NEAR.lock().unwrap().get_or_insert_default().insert(to.read() as usize);
        }
        error
    }
}

unsafe extern "C" fn view(value: *const KinoValue, to: *mut DLTensor) -> *mut KinoError {
    // SAFETY: as above; the view belongs to the caller alone.
    unsafe {
        let error = (testing::table().view_tensor)(value, to);
        let near = NEAR.lock().unwrap().get_or_insert_default().contains(&(value as usize));
        if error.is_null() && !near {
            let tensor = &mut *to;
            (tensor.device.device_type, tensor.device.device_id) = (DL_CUDA, 1);
            tensor.data = std::ptr::null_mut();
        }
        error
    }
}

#[test]
fn tensors_on_a_device_are_computed_with_and_brought_near() {
    // SAFETY: a table is plain data.
    let mut host = unsafe { std::ptr::read(testing::table()) };
    (host.op, host.view_tensor) = (op, view);
    // SAFETY: it lives as long as the process.
    let plugin = unsafe { kino_plugin(Box::leak(Box::new(host))) };
    assert!(!plugin.is_null());
    let far = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0], &[2, 2]).unwrap();
    assert_eq!((far.device(), far.dims(), far.dtype()), (Device::Cuda(1), &[2, 2][..], DType::F32));
    assert!(far.dlpack().data.is_null());
    let turned = far.permute(&[1, 0]).unwrap().add(1.0).unwrap();
    assert_eq!(turned.device(), Device::Cuda(1));
    assert_eq!(turned.as_slice::<f32>().unwrap(), [2.0, 4.0, 3.0, 5.0]);
    assert_eq!(turned.to_host().unwrap().device(), Device::Cpu);
}
