//! The command line of `kino plugin`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

// `kino plugin`
#[derive(Debug, Args)]
pub(crate) struct Plugin {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: Action,
}

// What to do with plugins.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Action {
    /// Create a plugin: a folder that builds and passes its test at once
    New(New),
    /// Build a plugin as a native library, as a component, or as both
    Build(Build),
    /// Try every node of a plugin with edge cases as inputs
    Check(Check),
    /// Time a plugin's nodes
    Bench(Bench),
    /// Install a plugin for this user, pinned
    Add(Add),
    /// List the plugins that graphs here can use, and whether they are trusted
    List(List),
    /// Show a plugin: its nodes, what it asks and may do, who accepted it
    Show(Show),
    /// Trust the current build of a plugin, in the lock file beside the graph
    Trust(Trust),
    /// Take the trust in a plugin back
    Untrust(Untrust),
    /// Remove a plugin that was installed for this user
    Remove(Remove),
}

// `kino plugin new`
#[derive(Debug, Args)]
pub(crate) struct New {
    /// Its name: letters a-z, digits and _
    #[arg(value_name = "NAME")]
    pub(crate) name: PathBuf,
    /// Build a native library only
    #[arg(long, conflicts_with = "language")]
    pub(crate) native: bool,
    /// Build a component only
    #[arg(long, conflicts_with_all = ["language", "native"])]
    pub(crate) wasm: bool,
    /// Write it in Python instead of Rust; it is a component
    #[arg(long, group = "language")]
    pub(crate) python: bool,
    /// Write it in JavaScript; it is a component
    #[arg(long, group = "language")]
    pub(crate) js: bool,
    /// Write it in C; it is a native library
    #[arg(long, group = "language")]
    pub(crate) c: bool,
    /// Write it in C++; it is a native library
    #[arg(long, group = "language")]
    pub(crate) cpp: bool,
    /// Write it in Zig; it is a native library
    #[arg(long, group = "language")]
    pub(crate) zig: bool,
    /// The SDK to build with, instead of the one that comes with kino
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) sdk: Option<PathBuf>,
}

// `kino plugin build`
#[derive(Debug, Args)]
#[command(after_help = "\
Building runs what the plugin's author wrote: its build scripts, its Makefile, and the code itself when \
it describes its nodes. Build folders of people whom you trust.")]
pub(crate) struct Build {
    /// The plugin's folder
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
    /// Only the native library
    #[arg(long)]
    pub(crate) native: bool,
    /// Only the component
    #[arg(long)]
    pub(crate) wasm: bool,
}

// `kino plugin check`
#[derive(Debug, Args)]
#[command(after_help = "\
Every case runs in a child process with a time-out: inputs of no, one, odd and many elements, NaN, \
every element type, parameters at the ends of their ranges, cancelling. What must hold: the process \
does not crash, a call ends, outputs are what the descriptor promises, the same inputs give the same \
bytes, chunks of frames make no difference, and native build and component agree. A node may refuse \
inputs with an error.")]
pub(crate) struct Check {
    /// The plugin's folder
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
    /// The native library, not the component. Without it native code is tried only where you have
    /// accepted it on this machine
    #[arg(long)]
    pub(crate) native: bool,
    /// The component, not the native library; with both flags, both
    #[arg(long)]
    pub(crate) wasm: bool,
    /// Only this node
    #[arg(long, value_name = "ID")]
    pub(crate) node: Option<String>,
    /// Repeat a check with the seed that it printed
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

// `kino plugin bench`
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The plugin's folder
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
    /// Time the native library, too, where you have not accepted it on this machine
    #[arg(long)]
    pub(crate) native: bool,
}

// `kino plugin add`
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The plugin's folder, or a single component
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) folder: PathBuf,
    /// What to accept.
    #[command(flatten)]
    pub(crate) accept: Accept,
}

// `kino plugin list`
#[derive(Debug, Args)]
pub(crate) struct List {
    /// The folder of the graphs
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
}

// `kino plugin show`
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The plugin's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The folder of the graphs that use it
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
}

// `kino plugin untrust`
#[derive(Debug, Args)]
pub(crate) struct Untrust {
    /// The plugin's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The folder of the graphs that use it: its lock file is changed
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
}

// `kino plugin remove`
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The plugin's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

// `kino plugin trust`
#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// The plugin's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The folder of the graphs that use it: its lock file is written
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
    /// Dev mode: trust every build of its folder while you work on it; --locked refuses it
    #[arg(long)]
    pub(crate) dev: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// What to accept.
    #[command(flatten)]
    pub(crate) accept: Accept,
}

// What the user accepts of a plugin.
#[derive(Debug, Args)]
pub(crate) struct Accept {
    /// Load its native library, which can do whatever you can
    #[arg(long)]
    pub(crate) native: bool,
    /// Run its native library in a process of its own
    #[arg(long)]
    pub(crate) isolate: bool,
    /// Let it read a file or folder, relative to the graph, beyond what it asks for
    #[arg(long, value_name = "PATH")]
    pub(crate) read: Vec<String>,
    /// Memory for one call, such as 2GB
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Seconds for one call
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<f64>,
}
