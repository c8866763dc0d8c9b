//! Small nodes to build graphs of, and the log that they write.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::{borrow::Cow, fs};

use candle_core::{Device, Tensor};
use kino_node::{
    Cancel, Cx, Error, Frames, FramesBuilder, Inputs, ModelPart, NodeDef, OutputFile, Outputs,
    Registry, Result, Services, TensorReader, Tensors, Value, ValueType, no_infer,
};
use kino_port::{
    Facts, NodeTraits, PlanError, Port, PortType, Signature, StepInfo, edge, int, list, optional,
    path, ports,
};

/// What nodes share within one test.
#[derive(Default)]
pub(crate) struct Log {
    /// Tokens that are alive now, and the most that ever were.
    pub(crate) alive: Arc<AtomicUsize>,
    pub(crate) most_alive: AtomicUsize,
    /// Nodes that are on the device now.
    pub(crate) on_device: AtomicUsize,
    /// Set when two nodes were on the device at once.
    pub(crate) shared_device: AtomicBool,
    /// Where `meet` nodes wait for each other.
    pub(crate) meeting: Option<Barrier>,
    /// A `hang` node writes this file, then hangs.
    pub(crate) hang: Option<PathBuf>,
    /// A `raise` node raises this flag.
    pub(crate) flag: Cancel,
}

/// A value that counts how many of it are alive.
struct Token(Arc<AtomicUsize>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

type Run = fn(&mut Cx<'_>, &Inputs<'_>) -> Result<Outputs>;

const fn node(
    name: &'static str,
    inputs: Cow<'static, [Port]>,
    outputs: Cow<'static, [Port]>,
    traits: NodeTraits,
    run: Run,
) -> NodeDef {
    inferred(name, inputs, outputs, traits, run, no_infer)
}

const fn inferred(
    name: &'static str,
    inputs: Cow<'static, [Port]>,
    outputs: Cow<'static, [Port]>,
    traits: NodeTraits,
    run: Run,
    infer: fn(&Services, &Facts) -> Result<StepInfo, Vec<PlanError>>,
) -> NodeDef {
    let signature = Signature {
        name: Cow::Borrowed(name),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(""),
        inputs,
        outputs,
        traits,
    };
    NodeDef { signature, infer, run }
}

const VALUE: Cow<'static, [Port]> = ports![edge("value", PortType::Int)];
const TWO: Cow<'static, [Port]> = ports![int("a", 0), int("b", 0)];
const PARTS: Cow<'static, [Port]> = ports![list("parts", PortType::Any)];
const TOKEN: Cow<'static, [Port]> = ports![edge("value", PortType::Any)];

static ADD: NodeDef = node("add", TWO, VALUE, NodeTraits::LIGHT, add);
static KEEP: NodeDef = node("keep", TWO, VALUE, NodeTraits::EXPENSIVE, alone);
static HEAVY: NodeDef = node("heavy", TWO, VALUE, NodeTraits::HEAVY, alone);
static SUM: NodeDef = node("sum", PARTS, VALUE, NodeTraits::LIGHT, sum);
static FAIL: NodeDef =
    node("fail", TWO, VALUE, NodeTraits::LIGHT, |_, _| Err(Error::advised("it broke", "mend it")));
static PANIC: NodeDef = node("panic", TWO, VALUE, NodeTraits::LIGHT, |_, inputs| {
    panic!("at {}", inputs.int::<i64>("a")?)
});
static PANIC_IN_PLAN: NodeDef =
    inferred("panic.in.plan", TWO, VALUE, NodeTraits::LIGHT, add, |_, facts| {
        let (a, b) = (facts.int("a").unwrap_or(0), facts.int("b").unwrap_or(0));
        Ok(StepInfo { memory: (a / b) as u64, ..StepInfo::default() })
    });
static TOKENS: NodeDef = node("token", PARTS_OR_NONE, TOKEN, NodeTraits::LIGHT, token);
const PARTS_OR_NONE: Cow<'static, [Port]> = ports![optional("before", PortType::Any)];
static EVEN: NodeDef =
    node("even", TWO, ports![edge("value", PortType::Bool)], NodeTraits::LIGHT, |_, inputs| {
        Ok(vec![Some(Value::Bool(inputs.int::<i64>("a")? % 2 == 0))])
    });
static BOTH: NodeDef = node(
    "both",
    TWO,
    ports![edge("sum", PortType::Int), edge("product", PortType::Int)],
    NodeTraits::EXPENSIVE,
    both,
);
static WRITE: NodeDef = node(
    "write",
    ports![int("value", 0), path("path")],
    ports![edge("file", PortType::File)],
    NodeTraits::SINK,
    write,
);
/// Reads a file, and replaces what it holds with the same number of bytes unless it did before.
static REPLACE: NodeDef =
    node("replace", ports![path("path")], VALUE, NodeTraits::EXPENSIVE, |_, inputs| {
        let path = inputs.text("path")?;
        let read = fs::read_to_string(path)?;
        if read == "first" {
            fs::write(path, "other")?;
        }
        value(if read == "first" { 1 } else { 2 })
    });
/// Gives values of many kinds, nested in each other.
static VALUES: NodeDef = node("values", TWO, TOKEN, NodeTraits::EXPENSIVE, |_, _| {
    let tensor = |n: f32| Tensor::arange(0., n, &Device::Cpu);
    let whole = Tensor::new(&[1u32, 2, 3], &Device::Cpu)?;
    let fields = vec![("depth".into(), Value::Tensor(tensor(6.)?.reshape((2, 3))?))];
    let record = kino_node::Record { ty: "example.depth".into(), fields };
    let inner = vec![(Some("n".into()), Value::Int(7)), (None, Value::Real(0.5))];
    let frames = Tensor::full(0.5f32, (2, 4, 6, 3), &Device::Cpu)?;
    let frames = kino_node::Frames::from_tensor(&frames, Some(8.0))?;
    let items = vec![
        (None, Value::Text("a text, \u{7d05}".into())),
        (Some("flag".into()), Value::Bool(true)),
        (None, Value::Tensor(tensor(5.)?)),
        (None, Value::Tensor(whole)),
        (None, Value::Custom(Arc::new(record))),
        (None, Value::List(inner.into())),
        (None, Value::from(frames)),
    ];
    Ok(vec![Some(Value::List(items.into()))])
});
static MEET: NodeDef = node("meet", TWO, VALUE, NodeTraits::LIGHT, meet);
static MEET_HEAVY: NodeDef = node("meet.heavy", TWO, VALUE, NodeTraits::HEAVY, meet);
static HANG: NodeDef = node("hang", TWO, VALUE, NodeTraits::HEAVY, hang);
static RAISE: NodeDef = node("raise", TWO, VALUE, NodeTraits::LIGHT, |cx, inputs| {
    cx.services.get::<Log>()?.flag.cancel();
    add(cx, inputs)
});
static WAIT: NodeDef = node("wait", TWO, VALUE, NodeTraits::HEAVY, |cx, _| {
    loop {
        cx.check_cancel()?;
        std::thread::yield_now();
    }
});
static STEPS: NodeDef = node("steps", TWO, VALUE, NodeTraits::LIGHT, |cx, inputs| {
    (0..=3).for_each(|step| cx.progress(step, 3));
    add(cx, inputs)
});
static WRONG: NodeDef = node("wrong", TWO, VALUE, NodeTraits::LIGHT, |_, _| Ok(vec![None]));
static SWITCH: NodeDef = inferred(
    "switch",
    ports![
        edge("on", PortType::Bool),
        optional("a", PortType::Any).lazy(),
        optional("b", PortType::Any).lazy(),
    ],
    TOKEN,
    NodeTraits::LIGHT,
    |_, inputs| {
        let on = inputs.bool("on")?;
        let (chosen, other) = if on { ("a", "b") } else { ("b", "a") };
        let literal = matches!(inputs.get(other), None | Some(Value::Int(_)));
        assert!(literal, "only the chosen input is evaluated");
        Ok(vec![inputs.get(chosen).cloned()])
    },
    choose,
);

static BIG: NodeDef = node("big", TWO, TOKEN, NodeTraits::EXPENSIVE, |_, inputs| {
    let from = inputs.int::<i64>("a")? as f32;
    let count = match inputs.int::<i64>("b")? {
        0 => 5e6,
        some => some as f32,
    };
    let tensor = Tensor::arange(from, from + count, &Device::Cpu)?;
    Ok(vec![Some(Value::Tensor(tensor))])
});
static SHAPE: NodeDef = node("shape", PARTS, VALUE, NodeTraits::LIGHT, |_, inputs| {
    let sums = inputs.items("parts").into_iter().map(|(_, part)| {
        let tensor = part.tensor()?;
        let last = tensor.get(tensor.elem_count() - 1)?.to_scalar::<f32>()?;
        Ok(tensor.elem_count() as i64 + last as i64)
    });
    value(sums.sum::<Result<i64>>()?)
});

/// So many frames of 20 × 100 pixels.
static FILM: NodeDef = node(
    "film",
    TWO,
    ports![edge("frames", PortType::Frames)],
    NodeTraits::EXPENSIVE,
    |cx, inputs| {
        let (seed, count) = a_and_b(inputs)?;
        let mut frames = FramesBuilder::new(&cx.services.ledger, None);
        for _ in 0..count {
            frames.push(&Tensor::full(seed as f32, (1, 20, 100, 3), &Device::Cpu)?)?;
        }
        Ok(vec![Some(Value::from(frames.finish()?))])
    },
);
static FRAMES: NodeDef = node(
    "frames",
    ports![edge("frames", PortType::Frames)],
    VALUE,
    NodeTraits::LIGHT,
    |_, inputs| value(inputs.value::<Frames>("frames")?.count() as i64),
);
/// Films one after another.
static JOINED: NodeDef = node(
    "joined",
    ports![list("parts", PortType::Frames)],
    ports![edge("frames", PortType::Frames)],
    NodeTraits::JOINS,
    |cx, inputs| {
        let mut whole = FramesBuilder::new(&cx.services.ledger, None);
        for (_, part) in inputs.list::<Frames>("parts")? {
            whole.append(&part)?;
        }
        Ok(vec![Some(Value::from(whole.finish()?))])
    },
);
/// The sum of the first element of every frame, read one after another.
static WATCHED: NodeDef = node(
    "watched",
    ports![edge("frames", PortType::Frames)],
    VALUE,
    NodeTraits::LIGHT,
    |_, inputs| {
        let frames = inputs.value::<Frames>("frames")?;
        let mut sum = 0;
        for chunk in frames.chunks() {
            let chunk = chunk?;
            for at in 0..chunk.dim(0)? {
                sum += chunk.get(at)?.flatten_all()?.get(0)?.to_scalar::<f32>()? as i64;
            }
        }
        value(sum)
    },
);
static ALONE: NodeDef = node("alone", TWO, VALUE, NodeTraits::LIGHT, alone);
static LARGE: NodeDef = inferred("large", TWO, VALUE, NodeTraits::LIGHT, add, |_, _| {
    let (memory, spillable) = (10_000_000_000, 2_000_000_000);
    Ok(StepInfo { memory, spillable, ..StepInfo::default() })
});
static RANGED: NodeDef = node(
    "ranged",
    ports![int("factor", 2).between(1, 8)],
    VALUE,
    NodeTraits::LIGHT,
    |_, inputs| value(inputs.int("factor")?),
);
static GREEDY: NodeDef = node("greedy", TWO, VALUE, NodeTraits::LIGHT, |cx, inputs| {
    cx.services.ledger.reserve::<f32>(1 << 44, "noise")?;
    add(cx, inputs)
});

/// A value that panics when it is asked for one thing.
struct Brittle(&'static str);

impl Brittle {
    fn ask(&self, what: &str) {
        assert!(self.0 != what, "no {what}");
    }
}

impl ValueType for Brittle {
    const PORT: PortType = PortType::Custom(Cow::Borrowed("test.brittle"));
    type Fact = ();
    type Header = ();

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn fact(&self) {}

    fn bytes(&self) -> u64 {
        self.ask("bytes");
        1
    }

    fn unleased(&self) -> u64 {
        self.ask("unleased");
        1
    }

    fn header(&self) {
        self.ask("header");
    }

    fn tensors(&self) -> Tensors<'_> {
        self.ask("tensors");
        Box::new(std::iter::empty())
    }

    fn restore((): (), _: &mut TensorReader<'_>) -> Result<Self> {
        Ok(Brittle(""))
    }
}

/// What a [`Brittle`] may not be asked for.
pub(crate) const BRITTLE: [&str; 4] = ["header", "bytes", "tensors", "unleased"];
static BRITTLE_NODE: NodeDef = node("brittle", TWO, TOKEN, NodeTraits::EXPENSIVE, |_, inputs| {
    Ok(vec![Some(Value::from(Brittle(BRITTLE[inputs.int::<usize>("a")?])))])
});

/// A large value of a type that the services do not name: it can be stored, and not read back.
struct Foreign(Tensor);

impl ValueType for Foreign {
    const PORT: PortType = PortType::Custom(Cow::Borrowed("test.foreign"));
    type Fact = ();
    type Header = ();

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn fact(&self) {}

    fn header(&self) {}

    fn tensors(&self) -> Tensors<'_> {
        Box::new([Ok(self.0.clone())].into_iter())
    }

    fn restore((): (), _: &mut TensorReader<'_>) -> Result<Self> {
        Err(Error::failed("it is not read back"))
    }
}

static FOREIGN: NodeDef = node("foreign", TWO, TOKEN, NodeTraits::EXPENSIVE, |_, _| {
    Ok(vec![Some(Value::from(Foreign(Tensor::arange(0f32, 5e6, &Device::Cpu)?)))])
});

static NODES: &[&NodeDef] = &[
    &FOREIGN,
    &BRITTLE_NODE,
    &FILM,
    &FRAMES,
    &JOINED,
    &WATCHED,
    &ALONE,
    &LARGE,
    &RANGED,
    &GREEDY,
    &ADD,
    &KEEP,
    &HEAVY,
    &SUM,
    &FAIL,
    &PANIC,
    &PANIC_IN_PLAN,
    &TOKENS,
    &EVEN,
    &BOTH,
    &WRITE,
    &REPLACE,
    &VALUES,
    &MEET,
    &MEET_HEAVY,
    &HANG,
    &RAISE,
    &WAIT,
    &STEPS,
    &WRONG,
    &SWITCH,
    &BIG,
    &SHAPE,
];

/// All of them.
pub(crate) fn registry() -> Arc<Registry> {
    Arc::new(Registry::of(NODES))
}

fn a_and_b(inputs: &Inputs<'_>) -> Result<(i64, i64)> {
    Ok((inputs.int("a")?, inputs.int("b")?))
}

fn value(value: i64) -> Result<Outputs> {
    Ok(vec![Some(Value::Int(i128::from(value)))])
}

fn add(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let (a, b) = a_and_b(inputs)?;
    value(a.wrapping_add(b))
}

/// Adds, and notes whether another node was on the device meanwhile.
fn alone(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let log = cx.services.get::<Log>()?;
    if log.on_device.fetch_add(1, Ordering::SeqCst) > 0 {
        log.shared_device.store(true, Ordering::SeqCst);
    }
    std::thread::yield_now();
    let sum = add(cx, inputs);
    log.on_device.fetch_sub(1, Ordering::SeqCst);
    sum
}

fn sum(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let number = |value: &Value| match value {
        Value::Int(value) => *value as i64,
        _ => 1,
    };
    let items = inputs.items("parts");
    value(items.iter().fold(0, |sum, (_, item)| i64::wrapping_add(sum, number(item))))
}

fn token(cx: &mut Cx<'_>, _: &Inputs<'_>) -> Result<Outputs> {
    let log = cx.services.get::<Log>()?;
    let now = log.alive.fetch_add(1, Ordering::SeqCst) + 1;
    log.most_alive.fetch_max(now, Ordering::SeqCst);
    let handle = Arc::new(Token(Arc::clone(&log.alive)));
    Ok(vec![Some(Value::Part(ModelPart { ty: PortType::Vae, handle }))])
}

fn both(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let (a, b) = a_and_b(inputs)?;
    let some = |index, value: i64| cx.wants(index).then_some(Value::Int(i128::from(value)));
    Ok(vec![some(0, a + b), some(1, a * b)])
}

fn write(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let (text, path) = (inputs.int::<i64>("value")?.to_string(), inputs.text("path")?);
    fs::write(path, &text)?;
    let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
    let file = OutputFile { path: path.into(), hash, bytes: text.len() as u64 };
    Ok(vec![Some(Value::File(Arc::new(file)))])
}

fn meet(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    if let Some(meeting) = &cx.services.get::<Log>()?.meeting {
        meeting.wait();
    }
    add(cx, inputs)
}

fn hang(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    if let Some(marker) = &cx.services.get::<Log>()?.hang {
        fs::write(marker, "")?;
        loop {
            std::thread::park();
        }
    }
    add(cx, inputs)
}

fn choose(_: &Services, facts: &Facts) -> Result<StepInfo, Vec<PlanError>> {
    let chosen = facts.bool("on").map(|on| if on { "a" } else { "b" });
    Ok(StepInfo { chosen, ..StepInfo::default() })
}
