//! What a plugin says of its nodes, and what the engine can do with one. Written by the macros;
//! authors need none of it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::port::{Input, Output};
use crate::scalars::Literal;
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

/// A range in an attribute: `0.0..=1.0`, `1..`, `..=9`.
pub trait Bounds {
    /// Both ends, null where there is none.
    fn ends(self) -> (Json, Json);
}

impl<T: Literal> Bounds for std::ops::RangeInclusive<T> {
    fn ends(self) -> (Json, Json) {
        let (least, most) = self.into_inner();
        (least.json(), most.json())
    }
}

impl<T: Literal> Bounds for std::ops::RangeFrom<T> {
    fn ends(self) -> (Json, Json) {
        (self.start.json(), Json::Null)
    }
}

impl<T: Literal> Bounds for std::ops::RangeToInclusive<T> {
    fn ends(self) -> (Json, Json) {
        (Json::Null, self.end.json())
    }
}

/// A port as the descriptor shows it.
pub struct PortSpec {
    keys: Map<String, Json>,
    types: Vec<(String, Json)>,
    /// What is wrong with its attributes.
    fault: Option<String>,
}

impl PortSpec {
    fn new(name: &str, ty: String, about: &str) -> Self {
        let mut keys = Map::new();
        keys.insert("name".into(), name.into());
        keys.insert("type".into(), ty.into());
        if !about.is_empty() {
            keys.insert("about".into(), about.into());
        }
        PortSpec { keys, types: Vec::new(), fault: None }
    }

    /// An input.
    pub fn input<T: Input>(name: &str, about: &str) -> Self {
        let mut port = PortSpec::new(name, T::type_name(), about);
        if T::ARITY != "one" {
            port.keys.insert("arity".into(), T::ARITY.into());
        }
        T::describe(&mut port);
        port
    }

    /// An output; without a name it is called as its type is.
    pub fn output<T: Output>(name: &str, about: &str) -> Self {
        let ty = T::type_name();
        let named = if name.is_empty() { snake_case(&ty) } else { name.to_owned() };
        let mut port = PortSpec::new(&named, ty, about);
        let mut of_type = PortSpec::new("", String::new(), "");
        T::describe(&mut of_type);
        port.types = of_type.types;
        port
    }

    fn literal(&self, value: Json) -> Json {
        match (self.keys["type"].as_str(), value.as_f64()) {
            (Some("Real"), Some(number)) => Json::from(number),
            _ => value,
        }
    }

    /// With what it takes unless it is fed.
    #[must_use]
    pub fn default_value(mut self, value: impl Literal) -> Self {
        let value = self.literal(value.json());
        if value.is_null() {
            self.fault = Some("its default is no finite number, or beyond 64 bits".into());
        }
        self.keys.insert("default".into(), value);
        self
    }

    /// With a range, both ends included.
    #[must_use]
    pub fn range(self, range: impl Bounds) -> Self {
        let (least, most) = range.ends();
        self.ends(least, most)
    }

    /// With a range, both ends included; null is no end. A whole number stays within its type.
    #[must_use]
    pub fn ends(mut self, least: Json, most: Json) -> Self {
        let mut ends = [self.literal(least), self.literal(most)];
        if let Some(Json::Array(of_type)) = self.keys.get("range") {
            let int =
                |end: &Json| end.as_i64().map(i128::from).or_else(|| end.as_u64().map(i128::from));
            for (end, of_type) in ends.iter_mut().zip(of_type) {
                // Those of 64 bits say little, and what lies beyond is refused by the type itself.
                let says = int(of_type).is_some_and(|end| end.unsigned_abs() <= 1 << 32);
                if end.is_null() && says {
                    *end = of_type.clone();
                }
            }
            if let [Some(least), Some(most)] = [int(&of_type[0]), int(&of_type[1])]
                && !ends.iter().filter_map(int).all(|end| (least..=most).contains(&end))
            {
                let [from, to] = &ends;
                self.fault = Some(format!(
                    "its range, {from} to {to}, leaves that of its type, {least} to {most}"
                ));
            }
        }
        self.keys.insert("range".into(), json!(ends));
        self
    }

    /// With the range of its type.
    pub fn add_range(&mut self, least: Json, most: Json) {
        self.keys.insert("range".into(), json!([least, most]));
    }

    /// With another key of the descriptor.
    #[must_use]
    pub fn key(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.keys.insert(key.into(), value.into());
        self
    }

    /// With the texts that fit.
    pub fn add_choices(&mut self, choices: &[&str]) {
        self.keys.insert("choices".into(), json!(choices));
    }

    /// With a type of this plugin, and the types of its fields; one that holds itself is told once.
    pub fn add_type(&mut self, name: &str, about: &str, fields: fn() -> Vec<PortSpec>) {
        thread_local! {
            static UNDER_WAY: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
        }
        if UNDER_WAY.with_borrow(|types| types.iter().any(|under_way| under_way == name)) {
            return;
        }
        UNDER_WAY.with_borrow_mut(|types| types.push(name.to_owned()));
        let fields = fields();
        UNDER_WAY.with_borrow_mut(Vec::pop);
        let mut told = Vec::new();
        for mut field in fields {
            self.types.append(&mut field.types);
            told.push(Json::Object(field.keys));
        }
        let told = json!({"name": name, "about": about, "fields": told});
        self.types.push((name.into(), told));
    }

    fn name(&self) -> &str {
        self.keys["name"].as_str().unwrap_or_default()
    }
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
        node
    }
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

/// `ImageConditioning` as `image_conditioning`, `example.depth` as `depth`, a list as its items.
fn snake_case(ty: &str) -> String {
    let ty = ty.strip_prefix("List(").and_then(|ty| ty.strip_suffix(')')).unwrap_or(ty);
    let ty = ty.rsplit('.').next().unwrap_or(ty);
    let mut name = String::new();
    for letter in ty.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
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
