//! kino-cuda: NVIDIA's libraries, found when they are first called.
//!
//! candle links CUDA's driver, cuBLAS, cuBLASLt, cuRAND and NVRTC by name, and such a binary does
//! not start on a machine that lacks one of them. This crate has no code of its own: its build
//! script makes static libraries of these names, which the linker finds instead. Each function that
//! cudarc declares (`functions.txt`) is a jump to the real one, which is looked for with `dlopen`
//! when it is first called; where there is none, it returns `CUDA_ERROR_STUB_LIBRARY` (34), which
//! candle makes an error.
//!
//! The libraries are looked for by the system's rules, then in the folders of `KINO_CUDA_LIBS`
//! (separated by colons), `CUDA_HOME`, `CUDA_PATH`, the usual places of the toolkit, and in the
//! `nvidia/*/lib` of the Python environment that `VIRTUAL_ENV` names. Linux on x86-64 alone;
//! elsewhere a build with CUDA links the libraries as candle does.
//!
//! `functions.txt` is a line for each library: its name, the files it may lie in, its functions.
//! When cudarc is updated, the linker names those that are new; of `cudarc/src/driver/sys/mod.rs`
//! (`cublas`, `cublaslt`, `curand`, `nvrtc`) they are the functions inside `extern "C"`.

#![forbid(unsafe_code)]
