//! kino-shapes: the model inside the binary, `embedded:shapes`.
//!
//! A tiny text-and-image-to-video model in the diffusers layout, trained from nothing on moving
//! shapes by the programs in `recipe/`. `README.md` says what it shows, how it was trained, and how
//! to exchange its weights. Nothing here depends on what the weights are.

#![forbid(unsafe_code)]

/// A file of `model/`: its path there and its contents.
macro_rules! embedded {
    ($path:literal) => {
        ($path, include_bytes!(concat!("../model/", $path)))
    };
}

/// The files of the model: path inside its folder and contents.
///
/// The whole folder is in the binary, so that nothing is downloaded.
pub static FILES: &[(&str, &[u8])] = &[
    embedded!("model_index.json"),
    embedded!("scheduler/scheduler_config.json"),
    embedded!("text_encoder/config.json"),
    embedded!("text_encoder/model.safetensors"),
    embedded!("tokenizer/tokenizer.json"),
    embedded!("tokenizer/tokenizer_config.json"),
    embedded!("transformer/config.json"),
    embedded!("transformer/diffusion_pytorch_model.safetensors"),
    embedded!("vae/config.json"),
    embedded!("vae/diffusion_pytorch_model.safetensors"),
];
