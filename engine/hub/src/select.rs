//! Which files of a model are needed to run it: configs, tokenizers, and of each part the weights
//! of one variant. What runs code when it is read (pickles) never is.

use std::collections::{BTreeMap, BTreeSet};

use kino_port::did_you_mean;
use kino_world::hub::{HubModel, is_path_of_hub};
use serde_json::Value;

use crate::error::{Error, Result};

/// The file that says which parts a model has.
pub(crate) const INDEX: &str = "model_index.json";

/// How the names of files of weights begin: those of diffusers, and those of transformers.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];

/// Files of a message at most.
const SHOWN: usize = 12;

/// Parts that a model has at most.
const MAX_PARTS: usize = 64;

/// The files that patterns name: `*` stands for any text, `?` for any character.
///
/// # Errors
/// When a pattern fits none, or a name among those that fit cannot be a file's.
pub(crate) fn included(files: &[String], patterns: &[String]) -> Result<Vec<String>> {
    let mut wanted = BTreeSet::new();
    for pattern in patterns {
        let found: Vec<_> = files.iter().filter(|file| fits(pattern, file)).collect();
        if found.is_empty() {
            let message = format!("no file of it fits `{pattern}`");
            let meant = did_you_mean(pattern, files.iter().map(String::as_str));
            return Err(Error::Selection {
                message,
                hint: meant.unwrap_or_else(|| some_of(files)),
            });
        }
        wanted.extend(found);
    }
    checked(wanted.into_iter().cloned().collect())
}

/// Files whose names may be names of files here.
fn checked(wanted: BTreeSet<String>) -> Result<Vec<String>> {
    let wanted: Vec<String> = wanted.into_iter().collect();
    match wanted.iter().find(|path| !is_path_of_hub(path)) {
        None => Ok(wanted),
        Some(path) => {
            let shown: String = kino_port::escape_line(path).chars().take(100).collect();
            let message = format!("the hub names a file `{shown}`, which could lead elsewhere");
            let hint = "nothing was fetched; `--include PATTERN` names the files that are wanted";
            Err(Error::Selection { message, hint: hint.to_owned() })
        }
    }
}

/// The files of a model in the diffusers layout whose `model_index.json` says `index`; `variant` is
/// that of the weights (`fp16`), where one is wanted.
///
/// # Errors
/// When a part has no weights that are read, or several variants and none was named.
pub(crate) fn of_pipeline(
    model: &HubModel,
    files: &[String],
    index: &Value,
    variant: Option<&str>,
) -> Result<Vec<String>> {
    let mut wanted = vec![INDEX.to_owned()];
    for (part, _) in parts_of(index) {
        let own = files_of(part, files);
        let is_config = |file: &&&String| {
            let name = file.as_str();
            [".json", ".txt", ".model"].iter().any(|end| name.ends_with(end))
                && !name.contains(".safetensors.index.")
                && !name.ends_with(".bin.index.json")
        };
        wanted.extend(own.iter().filter(is_config).map(|file| (*file).clone()));
        wanted.extend(weights(model, part, &own, variant)?);
    }
    checked(wanted.into_iter().collect())
}

/// The parts that a `model_index.json` names, each with the library of its class.
fn parts_of(index: &Value) -> impl Iterator<Item = (&str, &str)> {
    let fields = index.as_object().into_iter().flatten();
    let parts = fields.filter(|(name, _)| !name.starts_with('_'));
    parts.filter_map(|(name, value)| Some((name.as_str(), value.get(0)?.as_str()?))).take(MAX_PARTS)
}

/// The files in the folder of a part.
fn files_of<'a>(part: &str, files: &'a [String]) -> Vec<&'a String> {
    let inside = |file: &&String| file.strip_prefix(part).is_some_and(|f| f.starts_with('/'));
    files.iter().filter(inside).collect()
}

/// What a model in the diffusers layout needs by its `model_index.json` and its repository lacks:
/// folders of parts, with a slash behind them; configs; weights of parts that have a config of a
/// network; and indexes of weights in several files. `wanted` are the files of [`of_pipeline`].
pub(crate) fn lacking_of_parts(
    files: &[String],
    index: &Value,
    wanted: &[String],
) -> BTreeSet<String> {
    let mut lacking = BTreeSet::new();
    for (part, library) in parts_of(index) {
        if files_of(part, files).is_empty() {
            lacking.insert(format!("{part}/"));
            continue;
        }
        let stem = if library == "diffusers" { STEMS[0] } else { STEMS[1] };
        let own = files_of(part, wanted);
        let has = |name: &str| own.iter().any(|file| file[part.len() + 1..] == *name);
        let weights: Vec<_> = own.iter().filter(|file| file.contains(".safetensors")).collect();
        let is_shard = weights.iter().any(|file| file.contains("-of-"));
        let has_index = weights.iter().any(|file| is_index_of_weights(file));
        // What splits text or prepares pictures has a config of another name beside this one.
        let is_network =
            has("config.json") && !has("tokenizer_config.json") && !has("preprocessor_config.json");
        if weights.is_empty() && is_network {
            lacking.insert(format!("{part}/{stem}.safetensors"));
        }
        if !weights.is_empty() && !has("config.json") {
            lacking.insert(format!("{part}/config.json"));
        }
        if is_shard && !has_index {
            lacking.insert(format!("{part}/{stem}.safetensors.index.json"));
        }
    }
    lacking
}

/// Whether a file says in which files the weights of a part lie.
pub(crate) fn is_index_of_weights(path: &str) -> bool {
    path.contains(".safetensors.index.") && path.ends_with(".json")
}

/// The files that an index of weights at `path` names, as paths in the repository; none where it
/// is no such index.
pub(crate) fn files_of_index(path: &str, index: &Value) -> BTreeSet<String> {
    let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let names = index.get("weight_map").and_then(Value::as_object).into_iter().flatten();
    let names = names.filter_map(|(_, name)| name.as_str());
    names.map(|name| format!("{folder}{name}")).filter(|path| is_path_of_hub(path)).collect()
}

/// What is fetched of a model that is not in that layout, where nothing is named: its one file of
/// weights.
///
/// # Errors
/// When there is none, or several.
pub(crate) fn only_file(model: &HubModel, files: &[String]) -> Result<Vec<String>> {
    let is_weights = |file: &&String| file.ends_with(".safetensors") || file.ends_with(".gguf");
    let weights: Vec<String> = files.iter().filter(is_weights).cloned().collect();
    let source = model.source();
    match weights.as_slice() {
        [one] => checked([one.clone()].into()),
        [] => Err(Error::Selection {
            message: format!("{source} has neither {INDEX} nor a safetensors or GGUF file"),
            hint: some_of(files),
        }),
        several => Err(Error::Selection {
            message: format!(
                "{source} is no folder in the diffusers layout (it has no {INDEX}), but has {} files \
                 of weights",
                several.len()
            ),
            hint: format!(
                "name one: `kino models pull {source}/{}`, or several by `--include PATTERN`; {}",
                several[0],
                some_of(several)
            ),
        }),
    }
}

/// The weights of a part in one variant, with the index of several files; none where it has none.
fn weights(
    model: &HubModel,
    part: &str,
    files: &[&String],
    variant: Option<&str>,
) -> Result<Vec<String>> {
    let mut variants: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut has_pickles = false;
    for file in files {
        let name = &file[part.len() + 1..];
        has_pickles |= name.ends_with(".bin") || name.ends_with(".ckpt") || name.ends_with(".pt");
        if let Some(variant) = variant_of(name) {
            variants.entry(variant).or_default().push((*file).clone());
        }
    }
    let named = variant.and_then(|variant| variants.remove_entry(variant));
    let chosen = named.or_else(|| variants.remove_entry("")).or_else(|| match variants.len() {
        1 => variants.pop_first(),
        _ => None,
    });
    if let Some((_, files)) = chosen {
        // An index says which files it joins; one file beside it holds the same again.
        let is_joined = files.iter().any(|file| file.ends_with(".index.json"));
        let is_alone = |file: &String| !file.contains("-of-") && !file.ends_with(".index.json");
        return Ok(files.into_iter().filter(|file| !(is_joined && is_alone(file))).collect());
    }
    let source = model.source();
    match (variants.is_empty(), has_pickles) {
        (true, false) => Ok(Vec::new()),
        (true, true) => Err(Error::Selection {
            message: format!("{source}: the weights of `{part}` are pickles, which are not read"),
            hint: "take another revision or model that has safetensors files".to_owned(),
        }),
        (false, _) => {
            let names: Vec<&str> = variants.keys().map(String::as_str).collect();
            Err(Error::Selection {
                message: format!("{source}: `{part}` has the variants {}", names.join(", ")),
                hint: format!("name one: `kino models pull {source} --variant {}`", names[0]),
            })
        }
    }
}

/// The variant of a file of weights, by its name in the folder of its part: empty for the usual
/// one; none where it is no such file.
fn variant_of(name: &str) -> Option<String> {
    let rest = STEMS.iter().find_map(|stem| name.strip_prefix(stem))?;
    let (rest, is_index) = match rest.strip_suffix(".json") {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    // `.fp16`, `-00001-of-00002`, or both, in either order, around `.safetensors[.index]`.
    let (before, after) = rest.split_once(".safetensors")?;
    let after = match is_index {
        true => after.strip_prefix(".index")?,
        false => after,
    };
    let before = match before.split_once("-0") {
        Some((head, shard)) => {
            let variant = shard.split_once('.').map_or("", |(_, variant)| variant);
            if variant.is_empty() { head.to_owned() } else { format!("{head}.{variant}") }
        }
        None => before.to_owned(),
    };
    Some(format!("{before}{after}").trim_matches('.').to_owned())
}

/// Whether a pattern fits a path: `*` stands for any text, slashes included, `?` for a character. A
/// path that holds such characters itself fits itself.
fn fits(pattern: &str, path: &str) -> bool {
    if pattern == path {
        return true;
    }
    let (pattern, path): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), path.chars().collect());
    // The last star, and where in the path what it stands for ends.
    let (mut p, mut at, mut star) = (0, 0, None);
    while at < path.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, at));
                p += 1;
            }
            Some(c) if *c == '?' || *c == path[at] => {
                p += 1;
                at += 1;
            }
            _ => match star {
                None => return false,
                Some((begin, end)) => {
                    star = Some((begin, end + 1));
                    (p, at) = (begin + 1, end + 1);
                }
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Some files of a model, for a message.
fn some_of(files: &[String]) -> String {
    let shown: Vec<_> = files.iter().take(SHOWN).map(|file| kino_port::escape_line(file)).collect();
    let more = files.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match shown.is_empty() {
        true => "it has no files".to_owned(),
        false => format!("it has {}{more}", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> HubModel {
        HubModel::of_source("hf:a/b").unwrap().unwrap()
    }

    fn of(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn of_a_pipeline_configs_and_one_variant_of_weights_are_needed() {
        let files = of(&[
            ".gitattributes",
            "README.md",
            "model_index.json",
            "assets/big.mp4",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model-00001-of-00002.safetensors",
            "text_encoder/model-00002-of-00002.safetensors",
            "text_encoder/model.safetensors.index.json",
            "text_encoder/model.safetensors",
            "text_encoder/pytorch_model.bin",
            "tokenizer/spiece.model",
            "tokenizer/tokenizer.json",
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
            "transformer/diffusion_pytorch_model.safetensors.index.fp16.json",
            "transformer/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.fp16.safetensors",
            "unused/model.safetensors",
        ]);
        let index = serde_json::json!({
            "_class_name": "WanPipeline", "scheduler": ["diffusers", "X"], "vae": ["diffusers", "Y"],
            "text_encoder": ["transformers", "Z"], "tokenizer": ["transformers", "T"],
            "transformer": ["diffusers", "W"], "unused": [null, null], "expand_timesteps": false,
        });
        let wanted = of_pipeline(&model(), &files, &index, None).unwrap();
        let expected = of(&[
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model-00001-of-00002.safetensors",
            "text_encoder/model-00002-of-00002.safetensors",
            "text_encoder/model.safetensors.index.json",
            "tokenizer/spiece.model",
            "tokenizer/tokenizer.json",
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.fp16.safetensors",
        ]);
        assert_eq!(wanted, expected);
        let wanted = of_pipeline(&model(), &files, &index, Some("fp16")).unwrap();
        let has = |name: &str| wanted.iter().any(|file| file == name);
        assert!(has("transformer/diffusion_pytorch_model.safetensors.index.fp16.json"));
        assert!(has("transformer/diffusion_pytorch_model.fp16-00001-of-00001.safetensors"));
        assert!(!has("transformer/diffusion_pytorch_model.safetensors"));
        assert!(has("text_encoder/model.safetensors.index.json"), "the others as they are");
    }

    #[test]
    fn variants_are_named_where_one_must_be_chosen_and_pickles_refused() {
        let files = of(&[INDEX, "vae/model.fp16.safetensors", "vae/model.bf16.safetensors"]);
        let index = serde_json::json!({"vae": ["diffusers", "Y"]});
        let told = of_pipeline(&model(), &files, &index, None).unwrap_err();
        assert_eq!(told.to_string(), "hf:a/b: `vae` has the variants bf16, fp16");
        let hint = "name one: `kino models pull hf:a/b --variant bf16`";
        assert_eq!(told.hint().as_deref(), Some(hint));
        let files = of(&[INDEX, "vae/diffusion_pytorch_model.bin"]);
        let told = of_pipeline(&model(), &files, &index, None).unwrap_err();
        assert!(told.to_string().contains("are pickles"), "{told}");
    }

    #[test]
    fn what_a_repository_lacks_of_its_parts_is_named() {
        let index = serde_json::json!({
            "_class_name": "P", "scheduler": ["diffusers", "S"], "tokenizer": ["transformers", "T"],
            "image_processor": ["transformers", "I"], "text_encoder": ["transformers", "E"],
            "transformer": ["diffusers", "W"], "vae": ["diffusers", "V"], "unused": [null, null],
        });
        let whole = of(&[
            INDEX,
            "scheduler/scheduler_config.json",
            "tokenizer/config.json",
            "tokenizer/tokenizer_config.json",
            "image_processor/preprocessor_config.json",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "transformer/config.json",
            "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
            "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
            "transformer/diffusion_pytorch_model.safetensors.index.json",
            "vae/config.json",
            "vae/diffusion_pytorch_model.fp16.safetensors",
        ]);
        let lacking = |without: &str| {
            let files: Vec<_> = whole.iter().filter(|f| !f.starts_with(without)).cloned().collect();
            let wanted = of_pipeline(&model(), &files, &index, None).unwrap();
            Vec::from_iter(lacking_of_parts(&files, &index, &wanted))
        };
        assert!(lacking("nothing").is_empty());
        for (without, lacks) in [
            ("scheduler/", "scheduler/"),
            ("tokenizer/", "tokenizer/"),
            ("text_encoder/model", "text_encoder/model.safetensors"),
            ("vae/diff", "vae/diffusion_pytorch_model.safetensors"),
            ("vae/config", "vae/config.json"),
            (
                "transformer/diffusion_pytorch_model.safetensors.index",
                "transformer/diffusion_pytorch_model.safetensors.index.json",
            ),
        ] {
            assert_eq!(lacking(without), [lacks], "{without}");
        }
        let map = serde_json::json!({"weight_map": {"a": "x.safetensors", "b": "../y", "c": 3}});
        assert_eq!(files_of_index("vae/i.json", &map), ["vae/x.safetensors".to_owned()].into());
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let index = serde_json::json!({"vae": ["diffusers", "Y"]});
        for wrong in ["vae/../../x.json", "vae/a\\..\\b.json", "vae//x.json", "vae/\u{1b}[2J.json"]
        {
            let files = of(&[INDEX, wrong]);
            let told = of_pipeline(&model(), &files, &index, None).unwrap_err().to_string();
            assert!(told.contains("which could lead elsewhere"), "{told}");
            assert!(!told.contains('\u{1b}'));
        }
        let told = included(&of(&["/etc/passwd"]), &of(&["*"])).unwrap_err().to_string();
        assert!(told.contains("`/etc/passwd`"), "{told}");
    }

    #[test]
    fn patterns_fit_as_those_of_a_shell_and_across_folders() {
        for (pattern, path, is) in [
            ("*", "a/b", true),
            ("*.json", "vae/config.json", true),
            ("vae/*", "vae/config.json", true),
            ("*high*.safetensors", "split/wan_high_noise.safetensors", true),
            ("?.json", "ab.json", false),
            ("a*b*c", "a--b--b-c", true),
            ("a*b*c", "a--b--b-", false),
            ("", "a", false),
            ("a[1].txt", "a[1].txt", true),
        ] {
            assert_eq!(fits(pattern, path), is, "{pattern} {path}");
        }
        let told = included(&of(&["vae/config.json"]), &of(&["vae/confg.json"])).unwrap_err();
        assert_eq!(told.to_string(), "no file of it fits `vae/confg.json`");
        assert!(told.hint().unwrap().contains("vae/config.json"));
    }

    #[test]
    fn without_an_index_the_one_file_of_weights_is_meant() {
        let one = of(&["README.md", "a/x.safetensors"]);
        assert_eq!(only_file(&model(), &one).unwrap(), of(&["a/x.safetensors"]));
        let two = of(&["a/x.safetensors", "a/y.safetensors"]);
        let told = only_file(&model(), &two).unwrap_err();
        assert!(told.hint().unwrap().contains("`kino models pull hf:a/b/a/x.safetensors`"));
        assert!(only_file(&model(), &of(&["x.bin"])).unwrap_err().to_string().contains("neither"));
    }
}
