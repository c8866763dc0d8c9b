//! `kino plugin check`: tries every node of a plugin in child processes, and says what does not
//! hold.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use candle_core::Device;
use kino_host::BuildKind;
use kino_node::{Ledger, Services, Value};

use super::args::Check;
use super::cases::Case;
use super::compare::difference;
use super::folder::Project;
use super::probe::{Fault, Line, Outcome, Task};
use crate::args::PROBE;
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::render::quantity::count;
use crate::screen::Screen;

/// How long one case may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a plugin may take to describe itself: a component is compiled before.
const COMPILING: Duration = Duration::from_secs(600);
/// A node that hangs in so many cases is not tried in the others.
const MAX_HUNG: usize = 2;
/// What is said of a case that did not end.
const HUNG: &str = "it did not end within";

/// How one case of one node ended.
struct Finding {
    node: String,
    kind: BuildKind,
    case: String,
    fault: Option<Fault>,
    /// How it ended otherwise.
    outcome: Outcome,
    /// Whether it did not end in time.
    hung: bool,
}

/// What children have said.
#[derive(Default)]
struct Told {
    findings: Vec<Finding>,
    described: Option<Described>,
}

/// Checks a plugin.
///
/// # Errors
/// When it cannot be loaded.
pub(crate) fn run(args: &Check, screen: &Screen) -> Result<Exit, Failure> {
    let project = Project::open(&args.folder)?;
    let builds = project.accepted_builds((args.native, args.wasm), "check", screen)?;
    let mut nodes = project.manifest.nodes.clone();
    if let Some(node) = &args.node {
        nodes.retain(|id| id == node);
        if nodes.is_empty() {
            let named = project.manifest.nodes.join(", ");
            let what = format!("the plugin `{}` has no node `{node}`", project.manifest.id);
            return Err(Failure::usage(what).hint(format!("it has {named}")));
        }
    }
    let seed = args.seed.unwrap_or_else(kino_session::random_seed);
    if !screen.quiet && !screen.json {
        screen.print(&format!("seed {seed}\n"))?;
    }
    descriptors_agree(args, &builds, screen)?;
    let keep = tempfile::tempdir().map_err(|error| Failure::world(error.to_string()))?;
    let mut told = Told::default();
    for node in &nodes {
        let mut kept = Vec::new();
        for kind in &builds {
            let folder = keep.path().join(format!("{node}-{kind}"));
            let made = std::fs::create_dir_all(&folder);
            made.map_err(|error| Failure::world(error.to_string()))?;
            try_node(args, node, *kind, seed, &folder, &mut told, screen)?;
            chunks_agree(node, *kind, &folder, &mut told.findings);
            kept.push(folder);
        }
        if let [wasm, native] = kept.as_slice() {
            builds_agree(node, wasm, native, &mut told.findings);
        }
    }
    report(&told.findings, seed, screen)
}

/// What a build says of itself.
pub(super) struct Described {
    /// The ids of its nodes.
    pub(super) nodes: Vec<String>,
    /// All of it.
    whole: String,
}

/// What a build says of itself, asked in a child process; `fresh` is an artifact that does not
/// stand in the folder yet, of which the manifest may say something else.
///
/// # Errors
/// When it does not say, or its nodes are not those of the manifest.
pub(super) fn described(
    folder: &Path,
    kind: BuildKind,
    fresh: Option<&Path>,
    screen: &Screen,
) -> Result<Described, Failure> {
    let mut told = Told::default();
    try_some(&Task::describing(folder, kind, fresh), &mut told, screen)?;
    if let Some(described) = told.described {
        return Ok(described);
    }
    let fault = told.findings.into_iter().find_map(|finding| finding.fault);
    let Fault { message, hint } = fault.unwrap_or_else(|| "it says nothing".to_owned().into());
    let what = format!("the {kind} build does not describe itself: {message}");
    let failure = Failure::usage(what);
    Err(hint.iter().fold(failure, |failure, hint| failure.hint(hint)))
}

/// Both builds describe the same nodes, and each the same twice.
fn descriptors_agree(args: &Check, builds: &[BuildKind], screen: &Screen) -> Result<(), Failure> {
    let mut first: Option<(BuildKind, String)> = None;
    for kind in builds.iter().chain(builds) {
        let descriptor = described(&args.folder, *kind, None, screen)?.whole;
        match &first {
            Some((other, known)) if *known != descriptor => {
                return Err(Failure::usage(format!(
                    "the {other} and the {kind} build describe themselves differently"
                ))
                .hint("build both from one source: `kino plugin build`"));
            }
            Some(_) => {}
            None => first = Some((*kind, descriptor)),
        }
    }
    Ok(())
}

/// Tries all cases of a node, in a new child after each that did not survive.
fn try_node(
    args: &Check,
    node: &str,
    kind: BuildKind,
    seed: u64,
    keep: &Path,
    told: &mut Told,
    screen: &Screen,
) -> Result<(), Failure> {
    let cases = Case::all().len();
    let (mut from, mut hung) = (0, 0);
    while from < cases {
        let task = Task {
            folder: args.folder.clone(),
            kind,
            node: node.to_owned(),
            seed,
            from,
            keep: keep.to_owned(),
        };
        let before = told.findings.len();
        let done = try_some(&task, told, screen)?;
        from += done.max(1);
        hung += told.findings[before..].iter().filter(|finding| finding.hung).count();
        if hung >= MAX_HUNG && from < cases {
            let (node, case) = (node.to_owned(), "the other cases".to_owned());
            let fault =
                Some(format!("{} were not tried, as it hangs", count(cases - from, "case")).into());
            let outcome = Outcome::Ran;
            told.findings.push(Finding { node, kind, case, fault, outcome, hung: false });
            break;
        }
    }
    Ok(())
}

/// Tries cases in one child until it is through or dies; says how many came to an end.
fn try_some(task: &Task, told: &mut Told, screen: &Screen) -> Result<usize, Failure> {
    let Told { findings, described } = told;
    let world = |error: std::io::Error| Failure::world(format!("a child process: {error}"));
    let text = serde_json::to_string(task).map_err(|error| Failure::world(error.to_string()))?;
    let mut child = Command::new(std::env::current_exe().map_err(world)?)
        .args([PROBE, &text])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(world)?;
    let (lines, inbox) = mpsc::channel();
    let out = child.stdout.take();
    let reader = std::thread::spawn(move || {
        for line in
            out.into_iter().flat_map(|out| BufReader::new(out).lines().map_while(Result::ok))
        {
            // What a plugin prints is none of ours.
            if let Ok(line) = serde_json::from_str::<Line>(&line)
                && lines.send(line).is_err()
            {
                break;
            }
        }
    });
    let mut current: Option<(String, Instant)> = None;
    // Loading before the first case and closing after the last one have an end, too.
    let mut last = Instant::now();
    let mut done = 0;
    let is_compiled = task.kind == BuildKind::Wasm && task.node.is_empty();
    let timeout = if is_compiled { COMPILING } else { TIMEOUT };
    let mut end = |case: String, fault: Option<Fault>, outcome: Outcome| {
        let (node, kind) = (task.node.clone(), task.kind);
        let hung = fault.as_ref().is_some_and(|fault| fault.message.starts_with(HUNG));
        findings.push(Finding { node, kind, case, fault, outcome, hung });
    };
    let died = loop {
        match inbox.recv_timeout(Duration::from_millis(50)) {
            Ok(Line::Begin(case)) => current = Some((case, Instant::now())),
            Ok(Line::Passed(outcome)) => {
                (done, last) = (done + 1, Instant::now());
                end(current.take().map_or_else(String::new, |(case, _)| case), None, outcome);
            }
            Ok(Line::Failed(fault)) => {
                (done, last) = (done + 1, Instant::now());
                let case = current.take().map_or_else(String::new, |(case, _)| case);
                end(case, Some(fault), Outcome::Ran);
            }
            Ok(Line::Described { nodes, whole }) => {
                (done, last, current) = (done + 1, Instant::now(), None);
                *described = Some(Described { nodes, whole });
            }
            Ok(Line::Notice(told)) => {
                if !screen.quiet && !screen.json {
                    screen.tell(&format!("{}\n", screen.err.dim(&told)));
                }
            }
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {
                let since = current.as_ref().map_or(last, |(_, since)| *since);
                if since.elapsed() > timeout {
                    break Some(format!("{HUNG} {} s", timeout.as_secs()));
                }
            }
        }
    };
    if died.is_some() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(world)?;
    let _ = reader.join();
    let ended = || format!("the process ended: {status}");
    if let Some((case, _)) = current {
        done += 1;
        end(case, Some(died.unwrap_or_else(ended).into()), Outcome::Ran);
    } else if done == 0 {
        end("loading".into(), Some(died.unwrap_or_else(ended).into()), Outcome::Ran);
        return Ok(Case::all().len());
    } else if !status.success() {
        end("closing".into(), Some(died.unwrap_or_else(ended).into()), Outcome::Ran);
    }
    Ok(done)
}

/// The outputs that a case kept.
fn kept(folder: &Path, index: usize) -> Option<Vec<Option<Value>>> {
    let bytes = std::fs::read(folder.join(index.to_string())).ok()?;
    let services = Services::new(Device::Cpu, Ledger::new(u64::MAX));
    kino_node::decode(&mut &bytes[..], &services).ok()
}

/// The result does not depend on how frames are cut into chunks.
fn chunks_agree(node: &str, kind: BuildKind, folder: &Path, findings: &mut Vec<Finding>) {
    let cases = Case::all();
    let at = |case: Case| cases.iter().position(|one| *one == case).unwrap_or(0);
    let (Some(plain), Some(one)) =
        (kept(folder, at(Case::Plain)), kept(folder, at(Case::OneChunk)))
    else {
        return;
    };
    let fault = difference(&plain, &one);
    let fault = fault.map(|what| format!("chunks change the result: {what}").into());
    let (node, case) = (node.to_owned(), "chunks against one chunk".to_owned());
    findings.push(Finding { node, kind, case, fault, outcome: Outcome::Same, hung: false });
}

/// Native build and component give the same.
fn builds_agree(node: &str, wasm: &Path, native: &Path, findings: &mut Vec<Finding>) {
    for (index, case) in Case::all().into_iter().enumerate() {
        let fault = match (kept(wasm, index), kept(native, index)) {
            (Some(a), Some(b)) => difference(&a, &b),
            (None, None) => continue,
            _ => Some("one build ran, the other refused".to_owned()),
        };
        let fault = fault.map(|what| format!("native and wasm differ: {what}").into());
        if fault.is_some() || case == Case::Plain {
            let (node, case) = (node.to_owned(), format!("parity, {}", case.name()));
            let (kind, outcome) = (BuildKind::Wasm, Outcome::Same);
            findings.push(Finding { node, kind, case, fault, outcome, hung: false });
        }
    }
}

/// Findings of one build of one node that say the same, in the order in which each was first said.
fn alike(findings: &[Finding]) -> Vec<Vec<&Finding>> {
    let said = |one: &Finding| (one.node.clone(), one.kind, one.fault.clone(), one.outcome.clone());
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in findings {
        match groups.iter_mut().find(|group| said(group[0]) == said(finding)) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    groups
}

/// The cases of findings: all of a few, else the first and how many more there are.
fn cases(group: &[&Finding]) -> String {
    let names: Vec<&str> = group.iter().map(|one| one.case.as_str()).collect();
    match names.as_slice() {
        [first, rest @ ..] if rest.len() > 3 => format!("{first} and {} others", rest.len()),
        names => names.join(", "),
    }
}

/// What became of the cases of one build of one node.
struct Summary<'a> {
    node: &'a str,
    kind: BuildKind,
    ran: usize,
    refused: usize,
    not_tried: usize,
    /// Groups of cases in which the node ran, was cancelled, or was compared.
    tried: Vec<String>,
    /// Groups in which it refused.
    refusing: Vec<String>,
    idle: Vec<String>,
}

impl Summary<'_> {
    /// Whether the node refused more than it took: then little is known of it.
    fn is_poor(&self) -> bool {
        self.refused > self.ran
    }

    fn json(&self) -> crate::json::Value {
        json!({ "node": self.node, "build": self.kind.to_string(), "ran": self.ran,
            "refused": self.refused, "not_tried": self.not_tried, "tried": self.tried,
            "refusing": self.refusing, "idle": self.idle, "poor": self.is_poor() })
    }

    fn text(&self) -> String {
        let Summary { node, kind, ran, refused, not_tried, .. } = self;
        let mut text = format!("sum   {node} {kind}: {ran} ran, {refused} refused");
        if *not_tried > 0 {
            text.push_str(&format!(", {not_tried} make no difference to it"));
        }
        text.push('\n');
        for (what, groups) in
            [("tried", &self.tried), ("refused", &self.refusing), ("not tried", &self.idle)]
        {
            if !groups.is_empty() {
                text.push_str(&format!("      {what}: {}\n", groups.join(", ")));
            }
        }
        if self.is_poor() {
            let of = ran + refused;
            text.push_str(&format!(
                "warn  {node} {kind} ran in {ran} of {of} cases, so this check says little of it; \
                 `same_size(…)` and `same_count(…)` say what its inputs must agree in, ranges what \
                 parameters take\n"
            ));
        }
        text
    }
}

/// What became of each build of each node, in the order in which they were tried.
fn summaries(findings: &[Finding]) -> Vec<Summary<'_>> {
    let mut all: Vec<Summary<'_>> = Vec::new();
    for finding in findings {
        let Finding { node, kind, case, outcome, fault, .. } = finding;
        if *outcome == Outcome::Same || fault.is_some() {
            continue;
        }
        let at = all.iter().position(|one| one.node == node && one.kind == *kind);
        let at = at.unwrap_or_else(|| {
            all.push(Summary {
                node,
                kind: *kind,
                ran: 0,
                refused: 0,
                not_tried: 0,
                tried: Vec::new(),
                refusing: Vec::new(),
                idle: Vec::new(),
            });
            all.len() - 1
        });
        let one = &mut all[at];
        let groups = match outcome {
            Outcome::Refused(_) => {
                one.refused += 1;
                &mut one.refusing
            }
            Outcome::NotTried(_) => {
                one.not_tried += 1;
                &mut one.idle
            }
            _ => {
                one.ran += 1;
                &mut one.tried
            }
        };
        let group = Case::group(case).to_owned();
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    all
}

fn report(findings: &[Finding], seed: u64, screen: &Screen) -> Result<Exit, Failure> {
    let faults: Vec<_> = findings.iter().filter(|finding| finding.fault.is_some()).collect();
    let summaries = summaries(findings);
    if screen.json {
        let lines = findings.iter().map(|one| {
            let fault = one.fault.as_ref();
            let note = fault.map_or_else(|| one.outcome.to_string(), |_| String::new());
            json!({ "node": one.node, "build": one.kind.to_string(), "case": one.case,
                "fault": fault.map(|fault| &fault.message),
                "hint": fault.and_then(|fault| fault.hint.as_ref()), "note": note })
        });
        let summaries: Vec<_> = summaries.iter().map(Summary::json).collect();
        let cases = lines.collect::<Vec<_>>();
        // Seeds are numbers of 64 bits, which JSON's numbers do not hold.
        let seed = seed.to_string();
        screen.print_json(&json!({ "seed": seed, "cases": cases, "summary": summaries }))?;
    } else {
        let mut text = String::new();
        for group in alike(findings) {
            let Finding { node, kind, fault, outcome, .. } = group[0];
            let cases = cases(&group);
            match fault {
                Some(Fault { message, hint }) => {
                    text.push_str(&format!("FAIL  {node} {kind}, {cases}: {message}\n"));
                    let help = hint.iter().map(|hint| format!("      help: {hint}\n"));
                    text.extend(help);
                }
                None if screen.quiet => {}
                None => text.push_str(&format!("ok    {node} {kind}, {cases}: {outcome}\n")),
            }
        }
        text.extend(
            summaries.iter().filter(|one| !screen.quiet || one.is_poor()).map(Summary::text),
        );
        let tried = findings.iter().filter(|one| !matches!(one.outcome, Outcome::NotTried(_)));
        let refused = findings.iter().filter(|one| matches!(one.outcome, Outcome::Refused(_)));
        let (tried, refused) = (tried.count(), refused.count());
        let summary = match (faults.len(), refused) {
            (0, 0) => format!("{} held\n", count(tried, "case")),
            (0, n) => format!("{} held; in {n} of them the node refused\n", count(tried, "case")),
            (n, _) => format!(
                "{n} of {} failed; --seed {seed} repeats them\n",
                count(findings.len(), "case")
            ),
        };
        text.push_str(&summary);
        screen.print(&text)?;
    }
    Ok(if faults.is_empty() { Exit::Good } else { Exit::NodeFailed })
}

/// The child's part.
///
/// # Errors
/// When it is not told what to do, or the plugin cannot be loaded.
pub(crate) fn probe(task: &str) -> Result<Exit, Failure> {
    let task: Task = serde_json::from_str(task)
        .map_err(|error| Failure::usage(format!("`kino plugin check` starts this: {error}")))?;
    super::probe::run(&task)?;
    Ok(Exit::Good)
}
