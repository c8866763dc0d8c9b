//! With the feature `cuda`: makes PTX of the kernels in `cuda/` by the nvcc that candle's are made
//! with. PTX for compute capability 8.0 is what every later card takes.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=cuda");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(std::env::var("OUT_DIR").unwrap_or_default()).join("kernels.ptx");
    if let Err(reason) = compile(&nvcc(), &out) {
        println!("cargo::error=the kernels in nodes/kernels/cuda were not compiled: {reason}");
    }
}

fn compile(nvcc: &Path, out: &Path) -> Result<(), String> {
    let status = Command::new(nvcc)
        .args(["--ptx", "-arch=compute_80", "-std=c++17", "-O3", "-o"])
        .args([out, Path::new("cuda/kernels.cu")])
        .status()
        .map_err(|error| format!("{} (NVCC names another): {error}", nvcc.display()))?;
    status.success().then_some(()).ok_or_else(|| format!("{} ended with {status}", nvcc.display()))
}

/// The compiler that `NVCC` names, that of a toolkit that is named, or the first on the path.
fn nvcc() -> PathBuf {
    let of_toolkit = |variable| Some(PathBuf::from(std::env::var_os(variable)?).join("bin/nvcc"));
    let named = std::env::var_os("NVCC").map(PathBuf::from);
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(of_toolkit);
    let found = named.into_iter().chain(toolkits).find(|nvcc| nvcc.is_file());
    found.unwrap_or_else(|| PathBuf::from("nvcc"))
}
