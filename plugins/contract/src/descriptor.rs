//! What a plugin says of its nodes, as signatures. The format is described in
//! `plugins/abi/DESCRIPTOR.md`.

use std::borrow::Cow;
use std::collections::HashSet;

use kino_port::{Arity, Literal, NodeTraits, Port, PortType, Range, Signature};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use crate::agree::{Agree, Agreement};

/// The nodes of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptor {
    /// The nodes, in the plugin's order.
    pub nodes: Vec<NodeSpec>,
    /// The port types of its own.
    pub types: Vec<TypeSpec>,
}

/// A port type of a plugin: a record.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeSpec {
    /// Its name: words with points between them.
    pub name: String,
    /// Help.
    pub about: String,
    /// Its fields, as far as the plugin tells them.
    pub fields: Vec<Port>,
}

/// One node of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSpec {
    /// What it is called, takes and gives. The version is that of the plugin's author.
    pub signature: Signature,
    /// For each output, the index of the input whose size, rate or shape it keeps.
    pub like: Vec<Option<usize>>,
    /// Which inputs' pictures must agree.
    pub agree: Vec<Agreement>,
    /// Whether it has state that is worth keeping between runs.
    pub state: bool,
    /// Whether it makes a guider: its inputs are parameters, and an instance runs once a step.
    pub guider: bool,
}

#[derive(Deserialize)]
struct Written {
    nodes: Vec<WrittenNode>,
    #[serde(default)]
    types: Vec<WrittenType>,
}

#[derive(Deserialize)]
struct WrittenType {
    name: String,
    #[serde(default)]
    about: String,
    #[serde(default)]
    fields: Vec<WrittenPort>,
}

#[derive(Deserialize)]
struct WrittenNode {
    id: String,
    version: String,
    #[serde(default)]
    about: String,
    #[serde(default)]
    inputs: Vec<WrittenPort>,
    #[serde(default)]
    outputs: Vec<WrittenPort>,
    #[serde(default)]
    heavy: bool,
    #[serde(default)]
    expensive: bool,
    #[serde(default)]
    state: bool,
    #[serde(default)]
    guider: bool,
    #[serde(default)]
    same_size: Vec<String>,
    #[serde(default)]
    same_count: Vec<String>,
}

#[derive(Deserialize)]
struct WrittenPort {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    #[serde(default)]
    arity: Option<String>,
    #[serde(default, deserialize_with = "given")]
    default: Option<Json>,
    #[serde(default)]
    range: Option<Vec<Json>>,
    #[serde(default)]
    step: Option<Json>,
    #[serde(default)]
    choices: Vec<String>,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    about: String,
    #[serde(default)]
    draws: bool,
    #[serde(default)]
    named: bool,
    #[serde(default)]
    like: Option<String>,
}

/// A key that is written, if only as null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

impl Descriptor {
    /// Reads a descriptor.
    ///
    /// # Errors
    /// When it is no JSON of that form, or says what cannot be; the message names node and port.
    pub fn read(json: &str) -> Result<Self, String> {
        let fault = |what: String| format!("the plugin's descriptor: {what}");
        let json: Json = serde_json::from_str(json).map_err(|error| fault(error.to_string()))?;
        check_texts(&json, "").map_err(fault)?;
        let written: Written =
            serde_json::from_value(json).map_err(|error| fault(error.to_string()))?;
        let mut ids = HashSet::new();
        let mut nodes = Vec::with_capacity(written.nodes.len());
        for node in written.nodes {
            let id = node.id.clone();
            let fault = |what: String| format!("the descriptor of `{id}`: {what}");
            if !ids.insert(node.id.clone()) {
                return Err(fault("there are two nodes of this id".to_owned()));
            }
            nodes.push(read_node(node).map_err(fault)?);
        }
        let types: Vec<TypeSpec> =
            written.types.into_iter().map(read_type).collect::<Result<_, _>>()?;
        let mut names = HashSet::new();
        if let Some(twice) = types.iter().find(|ty| !names.insert(&ty.name)) {
            return Err(format!("the plugin's descriptor: two types are called `{}`", twice.name));
        }
        Ok(Descriptor { nodes, types })
    }

    /// The port type of this name.
    pub fn type_of(&self, name: &str) -> Option<&TypeSpec> {
        self.types.iter().find(|ty| ty.name == name)
    }

    /// The node of this id.
    pub fn node(&self, id: &str) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.signature.name == id)
    }
}

/// Refuses texts that hold what a terminal obeys instead of showing: they are printed as help.
fn check_texts(json: &Json, place: &str) -> Result<(), String> {
    match json {
        Json::String(text) => match text.chars().find(|c| kino_port::is_hidden(*c)) {
            Some(hidden) => {
                let hidden = hidden.escape_unicode();
                Err(format!("the text at `{place}` holds {hidden}, which a terminal obeys"))
            }
            None => Ok(()),
        },
        Json::Array(items) => (items.iter().enumerate())
            .try_for_each(|(at, item)| check_texts(item, &format!("{place}[{at}]"))),
        Json::Object(members) => members.iter().try_for_each(|(key, value)| {
            let key = kino_port::escape_line(key);
            check_texts(
                value,
                &if place.is_empty() { key.into() } else { format!("{place}.{key}") },
            )
        }),
        _ => Ok(()),
    }
}

/// Whether a text is letters a-z, digits and _, a letter first.
pub fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Whether a text is words of `a-z0-9_` with points between them, `least` of them or more.
fn is_id(text: &str, least: usize) -> bool {
    text.split('.').all(is_word) && text.split('.').count() >= least
}

/// What the engine gives a guider before its parameters.
pub const GUIDER_INPUTS: [(&str, PortType); 5] = [
    ("step", PortType::Int),
    ("of", PortType::Int),
    ("sigma", PortType::Real),
    ("with_text", PortType::Tensor),
    ("without_text", PortType::Tensor),
];

fn check_guider(parameters: &[Port]) -> Result<(), String> {
    for Port { name, ty, .. } in parameters {
        if !ty.is_literal() {
            return Err("the parameters of a guider are texts, numbers and truth values".into());
        }
        if GUIDER_INPUTS.iter().any(|(given, _)| given == name) {
            return Err(format!("`{name}` is given to a guider: a parameter has another name"));
        }
        if ["from", "to"].contains(&&**name) && *ty != PortType::Real {
            return Err(format!("`{name}` of a guider is Real, a part of the run from 0 to 1"));
        }
    }
    Ok(())
}

fn read_type(written: WrittenType) -> Result<TypeSpec, String> {
    let WrittenType { name, about, fields } = written;
    let fault = |what: String| format!("the descriptor of the type `{name}`: {what}");
    if !is_id(&name, 2) {
        return Err(fault("a name is words with points between them: `example.depth`".into()));
    }
    let read = |field: &WrittenPort| {
        read_port(field, true).map_err(|what| fault(format!("field `{}`: {what}", field.name)))
    };
    let fields = fields.iter().map(read).collect::<Result<_, _>>()?;
    Ok(TypeSpec { name, about, fields })
}

fn read_node(node: WrittenNode) -> Result<NodeSpec, String> {
    if !is_id(&node.id, 2) {
        return Err(
            "an id is words of a-z, 0-9 and _ with points between them: `film.grain`".into()
        );
    }
    let ports = |written: &[WrittenPort], is_input| {
        let mut names = HashSet::new();
        let read = |port: &WrittenPort| {
            let fault = |what: String| format!("port `{}`: {what}", port.name);
            if !names.insert(port.name.clone()) {
                return Err(fault("there are two ports of this name".to_owned()));
            }
            read_port(port, is_input).map_err(fault)
        };
        written.iter().map(read).collect::<Result<Vec<_>, String>>()
    };
    let (inputs, outputs) = (ports(&node.inputs, true)?, ports(&node.outputs, false)?);
    if outputs.is_empty() {
        return Err("a node has at least one output".into());
    }
    if node.guider && (outputs.len() != 1 || outputs[0].ty != PortType::Guider) {
        return Err("a guider has one output of type Guider".into());
    }
    if node.guider {
        check_guider(&inputs)?;
    }
    let like = node.outputs.iter().map(|port| {
        let Some(like) = &port.like else { return Ok(None) };
        let index = inputs.iter().position(|input| input.name == like.as_str());
        let index =
            index.ok_or_else(|| format!("output `{}` is like no input `{like}`", port.name))?;
        let (ty, input) = (port.ty.parse::<PortType>()?, &inputs[index]);
        if ty != input.ty || ty.is_literal() || input.is_list() {
            return Err(format!(
                "output `{name}` ({ty}) cannot be like the input `{like}` ({}): sizes are kept of \
                 frames and tensors of one type; leave `like` out of `{name}`",
                input.ty,
                name = port.name
            ));
        }
        Ok(Some(index))
    });
    let agree = [
        (Agree::Size, "same_size", &node.same_size),
        (Agree::Count, "same_count", &node.same_count),
    ];
    let agree = agree.into_iter().filter(|(_, _, names)| !names.is_empty());
    let agree = agree.map(|(what, key, names)| agreement(what, key, names, &inputs));
    Ok(NodeSpec {
        agree: agree.collect::<Result<_, String>>()?,
        like: like.collect::<Result<_, String>>()?,
        state: node.state,
        guider: node.guider,
        signature: Signature {
            name: Cow::Owned(node.id),
            version: Cow::Owned(node.version),
            about: Cow::Owned(node.about),
            inputs: Cow::Owned(inputs),
            outputs: Cow::Owned(outputs),
            traits: NodeTraits {
                expensive: node.expensive,
                heavy: node.heavy,
                ..NodeTraits::LIGHT
            },
        },
    })
}

fn agreement(
    what: Agree,
    key: &str,
    names: &[String],
    inputs: &[Port],
) -> Result<Agreement, String> {
    let found = names.iter().map(|name| {
        let index = inputs.iter().position(|input| input.name == name.as_str());
        let index = index.ok_or_else(|| format!("`{key}` names no input `{name}`"))?;
        match &inputs[index].ty {
            PortType::Frames | PortType::Mask => Ok(index),
            ty => Err(format!("`{key}` is for Frames and masks, and `{name}` is {ty}")),
        }
    });
    let inputs = found.collect::<Result<_, String>>()?;
    Ok(Agreement { what, inputs })
}

fn read_port(written: &WrittenPort, is_input: bool) -> Result<Port, String> {
    if !is_id(&written.name, 1) || written.name.contains('.') {
        return Err("a name is letters a-z, digits and _, a letter first".into());
    }
    let ty: PortType = written.ty.parse()?;
    let arity = match written.arity.as_deref() {
        None | Some("one") => Arity::One,
        Some("optional") => Arity::Optional,
        Some("list") => Arity::List,
        Some("optional_list") => Arity::OptionalList,
        Some(other) => return Err(format!("there is no arity `{other}`")),
    };
    let given = written.default.is_some() || written.range.is_some();
    let more = !written.choices.is_empty() || written.draws || written.step.is_some();
    if written.named && !matches!(arity, Arity::List | Arity::OptionalList) {
        return Err("`named` stands at a list, whose items have names".into());
    }
    if !is_input && (given || more || arity != Arity::One) {
        return Err("an output has neither default, range, choices nor arity".into());
    }
    if is_input && written.like.is_some() {
        return Err(
            "`like` stands at an output and names the input whose size it keeps; this is an \
                    input"
                .into(),
        );
    }
    if given && !ty.is_literal() {
        return Err(format!("a port of type {ty} has neither default nor range"));
    }
    if !written.choices.is_empty() && ty != PortType::Text {
        return Err(format!("a port of type {ty} has no choices"));
    }
    if written.draws && ty != PortType::Int {
        return Err(format!("a port of type {ty} does not draw"));
    }
    let range = range(written, &ty)?;
    let empty = match range {
        Some(Range::Real { min, max }) => min > max,
        Some(Range::Int { min, max, .. }) => min > max,
        None => false,
    };
    if empty {
        return Err("the range is empty: the least is above the greatest".into());
    }
    let port = Port {
        name: Cow::Owned(written.name.clone()),
        arity,
        default: None,
        range,
        choices: written.choices.iter().cloned().map(Cow::Owned).collect(),
        unit: Cow::Owned(written.unit.clone()),
        about: Cow::Owned(written.about.clone()),
        lazy: false,
        draws: written.draws,
        file: false,
        numbers: false,
        named: written.named,
        int_where: None,
        ty,
    };
    let default = written.default.as_ref().map(|json| literal(json, &port)).transpose()?;
    Ok(Port { default, ..port })
}

fn range(written: &WrittenPort, ty: &PortType) -> Result<Option<Range>, String> {
    let ends = match written.range.as_deref() {
        None => None,
        Some([min, max]) => Some((min, max)),
        Some(_) => return Err("a range is its least and its greatest".into()),
    };
    let range = match (ends, ty) {
        (None, _) => None,
        (Some((min, max)), PortType::Real) => Some(Range::Real {
            min: end(min, f64::NEG_INFINITY, Json::as_f64)?,
            max: end(max, f64::INFINITY, Json::as_f64)?,
        }),
        (Some((min, max)), PortType::Int) => Some(Range::Int {
            min: end(min, i128::MIN, whole)?,
            max: end(max, i128::MAX, whole)?,
            step: 1,
        }),
        _ => return Err(format!("a port of type {ty} has no range")),
    };
    let Some(step) = &written.step else { return Ok(range) };
    match (range, whole(step)) {
        (Some(Range::Int { min, max, .. }), Some(step)) if step > 0 && min > i128::MIN => {
            Ok(Some(Range::Int { min, max, step }))
        }
        _ => Err(format!(
            "the step {step}: steps are whole numbers from 1, from the least of a range of Int"
        )),
    }
}

fn whole(json: &Json) -> Option<i128> {
    json.as_i64().map(i128::from).or_else(|| json.as_u64().map(i128::from))
}

fn end<T>(json: &Json, open: T, read: impl Fn(&Json) -> Option<T>) -> Result<T, String> {
    match json {
        Json::Null => Ok(open),
        json => read(json).ok_or_else(|| format!("{json} is no end of a range")),
    }
}

fn literal(json: &Json, port: &Port) -> Result<Literal, String> {
    let literal = match json {
        Json::String(text) => Literal::text(text.clone()),
        Json::Bool(truth) => Literal::Bool(*truth),
        Json::Number(_) if port.ty == PortType::Int => match whole(json) {
            Some(int) => Literal::Int(int),
            None => return Err(format!("the default {json} is no whole number")),
        },
        Json::Number(number) => Literal::Real(number.as_f64().unwrap_or(f64::NAN)),
        other => return Err(format!("{other} is no default")),
    };
    port.coerce(literal).map_err(|refusal| format!("its default: {}", refusal.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(node: &str) -> Result<NodeSpec, String> {
        let read = Descriptor::read(&format!("{{\"nodes\": [{node}], \"later\": 1}}"))?;
        Ok(read.nodes.into_iter().next().expect("a node"))
    }

    #[test]
    fn a_descriptor_becomes_a_signature() {
        let spec = one(
            r#"{"id": "film.grain", "version": "1.0.0", "about": "Adds grain. More.", "new": true,
            "inputs": [{"name": "frames", "type": "Frames"},
            {"name": "seed", "type": "Int", "default": 0, "range": [0, 18446744073709551615],
             "draws": true},
            {"name": "size", "type": "Real", "default": 1, "range": [0.5, null], "unit": "px"}],
            "outputs": [{"name": "frames", "type": "Frames", "like": "frames"}]}"#,
        )
        .unwrap();
        let signature = &spec.signature;
        assert_eq!(signature.summary(), "Adds grain.");
        let typed = r#"{"nodes": [], "types": [{"name": "a.depth", "about": "Far.",
            "fields": [{"name": "tensor", "type": "Tensor"},
            {"name": "unit", "type": "Text", "arity": "optional"}]}]}"#;
        let typed = Descriptor::read(typed).unwrap();
        let depth = typed.type_of("a.depth").unwrap();
        let [tensor, unit] = &*depth.fields else { panic!() };
        assert_eq!((&tensor.ty, unit.arity), (&PortType::Tensor, Arity::Optional));
        let wrong = r#"{"nodes": [], "types": [{"name": "depth"}]}"#;
        let wrong = Descriptor::read(wrong).unwrap_err();
        assert!(wrong.starts_with("the descriptor of the type `depth`: a name is"), "{wrong}");
        assert_eq!(spec.like, [Some(0)]);
        let [_, seed, size] = &*signature.inputs else { panic!() };
        assert_eq!(seed.expected(), "a whole number from 0 to 18446744073709551615 or \"random\"");
        assert_eq!(size.default, Some(Literal::Real(1.0)));
        assert_eq!(size.expected(), "a number of at least 0.5");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let port = |port: &str| {
            format!(
                r#"{{"id": "a.b", "version": "1", "inputs": [{port}],
                "outputs": [{{"name": "x", "type": "Text"}}]}}"#
            )
        };
        let guider = |parameter: &str| {
            format!(
                r#"{{"id": "a.b", "version": "1", "guider": true, "inputs": [{parameter}],
                "outputs": [{{"name": "guider", "type": "Guider"}}]}}"#
            )
        };
        let like = |input: &str, output: &str| {
            format!(
                r#"{{"id": "a.b", "version": "1", "inputs": [{{"name": "x", {input}}}],
                "outputs": [{{"name": "y", "type": "{output}", "like": "x"}}]}}"#
            )
        };
        assert!(one(&like(r#""type": "Frames""#, "Frames")).is_ok());
        let cases = [
            (like(r#""type": "Real""#, "Real"), "output `y` (Real) cannot be like the input `x`"),
            (like(r#""type": "Frames""#, "Latent"), "cannot be like"),
            (like(r#""type": "Frames", "arity": "list""#, "Frames"), "cannot be like"),
            (guider(r#"{"name": "sigma", "type": "Real"}"#), "`sigma` is given to a guider"),
            (guider(r#"{"name": "from", "type": "Int"}"#), "`from` of a guider is Real"),
            (port(r#"{"name": "a", "type": "Real", "default": null}"#), "null is no default"),
            ("{}".to_owned(), "missing field `id`"),
            (
                r#"{"id": "Gain", "version": "1"}"#.into(),
                "the descriptor of `Gain`: an id is words",
            ),
            (r#"{"id": "a.b", "version": "1"}"#.into(), "at least one output"),
            (port(r#"{"name": "A", "type": "Text"}"#), "port `A`: a name is"),
            (port(r#"{"name": "a", "type": "Texture"}"#), "there is no type `Texture`"),
            (port(r#"{"name": "a", "type": "Int", "default": 1.5}"#), "no whole number"),
            (
                port(r#"{"name": "a", "type": "Int", "default": 9, "range": [0, 3]}"#),
                "its default: expected a whole number from 0 to 3, found 9",
            ),
            (port(r#"{"name": "a", "type": "Real", "range": [3, 1]}"#), "the range is empty"),
            (port(r#"{"name": "a", "type": "Frames", "default": 1}"#), "neither default nor range"),
            (port(r#"{"name": "a", "type": "Text", "arity": "many"}"#), "no arity `many`"),
            (
                port(r#"{"name": "a", "type": "Int", "range": [0, 8], "step": 0.5}"#),
                "port `a`: the step 0.5: steps are whole numbers",
            ),
            (port(r#"{"name": "a", "type": "Int", "step": 2}"#), "from the least of a range"),
            (
                port(r#"{"name": "a", "type": "Text", "about": "x\u001b]52;c;eA==\u0007"}"#),
                r"the text at `nodes[0].inputs[0].about` holds \u{1b}, which a terminal obeys",
            ),
            (
                port(r#"{"name": "a", "type": "Text", "choices": ["a", "\u202egnp"]}"#),
                r"the text at `nodes[0].inputs[0].choices[1]` holds \u{202e}",
            ),
            (
                port(r#"{"name": "a", "type": "Real", "range": [0, 1], "step": 1}"#),
                "a range of Int",
            ),
            (port(r#"{"name": "a", "type": "Real", "range": [0]}"#), "least and its greatest"),
            (port(r#"{"name": "a", "type": "Int", "range": ["x", 1]}"#), "no end of a range"),
            (port(r#"{"name": "a", "type": "Int", "choices": ["x"]}"#), "has no choices"),
            (port(r#"{"name": "a", "type": "Text", "draws": true}"#), "does not draw"),
            (port(r#"{"name": "a", "type": "Text", "like": "b"}"#), "`like` stands at an output"),
            (
                r#"{"id": "a.b", "version": "1",
                "outputs": [{"name": "x", "type": "Text", "like": "y"}]}"#
                    .into(),
                "output `x` is like no input `y`",
            ),
            (
                r#"{"id": "a.b", "version": "1", "guider": true,
                "inputs": [{"name": "mask", "type": "Mask"}],
                "outputs": [{"name": "guider", "type": "Guider"}]}"#
                    .into(),
                "the parameters of a guider are texts",
            ),
        ];
        for (node, expected) in cases {
            let error = one(&node).unwrap_err();
            assert!(error.contains(expected), "{node}\n{error}");
        }
    }
}
