//! Logs to the error stream, and the trace file. Neither exists unless asked for; warnings always
//! show.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use indicatif::MultiProgress;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_chrome::{ChromeLayerBuilder, FlushGuard, TraceStyle};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::failure::Failure;
use crate::screen::Screen;
use crate::terminal;

/// Writes to the error stream; bars step aside.
#[derive(Clone)]
struct BesideBars {
    bars: Option<MultiProgress>,
    has_colours: bool,
}

struct Entry<'a>(&'a BesideBars);

impl Write for Entry<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A line comes as a whole.
        let line = String::from_utf8_lossy(bytes);
        let write = || terminal::tell(&line, self.0.has_colours);
        match &self.0.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for BesideBars {
    type Writer = Entry<'a>;

    fn make_writer(&'a self) -> Entry<'a> {
        Entry(self)
    }
}

/// Starts logging, and tracing if a file is given; the trace is complete once the guard is dropped.
///
/// # Errors
/// When KINO_LOG is no filter, or the trace file cannot be made.
pub(crate) fn start(
    screen: &Screen,
    verbose: u8,
    trace: Option<&Path>,
    bars: Option<MultiProgress>,
) -> Result<Option<FlushGuard>, Failure> {
    let (chrome, guard) = match trace {
        Some(path) => {
            let file = File::create(path).map_err(|error| {
                Failure::world(format!("{} cannot be written: {error}", path.display()))
            })?;
            let builder = ChromeLayerBuilder::new().writer(BufWriter::new(file));
            let builder = builder.include_args(true).trace_style(TraceStyle::Threaded);
            let (layer, guard) = builder.build();
            (Some(layer.with_filter(ours(Level::DEBUG))), Some(guard))
        }
        None => (None, None),
    };
    let lines = tracing_subscriber::fmt::layer()
        .without_time()
        .with_target(verbose > 1)
        .with_ansi(screen.err.0)
        .with_writer(BesideBars { bars, has_colours: screen.err.0 })
        .with_filter(filter(verbose)?);
    // Another subscriber can only be there in tests; then it stays.
    let _ = tracing_subscriber::registry().with(chrome).with(lines).try_init();
    Ok(guard)
}

/// Our own crates at a level, others only with warnings.
fn ours(level: Level) -> Targets {
    Targets::new().with_default(LevelFilter::WARN).with_target("kino", level)
}

fn filter(verbose: u8) -> Result<Targets, Failure> {
    if let Some(text) = std::env::var_os("KINO_LOG").filter(|text| !text.is_empty()) {
        let text = text.to_string_lossy();
        return text.parse().map_err(|error| {
            Failure::usage(format!("KINO_LOG={text}: {error}"))
                .hint("write a level such as debug, or TARGET=LEVEL with commas between")
        });
    }
    Ok(match verbose {
        0 => ours(Level::WARN),
        1 => ours(Level::DEBUG),
        _ => Targets::new().with_default(LevelFilter::DEBUG).with_target("kino", Level::TRACE),
    })
}

/// Whether the environment asks for logs.
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os("KINO_LOG").is_some_and(|text| !text.is_empty())
}
