//! Nodes without a graph: inputs by name, defaults filled in, infers and runs.
#![allow(dead_code, unreachable_pub)] // each test file uses a part

pub mod flux;
pub mod single;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor};
use kino_models::families::Families;
use kino_models::model::Family;
use kino_node::{Cancel, Cx, Error, Inputs, Ledger, NodeDef, Outputs, Progress, Services, Value};
use kino_nodes::Models;
use kino_port::{Fact, Facts, Literal, PlanError, StepInfo};
use kino_world::Folders;

/// A node of the list.
#[track_caller]
pub fn node(name: &str) -> &'static NodeDef {
    let found = kino_nodes::NODES.iter().find(|node| node.signature.name == name);
    found.unwrap_or_else(|| panic!("there is no node `{name}`"))
}

/// A file or folder of reference values.
pub fn reference(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/ref")).join(path)
}

/// Services, a folder for outputs, and what was reported.
pub struct Rig {
    pub services: Services,
    pub out: PathBuf,
    pub cancel: Cancel,
    pub reports: Mutex<Vec<Progress>>,
}

impl Rig {
    /// Inputs are relative to the reference values; outputs go to a folder of this test's own.
    pub fn new(name: &str) -> Self {
        Rig::at(name, &reference(""))
    }

    pub fn at(name: &str, graph: &Path) -> Self {
        let out = std::env::temp_dir().join(format!("kino-nodes-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&out);
        let ledger = Ledger::new(u64::MAX);
        let folders = Folders { graph: graph.to_owned(), out: out.clone() };
        let services = kino_nodes::services(Device::Cpu, ledger).with(Arc::new(folders));
        Rig { services, out, cancel: Cancel::default(), reports: Mutex::default() }
    }

    /// A rig whose models know one family more.
    pub fn with_family(name: &str, family: Arc<dyn Family>) -> Self {
        let mut rig = Rig::new(name);
        let families = Families::default().with(family);
        let models = Models::with_families(Device::Cpu, Arc::clone(&rig.services.ledger), families);
        let none = Services::new(Device::Cpu, Ledger::new(0));
        rig.services = std::mem::replace(&mut rig.services, none).with(models);
        rig
    }

    /// Runs a node; all its outputs are wanted but those that model.load lacks.
    pub fn try_run(&self, op: &str, given: &[(&str, Value)]) -> Result<Outputs, Error> {
        let node = node(op);
        let outputs = node.signature.outputs.iter();
        let wanted: Vec<bool> = outputs.map(|port| port.name != "image_encoder").collect();
        self.try_run_wanted(node, given, &wanted)
    }

    /// The same for some of the outputs.
    fn try_run_wanted(
        &self,
        node: &NodeDef,
        given: &[(&str, Value)],
        wanted: &[bool],
    ) -> Result<Outputs, Error> {
        let signature = &node.signature;
        for (name, _) in given {
            assert!(signature.input(name).is_some(), "{} has no input `{name}`", signature.name);
        }
        let value = |port: &kino_port::Port| {
            let given = given.iter().find(|(name, _)| *name == port.name);
            let default = || port.default.as_ref().map(Value::from_literal);
            given.map(|(_, value)| value.clone()).or_else(default)
        };
        let values: Vec<Option<Value>> = signature.inputs.iter().map(value).collect();
        let mut cx = Cx {
            reads: &[],
            name: "test",
            services: &self.services,
            cancel: &self.cancel,
            record: "Graph(version: 1, nodes: {})",
            wanted,
            report: &|progress| self.reports.lock().unwrap().push(progress),
        };
        (node.run)(&mut cx, &Inputs::new(&signature.inputs, &values))
    }

    #[track_caller]
    pub fn run_wanted(
        &self,
        node: &NodeDef,
        given: &[(&str, Value)],
        wanted: &[bool],
    ) -> Vec<Option<Value>> {
        let ran = self.try_run_wanted(node, given, wanted);
        ran.unwrap_or_else(|error| panic!("{}: {error}", node.signature.name))
    }

    #[track_caller]
    pub fn run(&self, op: &str, given: &[(&str, Value)]) -> Vec<Option<Value>> {
        self.try_run(op, given).unwrap_or_else(|error| panic!("{op}: {error}"))
    }

    /// The first output.
    #[track_caller]
    pub fn one(&self, op: &str, given: &[(&str, Value)]) -> Value {
        self.run(op, given).remove(0).expect("an output")
    }

    /// The message with which a node fails.
    #[track_caller]
    pub fn fails(&self, op: &str, given: &[(&str, Value)]) -> String {
        match self.try_run(op, given) {
            Ok(_) => panic!("{op} did not fail"),
            Err(error) => error.to_string(),
        }
    }

    pub fn infer(&self, op: &str, given: &[(&str, Fact)]) -> Result<StepInfo, Vec<PlanError>> {
        let node = node(op);
        for (name, _) in given {
            assert!(node.signature.input(name).is_some(), "{op} has no input `{name}`");
        }
        let fact = |port: &kino_port::Port| {
            let given = given.iter().find(|(name, _)| *name == port.name);
            let default = || port.default.clone().map(Fact::Literal);
            given.map(|(_, fact)| fact.clone()).or_else(default)
        };
        let ports = node.signature.inputs.iter();
        let entries = ports.map(|port| (port.name.as_ref().into(), fact(port))).collect();
        (node.infer)(&self.services, &Facts::new(entries))
    }

    /// What is known of an output.
    #[track_caller]
    pub fn fact(&self, op: &str, given: &[(&str, Fact)], output: usize) -> Fact {
        let infer = self.infer(op, given).unwrap_or_else(|o| panic!("{op}: {o:?}"));
        infer.outputs.get(output).cloned().unwrap_or_default()
    }

    /// Every error, one a line: `port: message (hint)`.
    #[track_caller]
    pub fn objects(&self, op: &str, given: &[(&str, Fact)]) -> String {
        let line = |error: &PlanError| {
            let port = error.port.as_deref().unwrap_or("-");
            let hint = error.hint.as_ref().map(|hint| format!(" ({hint})"));
            format!("{port}: {}{}", error.message, hint.unwrap_or_default())
        };
        match self.infer(op, given) {
            Ok(_) => panic!("{op} does not object"),
            Err(errors) => errors.iter().map(line).collect::<Vec<_>>().join("\n"),
        }
    }

    /// The parts of a model as values, computing in f32 as the reference values do.
    pub fn model(&self, source: &str) -> Model<Value> {
        let mut parts =
            self.run("model.load", &[("source", text(source)), ("compute", text("f32"))]);
        let mut part = |index: usize| parts[index].take().expect("a part");
        Model { text: part(0), dit: part(2), vae: part(3) }
    }

    /// What is known of a model's parts.
    pub fn model_facts(&self, source: &str) -> Model<Fact> {
        let infer = self
            .infer("model.load", &[("source", known(source)), ("compute", known("f32"))])
            .unwrap();
        let part = |index: usize| infer.outputs[index].clone();
        Model { text: part(0), dit: part(2), vae: part(3) }
    }

    /// A tensor of a reference file.
    #[track_caller]
    pub fn golden(&self, path: &str, name: &str) -> Value {
        self.one("tensor.read", &[("path", text(path)), ("name", text(name))])
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.out);
    }
}

#[derive(Clone)]
pub struct Model<T> {
    pub text: T,
    pub dit: T,
    pub vae: T,
}

/// A part of a model.
#[track_caller]
pub fn handle<T: Send + Sync + 'static>(value: &Value) -> Arc<T> {
    let Value::Part(part) = value else { panic!("expected a part") };
    Arc::clone(&part.handle).downcast().unwrap_or_else(|_| panic!("another part"))
}

pub fn text(text: &str) -> Value {
    Value::Text(text.into())
}

pub fn int(value: i128) -> Value {
    Value::Int(value)
}

pub fn named(items: &[(&str, Value)]) -> Value {
    Value::List(items.iter().map(|(name, value)| (Some((*name).into()), value.clone())).collect())
}

pub fn several(items: &[Value]) -> Value {
    Value::List(items.iter().map(|value| (None, value.clone())).collect())
}

/// A text that is known while planning.
pub fn known(text: &str) -> Fact {
    Fact::Literal(Literal::text(text.to_owned()))
}

/// A whole number that is known while planning.
pub fn number(value: i128) -> Fact {
    Fact::Literal(Literal::Int(value))
}

pub fn fact_list(items: &[(&str, Fact)]) -> Fact {
    let name = |name: &str| (!name.is_empty()).then(|| name.into());
    Fact::List(items.iter().map(|(n, fact)| (name(n), fact.clone())).collect())
}

pub fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference; NaN where there is one.
#[track_caller]
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims(), "shapes differ");
    let pairs = values(a).into_iter().zip(values(b));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, |m, d| if d.is_nan() { f64::NAN } else { d.max(m) })
}

/// Fails where `a` is farther than `limit` from `b` anywhere.
#[track_caller]
pub fn close(what: &str, a: &Tensor, b: &Tensor, limit: f64) {
    let distance = distance(a, b);
    println!("{what}: {distance:.2e} of {limit:.0e}");
    assert!(distance <= limit, "{what}: {distance:.3e} is more than {limit:.0e}");
}

/// The JSON beside reference values.
pub fn json(path: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(reference(path)).unwrap()).unwrap()
}

/// Everything by name: what a test compares after a run.
pub type ByName = HashMap<String, Tensor>;

/// A copy of a small checkpoint.
pub struct Copied(pub PathBuf);

impl Copied {
    pub fn new(name: &str) -> Self {
        Copied::of(&reference("wan_t2v/model"), name)
    }

    pub fn of(from: &Path, name: &str) -> Self {
        let to = std::env::temp_dir().join(format!("kino-copied-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&to);
        copy(from, &to);
        Copied(to)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub fn vae(&self) -> PathBuf {
        self.0.join("vae/diffusion_pytorch_model.safetensors")
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}
