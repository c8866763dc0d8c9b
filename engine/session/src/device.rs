//! Where tensors are computed.

use std::fmt;
use std::str::FromStr;

use candle_core::{Device, utils};

use crate::error::{Error, Result};
use crate::notice::{Notice, OnNotice};

/// A device by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU that this binary was built for and the machine has, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The NVIDIA GPU of this index.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(index) => write!(f, "cuda:{index}"),
            DeviceChoice::Metal => f.write_str("metal"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            "metal" => Ok(DeviceChoice::Metal),
            other => other
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(DeviceChoice::Cuda)
                .ok_or_else(|| "expected auto, cpu, cuda:N or metal".to_owned()),
        }
    }
}

impl DeviceChoice {
    /// Opens the device. `notice` hears where none of the GPUs can be used that the binary was
    /// built for, and where one computes without the kernels that are brought for it.
    ///
    /// # Errors
    /// When this binary was built without it, or the machine has no such device.
    pub(crate) fn open(self, notice: Option<&OnNotice>) -> Result<Device> {
        let device = self.opened(notice)?;
        if let (Err(reason), Some(notice)) = (kino_kernels::check_device(&device), notice) {
            notice(&Notice::NoGpuKernels { reason });
        }
        Ok(device)
    }

    fn opened(self, notice: Option<&OnNotice>) -> Result<Device> {
        match self {
            DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Auto => Ok(auto(notice)),
            DeviceChoice::Cuda(_) if !utils::cuda_is_available() => Err(not_built("cuda")),
            DeviceChoice::Cuda(index) => cuda(index).map_err(|reason| {
                Error::usage(format!("the device cuda:{index} cannot be used: {reason}"))
                    .advising("`nvidia-smi` lists the GPUs; `--device cpu` always works")
            }),
            DeviceChoice::Metal if !utils::metal_is_available() => Err(not_built("metal")),
            DeviceChoice::Metal => Device::new_metal(0)
                .map_err(|error| Error::usage(format!("Metal cannot be used: {error}"))),
        }
    }
}

/// The best device; where there is none of those that the binary was built for, `notice` hears why.
fn auto(notice: Option<&OnNotice>) -> Device {
    let gpu = match (utils::cuda_is_available(), utils::metal_is_available()) {
        (true, _) => cuda(0),
        (_, true) => Device::new_metal(0).map_err(|error| error.to_string()),
        _ => return Device::Cpu,
    };
    gpu.unwrap_or_else(|reason| {
        if let Some(notice) = notice {
            notice(&Notice::NoGpu { reason });
        }
        Device::Cpu
    })
}

/// The GPU of this index, or why it cannot be had. Its stream is its own: the default one of a
/// thread would wait for those of other threads.
fn cuda(index: usize) -> Result<Device, String> {
    Device::new_cuda_with_stream(index).map_err(|error| {
        // A trace of calls may follow.
        let reason = error.to_string().lines().next().unwrap_or_default().to_owned();
        // What a function returns whose library is not on this machine (kino-cuda).
        match reason.contains("CUDA_ERROR_STUB_LIBRARY") {
            true => "NVIDIA's driver (libcuda.so.1) is not on this machine".to_owned(),
            false => reason,
        }
    })
}

fn not_built(feature: &str) -> Error {
    Error::usage(format!("this kino was built without {feature}"))
        .advising(format!("build it with `cargo build --release --features {feature}`"))
}

/// What runs may take of the memory of a device that has its own: what is free there, less an
/// eighth for what libraries keep and for the blocks between tensors. All that it gives, where it
/// does not say.
pub(crate) fn memory(device: &Device) -> u64 {
    kino_kernels::device_memory(device).map_or(u64::MAX, |free| free - free / 8)
}

/// The kind of a device, as it enters keys and records: `cpu`, `cuda`, `metal`.
pub(crate) fn kind(device: &Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
        Device::Metal(_) => "metal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named() {
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert!("cuda:x".parse::<DeviceChoice>().is_err());
        assert!("gpu".parse::<DeviceChoice>().is_err());
    }
}
