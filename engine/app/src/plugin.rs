//! `kino plugin`: begins, builds, checks, times, installs, lists, shows and trusts plugins.

mod about;
mod add;
pub(crate) mod args;
mod bench;
pub(crate) mod build;
pub(crate) mod cargo;
mod cases;
mod check;
mod compare;
mod component;
pub(crate) mod examples;
pub(crate) mod folder;
mod language;
mod list;
mod manifest_text;
mod new;
mod probe;
mod sdk;
mod trust;

use crate::failure::{Exit, Failure};
use crate::screen::Screen;
use args::Action;

pub(crate) use check::probe;

/// Does what is asked of plugins.
///
/// # Errors
/// When it cannot.
pub(crate) fn run(args: &args::Plugin, screen: &Screen) -> Result<Exit, Failure> {
    match &args.action {
        Action::New(args) => new::run(args, screen),
        Action::Build(args) => build::run(args, screen),
        Action::Check(args) => check::run(args, screen),
        Action::Bench(args) => bench::run(args, screen),
        Action::Add(args) => add::run(args, screen),
        Action::List(args) => list::run(args, screen),
        Action::Show(args) => trust::show(args, screen),
        Action::Trust(args) => trust::run(args, screen),
        Action::Untrust(args) => trust::untrust(args, screen),
        Action::Remove(args) => trust::remove(args, screen),
    }
}
