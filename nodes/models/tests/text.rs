//! Clean-up, tokens, T5 and UMT5 against ftfy, transformers and diffusers.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Random, close, golden, model, reference};
use kino_models::families::wan::PROMPTS;
use kino_models::text::{
    Padding, PromptForm, T5, T5Encoder, TextConfig, TokenizerConfig, Tokens, clean, relative_bucket,
};
use kino_models::{ModelFolder, Result};

fn prompts(key: &str) -> Vec<String> {
    let meta = std::fs::read(reference("wan_t2v/golden/meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    let list = meta["files"]["text"][key].as_array().unwrap();
    list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn encoder() -> T5Encoder {
    let folder = model("wan_t2v/model");
    let weights = folder.weights("text_encoder", DType::F32, &Device::Cpu).unwrap();
    T5Encoder::load(&folder, &PROMPTS, &weights).unwrap()
}

#[test]
fn prompts_are_cleaned_like_the_reference() {
    for (prompt, cleaned) in prompts("prompts").iter().zip(prompts("cleaned")) {
        assert_eq!(clean::prompt(prompt), cleaned);
    }
    assert_eq!(clean::prompt("a\u{a0}b \t\n c&amp;amp;d &lt;i&gt;"), "a b c&d <i>");
    assert_eq!(clean::prompt("“so”　ＡＢＣ！"), "\"so\" ABC!");
}

/// Whatever is typed, cleaning ends and leaves no doubled space.
#[test]
fn any_text_can_be_cleaned() {
    let seed = 0x5eed_c1ea;
    let mut random = Random(seed);
    let odd: Vec<char> =
        "&<;#x￼\u{feff}\u{85}\u{2028}ÃƒÂ©â€™\u{a0}ﬁ，😀\u{1b}[0m\0\r\n \u{301}é".chars().collect();
    for round in 0..300 {
        let text: String = (0..random.below(40))
            .map(|_| match random.below(3) {
                0 => odd[random.below(odd.len())],
                1 => char::from(b' ' + random.below(95) as u8),
                _ => char::from_u32(random.below(0x11_0000) as u32).unwrap_or('?'),
            })
            .collect();
        let cleaned = clean::prompt(&text);
        assert!(!cleaned.contains("  "), "seed {seed:#x}, round {round}: {text:?}");
    }
}

#[test]
fn tokens_equal_the_reference() {
    let (golden, encoder) = (golden("wan_t2v/golden/text.safetensors"), encoder());
    for (index, text) in prompts("cleaned").iter().enumerate() {
        let ids: Vec<f64> =
            encoder.tokens().encode(text).unwrap().iter().map(|id| f64::from(*id)).collect();
        assert_eq!(ids, golden.f64s(&format!("ids.{index}")), "{text}");
    }
}

#[test]
fn a_long_text_is_cut_and_still_ends() {
    let tokens = encoder();
    let ids = tokens.tokens().encode(&"deep snow at dawn ".repeat(400)).unwrap();
    assert_eq!((ids.len(), ids.last()), (512, Some(&1)));
    assert!(!ids[..511].contains(&1));
    let folder = kino_models::ModelFolder::directory(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../shapes/model"
    ))
    .unwrap();
    let short = Tokens::load(&folder, &TokenizerConfig::read(&folder, &PROMPTS).unwrap(), &PROMPTS)
        .unwrap();
    let ids = short.encode(&"a red circle moves ".repeat(50)).unwrap();
    assert_eq!((ids.len(), ids.last(), short.length()), (48, Some(&1), 48));
}

#[test]
fn buckets_and_biases_equal_the_reference() {
    let golden = golden("wan_t2v/golden/text.safetensors");
    let buckets: Vec<f64> =
        (-40..=300).map(|rel| f64::from(relative_bucket(rel, 32, 128))).collect();
    assert_eq!(buckets, golden.f64s("bias.buckets_-40..300"));
    let encoder = encoder();
    let buckets = encoder.model().distance_buckets(9).unwrap();
    let bias = encoder.model().layers().each(|_, layer| layer.relative_bias(&buckets)).unwrap();
    let by_distance = bias[0].clone().unwrap(); // [heads, 17]
    let rows = (0..9).map(|query| by_distance.narrow(1, 8 - query, 9).unwrap());
    let bias = Tensor::stack(&rows.collect::<Vec<_>>(), 1).unwrap(); // [heads, 9, 9]
    close("bias of layer 0", &bias, &golden.get("bias.block0"), 1e-6);
}

#[test]
fn layers_equal_the_reference() {
    let (golden, encoder) = (golden("wan_t2v/golden/text.safetensors"), encoder());
    let model = encoder.model();
    let ids: Vec<u32> = golden.f64s("ids.0").into_iter().map(|id| id as u32).collect();
    let buckets = model.distance_buckets(ids.len()).unwrap();
    let mut x = model.embed(&ids).unwrap();
    let layers = model.layers().each(|index, layer| {
        let bias = layer.relative_bias(&buckets)?.unwrap();
        if index == 0 {
            let name = "layer.encoder.block.0.layer.0.SelfAttention.0";
            close(name, &layer.attend(&x, &bias)?, &golden.get(name), 5e-5);
        }
        x = layer.forward(x.clone(), &bias)?;
        let name = format!("layer.encoder.block.{index}");
        close(&name, &x, &golden.get(&name), 5e-5);
        Ok(())
    });
    assert_eq!(layers.unwrap().len(), 3);
}

#[test]
fn embeddings_equal_the_reference_and_are_padded_with_zeros() {
    let (golden, encoder) = (golden("wan_t2v/golden/text.safetensors"), encoder());
    for (index, prompt) in prompts("prompts").iter().enumerate() {
        let embedded = encoder.encode(prompt, &mut || Ok(())).unwrap().tensor; // [512, 40]
        let expected = golden.get(&format!("embeds.{index}"));
        let rows = expected.dim(0).unwrap();
        close(prompt, &embedded.narrow(0, 0, rows).unwrap(), &expected, 5e-5);
        let rest = embedded.narrow(0, rows, 512 - rows).unwrap();
        close("rows past the prompt", &rest, &rest.zeros_like().unwrap(), 0.0);
    }
}

#[test]
fn the_embedded_model_encodes_both_languages() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shapes/model");
    let folder = kino_models::ModelFolder::directory(path).unwrap();
    let encoder = T5Encoder::load(
        &folder,
        &PROMPTS,
        &folder.weights("text_encoder", DType::F32, &Device::Cpu).unwrap(),
    )
    .unwrap();
    let meta = std::fs::read(reference("shapes/meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    for case in meta["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let expected = common::golden(&format!("shapes/{name}.safetensors")).get("text");
        let text = encoder.encode(case["prompt"].as_str().unwrap(), &mut || Ok(())).unwrap().tensor;
        close(name, &text, &expected.squeeze(0).unwrap(), 5e-5);
    }
}

/// The token table under its other name gives the same numbers.
#[test]
fn both_names_of_the_token_table_are_taken() {
    let folder = model("wan_t2v/model");
    let mut tensors = candle_core::safetensors::load(
        reference("wan_t2v/model/text_encoder/model.safetensors"),
        &Device::Cpu,
    )
    .unwrap();
    let table = tensors.remove("shared.weight").unwrap();
    tensors.insert("encoder.embed_tokens.weight".to_owned(), table);
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("renamed.safetensors");
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let weights = kino_models::Weights::open(&file, DType::F32, &Device::Cpu).unwrap();
    let renamed = T5::load(&TextConfig::read(&folder, &PROMPTS).unwrap(), &weights).unwrap();
    let ids = [5, 9, 1];
    let run = |model: &T5| -> Tensor { model.encode(&ids, &mut || Ok(())).unwrap() };
    close("renamed", &run(&renamed), &run(encoder().model()), 0.0);
}

#[test]
fn encoding_can_be_cancelled_and_foreign_tokens_are_refused() {
    let encoder = encoder();
    let mut layers = 0;
    let cancelled = encoder.encode("a fox", &mut || {
        layers += 1;
        if layers == 2 { Err(kino_models::Error::Cancelled) } else { Ok(()) }
    });
    assert!(matches!(cancelled, Err(kino_models::Error::Cancelled)));
    assert_eq!(layers, 2);
    let error = encoder.model().embed(&[608]).unwrap_err().to_string();
    assert!(error.contains("608") && error.contains("do not belong together"), "{error}");
}

/// T5 as LTX-Video reads it: with its padding, and a mask.
const T5_PROMPTS: PromptForm = PromptForm {
    model_type: "t5",
    encoder: "text_encoder",
    tokenizer: "tokenizer",
    max_rows: 32,
    is_cleaned: false,
    padding: Padding::Tokens { is_masked: true },
};

fn t5(form: &PromptForm) -> Result<T5Encoder> {
    let folder = model("t5");
    let weights = folder.weights("text_encoder", DType::F32, &Device::Cpu).unwrap();
    T5Encoder::load(&folder, form, &weights)
}

/// The prompts of the reference values of T5, each with its number.
fn t5_cases() -> Vec<(usize, String)> {
    let meta: serde_json::Value =
        serde_json::from_slice(&std::fs::read(reference("t5/meta.json")).unwrap()).unwrap();
    let prompts = meta["prompts"].as_array().unwrap().iter();
    prompts.map(|text| text.as_str().unwrap().to_owned()).enumerate().collect()
}

/// Its vocabulary is a `spiece.model` without a `tokenizer.json`.
#[test]
fn t5_sees_its_padding_where_a_family_wants_that() {
    let (golden, go_on) = (golden("t5/golden.safetensors"), &mut || Ok(()));
    for (index, prompt) in t5_cases() {
        let of = |name: &str| golden.get(&format!("{name}.{index}"));
        let encoder = t5(&T5_PROMPTS).unwrap();
        let mut ids = encoder.tokens().encode(&prompt).unwrap();
        let own = ids.len();
        ids.resize(32, 0);
        let ids: Vec<f64> = ids.into_iter().map(f64::from).collect();
        assert_eq!(ids, golden.f64s(&format!("ids.{index}")), "{prompt}");
        let embedded = encoder.encode(&prompt, go_on).unwrap();
        close(&prompt, &embedded.tensor, &of("padded"), 2e-5);
        close("mask", &embedded.mask.unwrap(), &of("mask"), 0.0);
        // Without a mask all rows count.
        let unmasked = PromptForm { padding: Padding::Tokens { is_masked: false }, ..T5_PROMPTS };
        let embedded = t5(&unmasked).unwrap().encode(&prompt, go_on).unwrap();
        assert!(embedded.mask.is_none());
        close(&prompt, &embedded.tensor, &of("padded"), 2e-5);
        // A padding that the encoder does not see is none at all.
        let zeros = PromptForm { padding: Padding::Zeros { is_masked: true }, ..T5_PROMPTS };
        let embedded = t5(&zeros).unwrap().encode(&prompt, go_on).unwrap();
        close("mask", &embedded.mask.unwrap(), &of("mask"), 0.0);
        let embedded = embedded.tensor;
        let expected = of("masked").narrow(0, 0, own).unwrap();
        close(&prompt, &embedded.narrow(0, 0, own).unwrap(), &expected, 2e-5);
        let rest = embedded.narrow(0, own, 32 - own).unwrap();
        close("rows past the prompt", &rest, &rest.zeros_like().unwrap(), 0.0);
    }
}

/// Random bytes, and every beginning of a vocabulary, are refused or read, never a panic.
#[test]
fn a_vocabulary_that_is_missing_or_broken_is_told() {
    let place = tempfile::tempdir().unwrap();
    let own = place.path();
    std::fs::create_dir_all(own.join("tokenizer")).unwrap();
    let config = "tokenizer/tokenizer_config.json";
    std::fs::copy(reference("t5").join(config), own.join(config)).unwrap();
    let folder = ModelFolder::directory(own).unwrap();
    let config = TokenizerConfig::read(&folder, &T5_PROMPTS).unwrap();
    let load = || Tokens::load(&folder, &config, &T5_PROMPTS).map_err(|error| error.to_string());
    let missing = load().unwrap_err();
    assert!(missing.contains("tokenizer.json is missing") && missing.contains("spiece.model"));
    assert!(missing.contains("google/t5-v1_1-xxl"), "{missing}");
    let whole = std::fs::read(reference("t5/tokenizer/spiece.model")).unwrap();
    let write = |bytes: &[u8]| std::fs::write(own.join("tokenizer/spiece.model"), bytes).unwrap();
    let mut refusals = 0;
    for end in (0..whole.len()).step_by(7) {
        write(&whole[..end]);
        if let Err(message) = load() {
            refusals += 1;
            assert!(message.contains("tokenizer/spiece.model: "), "{message}");
        }
    }
    assert!(refusals > 50, "{refusals}");
    let seed = 0x5eed_50d5;
    let mut random = Random(seed);
    for _ in 0..200 {
        let mut bytes = whole.clone();
        for _ in 0..random.below(9) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        write(&bytes);
        let _ = load().map(|tokens| tokens.encode("deep snow"));
    }
}
