//! Help, version and what is wrong with a command line, for programs: what is told before anything
//! of the command line is known but its words.

use std::process::ExitCode;

use clap::Command;
use clap::error::ErrorKind;

use crate::args;
use crate::failure::Exit;
use crate::json::{Map, Value, json};
use crate::render::diagnostics::plain_json;
use crate::screen::Screen;
use crate::version;

/// Whether programs read what is told.
pub(crate) fn is_json() -> bool {
    std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json")
}

/// Prints help, the version, or what is wrong with the command line, as JSON.
pub(crate) fn tell_json(told: &clap::Error) -> ExitCode {
    let value = match told.kind() {
        ErrorKind::DisplayHelp => {
            let words = std::env::args().skip(1).filter(|word| !word.starts_with('-'));
            let words: Vec<_> = words.collect();
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            help(&words, &told.render().to_string())
        }
        ErrorKind::DisplayVersion => version_json(),
        _ => wrong(told),
    };
    match Screen::plain().print_json(&value) {
        Ok(()) => ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2)),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Good.code(),
        Err(_) => Exit::NodeFailed.code(),
    }
}

/// The help of a command, which stands there in words, with the commands within it.
pub(crate) fn help(words: &[&str], text: &str) -> Value {
    let mut root = args::command();
    root.build();
    let (mut command, mut names) = (&root, Vec::new());
    for word in words {
        let Some(within) = command.find_subcommand(word) else { break };
        names.push(within.get_name().to_owned());
        command = within;
    }
    let shown = |command: &&Command| !command.is_hide_set();
    let within = command.get_subcommands().filter(shown).map(|within| {
        let about = within.get_about().map(ToString::to_string);
        json!({ "name": within.get_name(), "about": about })
    });
    json!({ "command": names, "help": text, "commands": within.collect::<Vec<_>>() })
}

fn version_json() -> Value {
    let features = version::FEATURES.iter().map(|(name, has)| ((*name).to_owned(), json!(has)));
    let features: Map<String, Value> = features.collect();
    let language = kino_graph::VERSION.to_string();
    let kernels = kino_session::cpu_kernels();
    json!({
        "version": version::SHORT,
        "features": features,
        "graph_language": language,
        "cpu_kernels": kernels,
    })
}

/// What is wrong, in the form of all diagnostics: the first paragraph, and the others as advice.
fn wrong(told: &clap::Error) -> Value {
    let text = told.render().to_string();
    let (message, hint) = match told.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            ("expected a command".to_owned(), text)
        }
        _ => {
            let text = text.strip_prefix("error: ").unwrap_or(&text).to_owned();
            let (message, hint) = text.split_once("\n\n").unwrap_or((&text, ""));
            (message.trim().to_owned(), hint.trim().to_owned())
        }
    };
    let problem = plain_json("error", "usage", &message, Some(&hint));
    json!({ "diagnostics": [problem] })
}
