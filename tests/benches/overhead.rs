//! What the engine itself costs: graphs of trivial nodes, in a chain and side by side.
//!
//! `cargo build --release && cargo bench -p kino-tests --bench overhead`

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kino_graph::{Catalog, Graph, GraphLoader, Plan, PlanSettings};
use kino_runtime::RuntimeOptions;
use kino_tests::Bench;
use kino_world::Folders;

/// The command's own, so that planning and running within this process cost what they cost there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// `count` nodes, each adding 1 to the one before.
fn chain(count: usize, step: usize) -> String {
    let mut text = String::from(
        "Graph(version: 1, nodes: {\n\"n0\": (op: \"math\", with: {\"a\": 1, \"b\": 1}),\n",
    );
    for i in 1..count {
        let b = if i == count / 2 { step } else { 1 };
        text.push_str(&format!(
            "\"n{i}\": (op: \"math\", in: {{\"a\": \"n{}\"}}, with: {{\"b\": {b}}}),\n",
            i - 1
        ));
    }
    text.push_str(&format!("}}, outputs: {{\"sum\": \"n{}\"}})", count - 1));
    text
}

/// `count` nodes side by side, each an output.
fn wide(count: usize) -> String {
    let mut text = String::from("Graph(version: 1, nodes: {\n");
    (0..count).for_each(|i| {
        text.push_str(&format!("\"n{i}\": (op: \"math\", with: {{\"a\": {i}, \"b\": 1}}),\n"))
    });
    text.push_str("}, outputs: {\n");
    (0..count).for_each(|i| text.push_str(&format!("\"x{i}\": \"n{i}\",\n")));
    text.push_str("})");
    text
}

struct NoGraphs;

impl GraphLoader for NoGraphs {
    fn read(&self, _: &str) -> Result<String, String> {
        Err("there are no other graphs".to_owned())
    }
}

fn check(text: &str, catalog: &dyn Catalog) -> Graph {
    kino_graph::check("bench.ron", text, catalog, &NoGraphs).expect("a sound graph")
}

fn plan(graph: &Graph, catalog: &dyn Catalog) -> Plan {
    let settings = PlanSettings {
        inputs: &[],
        until: None,
        versions: b"bench",
        machine: &Vec::new,
        draw: &|_| 0,
        stem: "bench",
        number: None,
        locate: None,
    };
    graph.plan(catalog, &settings).expect("a plan")
}

fn runtime(memory_budget: u64) -> Bench {
    let folders = Folders { graph: ".".into(), out: std::env::temp_dir() };
    let options = RuntimeOptions { memory_budget, ..RuntimeOptions::default() };
    Bench::new(folders, options)
}

/// The command, built beside this bench.
fn command() -> PathBuf {
    let own = std::env::current_exe().expect("a path");
    let kino = own.ancestors().nth(2).unwrap_or(Path::new(".")).join("kino");
    assert!(kino.is_file(), "{} is not built: run `cargo build --release` first", kino.display());
    kino
}

/// How long does `kino run` take, from process start to exit?
fn whole_process(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let kino = command();
    let mut group = c.benchmark_group("kino run, process start to exit");
    group.sample_size(20).measurement_time(Duration::from_secs(4));
    for count in SIZES {
        group.throughput(Throughput::Elements(count as u64));
        for (shape, text) in [("in a chain", chain(count, 1)), ("side by side", wide(count))] {
            let path = folder.path().join(format!("{}-{count}.ron", &shape[..4]));
            std::fs::write(&path, text).expect("a graph");
            group.bench_with_input(BenchmarkId::new(shape, count), &path, |b, path| {
                b.iter(|| {
                    let done = Command::new(&kino)
                        .args(["run", "--quiet", "--no-cache"])
                        .arg(path)
                        .output();
                    assert!(done.expect("it starts").status.success());
                });
            });
        }
    }
    group.finish();
    let small = folder.path().join("small.ron");
    std::fs::write(&small, include_str!("../../graphs/text_to_video.ron")).expect("a graph");
    c.bench_function("kino check text_to_video, process start to exit", |b| {
        b.iter(|| {
            assert!(
                Command::new(&kino)
                    .arg("check")
                    .arg(&small)
                    .output()
                    .expect("it starts")
                    .status
                    .success()
            )
        });
    });
}

/// What does planning again cost after one node in the middle was edited: check, plan and diff?
fn plan_again_after_one_edit(c: &mut Criterion) {
    let runtime = runtime(0);
    let mut group = c.benchmark_group("plan again after one edit");
    for count in SIZES {
        let (before, after) = (chain(count, 1), chain(count, 2));
        let old = plan(&check(&before, &runtime.catalog()), &runtime.catalog());
        group.throughput(Throughput::Elements(count as u64));
        group.bench_with_input(BenchmarkId::from_parameter(count), &after, |b, after| {
            b.iter(|| {
                let new = plan(&check(after, &runtime.catalog()), &runtime.catalog());
                assert_eq!(kino_graph::diff(&old, &new).changes.len(), count / 2);
            });
        });
    }
}

/// What does a run cost whose every result is in memory?
fn run_again_fully_cached(c: &mut Criterion) {
    let mut group = c.benchmark_group("run again, fully cached");
    for count in SIZES {
        let runtime = runtime(1 << 30);
        let plan = plan(&check(&chain(count, 1), &runtime.catalog()), &runtime.catalog());
        let run = || runtime.run(&plan);
        assert_eq!(run().evaluated.len(), count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| assert!(black_box(run()).evaluated.is_empty()));
        });
    }
}

/// What does running cost alone, planned and with no cache?
fn run_alone(c: &mut Criterion) {
    let runtime = runtime(0);
    let mut group = c.benchmark_group("run, already planned");
    for count in SIZES {
        for (shape, text) in [("in a chain", chain(count, 1)), ("side by side", wide(count))] {
            let plan = plan(&check(&text, &runtime.catalog()), &runtime.catalog());
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::new(shape, count), |b| {
                b.iter_batched(|| (), |()| runtime.run(&plan), BatchSize::PerIteration);
            });
        }
    }
}

fn quick() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = overhead; config = quick(); targets = whole_process, plan_again_after_one_edit, run_again_fully_cached, run_alone }
criterion_main!(overhead);
