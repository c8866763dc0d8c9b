//! `kino models`: the models at hand, what they are, and fetching those of the Hugging Face Hub.

mod bar;
mod convert;

use std::path::Path;

use bar::Bar;
use kino_node::Cancel;
use kino_port::escape_line;
use kino_session::Settings;
use kino_session::hub::{self, BlobState, HubAccess, PullEvent, PullRequest, Pulled, VerifiedFile};
use kino_session::inventory::{self, FoundModel, FoundPart, LanguageSummary};
use kino_world::hub::{HubCache, HubGap, HubModel, HubSnapshot, hub_home};

use crate::args::{self, ModelsAction};
use crate::failure::{Exit, Failure};
use crate::interrupt;
use crate::json::{Value, json};
use crate::render::quantity::{bytes, count};
use crate::render::table::{Align, Table};
use crate::screen::Screen;
use crate::setup;

/// Lists, shows, fetches, verifies, converts.
///
/// # Errors
/// When there is no such model, the hub does not give it, or the settings do not read.
pub(crate) fn run(args: &args::Models, screen: &Screen) -> Result<Exit, Failure> {
    let settings = setup::settings()?;
    match &args.action {
        ModelsAction::List => list(&settings, screen),
        ModelsAction::Show { source } => show(&settings, source, screen),
        ModelsAction::Pull(args) => pull(args, screen),
        ModelsAction::Verify { source, remove } => verify(source.as_deref(), *remove, screen),
        ModelsAction::Convert(args) => convert::run(args, screen),
        ModelsAction::Where => places(&settings, screen),
    }
}

fn list(settings: &Settings, screen: &Screen) -> Result<Exit, Failure> {
    let found = inventory::list(settings)?;
    if screen.json {
        let models: Vec<Value> = found.iter().map(as_json).collect();
        screen.print_json(&json!({ "models": models }))?;
        return Ok(Exit::Good);
    }
    let mut table = Table::new(&[Align::Left, Align::Left, Align::Left, Align::Right, Align::Left]);
    for model in &found {
        let mut beside = Vec::new();
        beside.extend(model.path.as_ref().map(|path| screen.out.dim(&path.display().to_string())));
        if let Some(said) = trouble(model) {
            beside.push(screen.out.bad(&said));
        }
        let name = screen.out.name(&model.source);
        let types = types(model.parts.iter());
        table.row([name, what(model), types, bytes(model.bytes()), beside.join("  ")]);
    }
    screen.print(&table.render())?;
    Ok(Exit::Good)
}

fn show(settings: &Settings, source: &str, screen: &Screen) -> Result<Exit, Failure> {
    let model = inventory::show(settings, source, Path::new(""))?;
    let is_good = model.problem.is_none()
        && model.gaps.is_empty()
        && model.parts.iter().all(|part| part.problem.is_none());
    let exit = if is_good { Exit::Good } else { Exit::NodeFailed };
    if screen.json {
        screen.print_json(&as_json(&model))?;
        return Ok(exit);
    }
    let out = screen.out;
    let mut text =
        format!("{}  {}  {}\n", out.bold(&model.source), what(&model), bytes(model.bytes()));
    if let Some(path) = &model.path {
        text += &format!("{}\n", out.dim(&path.display().to_string()));
    }
    let mut table =
        Table::new(&[Align::Left, Align::Left, Align::Right, Align::Right, Align::Left]);
    for part in &model.parts {
        let tensors = count(part.tensors, "tensor");
        let files = match part.files.as_slice() {
            [] => String::new(),
            [(name, _)] => Path::new(name).file_name().unwrap_or_default().to_string_lossy().into(),
            several => count(several.len(), "file"),
        };
        let name = out.name(&part.name);
        table.row([name, shares(part), bytes(part.bytes), tensors, out.dim(&files)]);
    }
    text += &table.render();
    text.extend(model.language.as_ref().map(|own| format!("{}\n", sizes_of(own))));
    for encoder in &model.brought_tokenizers {
        text += &format!("the tokenizer of {encoder} is the one that kino brings: it has none\n");
    }
    for (name, problem) in model.parts.iter().filter_map(|p| Some((&p.name, p.problem.as_ref()?))) {
        text += &format!("{} {name}: {problem}\n", out.bad("fault"));
    }
    text.extend(model.problem.iter().map(|problem| format!("{} {problem}\n", out.bad("fault"))));
    text.extend(model.gaps.iter().map(|gap| format!("{} {}\n", out.bad("missing"), of_gap(gap))));
    text.extend(model.hint.iter().map(|hint| format!("{}\n", out.dim(hint))));
    screen.print(&text)?;
    Ok(exit)
}

/// What a model is, in words.
fn what(model: &FoundModel) -> String {
    let parts: Vec<&str> = model.parts.iter().map(|part| part.name.as_str()).collect();
    let parts = match parts.as_slice() {
        [] => "nothing that is known".to_owned(),
        parts => parts.join(", "),
    };
    match &model.family {
        Some(family) => format!("{family}: {parts}"),
        None => parts,
    }
}

/// The sizes of a language model, on a line.
fn sizes_of(model: &LanguageSummary) -> String {
    let config = &model.config;
    let template = if model.has_template { "a chat template" } else { "no chat template" };
    format!(
        "{} of {}, {} tokens known, reads {}; {template}",
        count(config.layers, "layer"),
        config.width,
        config.vocabulary,
        config.context
    )
}

/// The types of a part, the commonest first, with the share of its numbers that each has.
fn shares(part: &FoundPart) -> String {
    let mut types: Vec<(&String, &u64)> = part.types.iter().collect();
    types.sort_by_key(|(_, elements)| std::cmp::Reverse(**elements));
    let all: u64 = part.types.values().sum();
    let share = |(name, elements): (&String, &u64)| {
        let scales = match part.has_fp8_scales.filter(|_| name.starts_with("F8_")) {
            Some(true) => " with scales",
            Some(false) => " without scales",
            None => "",
        };
        match (types.len(), 100.0 * *elements as f64 / all.max(1) as f64) {
            (1, _) => format!("{name}{scales}"),
            (_, share) if share < 1.0 => format!("{name}{scales} <1%"),
            (_, share) => format!("{name}{scales} {share:.0}%"),
        }
    };
    types.iter().map(|own| share(*own)).collect::<Vec<_>>().join(", ")
}

/// The types of parts, each once.
fn types<'a>(parts: impl Iterator<Item = &'a FoundPart>) -> String {
    let mut types: Vec<&str> = parts.filter_map(FoundPart::main_type).collect();
    types.sort_unstable();
    types.dedup();
    types.join(", ")
}

/// What stands against a model, on a line of a list.
fn trouble(model: &FoundModel) -> Option<String> {
    if !model.gaps.is_empty() {
        return Some(format!("incomplete: {} missing", count(model.gaps.len(), "file")));
    }
    if model.is_shadowed {
        return Some("another one of this name is taken".to_owned());
    }
    let of_part = model.parts.iter().find_map(|part| part.problem.as_ref());
    model.problem.as_ref().or(of_part).map(|problem| begin_of(problem, 200))
}

/// The beginning of a text, at most so many characters, which ends with a whole word.
fn begin_of(text: &str, most: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(most) else { return text.to_owned() };
    let begin = &text[..end];
    let words = begin.rsplit_once(' ').map_or(begin, |(words, _)| words);
    format!("{} …", words.trim_end())
}

fn of_gap(gap: &HubGap) -> String {
    let mut said = Vec::new();
    said.extend(gap.bytes.filter(|left| *left > 0).map(|left| format!("{} to fetch", bytes(left))));
    said.extend((gap.begun > 0).then(|| format!("{} lie there of a download", bytes(gap.begun))));
    said.extend(gap.is_broken_link.then(|| "its link leads nowhere".to_owned()));
    match said.is_empty() {
        true => gap.path.clone(),
        false => format!("{} ({})", gap.path, said.join(", ")),
    }
}

fn as_json(model: &FoundModel) -> Value {
    let part = |part: &FoundPart| {
        let files = part.files.iter().map(|(name, bytes)| json!({ "path": name, "bytes": bytes }));
        let types = part.types.iter().map(|(name, n)| json!({ "type": name, "elements": n }));
        json!({
            "part": part.name, "bytes": part.bytes, "tensors": part.tensors,
            "types": types.collect::<Vec<_>>(), "fp8_scales": part.has_fp8_scales, "files": files.collect::<Vec<_>>(),
            "problem": part.problem,
        })
    };
    let gap = |gap: &HubGap| {
        json!({
            "path": gap.path, "bytes": gap.bytes, "begun": gap.begun,
            "broken_link": gap.is_broken_link,
        })
    };
    let language = |own: &LanguageSummary| {
        let config = &own.config;
        json!({
            "architecture": config.name, "layers": config.layers, "width": config.width,
            "heads": config.heads, "vocabulary": config.vocabulary, "context": config.context,
            "chat_template": own.has_template,
        })
    };
    json!({
        "source": model.source, "origin": model.origin.name(), "path": model.path,
        "family": model.family, "bytes": model.bytes(),
        "parts": model.parts.iter().map(part).collect::<Vec<_>>(),
        "language": model.language.as_ref().map(language),
        "brought_tokenizers": model.brought_tokenizers,
        "missing": model.gaps.iter().map(gap).collect::<Vec<_>>(),
        "problem": model.problem, "hint": model.hint, "shadowed": model.is_shadowed,
    })
}

/// The model of the hub that is asked for.
fn hub_model(source: &str) -> Result<HubModel, Failure> {
    let model = HubModel::of_source(source).unwrap_or_else(|| {
        Err(format!("expected a model of the Hugging Face Hub, hf:OWNER/NAME, found {source}"))
    });
    model.map_err(|message| {
        Failure::usage(message).hint("for example hf:Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    })
}

fn pull(args: &args::Pull, screen: &Screen) -> Result<Exit, Failure> {
    let request = PullRequest {
        model: hub_model(&args.source)?,
        include: args.include.clone(),
        variant: args.variant.clone(),
        dry_run: args.dry_run,
    };
    if request.model.file.is_some() && !request.include.is_empty() {
        let failure = Failure::usage(format!("{} is one file already", args.source));
        return Err(failure.hint("leave --include out, or the path behind the name"));
    }
    let cancel = Cancel::default();
    interrupt::watch(&cancel);
    let access = HubAccess::of_environment().map_err(kino_session::Error::from)?;
    let bar = Bar::new(screen);
    let tell = |event: PullEvent<'_>| bar.show(&event, screen);
    let pulled = hub::pull(&access, &request, &tell, &|| cancel.is_cancelled());
    bar.end();
    let pulled = pulled.map_err(kino_session::Error::from)?;
    let sum = |of: fn(&hub::PulledFile) -> u64| pulled.files.iter().map(of).sum::<u64>();
    let (total, fetched) = (sum(|file| file.bytes), sum(|file| file.fetched));
    if screen.json {
        let files = pulled
            .files
            .iter()
            .map(|file| json!({ "path": file.path, "bytes": file.bytes, "fetched": file.fetched }));
        screen.print_json(&json!({
            "source": request.model.source(), "commit": pulled.commit, "folder": pulled.folder,
            "bytes": total, "fetched": fetched, "dry_run": request.dry_run,
            "files": files.collect::<Vec<_>>(), "lacking": pulled.lacking,
        }))?;
        return whole(&request, &pulled);
    }
    let mut text = String::new();
    if request.dry_run {
        let mut table = Table::new(&[Align::Right, Align::Left, Align::Left]);
        for file in &pulled.files {
            let said = if file.fetched == 0 { "is there" } else { "" };
            table.row([bytes(file.bytes), file.path.clone(), screen.out.dim(said)]);
        }
        text += &table.render();
    }
    let files = count(pulled.files.len(), "file");
    let done = match (request.dry_run, fetched) {
        (true, _) => format!("would fetch {}", bytes(fetched)),
        (false, 0) => "all was there".to_owned(),
        (false, _) => format!("fetched {}", bytes(fetched)),
    };
    let name = screen.out.bold(&request.model.source());
    text += &format!("{name}  {files}, {}; {done}\n", bytes(total));
    text += &format!("{}\n", screen.out.dim(&pulled.folder.display().to_string()));
    screen.print(&text)?;
    whole(&request, &pulled)
}

/// Files of a message at most.
const SHOWN: usize = 12;

/// Whether the repository has all that its own indexes name; if not, what is missing.
fn whole(request: &PullRequest, pulled: &Pulled) -> Result<Exit, Failure> {
    let lacking = &pulled.lacking;
    if lacking.is_empty() {
        return Ok(Exit::Good);
    }
    let shown: Vec<_> = lacking.iter().take(SHOWN).map(|path| escape_line(path)).collect();
    let more = match lacking.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!(
        "{} is not whole on the hub: it lacks {}{more}, which its indexes name",
        request.model.source(),
        shown.join(", ")
    );
    let kept = if request.dry_run { "" } else { "what it has stays in the cache; " };
    let hint = format!(
        "{kept}another revision (hf:OWNER/NAME@REVISION) or another upload of the model may have \
         the rest, or its own page says where that lies"
    );
    Err(Failure::world(message).hint(hint))
}

fn verify(source: Option<&str>, remove: bool, screen: &Screen) -> Result<Exit, Failure> {
    let cache = HubCache::of_environment();
    let snapshots: Vec<HubSnapshot> = match source {
        None => cache.models(),
        Some(source) => {
            let found = cache.find(&hub_model(source)?.whole());
            vec![found.map_err(|told| Failure::usage(told.message).hint(told.hint))?]
        }
    };
    let cancel = Cancel::default();
    interrupt::watch(&cancel);
    let bar = Bar::new(screen);
    let mut all: Vec<(HubSnapshot, Vec<VerifiedFile>)> = Vec::new();
    for snapshot in snapshots {
        let tell = |path: &str, bytes: u64| {
            bar.with(|bar| {
                bar.inc_length(bytes);
                bar.inc(bytes);
                bar.set_message(kino_port::escape_line(path).into_owned());
            });
        };
        let found = hub::verify(&cache, &snapshot, remove, &tell, &|| cancel.is_cancelled());
        all.push((snapshot, found.map_err(kino_session::Error::from)?));
    }
    bar.end();
    let is_bad =
        |file: &&VerifiedFile| matches!(file.state, BlobState::Damaged { .. } | BlobState::Missing);
    let bad = all.iter().flat_map(|(_, files)| files).filter(is_bad).count();
    let exit = if bad == 0 { Exit::Good } else { Exit::NodeFailed };
    if screen.json {
        let models = all.iter().map(|(snapshot, files)| {
            let files = files.iter().map(|file| {
                let found = match &file.state {
                    BlobState::Damaged { found } => Some(found.clone()),
                    _ => None,
                };
                let state = state_name(&file.state);
                json!({ "path": file.path, "bytes": file.bytes, "state": state, "found": found })
            });
            json!({
                "source": snapshot.model.source(), "commit": snapshot.commit,
                "folder": snapshot.folder, "files": files.collect::<Vec<_>>(),
            })
        });
        screen.print_json(&json!({ "models": models.collect::<Vec<_>>(), "removed": remove }))?;
        return Ok(exit);
    }
    let out = screen.out;
    let mut text = String::new();
    for (snapshot, files) in &all {
        let total: u64 = files.iter().map(|file| file.bytes).sum();
        let of = |state: fn(&BlobState) -> bool| files.iter().filter(|f| state(&f.state)).count();
        let unknown = of(|state| *state == BlobState::Unknown);
        let bad = files.iter().filter(is_bad).count();
        let said = match bad {
            0 => out.good("good"),
            bad => out.bad(&format!("{} not good", count(bad, "file"))),
        };
        let name = out.bold(&snapshot.model.source());
        text += &format!("{name}  {}, {}  {said}\n", count(files.len(), "file"), bytes(total));
        if unknown > 0 {
            text += &format!("  of {} no hash is known\n", count(unknown, "file"));
        }
        for file in files.iter().filter(is_bad) {
            let went = remove && matches!(file.state, BlobState::Damaged { .. });
            let went = if went { " (removed)" } else { "" };
            text += &format!("  {} {}{went}\n", out.bad(state_name(&file.state)), file.path);
        }
        if bad > 0 {
            let source = snapshot.model.source();
            let first = if remove { "" } else { "`--remove` takes away what is damaged; then " };
            let way = format!("{first}`kino models pull {source}` fetches it again");
            text += &format!("  {}\n", out.dim(&way));
        }
    }
    if all.is_empty() {
        text = format!("no models in {}\n", cache.folder.display());
    }
    screen.print(&text)?;
    Ok(exit)
}

fn state_name(state: &BlobState) -> &'static str {
    match state {
        BlobState::Good => "good",
        BlobState::Damaged { .. } => "damaged",
        BlobState::Missing => "missing",
        BlobState::Unknown => "unknown",
    }
}

/// Where models are looked for, and how the hub is reached.
fn places(settings: &Settings, screen: &Screen) -> Result<Exit, Failure> {
    let access = HubAccess::of_environment().map_err(kino_session::Error::from)?;
    let folders = inventory::model_folders(settings)?;
    let places: Vec<(String, &Path)> = folders
        .0
        .iter()
        .map(|place| match place {
            kino_session::inventory::ModelPlace::Root(root) => (String::new(), root.as_path()),
            kino_session::inventory::ModelPlace::Kind(of) => (of.kind.clone(), &*of.folder),
        })
        .collect();
    let has_token = access.token.is_some();
    if screen.json {
        let places = places.iter().map(|(kind, folder)| {
            let kind = (!kind.is_empty()).then(|| kind.clone());
            json!({ "folder": *folder, "kind": kind, "exists": folder.is_dir() })
        });
        screen.print_json(&json!({
            "hub_cache": access.cache.folder, "hub_home": hub_home(), "endpoint": access.endpoint,
            "token": has_token, "offline": access.cache.is_offline,
            "folders": places.collect::<Vec<_>>(),
        }))?;
        return Ok(Exit::Good);
    }
    let out = screen.out;
    let mut table = Table::new(&[Align::Left, Align::Left, Align::Left]);
    let there = |path: &Path| if path.is_dir() { "" } else { "not there" };
    let cache = &access.cache.folder;
    let row = |name: &str, path: &Path| {
        [out.name(name), path.display().to_string(), out.dim(there(path))]
    };
    table.row(row("hub cache", cache));
    for (kind, folder) in &places {
        table.row(row(if kind.is_empty() { "models" } else { kind }, folder));
    }
    let token = if has_token { "with a token" } else { "without a token" };
    let offline = if access.cache.is_offline { "HF_HUB_OFFLINE is set" } else { "" };
    table.row([out.name("hub"), format!("{} {token}", access.endpoint), out.dim(offline)]);
    let hint =
        "HF_HUB_CACHE or HF_HOME moves the cache; `kino config set models FOLDER …` names others";
    screen.print(&format!("{}\n{}\n", table.render(), out.dim(hint)))?;
    Ok(Exit::Good)
}

#[cfg(test)]
mod tests {
    use super::begin_of;

    #[test]
    fn a_long_text_ends_with_a_whole_word() {
        assert_eq!(begin_of("one two three", 13), "one two three");
        assert_eq!(begin_of("one two three", 10), "one two …");
        assert_eq!(begin_of("größer", 3), "grö …");
    }
}
