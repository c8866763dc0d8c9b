//! What a plugin says of its nodes, and what the engine can do with one. Written by the macros;
//! authors need none of it.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

pub use crate::literal::Bounds;
use crate::port::Input;
pub use crate::port::PortSpec;
use crate::{Cx, Error, Result, SamplingStep, Value, ValueKind};

/// A node of a plugin.
pub trait Node: 'static {
    /// What graphs write as `op`.
    const ID: &'static str;

    /// What it says of itself.
    fn spec() -> NodeSpec;

    /// Makes an instance, from the state of an earlier build's instance if there is one.
    ///
    /// # Errors
    /// When the node's own code fails.
    fn open(cx: &mut Cx, saved: Option<&[u8]>) -> Result<Box<dyn Instance>>;
}

/// An instance of a node.
pub trait Instance: Send {
    /// Computes outputs from inputs, both in the order of the ports.
    ///
    /// # Errors
    /// When the node's own code fails.
    fn run(&mut self, cx: &mut Cx, inputs: &mut [Option<Value>]) -> Result<Vec<Option<Value>>>;

    /// The state for a newer build.
    ///
    /// # Errors
    /// When the node's own code fails.
    fn save(&mut self, _cx: &mut Cx) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// Makes an instance of a node, perhaps from the state of an earlier build's.
pub type Open = fn(&mut Cx, Option<&[u8]>) -> Result<Box<dyn Instance>>;

/// A node as an entry of a plugin's list.
pub struct NodeDef {
    /// What graphs write as `op`.
    pub id: &'static str,
    /// What it says of itself.
    pub spec: fn() -> NodeSpec,
    /// Makes an instance.
    pub open: Open,
}

impl NodeDef {
    /// The entry for a node.
    pub const fn of<N: Node>() -> Self {
        NodeDef { id: N::ID, spec: N::spec, open: N::open }
    }
}

/// A plugin: a list of nodes, made by [`crate::plugin!`].
pub trait Plugin: 'static {
    /// Its nodes.
    const NODES: &'static [NodeDef];
}

/// The input of an index, or why it does not fit.
///
/// # Errors
/// When nothing or something else feeds it.
pub fn take<T: Input>(inputs: &mut [Option<Value>], index: usize, name: &str) -> Result<T> {
    let value = inputs.get_mut(index).and_then(Option::take);
    T::take(value).map_err(|error| error.at(format!("input `{name}`")))
}

/// A node as the descriptor shows it.
pub struct NodeSpec {
    /// What graphs write as `op`.
    pub id: &'static str,
    /// The version of what it computes.
    pub version: &'static str,
    /// Help.
    pub about: &'static str,
    /// The inputs.
    pub inputs: Vec<PortSpec>,
    /// The outputs.
    pub outputs: Vec<PortSpec>,
    /// What the node's attribute calls its outputs.
    pub names: &'static [&'static str],
    /// `heavy`, `expensive`, `state`, `guider`, where they hold.
    pub traits: &'static [&'static str],
    /// Inputs that must agree: `same_size` or `same_count`, and their names.
    pub agree: &'static [(&'static str, &'static [&'static str])],
}

impl NodeSpec {
    fn check(&self) -> Result<()> {
        for ports in [&self.inputs, &self.outputs] {
            let mut names: Vec<_> = ports.iter().map(PortSpec::name).collect();
            names.sort_unstable();
            for port in ports {
                if let Some(fault) = &port.fault {
                    let (id, name) = (self.id, port.name());
                    return Err(Error::new(format!("port `{name}` of `{id}`: {fault}")));
                }
            }
            if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
                let message = format!("`{}` has two ports called `{}`", self.id, pair[0]);
                return Err(Error::new(message).hint("`outputs(\"a\", \"b\")` names outputs"));
            }
        }
        let found: Vec<_> = self.outputs.iter().map(PortSpec::name).collect();
        if !found.starts_with(self.names) {
            let (id, names, found) = (self.id, self.names.join(", "), found.join(", "));
            let message = format!("`{id}` names the outputs {names}, and gives {found}");
            return Err(
                Error::new(message).hint("name as many as there are, or fields of a struct")
            );
        }
        Ok(())
    }

    fn json(self) -> Json {
        let ports = |ports: Vec<PortSpec>| -> Vec<Json> {
            ports.into_iter().map(|port| Json::Object(port.keys)).collect()
        };
        let mut node = json!({
            "id": self.id,
            "version": self.version,
            "about": self.about,
            "inputs": ports(self.inputs),
            "outputs": ports(self.outputs),
        });
        for name in self.traits {
            node[*name] = Json::Bool(true);
        }
        for (key, inputs) in self.agree {
            node[*key] = json!(inputs);
        }
        node
    }
}

/// The parameters of a guider that say in which part of the run it is asked.
pub fn part_of_run() -> [PortSpec; 2] {
    let end = |name: &str, at: f64, about: &str| {
        PortSpec::input::<f64>(name, about).default_value(at).range(0.0..=1.0)
    };
    [
        end(
            "from",
            0.0,
            "Where in the run it begins to guide; without it the velocity with text counts.",
        ),
        end("to", 1.0, "Where in the run it ends."),
    ]
}

/// The descriptor of some nodes.
///
/// # Errors
/// When two ports of one node, two nodes or two types have one name, outputs are named that it
/// lacks, or a default or range is none of the port's type.
pub fn descriptor(nodes: &[NodeDef]) -> Result<String> {
    let mut types: BTreeMap<String, Json> = BTreeMap::new();
    let mut found: Vec<Json> = Vec::new();
    for def in nodes {
        let mut spec = (def.spec)();
        spec.check()?;
        if found.iter().any(|node| node["id"] == def.id) {
            return Err(Error::new(format!("two nodes have the id `{}`", def.id)));
        }
        for port in spec.inputs.iter_mut().chain(&mut spec.outputs) {
            for (name, told) in port.types.drain(..) {
                if types.get(&name).is_some_and(|known| *known != told) {
                    return Err(Error::new(format!("two structs are the type `{name}`")));
                }
                types.insert(name, told);
            }
        }
        found.push(spec.json());
    }
    let types: Vec<_> = types.into_values().collect();
    Ok(json!({"nodes": found, "types": types}).to_string())
}

/// What `save` of a node may give.
pub trait Saved {
    /// The state, if there is any.
    ///
    /// # Errors
    /// When it could not be saved.
    fn saved(self) -> Result<Option<Vec<u8>>>;
}

impl Saved for Vec<u8> {
    fn saved(self) -> Result<Option<Vec<u8>>> {
        Ok(Some(self))
    }
}

impl Saved for Option<Vec<u8>> {
    fn saved(self) -> Result<Option<Vec<u8>>> {
        Ok(self)
    }
}

impl<T: Saved, E: Into<Error>> Saved for std::result::Result<T, E> {
    fn saved(self) -> Result<Option<Vec<u8>>> {
        self.map_err(Into::into)?.saved()
    }
}

/// The first three inputs of a guider.
///
/// # Errors
/// When something else feeds them.
pub fn sampling_step(inputs: &mut [Option<Value>]) -> Result<SamplingStep> {
    Ok(SamplingStep {
        index: take(inputs, 0, "step")?,
        count: take(inputs, 1, "of")?,
        sigma: take(inputs, 2, "sigma")?,
    })
}

/// Checks that a value is a record of a type.
///
/// # Errors
/// When it is something else.
pub fn expect_record(value: &Value, type_name: &str) -> Result<()> {
    let found = value.type_name();
    if value.kind() == ValueKind::Record && found == type_name {
        return Ok(());
    }
    Err(Error::new(format!("expected a value of type {type_name}, found one of {found}")))
}

/// Why a text is none of the choices.
pub fn no_choice(found: &str, choices: &[&str]) -> Error {
    let choices: Vec<_> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
    Error::new(format!("expected one of {}, found \"{found}\"", choices.join(", ")))
}
