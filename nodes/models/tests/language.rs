//! Language models against transformers: tokens, chats, logits and greedy answers of tiny random
//! ones (`tests/ref/language/make.py`), and what is refused of files that are not theirs.

mod common;

#[path = "common/gguf.rs"]
mod gguf;

use std::sync::Arc;

use candle_core::{DType, Device};
use common::{golden, reference};
use kino_models::checkpoint::{DataFile, PartFiles};
use kino_models::language::{
    ChatNames, GenerateRequest, LanguageModel, LanguageSpec, Message, Sampling,
    read_language_model, render,
};
use kino_models::weight::Probe;
use kino_models::{Error, Weights};
use serde_json::Value;

const MODELS: [&str; 4] = ["llama", "qwen3", "qwen3_k", "qwen2"];
const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0 };

fn expected() -> Value {
    let text = std::fs::read_to_string(reference("language/expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn files(path: &std::path::Path) -> Result<Arc<PartFiles>, Error> {
    Ok(Arc::new(PartFiles::of_file(DataFile::open(path, "model.gguf")?)?))
}

fn spec(files: &Arc<PartFiles>) -> Result<Arc<LanguageSpec>, Error> {
    let spec = read_language_model(files)?;
    let weights = Weights::new(Arc::clone(files), DType::F32, &Device::Cpu)?;
    spec.probe(&weights.probing(&Arc::<Probe>::default()))?;
    Ok(spec)
}

fn model(name: &str) -> (Arc<LanguageSpec>, Arc<LanguageModel>) {
    let files = files(&reference(&format!("language/{name}.gguf"))).unwrap();
    let spec = spec(&files).unwrap();
    let weights = Weights::new(Arc::clone(&files), DType::F32, &Device::Cpu).unwrap();
    let model = spec.load(&files, &weights).unwrap();
    (spec, model)
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn messages(value: &Value) -> Vec<Message> {
    let message = |value: &Value| Message {
        role: match value["role"].as_str().unwrap() {
            "system" => "system",
            "user" => "user",
            _ => "assistant",
        },
        content: value["content"].as_str().unwrap().to_owned(),
    };
    value.as_array().unwrap().iter().map(message).collect()
}

#[test]
fn texts_are_the_tokens_of_transformers() {
    let expected = expected();
    let texts = expected["texts"].as_array().unwrap();
    for name in MODELS {
        let (_, model) = model(name);
        let own = &expected["models"][name];
        for (at, text) in texts.iter().enumerate() {
            let text = text.as_str().unwrap();
            let found = model.tokens().encode(text).unwrap();
            assert_eq!(found, ids(&own["ids"][at]), "{name}: {text:?}");
            assert_eq!(model.tokens().decode(&found).unwrap(), own["decoded"][at], "{name}");
        }
    }
}

#[test]
fn chats_are_those_of_transformers() {
    let expected = expected();
    for name in MODELS {
        let (spec, model) = model(name);
        for (case, chats) in expected["models"][name]["chats"].as_object().unwrap() {
            for thinking in [true, false] {
                let (bos, eos) = (model.tokens().begin(), model.tokens().end());
                let names = ChatNames { bos, eos, thinking };
                let found = render(spec.template(), &messages(&expected["messages"][case]), names);
                let chat = &chats[if thinking { "on" } else { "off" }];
                assert_eq!(found.as_deref(), Ok(chat.as_str().unwrap()), "{name}, {case}");
            }
        }
    }
}

#[test]
fn logits_and_greedy_answers_are_those_of_transformers() {
    let (expected, values) = (expected(), golden("language/values.safetensors"));
    for name in MODELS {
        let (_, model) = model(name);
        let own = &expected["models"][name];
        for at in 0..3 {
            let prompt = ids(&own["prompts"][at]);
            let greedy = ids(&own["greedy"][at]);
            let mut cache = model.decoder().cache(prompt.len() + greedy.len()).unwrap();
            let mut next = prompt.clone();
            let mut found = Vec::new();
            for step in 0..greedy.len() {
                let logits =
                    model.decoder().logits(&next, &mut cache, &mut |_| {}, &mut || Ok(())).unwrap();
                if step == 0 {
                    let expected = values.f64s(&format!("{name}.{at}"));
                    let pairs = logits.iter().zip(&expected);
                    let off = pairs.map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
                    let largest = expected.iter().fold(0.0, |most: f64, b| most.max(b.abs()));
                    println!("{name}.{at}: {off:.1e} of {largest:.1}");
                    assert!(off < 1e-4 * largest, "{name}.{at}: {off:e} of {largest}");
                }
                next = vec![GREEDY.choose(&logits, || unreachable!())];
                found.push(next[0]);
            }
            assert_eq!(found, greedy, "{name}, prompt {at}");
            assert_eq!(cache.length(), prompt.len() + greedy.len() - 1);
        }
    }
}

fn request<'a>(prompt: &'a str, sampling: Sampling) -> GenerateRequest<'a> {
    GenerateRequest { instruction: "Rewrite.", prompt, max_tokens: 20, sampling, stop: "" }
}

/// A random number for each token.
fn uniform(seed: u64) -> impl Fn(u64) -> f64 {
    move |at| {
        let mut random = common::Random(seed * 1_000_003 + at * 7919 + 1);
        for _ in 0..4 {
            random.next();
        }
        (random.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[test]
fn the_same_seed_gives_the_same_text_and_stops_where_it_is_told() {
    let (_, model) = model("qwen3");
    let drawn = Sampling { temperature: 1.5, ..GREEDY };
    let answer = |seed: u64, stop: &str| {
        let request = GenerateRequest { stop, ..request("a cat", drawn) };
        let mut read = 0;
        let text =
            model.generate(&request, &uniform(seed), &mut |more| read += more, &mut || Ok(()));
        assert!(read >= model.prompt(&request).unwrap().len());
        text.unwrap().text
    };
    let one = answer(1, "");
    assert_eq!(one, answer(1, ""));
    assert_ne!(one, answer(2, ""));
    let chars: Vec<char> = one.chars().collect();
    let stop: String = chars[chars.len() / 2..chars.len() / 2 + 2].iter().collect();
    let cut = answer(1, &stop);
    assert_eq!(cut, one[..one.find(&stop).unwrap()].trim());
}

#[test]
fn it_is_cancelled_between_layers() {
    let (_, model) = model("llama");
    let mut left = 5;
    let mut check = || {
        left -= 1;
        if left == 0 { Err(Error::Cancelled) } else { Ok(()) }
    };
    let stopped = model.generate(&request("a", GREEDY), &uniform(1), &mut |_| {}, &mut check);
    assert!(matches!(stopped, Err(Error::Cancelled)));
    let long = "long ".repeat(2000);
    let told = model.generate(&request(&long, GREEDY), &uniform(1), &mut |_| {}, &mut || Ok(()));
    let told = told.unwrap_err().to_string();
    assert!(told.contains("the model reads 512, its answer included"), "{told}");
}

/// A template that goes on for too long, or makes too much, is refused soon; none panics.
#[test]
fn a_hostile_template_ends() {
    let messages = [Message { role: "user", content: "a".to_owned() }];
    let refused = |template: &str| {
        let told = render(template, &messages, ChatNames::default());
        told.expect_err(template)
    };
    let doubling = "{% set x = 'aaaaaaaa' %}".to_owned() + &"{% set x = x ~ x %}".repeat(60);
    let nested = "{% set x = [1] %}".to_owned() + &"{% set x = [x, x] %}".repeat(20) + "{{ x }}";
    for (template, expected) in [
        (doubling.as_str(), "makes more than"),
        ("{{ 'x' * 999999999999 }}", "makes more than"),
        ("{% set x = 'x' * 9999999 %}{{ x | replace('x', x) }}", "makes more than"),
        ("{% set x = 'x' * 999999 %}{{ x.split('x') }}", "makes more than"),
        ("{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}", "than"),
        ("{{ range(9999999) }}", "more than 100000 numbers"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "deep"),
        (nested.as_str(), "than"),
        ("{% set n = namespace(a=1) %}{% set n.a = n %}", "a namespace lies in another value"),
        (&("{% if a %}".repeat(999)), "deep"),
        (&format!("{{{{ {} }}}}", "(".repeat(99_999)), "deep"),
        (&format!("{{{{ {}1 }}}}", "-".repeat(99_999)), "more than 500 operations"),
        (&format!("{{{{ 1{} }}}}", "+1".repeat(99_999)), "more than 500 operations"),
        ("{{ raise_exception('no') }}", "it refuses: no"),
        ("{% include 'x' %}", "the block `include` is not read"),
        ("{{ x | xmlattr }}", "the filter `xmlattr` is not read"),
        ("{{ 'a' ", "is missing"),
        ("{{ 1 // 0 }}", "divided by 0"),
        ("{{ 9223372036854775807 + 1 }}", "overflows"),
        ("{% for a, b in [1] %}{% endfor %}", "a loop goes through a number"),
        ("{# no end", "a comment does not end"),
        ("{% endif %}", "is not read"),
        (&"x".repeat(300_000), "262144 are read at most"),
    ] {
        let told = refused(template);
        assert!(told.contains(expected), "{told}\n{expected}");
    }
}

/// A file with other bytes in its metadata is refused with a message, or is another model.
#[test]
fn a_damaged_file_is_refused_or_read() {
    let good = std::fs::read(reference("language/qwen3.gguf")).unwrap();
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("SEED={seed}");
    let mut random = common::Random(seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for _ in 0..150 {
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(20_000);
            bytes[at] = random.next() as u8;
        }
        std::fs::write(&path, &bytes).unwrap();
        let Ok(files) = files(&path) else { continue };
        let Ok(spec) = spec(&files) else { continue };
        let weights = Weights::new(Arc::clone(&files), DType::F32, &Device::Cpu).unwrap();
        let Ok(model) = spec.load(&files, &weights) else { continue };
        let request = GenerateRequest { max_tokens: 2, ..request("a cat", GREEDY) };
        let _ = model.generate(&request, &uniform(1), &mut |_| {}, &mut || Ok(()));
    }
}

fn number(value: u32) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

fn texts(items: &[&str]) -> Vec<u8> {
    let head = [&8u32.to_le_bytes()[..], &(items.len() as u64).to_le_bytes()].concat();
    items.iter().fold(head, |bytes, item| [bytes, gguf::text(item)].concat())
}

#[test]
fn what_a_file_lacks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let text = |key: &str, value: &str| gguf::entry(key, gguf::TEXT, &gguf::text(value));
    let size = |key: &str, value: u32| gguf::entry(key, 4, &number(value));
    let whole = || {
        vec![
            text("general.architecture", "llama"),
            size("llama.embedding_length", 8),
            size("llama.block_count", 1),
            size("llama.feed_forward_length", 8),
            size("llama.attention.head_count", 2),
            text("tokenizer.ggml.model", "gpt2"),
            text("tokenizer.ggml.pre", "llama-bpe"),
            gguf::entry("tokenizer.ggml.tokens", 9, &texts(&["a", "b"])),
            gguf::entry("tokenizer.ggml.merges", 9, &texts(&[])),
            text("tokenizer.chat_template", "{{ messages[0].content }}"),
        ]
    };
    let told = |entries: &[Vec<u8>]| {
        std::fs::write(&path, gguf::file(entries, &[gguf::Tensor::f32("a", &[1], &[0.5])]))
            .unwrap();
        files(&path).and_then(|files| spec(&files)).expect_err("refused").to_string()
    };
    // All is there but the weights.
    let missing = told(&whole());
    assert!(missing.contains("has no weight `token_embd.weight`"), "{missing}");
    for (at, expected) in [
        (0, "`general.architecture` is missing: a language model says what it is; known are llama"),
        (1, "`llama.embedding_length` is missing"),
        (5, "`tokenizer.ggml.model` is missing: the file has no tokenizer"),
        (6, "the way `default` of splitting text"),
        (7, "`tokenizer.ggml.tokens` is missing"),
        (8, "`tokenizer.ggml.merges` is missing"),
        (9, "`tokenizer.chat_template` is missing: a base model follows no instruction"),
    ] {
        let mut entries = whole();
        entries.remove(at);
        let told = told(&entries);
        assert!(told.contains(expected), "{told}\n{expected}");
    }
    for (at, entry, expected) in [
        (
            0,
            text("general.architecture", "gemma3"),
            "architecture `gemma3` (known are llama, qwen2, qwen3: Llama, Mistral, SmolLM, Qwen2.5, Qwen3)",
        ),
        (1, size("llama.embedding_length", 0), "is 0, which no model has"),
        (4, text("llama.attention.head_count", "2"), "is no whole number that a size can be"),
        (4, size("llama.expert_count", 8), "a language model of experts"),
        (5, text("tokenizer.ggml.model", "llama"), "a tokenizer of the kind `llama`"),
        (4, text("llama.rope.scaling.type", "longrope"), "positions stretched by `longrope`"),
    ] {
        let mut entries = whole();
        match at {
            4 if !expected.contains("whole number") => entries.push(entry),
            at => entries[at] = entry,
        }
        let told = told(&entries);
        assert!(told.contains(expected), "{told}\n{expected}");
    }
    std::fs::copy(reference("upscale/span_x2.safetensors"), &path).unwrap();
    let told = files(&path).and_then(|files| spec(&files)).expect_err("refused").to_string();
    assert!(told.contains("a language model that is no GGUF file"), "{told}");
}
