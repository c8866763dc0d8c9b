//! `kino plugin bench`: how long a plugin's nodes take, beside a copy of the same bytes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::Device;
use kino_host::{BuildKind, GrantedFiles, Limits, Plugin, plugin_nodes};
use kino_node::{Cancel, Cx, GuiderHandle, Inputs, Ledger, Result, SamplingStep, Services, Value};
use kino_port::Sigma;

use super::args::Bench;
use super::cases::{About, Case, Common, Draws, value, velocities};
use super::folder::Project;
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::render::table::{Align, Table};
use crate::screen::Screen;
use crate::setup;

/// How long each node is timed.
const BUDGET: Duration = Duration::from_secs(1);
const LEAST: usize = 5;

/// One line of the report.
struct Timing {
    node: String,
    kind: BuildKind,
    case: &'static str,
    /// The median, or why there is none.
    seconds: Result<f64>,
    /// Copying the same bytes once.
    copy: f64,
}

/// Times a plugin.
///
/// # Errors
/// When it cannot be loaded.
pub(crate) fn run(args: &Bench, screen: &Screen) -> Result<Exit, Failure> {
    let project = Project::open(&args.folder)?;
    let mut timings = Vec::new();
    // Both, where native code may be loaded.
    let builds = project.accepted_builds((args.native, args.native), "bench", screen)?;
    for kind in builds {
        let artifact = project.load(kind, setup::notice(screen, None, false))?;
        let files =
            std::sync::Arc::new(GrantedFiles::new(&project.folder, &project.manifest.asks.read));
        let limits = Limits { memory: 8 << 30, time: Duration::from_secs(600) };
        let plugin = Plugin::new(&project.manifest.id, "", artifact, files, limits);
        for node in plugin_nodes(&plugin) {
            for (case, name) in [(Case::Plain, "small"), (Case::Large, "large")] {
                let file = project.sample_file();
                timings.push(time(&*node, &plugin, case, (kind, name), &file)?);
            }
        }
    }
    report(&timings, screen)
}

fn time(
    node: &dyn kino_node::Node,
    plugin: &Plugin,
    case: Case,
    (kind, name): (BuildKind, &'static str),
    file: &str,
) -> Result<Timing> {
    let services = Services::new(Device::Cpu, Ledger::new(4 << 30));
    let signature = node.signature();
    let mut draws = Draws(1);
    let about = About {
        node: plugin.descriptor().node(&signature.name),
        common: Common::of(case, &mut Draws(2)),
        descriptor: plugin.descriptor(),
        file,
        ledger: &services.ledger,
    };
    let ports = signature.inputs.iter();
    let values =
        ports.map(|port| value(port, case, &mut draws, &about)).collect::<Result<Vec<_>>>()?;
    let wanted = vec![true; signature.outputs.len()];
    let cancel = Cancel::default();
    let run = || {
        let mut cx = Cx {
            reads: &[],
            name: "bench",
            services: &services,
            cancel: &cancel,
            record: "",
            wanted: &wanted,
            report: &|_| {},
        };
        node.run(&mut cx, &Inputs::new(&signature.inputs, &values))
    };
    let is_guider = plugin.descriptor().node(&signature.name).is_some_and(|node| node.guider);
    let mut bytes = values.iter().flatten().map(Value::bytes).sum::<u64>() as usize;
    // A guider is asked once a step: that is its work, and making it is not.
    let mut guidance = None;
    if is_guider {
        let pair = velocities(case, &mut draws)?;
        bytes = 2 * pair.0.elem_count() * pair.0.dtype().size_in_bytes();
        let made = run()?;
        let guider = made.first().and_then(|output| output.as_ref()?.get::<GuiderHandle>());
        guidance = guider.map(|GuiderHandle(guider)| (guider.begin(&cancel), pair));
    }
    let mut index = 0;
    let mut once = || {
        let begun = Instant::now();
        match &mut guidance {
            Some((guidance, (with, without))) => {
                let sigma = Sigma(1.0 / (index + 1) as f64);
                let now = SamplingStep { index: index % 50, count: 50, sigma };
                index += 1;
                guidance.guide(now, with, without)?;
            }
            None => drop(run()?),
        }
        Ok(begun.elapsed().as_secs_f64())
    };
    let source = vec![1u8; bytes];
    let mut target = vec![0u8; bytes];
    let copy = median((0..LEAST).map(|_| {
        let begun = Instant::now();
        black_box(&mut target).copy_from_slice(black_box(&source));
        Ok(begun.elapsed().as_secs_f64())
    }))?;
    let begun = Instant::now();
    let mut runs = 0;
    let seconds = median(std::iter::from_fn(|| {
        runs += 1;
        (runs <= LEAST || begun.elapsed() < BUDGET).then(&mut once)
    }));
    Ok(Timing { node: signature.name.to_string(), kind, case: name, seconds, copy })
}

fn median(times: impl Iterator<Item = Result<f64>>) -> Result<f64> {
    let mut times = times.collect::<Result<Vec<_>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn report(timings: &[Timing], screen: &Screen) -> Result<Exit, Failure> {
    if screen.json {
        let lines = timings.iter().map(|one| {
            json!({ "node": one.node, "build": one.kind.to_string(), "inputs": one.case,
                "seconds": one.seconds.as_ref().ok(), "copy_seconds": one.copy,
                "error": one.seconds.as_ref().err().map(ToString::to_string) })
        });
        screen.print_json(&json!({ "timings": lines.collect::<Vec<_>>() }))?;
        return Ok(Exit::Good);
    }
    let mut table =
        Table::new(&[Align::Left, Align::Left, Align::Left, Align::Right, Align::Right]);
    let head = ["node", "build", "inputs", "a call", "copies of its inputs"];
    table.row(head.map(|word| screen.out.dim(word)));
    for one in timings {
        let (call, ratio) = match &one.seconds {
            Ok(seconds) => (
                format!("{:.1} µs", seconds * 1e6),
                if one.copy > 1e-5 { format!("{:.1}", seconds / one.copy) } else { "–".into() },
            ),
            Err(error) => (format!("refused: {error}"), String::new()),
        };
        let (node, kind) = (screen.out.name(&one.node), one.kind.to_string());
        table.row([node, kind, one.case.to_owned(), call, ratio]);
    }
    screen.print(&table.render())?;
    Ok(Exit::Good)
}
