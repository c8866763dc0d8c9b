//! kino-shapes: the model inside the binary, `embedded:shapes`.
//!
//! A tiny text-and-image-to-video model in the diffusers layout, trained from nothing on moving
//! shapes by the programs in `recipe/`. `README.md` says what it shows, how it was trained, and how
//! to exchange its weights. Nothing here depends on what the weights are.
//!
//! Beside it lies [`VIDEO_X4`], a network of others that enlarges frames; `upscale/README.md` says
//! where it is from, `upscale/LICENSE` under which terms.

#![forbid(unsafe_code)]

/// A file of `model/`: its path there, its contents, and of weights the BLAKE3 digest.
macro_rules! embedded {
    ($path:literal) => {
        ($path, include_bytes!(concat!("../model/", $path)), None)
    };
    ($path:literal, $digest:literal) => {
        ($path, include_bytes!(concat!("../model/", $path)), Some($digest))
    };
}

/// SRVGGNetCompact of Real-ESRGAN, `realesr-animevideov3`, as safetensors: frames become four times
/// larger. BSD-3-Clause, Copyright (c) 2021, Xintao Wang.
pub static VIDEO_X4: &[u8] = include_bytes!("../upscale/video-x4.safetensors");

/// The BLAKE3 digest of [`VIDEO_X4`] in hexadecimal.
pub static VIDEO_X4_DIGEST: &str =
    "fc440e7ca2cfb165205a2fa7f7e2f0f6d8447eb56a578c76bb7eec36491209af";

/// The licence of [`VIDEO_X4`], which goes with every copy of it.
pub static VIDEO_X4_LICENSE: &str = include_str!("../upscale/LICENSE");

/// The files of the model: path inside its folder, contents, and of weights the BLAKE3 digest in
/// hexadecimal, so that no run has to compute what never changes.
///
/// The whole folder is in the binary, so that nothing is downloaded.
pub static FILES: &[(&str, &[u8], Option<&str>)] = &[
    embedded!("model_index.json"),
    embedded!("scheduler/scheduler_config.json"),
    embedded!("text_encoder/config.json"),
    embedded!(
        "text_encoder/model.safetensors",
        "fb3ed82687e9ca47cdcf04d64284f1e9ebfa05346e121a34fa667d6823fe49a9"
    ),
    embedded!("tokenizer/tokenizer.json"),
    embedded!("tokenizer/tokenizer_config.json"),
    embedded!("transformer/config.json"),
    embedded!(
        "transformer/diffusion_pytorch_model.safetensors",
        "953b72091a433149b03e46aa75ca9af15d31300bc6170e8e2e9eb883f18f2016"
    ),
    embedded!("transformer/tea_cache.json"),
    embedded!("vae/config.json"),
    embedded!(
        "vae/diffusion_pytorch_model.safetensors",
        "213785294fbcd41c668fa002527dfe76695e904f6136edfedb8f1f86b808b49b"
    ),
];
