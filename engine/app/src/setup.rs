//! Engines as the command line asks for them.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::MultiProgress;
use kino_session::{
    AskReading, DeviceChoice, Engine, FilePolicy, Graph, Notice, OnNotice, PluginWorker,
    RunRequest, Settings, plugins,
};

use crate::args::{SettingFlags, Source, Target, WORKER};
use crate::failure::Failure;
use crate::json::json;
use crate::screen::Screen;

/// What serves plugins that run in processes of their own: this program.
///
/// # Errors
/// When this program does not know where it lies.
pub(crate) fn worker() -> Result<PluginWorker, Failure> {
    let program = env::current_exe()
        .map_err(|error| Failure::world(format!("this program is not found: {error}")))?;
    Ok(PluginWorker { program, args: vec![WORKER.to_owned()] })
}

/// What the user has set, by the environment or by a file.
///
/// # Errors
/// When the file does not read, or something is set to what it cannot be.
pub(crate) fn settings() -> Result<Settings, Failure> {
    Ok(Settings::of_user()?)
}

/// What is set, with what flags say.
///
/// # Errors
/// As [`settings`], and when a flag says what cannot be.
pub(crate) fn settings_with(flags: &SettingFlags) -> Result<Settings, Failure> {
    let flags = [("device", &flags.device), ("memory", &flags.memory)];
    let set = flags.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let mut settings = settings()?;
    for (name, value) in set {
        settings = settings.with_flag(name, value.as_ref())?;
    }
    Ok(settings)
}

/// An engine to read graphs with: it computes nothing, so that no device is opened and no cache but
/// that of compiled components.
///
/// # Errors
/// When this program does not know where it lies, or the settings do not read.
pub(crate) fn reader(locked: bool, screen: &Screen) -> Result<Engine, Failure> {
    let settings = settings()?;
    let engine = Engine::builder().device_choice(DeviceChoice::Cpu);
    let engine = engine.no_cache().compiled(kino_session::compiled_folder(&settings));
    let engine = engine.settings(settings);
    let engine = engine.keep_results(false).memory("1GB").locked(locked);
    let notice = notice(screen, None, false);
    Ok(engine.worker(worker()?).on_notice(move |told| notice(told)).build()?)
}

/// Tells what takes a while, and which plugin is used in place of the user's own, above the bars
/// where there are some. A program hears of the latter among the events of runs.
pub(crate) fn notice(screen: &Screen, bars: Option<&MultiProgress>, has_events: bool) -> OnNotice {
    let (screen, bars) = (*screen, bars.cloned());
    Arc::new(move |notice: &Notice| {
        match notice {
            Notice::Shadowed { plugin, used } if screen.json && has_events => {
                let line = json!({ "event": "shadowed", "plugin": plugin, "used": used });
                let _ = screen.print_json(&line);
                return;
            }
            _ if screen.json => return,
            Notice::Compiling { .. } | Notice::NoGpu { .. } | Notice::NoGpuKernels { .. }
                if screen.quiet =>
            {
                return;
            }
            _ => {}
        }
        let tell = || screen.tell(&format!("{}\n", screen.err.dim(&notice.to_string())));
        match &bars {
            Some(bars) => bars.suspend(tell),
            None => tell(),
        }
    })
}

/// An engine for runs; `keeps` results in memory between them.
///
/// # Errors
/// When the device cannot be used, or a size is none.
pub(crate) fn engine(
    source: &Source,
    (target, sweep): (&Target, &[(String, String)]),
    keeps: bool,
    (screen, notice): (&Screen, OnNotice),
) -> Result<Engine, Failure> {
    let settings = settings_with(&target.flags)?;
    let compiled = kino_session::compiled_folder(&settings);
    let engine = Engine::builder().settings(settings).keep_results(keeps);
    let engine = engine.locked(source.locked).worker(worker()?);
    let engine = engine.on_notice(move |told| notice(told));
    // Compiled components are no results: without them each run would compile anew.
    let engine = if target.no_cache { engine.no_cache().compiled(compiled) } else { engine };
    let given: Vec<_> = target.set.iter().chain(sweep).map(|(_, value)| &**value).collect();
    let policy = policy(source, &given, &settings_with(&target.flags)?, screen)?;
    Ok(engine.build()?.with_policy(&policy))
}

/// What the text of a graph may name, graphs that it uses included: what lies in its own folder,
/// what the user gives by `--set`, and what the user has agreed to on this machine, by
/// `--allow-read` or when asked. A built-in graph names nothing by itself. What is written lies
/// under `--out` in any case.
fn policy(
    source: &Source,
    given: &[&str],
    settings: &Settings,
    screen: &Screen,
) -> Result<FilePolicy, Failure> {
    if let Some(missing) = source.allow_read.iter().find(|folder| !folder.exists()) {
        let failure = Failure::usage(format!("--allow-read: there is no {}", missing.display()));
        return Err(failure.hint("name a folder or file that is there"));
    }
    if let Some(place) = source.allow_read.iter().find(|place| kino_session::is_of_system(place)) {
        let message = format!("--allow-read: {} is of the system", place.display());
        return Err(Failure::usage(message).hint("no graph reads there, whoever agrees to it"));
    }
    let path = &*source.graph;
    if !path.is_file() && path.as_os_str() != "-" {
        return Ok(FilePolicy::default());
    }
    let own = path.parent().filter(|folder| path.is_file() && !folder.as_os_str().is_empty());
    let own = own.unwrap_or(Path::new(".")).to_owned();
    for place in &source.allow_read {
        plugins::record_reading(settings, &own, place)?;
    }
    let agreed = plugins::consent(settings)?.read_by_graphs(&own);
    // A file that the user names is meant, but no folder: a text such as `/` or `..` is none.
    let given = given.iter().flat_map(|value| paths_in(value)).map(|path| own.join(path));
    let given = given.filter(|path| !path.is_dir());
    let allowed = given.chain(agreed).chain([own.clone()]).collect::<Vec<_>>();
    let policy = FilePolicy::default().media_within(allowed);
    Ok(match screen.can_ask() {
        true => policy.asking(asking(own, settings.clone(), *screen)),
        false => policy,
    })
}

/// What of a value on the command line may be a path: itself, or the items of a list.
fn paths_in(value: &str) -> impl Iterator<Item = &str> {
    let inside = value.trim().trim_start_matches('[').trim_end_matches(']');
    let items = inside.split(',').map(|item| item.trim().trim_matches('"'));
    items.chain([value]).filter(|item| !item.is_empty())
}

/// Asks on the terminal, once for each folder, and remembers what was agreed to.
fn asking(graphs: PathBuf, settings: Settings, screen: Screen) -> AskReading {
    let answers: Mutex<HashMap<PathBuf, bool>> = Mutex::default();
    AskReading(Arc::new(move |place: &Path| {
        let folder = place.parent().unwrap_or(place);
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = answers.iter().find(|(known, _)| folder.starts_with(known));
        if let Some((_, answer)) = known {
            return *answer;
        }
        let text = format!(
            "This graph reads {}, outside of its folder.\nMay graphs in {} read what lies in {}?",
            place.display(),
            graphs.display(),
            folder.display()
        );
        let is_agreed = screen.ask(&text).unwrap_or(false);
        if is_agreed && let Err(error) = plugins::record_reading(&settings, &graphs, folder) {
            screen.tell(&format!("It will be asked again: {error}\n"));
        }
        answers.insert(folder.to_owned(), is_agreed);
        is_agreed
    }))
}

/// Reads and checks a graph.
///
/// # Errors
/// When it cannot be read, a plugin that it uses cannot be loaded, or all its problems.
pub(crate) fn check(source: &Source, screen: &Screen) -> Result<Graph, Failure> {
    let policy = policy(source, &[], &settings()?, screen)?;
    Ok(reader(source.locked, screen)?.with_policy(&policy).open(&source.graph)?)
}

/// A run of a graph as it is asked for.
pub(crate) fn request(graph: &Graph, target: &Target) -> RunRequest {
    let request = graph.run(target.set.as_slice().into());
    request.out(&target.out).until(target.until.as_deref()).overwrite(target.overwrite)
}
