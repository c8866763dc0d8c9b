//! The two output streams: what they are connected to, colours, and JSON for programs.

use std::env;
use std::io::{self, IsTerminal};

use kino_port::escape_hidden;

use crate::args::{Global, ProblemFlags, When};
use crate::json::Value;
use crate::terminal;

/// How to print, decided once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// JSON for programs instead of text.
    pub(crate) json: bool,
    /// Nothing but errors and results.
    pub(crate) quiet: bool,
    /// How problems of a graph are shown.
    pub(crate) problems: ProblemFlags,
    /// Whether the error stream is a terminal that can move its cursor.
    pub(crate) is_terminal: bool,
    /// Colours on the output stream.
    pub(crate) out: Paint,
    /// Colours on the error stream.
    pub(crate) err: Paint,
}

/// Puts texts in colours, or leaves them as they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(pub(crate) bool);

impl Screen {
    /// What the command line and the environment ask for.
    pub(crate) fn new(global: &Global) -> Self {
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let paint = |is_terminal: bool| {
            Paint(match global.color {
                When::Always => true,
                When::Never => false,
                When::Auto if is_set("NO_COLOR") => false,
                When::Auto if is_forced() => true,
                When::Auto => is_terminal && !is_dumb,
            })
        };
        let stderr = io::stderr().is_terminal();
        Screen {
            json: global.json,
            quiet: global.quiet,
            problems: ProblemFlags::default(),
            is_terminal: stderr && !is_dumb,
            out: paint(io::stdout().is_terminal()),
            err: paint(stderr),
        }
    }

    /// The same, which shows problems of a graph as a command asks for.
    pub(crate) fn showing(self, problems: Option<ProblemFlags>) -> Self {
        Screen { problems: problems.unwrap_or_default(), ..self }
    }

    /// As the environment alone asks for.
    pub(crate) fn plain() -> Self {
        Screen::new(&Global { json: false, color: When::Auto, verbose: 0, quiet: false })
    }

    /// Prints a text.
    ///
    /// # Errors
    /// When the output stream is closed or full.
    pub(crate) fn print(&self, text: &str) -> io::Result<()> {
        terminal::print(text, self.out.0)
    }

    /// Writes a text to the error stream, if anybody reads it.
    pub(crate) fn tell(&self, text: &str) {
        terminal::tell(text, self.err.0);
    }

    /// Whether somebody can be asked: both ends are a terminal, and nothing is written for programs.
    pub(crate) fn can_ask(&self) -> bool {
        !self.json && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks for a yes or no; anything else is a no.
    ///
    /// # Errors
    /// When the answer cannot be read.
    pub(crate) fn ask(&self, question: &str) -> io::Result<bool> {
        self.tell(&format!("{question} [y/N] "));
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    /// Prints one line of JSON.
    ///
    /// # Errors
    /// When the output stream is closed or full.
    pub(crate) fn print_json(&self, value: &Value) -> io::Result<()> {
        terminal::print_bytes(&terminal::json_line(value)?)
    }
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn is_forced() -> bool {
    env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0")
}

impl Paint {
    fn wrap(self, code: &str, text: &str) -> String {
        let text = escape_hidden(text);
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into_owned() }
    }

    /// Heads of tables and names that one looks for.
    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// What matters less.
    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// Names of nodes and ops.
    pub(crate) fn name(self, text: &str) -> String {
        self.wrap("36", text)
    }

    /// What is done or cached.
    pub(crate) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// What will be done, or deserves a look.
    pub(crate) fn note(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// What went wrong.
    pub(crate) fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }
}
