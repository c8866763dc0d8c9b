//! The child process of `kino plugin check`: tries one node, case after case, and says what became
//! of each, a line of JSON at a time. If it dies, its parent knows in which case.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Device;
use kino_host::{BuildKind, GrantedFiles, Limits, Module, Plugin, PluginFiles, plugin_nodes};
use kino_node::{
    Cancel, Cx, Error, Frames, GuiderHandle, Inputs, Ledger, Node, Result, SamplingStep, Services,
    Value,
};
use kino_port::Sigma;
use kino_session::OnNotice;
use serde::{Deserialize, Serialize};

use super::cases::{About, Case, Common, Draws, value, velocities};
use super::folder::Project;
use crate::failure::Failure;
use crate::terminal;

/// A component may take this long in one case; more is the parent's to judge.
const TIME: Duration = Duration::from_secs(20);
/// How long a node may go on after it was cancelled.
const LATENCY: Duration = Duration::from_millis(500);

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    /// A case begins.
    Begin(String),
    /// A case ended as it may.
    Passed(Outcome),
    /// A case ended as it should not: what happened, and what to do.
    Failed(Fault),
    /// What a build says of itself: its nodes, and the whole of it, to be compared.
    Described { nodes: Vec<String>, whole: String },
    /// What is to be told at once.
    Notice(String),
}

/// How a case ended that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// The node computed something.
    Ran,
    /// Two results were compared.
    Same,
    /// The node refused its inputs: why.
    Refused(String),
    /// It was cancelled.
    Cancelled,
    /// It was done before it could be cancelled.
    Done,
    /// It makes no difference to this node: why.
    NotTried(String),
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Ran => f.write_str("ran"),
            Outcome::Same => f.write_str("the same"),
            Outcome::Refused(why) => write!(f, "refused: {why}"),
            Outcome::Cancelled => f.write_str("cancelled"),
            Outcome::Done => f.write_str("it was done before it was cancelled"),
            Outcome::NotTried(why) => write!(f, "not tried: {why}"),
        }
    }
}

/// What does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Fault { message, hint: None }
    }
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        Fault { message: error.to_string(), hint: error.hint().map(str::to_owned) }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Fault { message: failure.to_string(), hint: failure.advice().map(str::to_owned) }
    }
}

/// What a child is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    #[serde(with = "kino_node::path_text")]
    pub(crate) folder: PathBuf,
    pub(crate) kind: BuildKind,
    pub(crate) node: String,
    pub(crate) seed: u64,
    /// The first case to try.
    pub(crate) from: usize,
    /// Where outputs are kept, to be compared with those of another build; of a build that only
    /// describes itself, the artifact, where it does not stand in its folder yet.
    #[serde(with = "kino_node::path_text")]
    pub(crate) keep: PathBuf,
}

impl Task {
    /// To say what the nodes of a plugin are, and nothing else.
    pub(crate) fn describing(folder: &Path, kind: BuildKind, fresh: Option<&Path>) -> Self {
        Task {
            folder: folder.to_owned(),
            kind,
            node: String::new(),
            seed: 0,
            from: 0,
            keep: fresh.map_or_else(PathBuf::new, Path::to_owned),
        }
    }
}

/// Tries a node; without a name, says what the nodes are.
///
/// # Errors
/// When the plugin cannot be loaded at all, or nobody listens.
pub(crate) fn run(task: &Task) -> Result<(), Failure> {
    let project = Project::open(&task.folder)?;
    let notice: OnNotice = Arc::new(|notice| {
        // Where nobody listens any more, the next line says so.
        let _ = say(&Line::Notice(notice.to_string()));
    });
    if task.node.is_empty() {
        say(&Line::Begin("describing".into()))?;
        let fresh = Some(&*task.keep).filter(|fresh| !fresh.as_os_str().is_empty());
        let loaded = match fresh {
            Some(fresh) => project.load_file(task.kind, fresh.to_owned(), notice),
            None => project.load(task.kind, notice),
        };
        return say(&match loaded {
            Ok(artifact) => {
                let descriptor = artifact.descriptor();
                let nodes = descriptor.nodes.iter().map(|node| node.signature.name.to_string());
                Line::Described { nodes: nodes.collect(), whole: format!("{descriptor:?}") }
            }
            Err(error) => Line::Failed(error.into()),
        });
    }
    let artifact = project.load(task.kind, notice)?;
    let root = project.folder.clone();
    let granted = GrantedFiles::new(&root, &project.manifest.asks.read);
    let limits = Limits { time: TIME, ..Limits::default() };
    let files: Arc<dyn PluginFiles> = Arc::new(granted);
    let build =
        || Plugin::new(&project.manifest.id, "", Arc::clone(&artifact), Arc::clone(&files), limits);
    let find = |plugin: &Arc<Plugin>| {
        let mut nodes = plugin_nodes(plugin).into_iter();
        let node = nodes.find(|node| node.signature().name == task.node.as_str());
        node.ok_or_else(|| Failure::usage(format!("there is no node `{}`", task.node)))
    };
    let plugin = build();
    let node = find(&plugin)?;
    let ledger = Ledger::new(1 << 30);
    let services = Services::new(Device::Cpu, ledger);
    let file = project.sample_file();
    let mut probe = Probe { node, artifact: &*artifact, services, file, task };
    for (index, case) in Case::all().into_iter().enumerate().skip(task.from) {
        say(&Line::Begin(case.name()))?;
        let (ports, types) = (&probe.node.signature().inputs, artifact.descriptor());
        let is_guider = types.node(&task.node).is_some_and(|node| node.guider);
        if let Some(why) = case.is_idle(ports, is_guider, types) {
            say(&Line::Passed(Outcome::NotTried(why.to_owned())))?;
            continue;
        }
        if case == Case::Reloaded {
            let newer = build();
            newer.inherit(&plugin);
            probe.node = find(&newer)?;
        }
        say(&match probe.try_case(case, index) {
            Ok(note) => Line::Passed(note),
            Err(fault) => Line::Failed(fault),
        })?;
    }
    Ok(())
}

fn say(line: &Line) -> Result<(), Failure> {
    Ok(terminal::print_bytes(&terminal::json_line(line)?)?)
}

struct Probe<'a> {
    node: Arc<dyn Node>,
    artifact: &'a dyn Module,
    services: Services,
    file: String,
    task: &'a Task,
}

impl Probe<'_> {
    /// Tries one case; the note says how it ended.
    fn try_case(&self, case: Case, index: usize) -> Result<Outcome, Fault> {
        let cancel = Cancel::default();
        let mut since = None;
        let mut late = None;
        let outcome = self.once(case, &cancel, &mut || match case {
            Case::Cancelled => {
                cancel.cancel();
                since = Some(Instant::now());
            }
            Case::CancelledLate => {
                let cancel = cancel.clone();
                late = Some(std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(5));
                    cancel.cancel();
                    Instant::now()
                }));
            }
            _ => {}
        });
        let ended = Instant::now();
        if let Some(late) = late {
            since = late.join().ok();
        }
        if let Some(since) = since {
            let latency = ended.saturating_duration_since(since);
            if latency > LATENCY {
                return Err(format!("it went on for {latency:.1?} after it was cancelled").into());
            }
        }
        let outputs = match outcome {
            Ok(outputs) => outputs,
            Err(Error::Cancelled) if cancel.is_cancelled() => return Ok(Outcome::Cancelled),
            Err(error @ Error::Broken { .. }) => return Err((&error).into()),
            // A panic in a native plugin is caught within, and comes as an error of its own.
            Err(error) if error.to_string().contains("the plugin panicked") => {
                return Err((&error).into());
            }
            Err(error) => return Ok(Outcome::Refused(error.to_string())),
        };
        if case == Case::CancelledLate && since.is_some_and(|since| since > ended) {
            return Ok(Outcome::Done);
        }
        if case == Case::Plain {
            let again =
                self.once(case, &cancel, &mut || {}).map_err(|error| format!("again: {error}"))?;
            if bytes(&outputs) != bytes(&again) {
                return Err("the same inputs gave other outputs the second time".to_owned().into());
            }
        }
        if !cancel.is_cancelled() {
            let path = self.task.keep.join(format!("{index}"));
            if let Some(bytes) = bytes(&outputs) {
                std::fs::write(path, bytes).map_err(|error| error.to_string())?;
            }
        }
        Ok(Outcome::Ran)
    }

    /// Runs the node once; `begin` is called when its inputs are there.
    fn once(
        &self,
        case: Case,
        cancel: &Cancel,
        begin: &mut dyn FnMut(),
    ) -> Result<Vec<Option<Value>>> {
        // The case of one chunk has the numbers of the plain one.
        let name = if case == Case::OneChunk { Case::Plain } else { case }.name();
        let salt = name.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
        let mut draws = Draws(self.task.seed ^ salt);
        let about = About {
            node: self.artifact.descriptor().node(&self.task.node),
            common: Common::of(case, &mut Draws(draws.0 ^ 1)),
            descriptor: self.artifact.descriptor(),
            file: &self.file,
            ledger: &self.services.ledger,
        };
        let signature = self.node.signature();
        let ports = signature.inputs.iter();
        let values =
            ports.map(|port| value(port, case, &mut draws, &about)).collect::<Result<Vec<_>>>()?;
        let wanted = vec![true; signature.outputs.len()];
        let mut cx = Cx {
            reads: &[],
            name: "check",
            services: &self.services,
            cancel,
            record: "",
            wanted: &wanted,
            report: &|_| {},
        };
        begin();
        let outputs = self.node.run(&mut cx, &Inputs::new(&signature.inputs, &values))?;
        outputs.iter().flatten().try_for_each(read)?;
        let guider = outputs.first().and_then(|output| output.as_ref()?.get::<GuiderHandle>());
        let Some(GuiderHandle(guider)) = guider else { return Ok(outputs) };
        let (with, without) = velocities(case, &mut draws)?;
        let mut guidance = guider.begin(cancel);
        let mut velocities = Vec::new();
        for step in 0..3 {
            let moment =
                SamplingStep { index: step, count: 3, sigma: Sigma(1.0 - step as f64 / 3.0) };
            velocities.push(Some(Value::Tensor(guidance.guide(moment, &with, &without)?)));
        }
        Ok(velocities)
    }
}

/// Reads a value as whoever takes it would, since frames are checked by their first reader.
fn read(value: &Value) -> Result<()> {
    match value {
        Value::List(items) => items.iter().try_for_each(|(_, item)| read(item)),
        one => one.get::<Frames>().map_or(Ok(()), Frames::check_numbers),
    }
}

/// Outputs as bytes, where they can be stored.
fn bytes(outputs: &[Option<Value>]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    kino_node::encode(outputs, &mut bytes).ok()?;
    Some(bytes)
}
