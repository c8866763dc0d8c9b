//! The command line: one definition for parsing, help and completions.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{
    ArgAction, Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    ValueHint,
};
use kino_session::settings::{SETTINGS, Setting};

use crate::render::table::wrap;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const ABOUT: &str = "Runs generative video and image workflows as graphs.

A graph is a text file of nodes and edges. Kinograph checks it, plans it, runs what changed and \
writes what comes out.";

const EPILOGUE: &str = "\
Examples:
  kino run text_to_image --set prompt=\"a blue star on a black background\"
  kino run text_to_video --sweep seed=1..4
  kino init text_to_video && kino watch text_to_video.ron
  kino nodes dit.sample
  kino help graph          the graph language on one page; `kino help types`

Exit codes:
  0    all went well
  1    a node failed, or a file could not be read or written while it ran
  2    wrong usage, or a graph that does not check or plan: a file that it
       reads is missing or not what was expected, for example; then nothing
       has run
  130  cancelled by Ctrl-C or a signal

Settings, of the environment or of your file; a flag counts before the environment, that before \
the file (`kino config` shows and sets them):
";

/// What of the environment is no setting.
const ENVIRONMENT: &str = "
Environment:
  KINO_CONFIG  the folder of your file of settings, not your config folder
  KINO_CPU     the kernels to compute with, if not the best of the processor:
               portable, avx2, avx512, avx512bf16, amx;
               of aarch64: portable, neon, neonbf16
  KINO_LOG     what is logged, such as debug or kino_runtime=trace
  NO_COLOR     no colours; CLICOLOR_FORCE=1 forces them";

/// What is laid out by hand in a help text fits 80 columns; the rest is wrapped by the terminal.
const HELP_WIDTH: usize = 79;

/// What stands below the help: examples, exit codes, settings, environment.
fn epilogue() -> String {
    let line = |setting: &Setting| {
        let about = format!("{}; {} unless set", setting.about, setting.default);
        let about = wrap(&about, HELP_WIDTH - 21).join(&format!("\n{:21}", ""));
        format!("  {:<18} {about}\n", setting.variable)
    };
    SETTINGS.iter().map(line).fold(EPILOGUE.to_owned(), |text, line| text + &line) + ENVIRONMENT
}

/// The command line. What stands below its help is put there by [`command`].
#[derive(Debug, Parser)]
#[command(
    name = "kino",
    about = "Runs generative video and image workflows as graphs",
    long_about = ABOUT,
    version = crate::version::SHORT,
    long_version = crate::version::long(),
    styles = STYLES,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    infer_long_args = false,
    disable_help_subcommand = true,
)]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    /// When to use colours
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Output"
    )]
    pub(crate) color: When,
    /// Log to the error stream: -v what the engine does, -vv everything
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Output")]
    pub(crate) verbose: u8,
    /// Print only errors and results
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub(crate) quiet: bool,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

// What to do.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Run a graph and write what comes out
    Run(Run),
    /// Run a graph, and run it again when something changes, until Ctrl-C
    Watch(Watch),
    /// Check a graph; nothing is run or written
    Check(Check),
    /// Show what would run and why, what is cached, and the memory needed
    Plan(Plan),
    /// List the nodes, or explain one
    Nodes(Nodes),
    /// Draw a graph as SVG, DOT or Mermaid
    Draw(Draw),
    /// Print the graph stored in a video or image that Kinograph wrote
    Show(Show),
    /// Show the size of the cache on disk, or empty it
    Cache(Cache),
    /// List, show, fetch and verify models
    Models(Models),
    /// Show what you have agreed to on this machine, and take it back
    Consent(Consent),
    /// Show your settings and where each comes from; set and unset them
    Config(Config),
    /// Write a built-in graph or an example plugin here, to change it
    Init(Init),
    /// Print completions for a shell
    Completions(Completions),
    /// Print the help of a command, or a page: `graph` (the language), `types` (of values)
    Help(Help),
    /// Create, build, check, install and trust plugins
    Plugin(crate::plugin::args::Plugin),
    /// Serve an engine as the process of a native plugin
    #[command(hide = true, name = WORKER)]
    PluginWorker {
        /// What to compile, instead
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        compile: Vec<OsString>,
    },
    /// Try a node of a plugin in a process of its own
    #[command(hide = true, name = PROBE)]
    PluginProbe {
        /// What to try, as JSON
        task: String,
    },
}

impl Command {
    /// How it is asked to show problems of a graph, where it has one.
    pub(crate) fn problems(&self) -> Option<ProblemFlags> {
        match self {
            Command::Run(args) => Some(args.problems),
            Command::Watch(args) => Some(args.problems),
            Command::Check(args) => Some(args.problems),
            Command::Plan(args) => Some(args.problems),
            _ => None,
        }
    }
}

/// The command that `kino plugin check` starts for each node.
pub(crate) const PROBE: &str = "plugin-probe";

/// The command that an engine starts for a plugin that runs in a process of its own.
pub(crate) const WORKER: &str = "plugin-worker";

// Which graph, with which inputs.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// A graph's file, - for the standard input, or a built-in graph (`kino init` lists them)
    #[arg(value_name = "GRAPH", value_hint = ValueHint::FilePath)]
    pub(crate) graph: PathBuf,
    /// Load only plugins whose build kino.lock.ron pins; plugins in dev mode are refused
    #[arg(long)]
    pub(crate) locked: bool,
    /// Let graphs of this folder name pictures, videos, sound, tensors and graphs in DIR, too, from
    /// now on; else they read what lies in their own folder, and what you give by --set
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) allow_read: Vec<PathBuf>,
}

// What of a graph to run, and where.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Set an input of the graph; unquoted, read by its declared type. A list is written a,b, or as
    /// in a graph: '["a, b", "c"]', or set item by item; of other inputs the last counts
    #[arg(short, long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
    /// Put files that are written in this folder
    #[arg(short, long, value_name = "DIR", default_value = "out", value_hint = ValueHint::DirPath)]
    pub(crate) out: PathBuf,
    /// Replace files in that folder also where this graph did not write them
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Run only this node and what it needs
    #[arg(long, value_name = "NODE")]
    pub(crate) until: Option<String>,
    /// What else may be set otherwise.
    #[command(flatten)]
    pub(crate) flags: SettingFlags,
    /// Neither read nor write results in the cache on disk
    #[arg(long)]
    pub(crate) no_cache: bool,
}

// How problems of a graph are shown.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct ProblemFlags {
    /// Show each problem of the graph on one line: FILE:LINE:COLUMN: MESSAGE
    #[arg(long, help_heading = "Output")]
    pub(crate) short: bool,
    /// Show all problems of the graph, not only the first 20; --short and --json always do
    #[arg(long, help_heading = "Output")]
    pub(crate) all: bool,
}

// Settings that are also flags.
#[derive(Debug, Default, Args)]
pub(crate) struct SettingFlags {
    /// Where to compute: auto, cpu, cuda:N or metal; auto unless it is set
    #[arg(short, long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// How much memory runs may take, such as 12GB; more than is set or less
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub(crate) memory: Option<String>,
}

// `kino run`
#[derive(Debug, Args)]
#[command(after_help = "\
Sweeps:
  --sweep seed=1,2,5     these values
  --sweep seed=1..8      1, 2, … 8
  --sweep frames=1..9:4  1, 5, 9
  --sweep prompt=\"a red circle\" --sweep prompt=\"a blue star\"
                         texts, one a flag, as they may contain commas

Several inputs are combined, each value with each. Steps that two runs share are computed once. \
Runs that would write the same file get a folder each, named by their values.")]
pub(crate) struct Run {
    /// Which graph.
    #[command(flatten)]
    pub(crate) source: Source,
    /// What of it, and where.
    #[command(flatten)]
    pub(crate) target: Target,
    /// Run once for each value of an input
    #[arg(long, value_name = "NAME=VALUES", value_parser = assignment)]
    pub(crate) sweep: Vec<(String, String)>,
    /// Keep the newest preview picture of every sampling node in this folder, as NODE.png
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) preview: Option<PathBuf>,
    /// With --json, put preview pictures into progress events: PNG in base64, as `preview.png`
    #[arg(long)]
    pub(crate) json_previews: bool,
    /// Write a Chrome trace of every node and step (open it in ui.perfetto.dev)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) trace: Option<PathBuf>,
    /// How problems of the graph are shown.
    #[command(flatten)]
    pub(crate) problems: ProblemFlags,
}

// `kino watch`
#[derive(Debug, Args)]
#[command(after_help = "\
Watched are the graph, graphs and plugins that it uses, and the files and models that it reads. \
After a change, the nodes that depend on it run and no others; running steps that are still needed \
go on. Errors are shown, and the last valid graph stays in use.")]
pub(crate) struct Watch {
    /// Which graph.
    #[command(flatten)]
    pub(crate) source: Source,
    /// What of it, and where.
    #[command(flatten)]
    pub(crate) target: Target,
    /// Build plugins in dev mode when their sources change, which runs their authors' code
    #[arg(long, conflicts_with = "locked")]
    pub(crate) build: bool,
    /// Keep the newest preview picture of every sampling node in this folder, as NODE.png
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) preview: Option<PathBuf>,
    /// With --json, put preview pictures into progress events: PNG in base64, as `preview.png`
    #[arg(long)]
    pub(crate) json_previews: bool,
    /// How problems of the graph are shown.
    #[command(flatten)]
    pub(crate) problems: ProblemFlags,
}

// `kino check`
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Which graph.
    #[command(flatten)]
    pub(crate) source: Source,
    /// How problems of the graph are shown.
    #[command(flatten)]
    pub(crate) problems: ProblemFlags,
}

// `kino plan`
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Which graph.
    #[command(flatten)]
    pub(crate) source: Source,
    /// What of it, and where.
    #[command(flatten)]
    pub(crate) target: Target,
    /// How problems of the graph are shown.
    #[command(flatten)]
    pub(crate) problems: ProblemFlags,
}

// `kino nodes`
#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// The node to explain; without it, all are listed
    #[arg(value_name = "OP")]
    pub(crate) op: Option<String>,
}

// `kino draw`
#[derive(Debug, Args)]
pub(crate) struct Draw {
    /// Which graph.
    #[command(flatten)]
    pub(crate) source: Source,
    /// What to write; without it, the ending of FILE decides
    #[arg(short, long)]
    pub(crate) format: Option<Format>,
    /// Where to write; without it, to the output stream
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

/// How a graph is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A picture with boxes, ports and coloured edges
    Svg,
    /// For Graphviz
    Dot,
    /// For Markdown pages
    Mermaid,
}

// `kino show`
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// A video or image that Kinograph wrote
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
}

// `kino cache`
#[derive(Debug, Args)]
pub(crate) struct Cache {
    /// What to do with it.
    #[command(subcommand)]
    pub(crate) action: CacheAction,
}

// What to do with the cache.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum CacheAction {
    /// Print its folder and its size
    Size,
    /// Remove all of its entries
    Clear,
}

// `kino models`
#[derive(Debug, Args)]
#[command(after_help = "\
No graph fetches anything: `kino models pull` alone does, and writes what huggingface_hub reads. \
A graph names a model of the hub as hf:OWNER/NAME[@REVISION], a file of it as \
hf:OWNER/NAME[@REVISION]/PATH.

Environment:
  HF_HUB_CACHE    the cache of the hub, else hub in HF_HOME, else in
                  huggingface in your cache folder
  HF_TOKEN        a token for models that not everybody may read, else the
                  file of HF_TOKEN_PATH, else token in HF_HOME
  HF_ENDPOINT     another hub than https://huggingface.co
  HF_HUB_OFFLINE  1: the network is not used
  HTTPS_PROXY     a proxy; NO_PROXY: hosts that are reached without it")]
pub(crate) struct Models {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: ModelsAction,
}

// What to do with models.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ModelsAction {
    /// List the models at hand: embedded, in the hub's cache, in the folders of the setting `models`
    List,
    /// Show what a model is: parts, types, sizes, and what is missing
    Show {
        /// As a graph names it: hf:OWNER/NAME, a folder, a file, embedded:shapes
        source: String,
    },
    /// Fetch a model of the Hugging Face Hub, or what is missing of it
    Pull(Pull),
    /// Hash what lies in the hub's cache and compare it with what the hub says
    Verify {
        /// The model, as hf:OWNER/NAME[@REVISION]; without it, all in the cache
        source: Option<String>,
        /// Remove what is damaged, so that it can be fetched again
        #[arg(long)]
        remove: bool,
    },
    /// Write a model, or a part of one, in another form: GGUF, safetensors, a folder of diffusers
    Convert(Convert),
    /// Print where models are looked for and how the hub is reached
    Where,
}

impl ModelsAction {
    /// Whether Ctrl-C ends it in order.
    pub(crate) fn is_long(&self) -> bool {
        use ModelsAction::{Convert, Pull, Verify};
        matches!(self, Pull(_) | Verify { .. } | Convert(_))
    }
}

// `kino models pull`
#[derive(Debug, Args)]
#[command(after_help = "\
Without --include, what a model in the diffusers layout needs is fetched: configs, tokenizers, and \
of each part the safetensors weights of one variant; of another model its one file of weights. \
A pull that was cut off goes on where it ended, contents are held against the hub's hashes, and \
files appear whole or not at all. Several pulls may run at once.

Examples:
  kino models pull hf:Wan-AI/Wan2.1-T2V-1.3B-Diffusers
  kino models pull hf:Comfy-Org/Wan_2.1_ComfyUI_repackaged --include '*vae*'
  kino models pull hf:OWNER/NAME@v1.0/loras/style.safetensors
  kino models pull hf:OWNER/NAME --dry-run         how much it is")]
pub(crate) struct Pull {
    /// hf:OWNER/NAME[@REVISION], or one file: hf:OWNER/NAME[@REVISION]/PATH
    pub(crate) source: String,
    /// Fetch files whose paths fit (`*` is any text, `?` a character) instead of those needed
    #[arg(long, value_name = "PATTERN")]
    pub(crate) include: Vec<String>,
    /// The variant of the weights, such as fp16, where a part has it
    #[arg(long, conflicts_with = "include")]
    pub(crate) variant: Option<String>,
    /// Only say what would be fetched, and how much it is
    #[arg(long)]
    pub(crate) dry_run: bool,
}

// `kino models convert`
#[derive(Debug, Args)]
#[command(after_help = "\
The destination's ending says the form. A file holds one part, by the names that ComfyUI, \
ComfyUI-GGUF, stable-diffusion.cpp and llama.cpp read; a folder holds a model in the diffusers \
layout. Without --to, numbers stay as they are.

f32, f16 and bf16 go into every form; fp8 (E4M3 with a scale a matrix, as ComfyUI has it) into \
.safetensors; q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, q3_k and q2_k into .gguf. The two last \
kinds hold matrices of the layers alone (in GGUF, tables of tokens as well): norms, biases, \
embeddings, heads and kernels of convolutions stay as exact as they were.

A tensor is read and written a piece at a time, and files appear whole or not at all.

Examples:
  kino models convert models/wan wan-q4_k.gguf --part transformer --to q4_k
  kino models convert high_noise_fp16.safetensors high_fp8.safetensors --to fp8
  kino models convert wan-Q8_0.gguf wan/ --to bf16  (a folder for diffusers)")]
pub(crate) struct Convert {
    /// As a graph names it: hf:OWNER/NAME, a folder, a file, embedded:shapes
    pub(crate) source: String,
    /// A file that ends in .safetensors or .gguf, or a folder
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) destination: PathBuf,
    /// The part: transformer, transformer_2, text_encoder, image_encoder, vae
    #[arg(long)]
    pub(crate) part: Option<String>,
    /// The type of numbers: f32, f16, bf16, fp8, q8_0, q4_k and so on
    #[arg(long, value_name = "TYPE")]
    pub(crate) to: Option<String>,
    /// Replace what stands at the destination
    #[arg(long)]
    pub(crate) force: bool,
    /// Only say what would be written, and how much it is
    #[arg(long)]
    pub(crate) dry_run: bool,
}

// `kino consent`
#[derive(Debug, Args)]
pub(crate) struct Consent {
    /// What to do with it.
    #[command(subcommand)]
    pub(crate) action: ConsentAction,
}

// What to do with what was agreed to.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ConsentAction {
    /// Show what graphs may read outside of their folders, and the plugins accepted for them
    List,
    /// Take back what graphs of a folder may read outside of it (`kino plugin untrust` does so for
    /// plugins)
    Withdraw {
        /// The folder of the graphs
        #[arg(value_name = "GRAPHS", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
        /// One place; without it, all of them
        #[arg(value_name = "PLACE", value_hint = ValueHint::AnyPath)]
        place: Option<PathBuf>,
    },
}

// `kino config`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
A flag counts before the environment, the environment before the file, the file before what is \
taken unless something is set. The file is settings.ron in your config folder, or in KINO_CONFIG; it \
may be edited, comments in it stay."
)]
pub(crate) struct Config {
    /// What to do; without it, all settings are shown.
    #[command(subcommand)]
    pub(crate) action: Option<ConfigAction>,
    /// Flags of runs, to see what counts with them.
    #[command(flatten)]
    pub(crate) flags: SettingFlags,
}

// What to do with the settings.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ConfigAction {
    /// Write a setting into your file
    Set {
        /// Its name, as `kino config` shows it
        name: String,
        /// Its value; of `models`, one or more folders
        #[arg(required = true)]
        values: Vec<OsString>,
    },
    /// Take a setting out of your file
    Unset {
        /// Its name
        name: String,
    },
}

// `kino init`
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The built-in graph or example plugin to write; without it, they are listed
    #[arg(value_name = "GRAPH")]
    pub(crate) graph: Option<String>,
    /// Overwrite an existing file
    #[arg(long)]
    pub(crate) force: bool,
}

// `kino completions`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

// `kino help`
#[derive(Debug, Args)]
pub(crate) struct Help {
    /// A command, or `graph` or `types`
    #[arg(value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
}

/// Reads the command line.
///
/// # Errors
/// Help that was asked for, or what is wrong.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    // A line that is right needs no text below the help.
    let matches = Cli::command().try_get_matches().or_else(|_| {
        let command = command().color(colour_of_help(std::env::args_os()));
        command.try_get_matches()
    })?;
    Cli::from_arg_matches(&matches)
}

/// The definition of the command line, with all of its help.
pub(crate) fn command() -> clap::Command {
    Cli::command().after_help(epilogue())
}

/// `--color` as far as help and usage are concerned, which are printed before anything is parsed.
fn colour_of_help(args: impl Iterator<Item = OsString>) -> ColorChoice {
    let mut choice = ColorChoice::Auto;
    let mut is_value = false;
    for arg in args {
        let arg = arg.to_string_lossy();
        let value = if is_value { Some(&*arg) } else { arg.strip_prefix("--color=") };
        match value {
            Some("always") => choice = ColorChoice::Always,
            Some("never") => choice = ColorChoice::Never,
            _ => {}
        }
        is_value = arg == "--color";
    }
    choice
}

/// Reads `name=value`.
fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err("expected name=value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    /// The options of a command are made when it is asked for. What stands above their fields, or
    /// above fields that are shared, would then replace what the command is said to do: plain
    /// comments stand there.
    #[test]
    fn what_a_command_does_is_told_alike_before_and_after_its_options_are_made() {
        fn told(command: &clap::Command) -> Vec<(String, String)> {
            let each = command.get_subcommands();
            each.map(|command| {
                (command.get_name().into(), command.get_about().unwrap().to_string())
            })
            .collect()
        }
        let mut built = command();
        built.build();
        assert_eq!(told(&command()), told(&built));
        // Within a command each is told by its own words.
        for command in built.get_subcommands() {
            let (within, name) = (told(command), command.get_name());
            let own: std::collections::HashSet<&String> =
                within.iter().map(|(_, about)| about).collect();
            assert_eq!(own.len(), within.len(), "{name}: {within:?}");
        }
    }

    /// Lines that are broken by hand and once more by the terminal read badly: what is laid out
    /// (indented) is narrow, and a paragraph is one line.
    #[test]
    fn no_help_is_wrapped_twice() {
        fn look_at(command: &clap::Command, wrong: &mut Vec<String>) {
            let below = command.get_after_help().map(|text| text.to_string());
            let text = below.unwrap_or_default();
            let mut lines = text.lines().peekable();
            while let Some(line) = lines.next() {
                let next = lines.peek().copied().unwrap_or_default();
                let goes_on = |line: &str| !line.is_empty() && !line.starts_with(' ');
                let is_broken = goes_on(line) && goes_on(next);
                if is_broken || line.starts_with(' ') && line.chars().count() > HELP_WIDTH {
                    wrong.push(format!("{}: {line}", command.get_name()));
                }
            }
            command.get_subcommands().for_each(|command| look_at(command, wrong));
        }
        let (mut all, mut wrong) = (command(), Vec::new());
        all.build();
        look_at(&all, &mut wrong);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn help_has_the_colours_that_were_asked_for() {
        let choice = |line: &str| colour_of_help(line.split(' ').map(OsString::from));
        assert_eq!(choice("kino --color never --help"), ColorChoice::Never);
        assert_eq!(choice("kino run --color=always"), ColorChoice::Always);
        assert_eq!(choice("kino never"), ColorChoice::Auto);
    }

    #[test]
    fn a_value_may_contain_an_equals_sign() {
        assert_eq!(assignment("prompt=a=b"), Ok(("prompt".into(), "a=b".into())));
        assert!(assignment("prompt").is_err());
        assert!(assignment("=x").is_err());
    }
}
