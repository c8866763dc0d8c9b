//! Tiny models of FLUX.1, put together of the reference values (`tests/ref/flux.py`).
#![allow(dead_code, unreachable_pub)] // each test file uses a part

use super::{Copied, copy, json, reference};

/// A model whose transformer is told a guidance, or with what schnell has instead.
pub fn flux(name: &str, is_schnell: bool) -> Copied {
    let model = Copied::of(&reference("flux/dev"), name);
    copy(&reference("t5/text_encoder"), &model.0.join("text_encoder_2"));
    copy(&reference("t5/tokenizer"), &model.0.join("tokenizer_2"));
    let mut config = json("t5/tokenizer/tokenizer_config.json");
    config["model_max_length"] = 40.into();
    let path = model.0.join("tokenizer_2/tokenizer_config.json");
    std::fs::write(path, config.to_string()).unwrap();
    if is_schnell {
        std::fs::remove_file(model.0.join("tokenizer/tokenizer.json")).unwrap();
        copy(&reference("flux/schnell"), &model.0);
    }
    model
}
