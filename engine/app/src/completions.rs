//! `kino completions`: a script for a shell.

use clap::CommandFactory;

use crate::args::{self, Cli};
use crate::failure::{Exit, Failure};
use crate::screen::Screen;

/// Prints the script.
///
/// # Errors
/// When the output stream is closed.
pub(crate) fn run(args: &args::Completions, screen: &Screen) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kino", &mut script);
    screen.print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Good)
}
