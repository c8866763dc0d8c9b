//! Rows of results: as JSON, and as the table of the README.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor, safetensors};
use serde_json::{Value, json};

use crate::sides::{Result, Spent};
use crate::works::{Aims, Model, Work};

/// What one side took for a work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) spent: Spent,
    /// Bytes beyond the weights.
    pub(crate) extra: u64,
}

/// What was found of a work.
pub(crate) struct Found {
    pub(crate) ours: Measured,
    pub(crate) peer: Measured,
    /// How far apart the results lie.
    pub(crate) difference: f64,
    /// Pairs of measurements.
    pub(crate) pairs: usize,
    /// Our share of the machine's peak, where operations are counted.
    pub(crate) share: Option<f64>,
}

fn mib(bytes: u64) -> f64 {
    rounded(bytes as f64 / (1 << 20) as f64, 1)
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// Where, and of which state of the source, rows are measured.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) machine: String,
    pub(crate) commit: String,
}

impl Origin {
    /// Whether a row was measured there.
    pub(crate) fn has_measured(&self, row: &Value) -> bool {
        row["machine"] == self.machine.as_str()
            && row["commit"] == self.commit.as_str()
            && row["ratio"].is_number()
            && row["error"].is_null()
    }
}

/// A row without figures.
pub(crate) fn named(model: &Model, work: &Work, origin: &Origin) -> Value {
    json!({
        "work": work.name, "dtype": model.dtype(), "threads": work.threads,
        "peer": model.peer.name(), "ours_cpu_s": null, "peer_cpu_s": null, "ratio": null,
        "peak_share": null, "ours_extra_mib": null, "peer_extra_mib": null,
        "machine": origin.machine, "commit": origin.commit,
    })
}

/// A row of a work that was measured, or the reason why it was not.
pub(crate) fn row(model: &Model, work: &Work, found: &Result<Found>, origin: &Origin) -> Value {
    let mut row = named(model, work, origin);
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            row["error"] = json!(error);
            return row;
        }
    };
    let (ours, peer) = (found.ours, found.peer);
    let ratio = ours.spent.cpu / peer.spent.cpu;
    row["ours_cpu_s"] = json!(rounded(ours.spent.cpu, 3));
    row["peer_cpu_s"] = json!(rounded(peer.spent.cpu, 3));
    row["ours_wall_s"] = json!(rounded(ours.spent.wall, 3));
    row["peer_wall_s"] = json!(rounded(peer.spent.wall, 3));
    row["ratio"] = json!(rounded(ratio, 3));
    row["peak_share"] = json!(found.share.map(|share| rounded(share, 3)));
    row["ours_extra_mib"] = json!(mib(ours.extra));
    row["peer_extra_mib"] = json!(mib(peer.extra));
    row["difference"] = json!(format!("{:.1e}", found.difference));
    row["pairs"] = json!(found.pairs);
    let short = short_of(model.aims(), ratio, found);
    if found.difference.is_nan() || found.difference > model.tolerance() {
        let (found, most) = (found.difference, model.tolerance());
        row["error"] = json!(format!("results differ by {found:.1e}, more than {most:.0e}"));
    }
    if !short.is_empty() {
        row["short"] = json!(short);
    }
    row
}

/// The aims that a row misses.
fn short_of(aims: Aims, ratio: f64, found: &Found) -> Vec<String> {
    let mut short = Vec::new();
    if ratio >= aims.ratio {
        short.push(format!("ratio {ratio:.2}, aim < {}", aims.ratio));
    }
    if let (Some(share), Some(aim)) = (found.share, aims.share)
        && share < aim
    {
        short.push(format!("share {share:.2}, aim {aim}"));
    }
    let memory = found.ours.extra as f64 / found.peer.extra.max(1) as f64;
    if memory >= aims.memory {
        short.push(format!("memory {memory:.2}, aim < {}", aims.memory));
    }
    short
}

/// The root of the mean squared difference of two files' `output`, relative to the second.
pub(crate) fn difference(ours: &Path, peer: &Path) -> Result<f64> {
    let read = |path: &Path| -> candle_core::Result<Tensor> {
        let mut tensors: HashMap<String, Tensor> = safetensors::load(path, &Device::Cpu)?;
        tensors.remove("output").ok_or(candle_core::Error::Msg("no output".into()))
    };
    let read = |path: &Path| read(path).map_err(|error| format!("{}: {error}", path.display()));
    let (ours, peer) = (read(ours)?, read(peer)?);
    if ours.dims() != peer.dims() {
        return Err(format!("ours is {:?}, the peer's {:?}", ours.dims(), peer.dims()));
    }
    let numbers = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    let both = numbers(&ours).and_then(|ours| Ok((ours, numbers(&peer)?)));
    let (ours, peer) = both.map_err(|error| error.to_string())?;
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let gap = squares(&mut ours.iter().zip(&peer).map(|(a, b)| f64::from(a - b)));
    let size = squares(&mut peer.iter().map(|value| f64::from(*value)));
    Ok((gap / size).sqrt())
}

/// Rows as a file.
pub(crate) fn write(path: &Path, rows: &[Value]) -> Result<()> {
    let lines: Vec<String> = rows.iter().map(|row| format!("  {row}")).collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The rows of a file; none where there is no such file.
pub(crate) fn read(path: &Path) -> Result<Vec<Value>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        Err(_) => Ok(Vec::new()),
    }
}

/// Whether two rows are of the same work.
pub(crate) fn is_same(row: &Value, other: &Value) -> bool {
    ["work", "dtype", "threads", "peer"].iter().all(|name| other[*name] == row[*name])
}

/// Puts a row in the place of the same work's, or behind all.
pub(crate) fn replace(rows: &mut Vec<Value>, row: Value) {
    match rows.iter_mut().find(|other| is_same(&row, other)) {
        Some(place) => *place = row,
        None => rows.push(row),
    }
}

/// The table of the README.
pub(crate) fn table(rows: &[Value]) -> String {
    let mut text = String::from(
        "| work | type | threads | beside | ours, CPU s | peer, CPU s | ratio | wall | \
         share of peak | ours, MiB | peer, MiB | differ by | falls short |\n\
         |---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for row in rows {
        let number = |name: &str, digits: usize| match row[name].as_f64() {
            Some(value) => format!("{value:.digits$}"),
            None => "–".to_owned(),
        };
        let walls = row["ours_wall_s"].as_f64().zip(row["peer_wall_s"].as_f64());
        let wall = walls.map_or("–".to_owned(), |(ours, peer)| format!("{:.2}", ours / peer));
        let mut short: Vec<&str> = Vec::new();
        short.extend(row["error"].as_str());
        short.extend(row["short"].as_array().into_iter().flatten().filter_map(Value::as_str));
        // A message may have several lines, and what is a cell's end here.
        let short = short.join("; ").split_whitespace().collect::<Vec<_>>().join(" ");
        let short = short.replace('|', "\\|");
        let name = |name: &str| row[name].as_str().unwrap_or("–").to_owned();
        let cells = [
            name("work"),
            name("dtype"),
            row["threads"].to_string(),
            name("peer"),
            number("ours_cpu_s", 2),
            number("peer_cpu_s", 2),
            number("ratio", 2),
            wall,
            number("peak_share", 2),
            number("ours_extra_mib", 0),
            number("peer_extra_mib", 0),
            name("difference"),
            short,
        ];
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

/// Puts a table between the marks of a text that is there.
pub(crate) fn put_into(path: &Path, table: &str) -> Result<()> {
    let io = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(io)?;
    let [begin, end] = ["<!-- table -->\n", "<!-- end of the table -->"];
    let parts = text.split_once(begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(end)?;
        Some((before, after))
    });
    let Some((before, after)) = parts else {
        return Err(format!("{} has no marks of a table", path.display()));
    };
    std::fs::write(path, format!("{before}{begin}\n{table}\n{end}{after}")).map_err(io)
}
