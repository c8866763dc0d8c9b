//! What is stored in written files: a graph that runs again, headed by what it was made with.
//!
//! The head is two comments before the graph's text, the second of them JSON:
//!
//! ```text
//! // Made by kino 0.1.0 on cpu. `kino run` makes it again.
//! // kino-record: {"kino":"0.1.0","device":"cpu","nodes":{"math":"1"},"reads":[]}
//! Graph(…)
//! ```

use std::collections::BTreeMap;

use kino_graph::Plan;
use serde::{Deserialize, Serialize};

const MADE_BY: &str = "// Made by kino ";
const MARK: &str = "// kino-record: ";

/// What a file was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The version of the command.
    pub kino: String,
    /// The kind of device: `cpu`, `cuda`, `metal`.
    pub device: String,
    /// The version of every node that ran.
    pub nodes: BTreeMap<String, String>,
    /// The files and models that were read, as the graph names them, with the hash of each.
    pub reads: Vec<FileRead>,
    /// What services outside have answered, by what identifies each question.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, String>,
}

/// Something that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRead {
    /// Its path as the graph names it.
    pub path: String,
    /// The hash of its contents, in hexadecimal; of long files of weights, of their headers and of
    /// samples of every tensor.
    pub hash: String,
}

impl Provenance {
    /// What a plan is made with now.
    pub fn of(plan: &Plan, device: &str) -> Self {
        let mut nodes = BTreeMap::new();
        for step in &plan.steps {
            // Many steps are of few nodes.
            if !nodes.contains_key(&*step.op) {
                nodes.insert(step.op.to_string(), step.version.to_string());
            }
        }
        let reads = plan.reads().into_iter();
        Provenance {
            kino: env!("CARGO_PKG_VERSION").to_owned(),
            device: device.to_owned(),
            nodes,
            reads: reads
                .map(|read| FileRead { path: read.path.clone(), hash: read.content().to_owned() })
                .collect(),
            answers: BTreeMap::new(),
        }
    }

    /// What makes a run of `now` differ from this one, each in a sentence.
    pub fn differences(&self, now: &Provenance) -> Vec<String> {
        let mut found = Vec::new();
        for was in &self.reads {
            if let Some(is) = now.reads.iter().find(|is| is.path == was.path && is.hash != was.hash)
            {
                found.push(format!("`{}` has changed since this graph was recorded", is.path));
            }
        }
        for (op, was) in &self.nodes {
            if let Some(is) = now.nodes.get(op).filter(|is| *is != was) {
                found.push(format!(
                    "recorded with version {was} of `{op}`, which now has version {is}"
                ));
            }
        }
        if self.device != now.device {
            let (was, is) = (&self.device, &now.device);
            found.push(format!("recorded on {was}, runs on {is}: numbers may differ slightly"));
        }
        found
    }
}

/// The text to be stored: the graph, headed by what it is made with.
pub fn write(graph: &str, made: &Provenance) -> String {
    let json = serde_json::to_string(made).unwrap_or_default();
    let Provenance { kino, device, .. } = made;
    let graph = split(graph).1.trim_end();
    format!("{MADE_BY}{kino} on {device}. `kino run` makes it again.\n{MARK}{json}\n{graph}\n")
}

/// A record with what services outside have answered.
pub fn with_answers(record: &str, answers: &BTreeMap<String, String>) -> String {
    match split(record) {
        (Some(made), graph) => write(graph, &Provenance { answers: answers.clone(), ..made }),
        _ => record.to_owned(),
    }
}

/// What a text says it was made with, and the graph without that head.
pub fn split(text: &str) -> (Option<Provenance>, &str) {
    let mut rest = text;
    let mut made = None;
    while let Some((line, after)) = rest.split_once('\n') {
        if let Some(json) = line.strip_prefix(MARK) {
            made = serde_json::from_str(json.trim_end()).ok();
        } else if !line.starts_with(MADE_BY) {
            break;
        }
        rest = after;
    }
    (made, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Provenance {
        Provenance {
            kino: "0.1.0".into(),
            device: "cpu".into(),
            nodes: [("math".to_owned(), "1".to_owned())].into(),
            reads: vec![FileRead { path: "a\n\"b.png".into(), hash: "00".into() }],
            answers: BTreeMap::new(),
        }
    }

    #[test]
    fn a_record_of_a_record_is_the_same() {
        let graph = "// A comment.\nGraph(version: 1)\n";
        let once = write(graph, &made());
        assert_eq!(split(&once), (Some(made()), graph));
        assert_eq!(write(&once, &made()), once);
        assert_eq!(write(graph.trim_end(), &made()), once, "one end of line, whatever there was");
        assert_eq!(split(graph), (None, graph));
    }

    #[test]
    fn answers_stand_in_the_head() {
        let record = write("Graph(version: 1)\n", &made());
        let answers: BTreeMap<_, _> = [("q".to_owned(), "two\nlines // \"x\"".to_owned())].into();
        let kept = with_answers(&record, &answers);
        let (found, graph) = split(&kept);
        assert_eq!(found.unwrap().answers, answers);
        assert_eq!(graph, "Graph(version: 1)\n");
        assert_eq!(with_answers("no record", &answers), "no record");
    }

    #[test]
    fn what_changed_is_said() {
        let mut now = made();
        assert!(made().differences(&now).is_empty());
        now.reads[0].hash = "01".into();
        now.nodes.insert("math".into(), "2".into());
        now.device = "cuda".into();
        assert_eq!(made().differences(&now).len(), 3);
    }
}
