//! Is this engine faster than torch and ggml on the same machine, and in less memory? The same work
//! is done in turns by this program and by diffusers on torch or stable-diffusion.cpp, each in a
//! process of its own; `README.md` says how, and what came out.
//!
//! `cargo build --release && cargo bench --bench peer -- --python PYTHON [--quick]`

mod chart;
mod clip;
mod growth;
mod results;
mod serve;
mod sides;
mod works;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use clip::Clips;
use growth::Growth;
use results::{Found, Measured, Origin};
use sides::{Result, Side, Spent};
use works::{Job, Kind, Model, Peer, Work};

/// The command's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
Times works side by side with diffusers on torch and stable-diffusion.cpp, and
draws how cost grows.

  --python PATH      the Python that has the peers' packages (README.md);
                     else KINO_BENCH_PYTHON, else python3
  --quick            small sizes, once: about a minute, for whoever changes
                     this program
  --only PATTERN     only works whose name, type, threads and peer hold this
                     text (\"decode\", \"bf16\", \"1 thread\", \"diffusion.cpp\",
                     \"growth tokens\"); other rows of the results stay
  --repeat N         at most so many pairs of a work (5); a work of many
                     seconds has fewer
  --minutes N        begin no work that would end later than this (25); what
                     was not reached says so in its row
  --continue         keep the rows that this machine measured of this commit,
                     and measure those that are missing
  --out FOLDER       where results.json and the curves go; unless it is said,
                     beside this program's source, and with --quick in
                     target/peer
  --table            print the table of the results that are there, and end";

struct Options {
    python: PathBuf,
    quick: bool,
    only: Option<String>,
    repeat: usize,
    minutes: f64,
    resume: bool,
    out: PathBuf,
    table: bool,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let python = std::env::var_os("KINO_BENCH_PYTHON").unwrap_or("python3".into());
        let mut options = Self {
            python: python.into(),
            quick: false,
            only: None,
            repeat: 5,
            minutes: 25.0,
            resume: false,
            out: PathBuf::new(),
            table: false,
        };
        let mut out = None;
        while let Some(word) = words.next() {
            let mut value =
                || words.next().ok_or_else(|| format!("{word} needs a value\n\n{USAGE}"));
            let wrong = |error: &dyn std::fmt::Display| format!("{word}: {error}");
            match &*word {
                "--python" => options.python = value()?.into(),
                "--quick" => options.quick = true,
                "--continue" => options.resume = true,
                "--only" => options.only = Some(value()?.to_lowercase()),
                "--repeat" => options.repeat = value()?.parse().map_err(|e| wrong(&e))?,
                "--minutes" => options.minutes = value()?.parse().map_err(|e| wrong(&e))?,
                "--out" => out = Some(value()?.into()),
                "--table" => options.table = true,
                // What cargo tells every bench.
                "--bench" => {}
                _ => return Err(format!("{word} is no option\n\n{USAGE}")),
            }
        }
        let own = kino_tests::root().join("tests/benches/peer");
        let scratch = kino_tests::root().join("target/peer");
        options.out = out.unwrap_or(if options.quick { scratch } else { own });
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.to_lowercase().contains(only))
    }
}

struct Bench {
    options: Options,
    begun: Instant,
    origin: Origin,
    rows: Vec<Value>,
    /// The most operations a processor second that any matrix product reached, by type and threads.
    peaks: HashMap<(&'static str, usize), f64>,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words == ["--serve"] {
        return serve::serve();
    }
    if words.iter().any(|word| word == "--help") {
        return println!("{USAGE}");
    }
    let done = Options::read(words.into_iter()).and_then(bench);
    if let Err(error) = done {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn bench(options: Options) -> Result<()> {
    let path = options.out.join("results.json");
    if options.table {
        print!("{}", results::table(&results::read(&path)?));
        return Ok(());
    }
    std::fs::create_dir_all(&options.out).map_err(|error| error.to_string())?;
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    // A process that hangs would hold up everything.
    sides::end_at(begun + Duration::from_secs_f64(60.0 * options.minutes + 120.0));
    let origin = Origin { machine: machine(all), commit: commit() };
    let mut rows = match options.resume || options.only.is_some() {
        true => results::read(&path)?,
        false => Vec::new(),
    };
    if options.resume && options.only.is_none() {
        rows.retain(|row| origin.has_measured(row));
    }
    let mut bench = Bench { rows, begun, origin, peaks: HashMap::new(), options };
    println!("{}, {}", bench.origin.machine, bench.origin.commit);
    let jobs = works::jobs(bench.options.quick, all);
    let order: Vec<Value> = jobs.iter().flat_map(|job| bench.named(job)).collect();
    for (index, job) in jobs.into_iter().enumerate() {
        // Curves before what is dear.
        if index == works::BEFORE_CURVES {
            bench.curves(all);
        }
        bench.job(job, &path)?;
    }
    if bench.options.quick {
        bench.curves(all);
    }
    bench.rows.sort_by_key(|row| {
        order.iter().position(|other| results::is_same(row, other)).unwrap_or(order.len())
    });
    results::write(&path, &bench.rows)?;
    let table = results::table(&bench.rows);
    println!("\n{table}");
    let readme = bench.options.out.join("README.md");
    if readme.is_file() {
        results::put_into(&readme, &format!("{}\n\n{table}", bench.origin.machine))?;
    }
    println!("{:.0} s; {}", bench.begun.elapsed().as_secs_f64(), path.display());
    Ok(())
}

/// What the figures were taken on.
fn machine(threads: usize) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split(':').nth(1)).map(str::trim);
        value.unwrap_or("?").to_owned()
    };
    let cpu = read("/proc/cpuinfo");
    let memory: f64 =
        field(&read("/proc/meminfo"), "MemTotal").replace(" kB", "").parse().unwrap_or(0.0);
    format!(
        "{} (family {}, model {}), {threads} threads, {}, {:.0} GiB",
        field(&cpu, "model name"),
        field(&cpu, "cpu family"),
        field(&cpu, "model\t"),
        kino_kernels::tier(),
        memory / f64::from(1 << 20)
    )
}

/// Of which state of the source.
fn commit() -> String {
    let mut git = std::process::Command::new("git");
    let said =
        git.arg("-C").arg(kino_tests::root()).args(["rev-parse", "--short", "HEAD"]).output();
    let said = said.ok().filter(|said| said.status.success());
    let text = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
    text.unwrap_or_else(|| "unknown".to_owned())
}

impl Bench {
    /// Seconds until no work may run any more.
    fn left(&self) -> f64 {
        60.0 * self.options.minutes - self.begun.elapsed().as_secs_f64()
    }

    /// Runs the works of a job that are wanted and for which there is time, and writes their rows.
    fn job(&mut self, mut job: Job, path: &Path) -> Result<()> {
        let full = |model: &Model, work: &Work| {
            let threads = if work.threads == 1 { "1 thread" } else { "all threads" };
            format!("{}, {}, {threads}, {}", work.name, model.dtype(), model.peer.name())
        };
        job.works.retain(|work| self.options.wants(&full(&job.model, work)));
        if self.options.resume {
            let done = |row: &Value, work: &Work| {
                self.is_row(row, &job.model, work) && self.origin.has_measured(row)
            };
            job.works.retain(|work| !self.rows.iter().any(|row| done(row, work)));
        }
        if job.works.is_empty() {
            return Ok(());
        }
        println!("\n{} beside {}", job.model.dtype(), job.model.peer.name());
        if self.left() < 0.0 {
            return job.works.iter().try_for_each(|work| self.skip(&job.model, work, path));
        }
        let mut rest = job.works.clone().into_iter();
        let done = match job.model.kind {
            Kind::Clip => self.clips(&job, &mut rest, path),
            _ => self.in_turns(&job, &mut rest, path),
        };
        // What fails before a work begins fails for all that remain.
        if let Err(error) = done {
            for work in rest {
                self.keep(&job.model, &work, &Err(error.clone()), path)?;
            }
        }
        Ok(())
    }

    /// Names a work for which there was no time, unless it has a row from before.
    fn skip(&mut self, model: &Model, work: &Work, path: &Path) -> Result<()> {
        if self.rows.iter().any(|row| self.is_row(row, model, work)) {
            println!("  {}, {} threads: no time left, its row stays", work.name, work.threads);
            return Ok(());
        }
        self.keep(model, work, &Err("not measured: no time left".to_owned()), path)
    }

    /// The rows of a job, without figures.
    fn named(&self, job: &Job) -> Vec<Value> {
        let row = |work| results::named(&job.model, work, &self.origin);
        job.works.iter().map(row).collect()
    }

    /// Whether this is the row of a work.
    fn is_row(&self, row: &Value, model: &Model, work: &Work) -> bool {
        results::is_same(row, &results::named(model, work, &self.origin))
    }

    fn keep(
        &mut self,
        model: &Model,
        work: &Work,
        found: &Result<Found>,
        path: &Path,
    ) -> Result<()> {
        let row = results::row(model, work, found, &self.origin);
        match found {
            Ok(_) => println!(
                "  {}, {} threads: ours {} s, peer {} s, ratio {}, share {}, {} and {} MiB, \
                 differ by {}{}",
                work.name,
                work.threads,
                row["ours_cpu_s"],
                row["peer_cpu_s"],
                row["ratio"],
                row["peak_share"],
                row["ours_extra_mib"],
                row["peer_extra_mib"],
                row["difference"],
                row["error"].as_str().map(|error| format!(": {error}")).unwrap_or_default(),
            ),
            Err(error) => println!("  {}, {} threads: {error}", work.name, work.threads),
        }
        results::replace(&mut self.rows, row);
        results::write(path, &self.rows)
    }

    /// Whether a work would end in time: by its operations, at the share of the peak that is usual.
    fn has_time(&self, model: &Model, work: &Work) -> bool {
        let peak = self.peaks.get(&(model.compute, work.threads));
        let guess = match (work.operations, peak) {
            (Some(operations), Some(peak)) => {
                let once = operations / (peak * work.threads as f64);
                once * (2.0 + model.peer.cost())
            }
            _ => 10.0,
        };
        guess < self.left()
    }

    /// Computes works in turns: both processes stay, but for ours where the threads change.
    fn in_turns(
        &mut self,
        job: &Job,
        rest: &mut impl Iterator<Item = Work>,
        path: &Path,
    ) -> Result<()> {
        let model = &job.model;
        for work in &job.works {
            self.find_peak(model.compute, work.threads)?;
        }
        let temporary = tempfile::tempdir().map_err(|error| error.to_string())?;
        let folder = match model.kind.weights() {
            Some(_) => temporary.path().join("model"),
            None => kino_tests::root().join("nodes/shapes/model"),
        };
        let all = job.works.iter().map(|work| work.threads).max().unwrap_or(1);
        let mut peer = Side::peer(&self.options.python, &model.peer.script(), all)?;
        if let Some(weights) = model.kind.weights() {
            peer.ask(&json!({
                "do": "make", "kind": weights, "form": model.form, "layers": model.layers,
                "folder": folder
            }))?;
        }
        let load = json!({
            "do": "load", "kind": model.kind.name(), "form": model.form,
            "compute": model.compute, "folder": folder
        });
        peer.load(&load)?;
        let mut ours: Option<Side> = None;
        for work in rest {
            if !self.has_time(model, &work) {
                self.skip(model, &work, path)?;
                continue;
            }
            let found = self.one(model, &work, (&load, temporary.path()), &mut ours, &mut peer);
            if found.is_err() {
                // Whatever state it is in.
                ours = None;
            }
            self.keep(model, &work, &found, path)?;
        }
        Ok(())
    }

    /// Has our side ready with the threads of a work, and measures it.
    fn one(
        &self,
        model: &Model,
        work: &Work,
        (load, folder): (&Value, &Path),
        ours: &mut Option<Side>,
        peer: &mut Side,
    ) -> Result<Found> {
        if peer.threads() != work.threads {
            match model.peer {
                Peer::Torch => peer.set_threads(work.threads)?,
                // Its threads are settled when it loads a model, and it does not live through a
                // second one.
                Peer::StableDiffusionCpp => {
                    let script = model.peer.script();
                    *peer = Side::peer(&self.options.python, &script, work.threads)?;
                    peer.load(load)?;
                }
            }
        }
        if ours.as_ref().is_none_or(|side| side.threads() != work.threads) {
            // The first goes before the second is loaded.
            *ours = None;
            let mut side = Side::ours(work.threads)?;
            side.load(load)?;
            *ours = Some(side);
        }
        let ours = ours.as_mut().ok_or("our side is gone")?;
        self.pairs(model, work, [ours, peer], folder)
    }

    /// Measures a work in turns, and holds the results of both against each other.
    fn pairs(
        &self,
        model: &Model,
        work: &Work,
        [ours, peer]: [&mut Side; 2],
        folder: &Path,
    ) -> Result<Found> {
        let file = folder.join("input.safetensors");
        peer.ask(&json!({
            "do": "make_input", "kind": model.kind.name(), "size": work.size, "file": file
        }))?;
        let input = json!({ "do": "input", "file": file });
        ours.ask(&input)?;
        peer.ask(&input)?;
        let theirs = |peer: &mut Side| match model.peer {
            Peer::Torch => peer.computed(),
            Peer::StableDiffusionCpp => peer.computed_by_steps(),
        };
        let (mut least, mut pairs, begun) = (None::<[Spent; 2]>, 0, Instant::now());
        let mut difference = f64::NAN;
        while self.goes_on(pairs, begun) {
            let pair = if pairs % 2 == 0 {
                let own = ours.computed()?;
                [own, theirs(peer)?]
            } else {
                let other = theirs(peer)?;
                [ours.computed()?, other]
            };
            least = Some(match least {
                None => pair,
                Some([a, b]) => [pair[0].least(a), pair[1].least(b)],
            });
            if pairs == 0 {
                let [a, b] = ["ours", "peer"].map(|name| folder.join(format!("{name}.out")));
                ours.ask(&json!({ "do": "save", "file": a }))?;
                peer.ask(&json!({ "do": "save", "file": b }))?;
                if model.peer == Peer::StableDiffusionCpp {
                    // It shows less than it computes: the same of ours.
                    peer.ask(&json!({ "do": "shown", "file": a }))?;
                }
                difference = results::difference(&a, &b)?;
            }
            pairs += 1;
        }
        let [a, b] = least.ok_or("nothing was measured")?;
        Ok(Found {
            ours: Measured { spent: a, extra: ours.extra(a.peak) },
            peer: Measured { spent: b, extra: peer.extra(b.peak) },
            difference,
            pairs,
            share: self.share(model, work, a.cpu),
        })
    }

    /// Whether another pair is measured: one always, more while that takes a few seconds.
    fn goes_on(&self, pairs: usize, begun: Instant) -> bool {
        let most = if self.options.quick { 1 } else { self.options.repeat };
        pairs == 0 || (pairs < most && begun.elapsed().as_secs_f64() < 10.0)
    }

    fn share(&self, model: &Model, work: &Work, cpu: f64) -> Option<f64> {
        let peak = self.peaks.get(&(model.compute, work.threads))?;
        Some(work.operations? / (cpu * peak))
    }

    /// Measures the best matrix product of a type, ours or the peer's, unless that is known.
    fn find_peak(&mut self, compute: &'static str, threads: usize) -> Result<()> {
        if self.peaks.contains_key(&(compute, threads)) {
            return Ok(());
        }
        let ours = Side::ours(threads)?;
        let peer = Side::peer(&self.options.python, &Peer::Torch.script(), threads)?;
        let (mut sides, mut best) = ([ours, peer], [0f64; 2]);
        let (products, rounds): (&[([usize; 3], usize)], usize) = match self.options.quick {
            true => (&[([1024; 3], 5)], 1),
            false => (&[([1024; 3], 20), ([2048; 3], 3), ([3120, 8960, 1536], 1)], 3),
        };
        for (size, times) in products {
            let of = |times: usize| json!({ "do": "product", "compute": compute, "size": size, "times": times });
            for side in &mut sides {
                side.ask(&of(1))?;
            }
            for _ in 0..rounds {
                for (side, best) in sides.iter_mut().zip(&mut best) {
                    let cpu = side.timed(&of(*times))?.cpu.max(0.01);
                    let operations = 2.0 * size.iter().product::<usize>() as f64 * *times as f64;
                    *best = best.max(operations / cpu);
                }
            }
        }
        let [own, other] = best.map(|rate| rate / 1e9);
        println!(
            "best product in {compute}, {threads} threads: ours {own:.0}, peer's {other:.0} GFLOP \
             a processor second"
        );
        self.peaks.insert((compute, threads), best[0].max(best[1]));
        Ok(())
    }

    /// The embedded model from process start to file.
    fn clips(
        &mut self,
        job: &Job,
        rest: &mut impl Iterator<Item = Work>,
        path: &Path,
    ) -> Result<()> {
        let temporary = tempfile::tempdir().map_err(|error| error.to_string())?;
        for work in rest {
            let clips = Clips {
                folder: temporary.path(),
                python: &self.options.python,
                script: &Peer::Torch.script(),
                threads: work.threads,
            };
            let found = self.clip_pairs(&clips, &work);
            self.keep(&job.model, &work, &found, path)?;
        }
        Ok(())
    }

    fn clip_pairs(&self, clips: &Clips<'_>, work: &Work) -> Result<Found> {
        let noise = clips.folder.join(clip::NOISE);
        let mut maker = Side::peer(clips.python, clips.script, 1)?;
        maker.ask(&json!({
            "do": "make_input", "kind": "sampling", "size": work.size, "file": noise
        }))?;
        drop(maker);
        let (ours, peer) = (clips.ours(true)?.1, clips.peer(true)?.1);
        let difference = results::difference(&ours, &peer)?;
        let (mut least, mut pairs, begun) = (None::<[Spent; 2]>, 0, Instant::now());
        while self.goes_on(pairs, begun) {
            let pair = [clips.ours(false)?.0, clips.peer(false)?.0];
            least = Some(match least {
                None => pair,
                Some([a, b]) => [pair[0].least(a), pair[1].least(b)],
            });
            pairs += 1;
        }
        let [a, b] = least.ok_or("nothing was measured")?;
        // Of whole programs all memory counts.
        let measured = |spent: Spent| Measured { spent, extra: spent.peak };
        Ok(Found { ours: measured(a), peer: measured(b), difference, pairs, share: None })
    }

    /// Measures and draws how cost grows.
    fn curves(&self, threads: usize) {
        let growth = Growth {
            python: &self.options.python,
            script: &Peer::Torch.script(),
            threads,
            quick: self.options.quick,
        };
        // By which a run that is continued finds it drawn, too.
        let origin = chart::origin_line(&self.origin);
        for name in growth::NAMES.iter().filter(|n| self.options.wants(&format!("growth {n}"))) {
            let path = self.options.out.join(format!("{name}.svg"));
            let before = std::fs::read_to_string(&path).unwrap_or_default();
            if self.options.resume && before.contains(&origin) {
                continue;
            }
            if self.left() < 0.0 {
                println!("growth with {name}: no time left");
                continue;
            }
            let drawn = growth.curve(name).and_then(|curve| {
                std::fs::write(&path, curve.svg(&origin)).map_err(|error| error.to_string())?;
                Ok(curve)
            });
            match drawn {
                Ok(curve) => println!(
                    "growth with {name}: {:?}, within {:.0}% of the law",
                    curve.points,
                    100.0 * curve.deviation()
                ),
                Err(error) => println!("growth with {name}: {error}"),
            }
        }
    }
}
