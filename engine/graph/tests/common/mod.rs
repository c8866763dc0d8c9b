//! A small catalog of nodes that tests use, and graphs held in memory.
#![allow(dead_code)]

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use kino_graph::{Catalog, Diagnostics, Graph, GraphLoader, Plan, PlanSettings};
use kino_port::{
    Fact, Facts, Literal, NodeTraits, PathForm, PlanError, PlannedRead, PortType, Signature,
    StepInfo,
};
use kino_port::{bool, edge, int, list, path, ports, real, text};

/// A catalog that counts how often it is asked.
pub(crate) struct Nodes {
    signatures: Vec<Signature>,
    pub(crate) infers: RefCell<Vec<String>>,
    /// What `read` finds in its file.
    pub(crate) content: RefCell<String>,
}

fn signature(
    name: &'static str,
    inputs: Cow<'static, [kino_port::Port]>,
    outputs: Cow<'static, [kino_port::Port]>,
    traits: NodeTraits,
) -> Signature {
    Signature { name: name.into(), version: "1".into(), about: "".into(), inputs, outputs, traits }
}

pub(crate) fn nodes() -> Nodes {
    let number = || ports![edge("value", PortType::Real)];
    let methods: &'static [Cow<'static, str>] =
        &[Cow::Borrowed("lanczos"), Cow::Borrowed("nearest")];
    let resize = vec![
        edge("frames", PortType::Frames),
        int("width", 64).between(16, 4096),
        text("filter", "lanczos").choices(methods),
    ];
    let signatures = vec![
        signature(
            "add",
            ports![edge("a", PortType::Real), real("b", 0.0)],
            number(),
            NodeTraits::LIGHT,
        ),
        signature(
            "noise",
            ports![
                int("seed", 0).between(0, u64::MAX as i128).draws(),
                int("frames", 1).between(1, 257)
            ],
            ports![edge("latent", PortType::Latent)],
            NodeTraits::HEAVY,
        ),
        signature(
            "decode",
            ports![edge("latent", PortType::Latent)],
            ports![edge("frames", PortType::Frames)],
            NodeTraits::EXPENSIVE,
        ),
        signature(
            "resize",
            resize.into(),
            ports![edge("frames", PortType::Frames)],
            NodeTraits::LIGHT,
        ),
        signature(
            "concat",
            ports![list("parts", PortType::Frames)],
            ports![edge("frames", PortType::Frames)],
            NodeTraits::JOINS,
        ),
        signature(
            "mix",
            ports![edge("a", PortType::Latent), edge("mask", PortType::Mask)],
            ports![edge("latent", PortType::Latent), edge("mask", PortType::Mask)],
            NodeTraits::EXPENSIVE,
        ),
        signature(
            "texts",
            ports![list("texts", PortType::Text)],
            ports![edge("text", PortType::Text)],
            NodeTraits::LIGHT,
        ),
        signature(
            "count",
            ports![int("a", 0), int("b", 0)],
            ports![edge("value", PortType::Any)],
            NodeTraits::LIGHT,
        ),
        signature("rect", ports![], ports![edge("mask", PortType::Mask)], NodeTraits::LIGHT),
        signature(
            "split",
            ports![edge("frames", PortType::Frames)],
            ports![edge("first", PortType::Frames), edge("rest", PortType::Frames)],
            NodeTraits::LIGHT,
        ),
        signature(
            "read",
            ports![path("path")],
            ports![edge("frames", PortType::Frames)],
            NodeTraits::LIGHT,
        ),
        signature(
            "enlarge",
            vec![text("model", "lanczos").choices(methods).file()].into(),
            ports![edge("frames", PortType::Frames)],
            NodeTraits::LIGHT,
        ),
        signature(
            "join",
            ports![text("a", ""), text("b", "")],
            ports![edge("text", PortType::Text)],
            NodeTraits::PORTABLE,
        ),
        signature("pick", ports![], ports![edge("text", PortType::Text)], NodeTraits::LIGHT),
        signature(
            "gather",
            ports![list("paths", PortType::Path)],
            ports![edge("frames", PortType::Frames)],
            NodeTraits::LIGHT,
        ),
        signature(
            "write",
            ports![edge("frames", PortType::Frames), path("path")],
            ports![edge("file", PortType::File)],
            NodeTraits::SINK,
        ),
        signature(
            "switch",
            ports![
                bool("on", false).required(),
                edge("a", PortType::Any).lazy(),
                edge("b", PortType::Any).lazy()
            ],
            ports![edge("value", PortType::Any)],
            NodeTraits::LIGHT,
        ),
    ];
    Nodes { signatures, infers: RefCell::default(), content: RefCell::new("one".into()) }
}

impl Catalog for Nodes {
    fn signature(&self, op: &str) -> Option<&Signature> {
        self.signatures.iter().find(|signature| signature.name == op)
    }

    fn names(&self) -> Vec<&str> {
        self.signatures.iter().map(|signature| &*signature.name).collect()
    }

    fn infer(&self, op: &str, facts: &Facts) -> Result<StepInfo, Vec<PlanError>> {
        self.infers.borrow_mut().push(op.to_owned());
        let mut infer = StepInfo::default();
        match op {
            "add" => {
                if let (Some(a), Some(b)) = (facts.real("a"), facts.real("b")) {
                    infer.outputs.push(Fact::Literal(Literal::Real(a + b)));
                }
            }
            "count" => {
                if let (Some(a), Some(b)) = (facts.int("a"), facts.int("b")) {
                    infer.outputs.push(Fact::Literal(Literal::Int(a + b)));
                }
            }
            "noise" => {
                let frames = facts.int("frames").unwrap_or(1);
                if (frames - 1) % 4 != 0 {
                    let error =
                        PlanError::at("frames", format!("expected 4k+1 frames, found {frames}"));
                    return Err(vec![error.hint("near it: 13 and 17")]);
                }
            }
            "read" => {
                let hash = self.content.borrow().clone();
                infer.key = hash.clone().into_bytes();
                let path = facts.text("path").unwrap_or_default().to_owned();
                infer.reads.push(PlannedRead { path, hash, ..PlannedRead::default() });
            }
            "join" => {
                if let (Some(a), Some(b)) = (facts.text("a"), facts.text("b")) {
                    infer.outputs.push(Fact::Literal(Literal::text(format!("{a}{b}"))));
                }
            }
            "write" if facts.text("path").is_some_and(|path| path.contains('%')) => {
                infer.path_form = PathForm::Numbered { count: None };
            }
            "switch" => infer.chosen = facts.bool("on").map(|on| if on { "a" } else { "b" }),
            _ => {}
        }
        Ok(infer)
    }
}

/// Graphs by path.
#[derive(Default)]
pub(crate) struct Files(pub(crate) HashMap<String, String>);

impl Files {
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Files(files.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect())
    }
}

impl GraphLoader for Files {
    fn read(&self, path: &str) -> Result<String, String> {
        self.0.get(path).cloned().ok_or_else(|| "no such file".to_owned())
    }
}

pub(crate) fn check(text: &str) -> Result<Graph, Diagnostics> {
    kino_graph::check("g.ron", text, &nodes(), &Files::default())
}

pub(crate) fn plan_with(
    graph: &Graph,
    catalog: &Nodes,
    inputs: &[(String, Literal)],
) -> Result<Plan, Diagnostics> {
    let settings = PlanSettings {
        inputs,
        until: None,
        versions: b"",
        machine: &|| b"cpu".to_vec(),
        draw: &|_| 42,
        stem: "g",
        number: None,
        locate: None,
    };
    graph.plan(catalog, &settings)
}

pub(crate) fn plan(text: &str) -> Result<Plan, Diagnostics> {
    plan_with(&check(text)?, &nodes(), &[])
}

/// Xorshift (Marsaglia 2003).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below this one.
    pub(crate) fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

/// A graph with much of the language in it, to be mutated.
pub(crate) const SOUND: &str = r##"Graph(version: 1, about: r#"raw "text""#, /* a /* nested */ comment */
    inputs: {"seed": (type: "Int", default: 7, range: (0, 99), step: 1), "t": (type: "Text", default: "\u{e9}\x41\n", choices: ["éA\n"]),
             "p": (type: "Path", default: "{graph}-{seed}.png"), "l": (type: "List(Path)", default: ["a.png"])},
    nodes: {"n": (op: "noise", in: {"seed": "inputs.seed"}, with: {"frames": 1_7}), "m": (op: "noise", with: {"seed": "random"}),
            "d": (op: "decode", in: {"latent": "n"}), "c": (op: "concat", in: {"parts": {"a": "d", "b": "u.out", "c": "v.out"}}),
            "a": (op: "add", with: {"a": -1.5e3, "b": +.5}), "s": (op: "switch", in: {"a": "n", "b": "m"}, with: {"on": true}),
            "g": (op: "gather", in: {"paths": "inputs.l"}), "q": (op: "read", in: {"path": "inputs.p"}),
            "u": (op: "./x.ron", in: {"f": "g"}, with: {"w": 32, "seed": "random"}), "v": (op: "./x.ron", in: {"f": "q"}, bypass: true),
            "w": (op: "write", in: {"frames": "c"}, with: {"path": "{graph}-{seed}{{x}}.mp4"}, bypass: false)},
    outputs: {"frames": "c", "sum": "a", "s": "s"},
    graphs: {"./x.ron": Graph(version: 1, inputs: {"f": (type: "Frames"), "w": (type: "Int", default: 64, range: (16, 128)),
                                                   "seed": (type: "Int", default: "random")},
        nodes: {"r": (op: "resize", in: {"frames": "inputs.f", "width": "inputs.w"}), "n": (op: "noise", in: {"seed": "inputs.seed"}),
                "d": (op: "decode", in: {"latent": "n"}), "c": (op: "concat", in: {"parts": ["r", "d"]})}, outputs: {"out": "c"})})"##;

/// The plan of a graph, or its problems as they are shown.
pub(crate) fn planned(
    graph: &Graph,
    inputs: &[(&str, Literal)],
    until: Option<&str>,
) -> Result<Plan, String> {
    let inputs: Vec<_> =
        inputs.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    let settings = PlanSettings {
        inputs: &inputs,
        until,
        versions: b"",
        machine: &|| b"".to_vec(),
        draw: &|_| 42,
        stem: "outer",
        number: None,
        locate: None,
    };
    graph.plan(&nodes(), &settings).map_err(|problems| problems.render().trim().to_owned())
}

/// The names of a plan's steps, in their order.
pub(crate) fn names(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| &*step.name).collect()
}
