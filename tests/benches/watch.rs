//! How long from saving a file until the first byte of the new output, under `kino watch`?
//!
//! `cargo build --release && cargo bench -p kino-tests --bench watch`

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use kino_graph::{GraphLoader, PlanSettings};
use kino_runtime::RuntimeOptions;
use kino_tests::Bench;
use kino_world::{FileWatch, Folders};

const EDITS: u32 = 40;

/// A photo, cut to another width in every edit, and written as a picture.
fn graph(width: u32) -> String {
    format!(
        r#"Graph(version: 1, nodes: {{
            "photo": (op: "image.read", with: {{"path": "photo.png"}}),
            "small": (op: "frames.resize", in: {{"frames": "photo"}}, with: {{"width": {width}, "height": 48}}),
            "file":  (op: "image.write", in: {{"frames": "small"}}, with: {{"path": "{{graph}}.png"}}),
        }}, outputs: {{"file": "file"}})"#
    )
}

/// A picture of 96×64 pixels.
fn photo(shade: u8) -> Vec<u8> {
    kino_tests::png(96, 64, |x, y| [x as u8, y as u8, shade])
}

/// The command, built beside this bench.
fn command() -> PathBuf {
    let own = std::env::current_exe().expect("a path");
    let kino = own.ancestors().nth(2).unwrap_or(Path::new(".")).join("kino");
    assert!(kino.is_file(), "{} is not built: run `cargo build --release` first", kino.display());
    kino
}

/// A folder with a graph, its photo, and what is written.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().expect("a folder"));
        fs::write(place.path("photo.png"), photo(0)).expect("a photo");
        fs::write(place.path("g.ron"), graph(300)).expect("a graph");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn out(&self) -> PathBuf {
        self.path("out/g.png")
    }

    fn kino(&self, args: &[&str]) -> Command {
        let mut command = Command::new(command());
        command
            .args(args)
            .current_dir(self.0.path())
            .env("KINO_CACHE", self.path("cache"))
            .env("KINO_CONFIG", self.path("config"));
        command
    }

    /// Writes a file as careful editors do: another one, which then takes its name.
    fn replace(&self, name: &str, contents: &[u8]) {
        fs::write(self.path("other"), contents).expect("a file");
        fs::rename(self.path("other"), self.path(name)).expect("a name");
    }
}

/// Which file stands there now; outputs are written beside it and then take the name.
fn file_at(path: &Path) -> Option<(u64, SystemTime)> {
    let about = fs::metadata(path).ok()?;
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(&about);
    #[cfg(not(unix))]
    let number = about.len();
    Some((number, about.modified().ok()?))
}

/// The time from the beginning of `save` until the first byte of another output can be read.
fn until_output(out: &Path, save: impl FnOnce()) -> Duration {
    let before = file_at(out);
    let begun = Instant::now();
    save();
    while begun.elapsed() < Duration::from_secs(60) {
        if file_at(out).is_some_and(|now| Some(now) != before) {
            let mut byte = [0];
            let read = fs::File::open(out).and_then(|mut file| file.read_exact(&mut byte));
            read.expect("the first byte");
            return begun.elapsed();
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    panic!("no new output within a minute");
}

/// A watch under way, killed at the end.
struct Watching(Child);

impl Watching {
    fn start(place: &Place) -> Self {
        let mut command = place.kino(&["watch", "g.ron", "--json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("its lines")).lines();
        let (waiting, waited) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains("\"event\":\"waiting\"") {
                    let _ = waiting.send(());
                }
            }
        });
        waited.recv().expect("it waits for changes");
        Watching(child)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures edits one after the other, each once the one before has come to rest.
fn edits(mut one: impl FnMut(u32) -> Duration) -> Vec<Duration> {
    let measure = |edit| {
        std::thread::sleep(Duration::from_millis(60));
        one(edit)
    };
    (0..EDITS).map(measure).collect()
}

fn watched(save: impl Fn(&Place, u32)) -> Vec<Duration> {
    let place = Place::new();
    let _watching = Watching::start(&place);
    edits(|edit| until_output(&place.out(), || save(&place, edit)))
}

/// A plugin as a component whose every build is another one: a section is appended that only its
/// number tells apart.
fn component(edit: u32) -> Vec<u8> {
    let costs = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/costs/costs.wasm");
    let mut bytes = fs::read(costs).expect("the component");
    let name = b"build";
    bytes.extend([0, 1 + name.len() as u8 + 4, name.len() as u8]);
    bytes.extend(name);
    bytes.extend(edit.to_le_bytes());
    bytes
}

/// The picture goes through a node of a plugin, of which a new build appears again and again.
fn rebuilt() -> Vec<Duration> {
    let place = Place::new();
    let plain = graph(300).replace("\"frames\": \"small\"", "\"frames\": \"gain\"");
    let node = r#""gain": (op: "costs.gain", in: {"frames": "small"}, with: {"gain": 0.5}),"#;
    let text = plain.replacen("nodes: {", &format!("nodes: {{ {node}"), 1);
    let lock = r#"Lock(version: 1, plugins: {"costs": (dev: "costs", kind: wasm)})"#;
    let manifest = r#"Plugin(id: "costs", version: "1.0.0", nodes: ["costs.empty", "costs.gain"],
        wasm: "costs.wasm")"#;
    fs::create_dir(place.path("costs")).expect("a folder");
    fs::write(place.path("costs/plugin.ron"), manifest).expect("a manifest");
    fs::write(place.path("costs/costs.wasm"), component(0)).expect("a component");
    fs::write(place.path("kino.lock.ron"), lock).expect("a lock");
    fs::write(place.path("g.ron"), text).expect("a graph");
    let _watching = Watching::start(&place);
    edits(|edit| {
        let build = component(edit + 1);
        until_output(&place.out(), || place.replace("costs/costs.wasm", &build))
    })
}

/// The same edits by `kino run`: a process each.
fn a_process_each() -> Vec<Duration> {
    let place = Place::new();
    edits(|edit| {
        fs::write(place.path("g.ron"), graph(40 + edit)).expect("a graph");
        let mut child = None;
        let took = until_output(&place.out(), || {
            let mut command = place.kino(&["run", "g.ron", "--quiet"]);
            child = command.stdout(Stdio::null()).spawn().ok();
        });
        let ended = child.map(|mut child| child.wait().expect("it ends"));
        assert!(ended.is_some_and(|status| status.success()));
        took
    })
}

struct NoGraphs;

impl GraphLoader for NoGraphs {
    fn read(&self, _: &str) -> Result<String, String> {
        Err("there are no other graphs".to_owned())
    }
}

/// What the edits cost alone: check, plan and run within this process, results in memory.
fn work_alone() -> Vec<Duration> {
    let place = Place::new();
    let folders = Folders { graph: place.0.path().to_owned(), out: place.path("out") };
    let options = RuntimeOptions { memory_budget: 1 << 30, ..RuntimeOptions::default() };
    let runtime = Bench::new(folders, options);
    let draw = |_: &str| 0;
    let settings = PlanSettings {
        inputs: &[],
        until: None,
        versions: b"bench",
        machine: &Vec::new,
        draw: &draw,
        stem: "g",
        number: None,
        locate: None,
    };
    edits(|edit| {
        let text = graph(40 + edit);
        until_output(&place.out(), || {
            let catalog = runtime.catalog();
            let graph = kino_graph::check("g.ron", &text, &catalog, &NoGraphs).expect("a graph");
            let plan = graph.plan(&catalog, &settings).expect("a plan");
            let report = runtime.run_with(&plan, plan.embedded_workflow(), &|_| {});
            assert!(report.is_complete());
        })
    })
}

/// What watching costs alone: from saving until the change is reported.
fn notice_alone() -> Vec<Duration> {
    let place = Place::new();
    let (send, reports) = mpsc::channel();
    let report = move |_| {
        let _ = send.send(Instant::now());
    };
    let watch = FileWatch::start(report).expect("a watch");
    watch.set([place.path("g.ron")]);
    edits(|edit| {
        let begun = Instant::now();
        fs::write(place.path("g.ron"), graph(40 + edit)).expect("a graph");
        reports.recv().expect("a report").duration_since(begun)
    })
}

fn row(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    println!("{what:<62} {:>9} {:>9}", ms(at(0.5)), ms(at(0.95)));
}

fn main() {
    println!(
        "From save to the first byte of the new output, {EDITS} edits each; the graph reads a"
    );
    println!("picture of 96×64, resizes it to the edited width and writes it.\n");
    println!("{:<62} {:>9} {:>9}", "", "median", "95%");
    let write = |place: &Place, edit| {
        fs::write(place.path("g.ron"), graph(40 + edit)).expect("a graph");
    };
    row("kino watch: graph written", watched(write));
    let replace = |place: &Place, edit| place.replace("g.ron", graph(40 + edit).as_bytes());
    row("kino watch: graph replaced by another file", watched(replace));
    let input = |place: &Place, edit| place.replace("photo.png", &photo(100 + edit as u8));
    row("kino watch: picture replaced by another file", watched(input));
    row("kino watch: component of a plugin rebuilt (compiled anew)", rebuilt());
    println!("floor:");
    let patience = FileWatch::DEBOUNCE.as_millis();
    row(&format!("  save → reported ({patience} ms of it wait for others)"), notice_alone());
    row("  check, plan, run → first byte, in process", work_alone());
    row("for comparison: kino run, process start → first byte", a_process_each());
}
