//! `kino`: the command. Arguments go in; events, diagnostics and results come out.

#![forbid(unsafe_code)]

mod args;
mod cache;
mod check;
mod completions;
mod config;
mod consent;
mod draw;
mod failure;
mod files;
mod help;
mod init;
mod interrupt;
mod json;
mod logs;
mod models;
mod nodes;
mod plan;
mod plugin;
mod render;
mod run;
mod screen;
mod setup;
mod show;
mod terminal;
mod usage;
mod version;
mod watch;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use args::{Cli, Command};
use failure::{Exit, Failure};
use kino_session::plugins;
use screen::{Paint, Screen};

/// Tensors come and go by the megabyte: returning their pages each time would cost more than most
/// operations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(told) if usage::is_json() => return usage::tell_json(&told),
        Err(told) => return tell(&told),
    };
    let screen = Screen::new(&cli.global).showing(cli.command.problems());
    let is_long = match &cli.command {
        Command::Run(_) | Command::Watch(_) => true,
        Command::Models(args) => args.action.is_long(),
        _ => false,
    };
    if is_long && let Err(error) = interrupt::take_on() {
        let said = format!("Ctrl-C will end the run at once: {error}");
        render::diagnostics::warn_plain(&screen, &said, None);
    }
    match execute(&cli, &screen) {
        Ok(exit) => exit.code(),
        Err(failure) => end(&failure, Some(&screen)),
    }
}

/// Prints help, or what is wrong with the command line.
fn tell(told: &clap::Error) -> ExitCode {
    let screen = Screen::plain();
    let text = |paint: Paint| match paint.0 {
        true => told.render().ansi().to_string(),
        false => told.render().to_string(),
    };
    if told.use_stderr() {
        screen.tell(&text(screen.err));
    } else if let Err(error) = screen.print(&text(screen.out)) {
        return end(&Failure::Print(error), None);
    }
    ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2))
}

/// Says what went wrong, and the exit code for it. Where nobody reads on, nothing did.
fn end(failure: &Failure, screen: Option<&Screen>) -> ExitCode {
    if failure.is_closed_pipe() {
        return Exit::Good.code();
    }
    render::diagnostics::fail(screen.unwrap_or(&Screen::plain()), failure);
    failure.code()
}

fn execute(cli: &Cli, screen: &Screen) -> Result<Exit, Failure> {
    let verbose = cli.global.verbose;
    if !matches!(cli.command, Command::Run(_) | Command::Watch(_))
        && (verbose > 0 || logs::is_asked_for())
    {
        logs::start(screen, verbose, None, None)?;
    }
    match &cli.command {
        Command::Run(args) => run::run(args, screen, verbose),
        Command::Watch(args) => watch::run(args, screen, verbose),
        Command::Check(args) => check::run(args, screen),
        Command::Plan(args) => plan::run(args, screen),
        Command::Nodes(args) => {
            nodes::run(args, screen, &setup::reader(false, screen)?.nodes(Path::new(".")))
        }
        Command::Draw(args) => draw::run(args, screen),
        Command::Show(args) => show::run(args, screen),
        Command::Cache(args) => cache::run(args, screen),
        Command::Models(args) => models::run(args, screen),
        Command::Consent(args) => consent::run(args, screen),
        Command::Config(args) => config::run(args, screen),
        Command::Init(args) => init::run(args, screen),
        Command::Help(args) => {
            help::run(args, screen, || Ok(setup::reader(false, screen)?.nodes(Path::new("."))))
        }
        Command::Completions(args) => completions::run(args, screen),
        Command::Plugin(args) => plugin::run(args, screen),
        Command::PluginWorker { compile } => match compile.split_first() {
            Some((word, compile)) if word == plugins::COMPILE => compile_component(compile),
            _ => worker(),
        },
        Command::PluginProbe { task } => plugin::probe(task),
    }
}

/// Compiles a component for the engine that started this process.
#[cfg(feature = "wasm")]
fn compile_component(arguments: &[OsString]) -> Result<Exit, Failure> {
    // What is started reads the code alone.
    std::process::exit(plugins::compile_component(arguments))
}

#[cfg(not(feature = "wasm"))]
fn compile_component(_: &[OsString]) -> Result<Exit, Failure> {
    Err(Failure::usage("this kino was built without components"))
}

/// Serves the engine that started this process.
#[cfg(unix)]
fn worker() -> Result<Exit, Failure> {
    kino_native::serve().map_err(|error| Failure::world(error.to_string()))?;
    Ok(Exit::Good)
}

#[cfg(not(unix))]
fn worker() -> Result<Exit, Failure> {
    Err(Failure::usage("plugins run in processes of their own on Unix alone"))
}
