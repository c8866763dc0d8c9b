//! `kino completions`: a script for a shell.

use clap::CommandFactory;

use crate::args::{self, Cli};
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::screen::Screen;

/// Prints the script.
///
/// # Errors
/// When the output stream is closed.
pub(crate) fn run(args: &args::Completions, screen: &Screen) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kino", &mut script);
    let script = String::from_utf8_lossy(&script);
    match screen.json {
        true => {
            let shell = args.shell.to_string();
            screen.print_json(&json!({ "shell": shell, "script": script }))?;
        }
        false => screen.print(&script)?,
    }
    Ok(Exit::Good)
}
