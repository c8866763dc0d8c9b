//! Inputs to try a plugin's node with: plain ones, and those that break what was not thought of.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_host::{Agree, Descriptor, NodeSpec, PluginValue};
use kino_node::{Clip, FramesBuilder, Ledger, ModelPart, Patches, Record, Result, Value};
use kino_port::{
    ElementRule, FieldContent, FieldPresence, FieldRule, Literal, Port, PortType, Range, TensorRule,
};

/// One way to try a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// Small, ordinary inputs and the defaults of parameters; twice, to compare.
    Plain,
    /// Parameters drawn from their ranges and choices, and shapes.
    Random(u8),
    /// Frames and tensors of one element a side.
    One,
    /// Odd sizes that nothing divides.
    Odd,
    /// Tensors with no elements.
    Empty,
    /// Only what must be there.
    Bare,
    /// Larger than caches.
    Large,
    /// Not a number, infinities, and the largest numbers.
    NotNumbers,
    /// Tensors of another number of dimensions.
    Rank(u8),
    /// Tensors of another element type.
    Dtype(DType),
    /// Parameters at the ends of their ranges.
    Ends(bool),
    /// Frames in one chunk that are in several in the plain case.
    OneChunk,
    /// A newer build takes the node over, with its state if it has any.
    Reloaded,
    /// The run is cancelled before it begins.
    Cancelled,
    /// The run is cancelled while it works on large inputs.
    CancelledLate,
}

impl Case {
    /// All cases, in the order in which they are tried.
    pub(crate) fn all() -> Vec<Case> {
        let mut all = vec![Case::Plain, Case::OneChunk];
        all.extend((0..4).map(Case::Random));
        all.extend([Case::Bare, Case::One, Case::Odd, Case::Empty, Case::Large, Case::NotNumbers]);
        all.extend([0, 1, 3, 4, 5].map(Case::Rank));
        let whole = [DType::U8, DType::U32, DType::I16, DType::I32, DType::I64];
        let types = whole.into_iter().chain([DType::BF16, DType::F16, DType::F64]);
        all.extend(types.map(Case::Dtype));
        all.extend([Case::Ends(false), Case::Ends(true), Case::Reloaded]);
        all.extend([Case::Cancelled, Case::CancelledLate]);
        all
    }

    /// What it is called in reports.
    pub(crate) fn name(self) -> String {
        match self {
            Case::Plain => "plain".into(),
            Case::Random(n) => format!("random {n}"),
            Case::One => "one of each".into(),
            Case::Odd => "odd sizes".into(),
            Case::Empty => "no elements".into(),
            Case::Bare => "nothing optional".into(),
            Case::Large => "large".into(),
            Case::NotNumbers => "NaN and infinities".into(),
            Case::Rank(rank) => format!("tensors of rank {rank}"),
            Case::Dtype(dtype) => format!("tensors of {}", dtype.as_str()),
            Case::Ends(false) => "least parameters".into(),
            Case::Ends(true) => "greatest parameters".into(),
            Case::OneChunk => "one chunk".into(),
            Case::Reloaded => "reloaded with a newer build".into(),
            Case::Cancelled => "cancelled before".into(),
            Case::CancelledLate => "cancelled while running".into(),
        }
    }

    /// Whether inputs that no rule joins are of sizes of their own.
    fn is_mixed(self) -> bool {
        matches!(self, Case::Random(2..))
    }

    /// What of this case cannot be tried with these inputs: the reason.
    pub(crate) fn is_idle(
        self,
        ports: &[Port],
        is_guider: bool,
        types: &Descriptor,
    ) -> Option<&'static str> {
        let any = |test: &dyn Fn(&PortType) -> bool| {
            ports.iter().any(|port| holds(&port.ty, test, types, 0))
        };
        let tensors = any(&|ty| matches!(ty, PortType::Tensor | PortType::Any));
        let frames = any(&|ty| *ty == PortType::Frames);
        let numbers =
            is_guider || any(&|ty| ty.holds_tensor() || *ty == PortType::Frames) || tensors;
        let is_narrowed = |port: &Port| port.range.is_some() || !port.choices.is_empty();
        let is_float = matches!(self, Case::Dtype(dtype) if dtype.is_float());
        match self {
            Case::Dtype(_) if is_guider && is_float => None,
            Case::Rank(_) | Case::Dtype(_) if !tensors => Some("no input is a Tensor"),
            Case::NotNumbers if !numbers => Some("no input holds a tensor"),
            Case::OneChunk if !frames => Some("no input is Frames"),
            Case::Ends(_) if !ports.iter().any(is_narrowed) => Some("no input has a range"),
            _ => None,
        }
    }

    /// What it is one of, in summaries.
    pub(crate) fn group(name: &str) -> &str {
        match name {
            name if name.starts_with("tensors of rank") => "other numbers of dimensions",
            name if name.starts_with("tensors of") => "element types",
            name if name.starts_with("random") => "random sizes and parameters",
            name if name.ends_with("parameters") => "ends of parameters",
            name if name.starts_with("cancelled") => "cancelling",
            name => name,
        }
    }

    /// Frames: count, height, width.
    fn frames(self, draws: &mut Draws) -> [usize; 3] {
        match self {
            Case::Random(_) => {
                let [height, width] = [0, 0].map(|_| draws.of(&[1, 2, 3, 8, 17, 31, 64]));
                [draws.of(&[1, 2, 5, 9]), height, width]
            }
            Case::One | Case::Empty => [1, 1, 1],
            Case::Odd => [5, 17, 31],
            Case::Large | Case::CancelledLate => [24, 270, 480],
            _ => [6, 16, 24],
        }
    }

    /// The shape of a tensor.
    fn shape(self, draws: &mut Draws) -> Vec<usize> {
        let rank = match self {
            Case::Rank(rank) => rank.into(),
            Case::Random(_) => draws.of(&[0, 1, 2, 3, 4]),
            _ => 2,
        };
        let side = match self {
            Case::Random(_) => return (0..rank).map(|_| draws.of(&[0, 1, 2, 3, 5, 16])).collect(),
            Case::One => 1,
            Case::Odd => 7,
            Case::Empty => 0,
            Case::Large | Case::CancelledLate => 1024,
            _ => 8,
        };
        vec![side; rank]
    }
}

/// Whether a type, or something in it, is one that `test` means.
fn holds(
    ty: &PortType,
    test: &dyn Fn(&PortType) -> bool,
    types: &Descriptor,
    depth: usize,
) -> bool {
    test(ty)
        || match ty {
            PortType::List(of) => holds(of, test, types, depth),
            PortType::Custom(name) if depth < DEEPEST => {
                let fields = types.type_of(name).map_or(&[][..], |told| &told.fields);
                fields.iter().any(|field| holds(&field.ty, test, types, depth + 1))
            }
            _ => false,
        }
}

/// What inputs of one run have in common, so that they fit together.
pub(crate) struct Common {
    frames: [usize; 3],
    shape: Vec<usize>,
}

impl Common {
    pub(crate) fn of(case: Case, draws: &mut Draws) -> Self {
        Common { frames: case.frames(draws), shape: case.shape(draws) }
    }
}

/// A stream of numbers that a seed fixes (splitmix64).
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[(self.next() % choices.len() as u64) as usize]
    }

    fn tensor(&mut self, case: Case, shape: &[usize]) -> Result<Tensor> {
        let count: usize = shape.iter().product();
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0, 1e-40];
        let number = |index: usize| match case {
            Case::NotNumbers => odd[index % odd.len()],
            _ => self.unit() as f32,
        };
        let numbers: Vec<f32> = (0..count).map(number).collect();
        Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
    }
}

/// A value for a port; none where the case leaves it out.
pub(crate) fn value(
    port: &Port,
    case: Case,
    draws: &mut Draws,
    about: &About<'_>,
) -> Result<Option<Value>> {
    made(port, case, draws, about, 0)
}

/// What values are made with: the types of the plugin, a file that it may read, room for frames.
pub(crate) struct About<'a> {
    /// What the node says of itself.
    pub(crate) node: Option<&'a NodeSpec>,
    /// What its inputs have in common.
    pub(crate) common: Common,
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) file: &'a str,
    pub(crate) ledger: &'a Arc<Ledger>,
}

impl About<'_> {
    /// The size of the frames or of the mask that feed a port: that of all, unless the case mixes
    /// sizes and the node says nothing of the port.
    fn frames(&self, port: &str, case: Case, draws: &mut Draws) -> [usize; 3] {
        let agreed = |what: Agree| {
            let node = self.node?;
            let of = node.agree.iter().find(|agreement| agreement.what == what)?;
            let names = of.inputs.iter().map(|index| &*node.signature.inputs[*index].name);
            Some(names.into_iter().any(|name| name == port))
        };
        let is_agreed = |what| agreed(what).unwrap_or(false);
        let [mut count, mut height, mut width] = self.common.frames;
        if case.is_mixed() {
            let own = case.frames(draws);
            if !is_agreed(Agree::Size) {
                (height, width) = (own[1], own[2]);
            }
            if !is_agreed(Agree::Count) {
                count = own[0];
            }
        }
        [count, height, width]
    }
}

/// Records within records end here.
const DEEPEST: usize = 3;

fn made(
    port: &Port,
    case: Case,
    draws: &mut Draws,
    about: &About<'_>,
    depth: usize,
) -> Result<Option<Value>> {
    if case == Case::Bare && !port.is_required() && port.default.is_none() {
        return Ok(None);
    }
    let literal = match case {
        Case::Random(_) | Case::Ends(_) => drawn(port, case, draws),
        _ => port.default.clone().or_else(|| drawn(port, case, draws)),
    };
    if port.ty == PortType::Path {
        return Ok(Some(Value::Text(about.file.into())));
    }
    if let (true, None, true) = (port.is_list(), &port.default, port.ty.is_literal()) {
        let item = |name: &str, draws: &mut Draws| {
            let literal = drawn(port, case, draws)?;
            Some((Some(name.into()), Value::from_literal(&literal.widened(&port.ty))))
        };
        let items = ["first", "second"].into_iter().filter_map(|name| item(name, draws));
        return Ok(Some(Value::List(items.collect())));
    }
    if let (Some(literal), true) = (literal, port.ty.is_literal()) {
        return Ok(Some(Value::from_literal(&literal.widened(&port.ty))));
    }
    let mut one = || own(&port.name, &port.ty, case, draws, about, depth);
    Ok(match port.is_list() {
        true if depth > DEEPEST => Some(Value::List(Arc::from([]))),
        true => {
            let items = [(Some("first".into()), one()?), (Some("second".into()), one()?)];
            Some(Value::List(items.into()))
        }
        false if depth > DEEPEST && !port.is_required() => None,
        false => Some(one()?),
    })
}

/// A literal within the port's range or choices.
fn drawn(port: &Port, case: Case, draws: &mut Draws) -> Option<Literal> {
    let at = match case {
        Case::Ends(greatest) => f64::from(u8::from(greatest)),
        _ => draws.unit(),
    };
    Some(match (&port.ty, port.range) {
        (PortType::Text, _) if !port.choices.is_empty() => {
            let index = (at * port.choices.len() as f64) as usize;
            Literal::Text(port.choices[index.min(port.choices.len() - 1)].clone())
        }
        (PortType::Text, _) => Literal::text("a rød 圓 moves \u{1F680} right"),
        (PortType::Bool, _) => Literal::Bool(at >= 0.5),
        (PortType::Real, Some(Range::Real { min, max })) => {
            let (min, max) = (min.max(-1e6), max.min(1e6));
            Literal::Real(min + at * (max - min))
        }
        (PortType::Real, _) => Literal::Real(at),
        (PortType::Int, Some(Range::Int { min, max, step })) => {
            // Ends of a range that only the type sets say nothing.
            let max = if case == Case::Ends(true) { max } else { max.min(min.saturating_add(64)) };
            let steps = max.saturating_sub(min) / step.max(1);
            let taken = if at >= 1.0 { steps } else { (at * (steps as f64 + 1.0)) as i128 };
            Literal::Int(min.saturating_add(taken.clamp(0, steps).saturating_mul(step)))
        }
        (PortType::Int, _) => Literal::Int((at * 16.0) as i128),
        _ => return None,
    })
}

/// A value of a type that is no literal.
fn own(
    port: &str,
    ty: &PortType,
    case: Case,
    draws: &mut Draws,
    about: &About<'_>,
    depth: usize,
) -> Result<Value> {
    Ok(match ty {
        PortType::Frames => {
            let [count, height, width] = about.frames(port, case, draws);
            let mut frames = FramesBuilder::new(about.ledger, Some(8.0));
            let step = if case == Case::OneChunk { count } else { 4 };
            for start in (0..count).step_by(step) {
                let count = step.min(count - start);
                frames.push(&draws.tensor(case, &[count, height, width, 3])?)?;
            }
            Value::from(frames.finish()?)
        }
        PortType::Patches => {
            let clip = Clip { name: None, grid: [1, 2, 3], channels: 16, space: None };
            let tokens = draws.tensor(case, &[6, 64])?;
            Value::from(Patches { tokens, clips: vec![clip], patch: [1, 2, 2] })
        }
        ty if let Some(row) = ty.named().filter(|row| !row.fields.is_empty()) => {
            let mut fields = Vec::new();
            let frames = match ty {
                // One frame of a mask stands for all.
                PortType::Mask if case == Case::Random(1) => {
                    let [_, height, width] = about.frames(port, case, draws);
                    [1, height, width]
                }
                PortType::Mask => about.frames(port, case, draws),
                _ => [2, 4, 6],
            };
            for rule in row.fields {
                if let Some(value) = content(ty, rule, case, frames, draws)? {
                    fields.push((rule.name.into(), value));
                }
            }
            // Records are open: a plugin lives with fields that it does not know.
            if matches!(case, Case::Random(_)) {
                fields.push(("made_for".into(), PluginValue::Value(Value::Text("a test".into()))));
            }
            PluginValue::record(row.name, fields)?.into_value()?
        }
        PortType::Tensor | PortType::Any => {
            let shape = match case.is_mixed() {
                true => case.shape(draws),
                false => about.common.shape.clone(),
            };
            let tensor = draws.tensor(case, &shape)?;
            Value::Tensor(match case {
                Case::Dtype(dtype) => (tensor * 9.0)?.to_dtype(dtype)?,
                _ => tensor,
            })
        }
        PortType::Custom(name) => {
            let told = about.descriptor.type_of(name);
            let mut fields = Vec::new();
            for field in told.map_or(&[][..], |told| &told.fields) {
                if let Some(value) = made(field, case, draws, about, depth + 1)? {
                    fields.push((field.name.as_ref().into(), value));
                }
            }
            Value::Custom(Arc::new(Record { ty: name.as_ref().into(), fields }))
        }
        PortType::List(of) => {
            Value::List(vec![(None, own(port, of, case, draws, about, depth + 1)?)].into())
        }
        other => Value::Part(ModelPart { ty: other.clone(), handle: Arc::new(()) }),
    })
}

/// What a field's rule allows; none where it need not be there and is no plain value.
fn content(
    ty: &PortType,
    rule: &FieldRule,
    case: Case,
    frames: [usize; 3],
    draws: &mut Draws,
) -> Result<Option<PluginValue>> {
    let value = match &rule.content {
        _ if rule.presence == FieldPresence::Derived => return Ok(None),
        _ if rule.presence == FieldPresence::Optional
            && case == Case::Bare
            && ty.holds_tensor() =>
        {
            return Ok(None);
        }
        FieldContent::Tensor(tensor) => Value::Tensor(ruled(tensor, case, frames, draws)?),
        FieldContent::Embeddings => Value::Tensor(draws.tensor(case, &[8, 32])?),
        FieldContent::Text(choices) => {
            Value::Text(choices.first().copied().unwrap_or_default().into())
        }
        FieldContent::Int { min, max } => {
            let at = (draws.unit() * 8.0) as i128;
            // A sound is tried at rates that sounds have.
            let least = if rule.name == "rate" { 8000 } else { *min };
            Value::Int(least.saturating_add(if *min > 0 { at } else { 0 }).min(*max))
        }
        FieldContent::Real { min, max } => {
            Value::Real(min.max(0.0) + draws.unit() * (max.min(1.0) - min.max(0.0)))
        }
        FieldContent::Sizes(_)
        | FieldContent::Frames
        | FieldContent::Chunks
        | FieldContent::Opaque => return Ok(None),
    };
    Ok(Some(PluginValue::Value(value)))
}

/// A tensor of a rule's shape, whose elements lie in its range.
fn ruled(
    rule: &TensorRule,
    case: Case,
    [frames, height, width]: [usize; 3],
    draws: &mut Draws,
) -> Result<Tensor> {
    let size = |name: &&str| match *name {
        "f" => frames,
        "h" => height,
        "w" => width,
        "c" => 16,
        "rows" => 8,
        "dim" => 32,
        "channels" => 2,
        "n" => 2000,
        name => name.parse().unwrap_or(9),
    };
    let shape: Vec<usize> = rule.dims.iter().map(size).collect();
    let count: usize = shape.iter().product();
    let numbers: Vec<f32> = match rule.elements {
        ElementRule::Any => return draws.tensor(case, &shape),
        ElementRule::Unit => (0..count).map(|_| draws.unit() as f32).collect(),
        ElementRule::Levels => (0..count).rev().map(|n| n as f32 / (count - 1) as f32).collect(),
    };
    Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
}

/// Velocities for a guider: with text and without.
pub(crate) fn velocities(case: Case, draws: &mut Draws) -> Result<(Tensor, Tensor)> {
    let shape = match case {
        Case::One => [1, 1],
        Case::Odd => [7, 13],
        Case::Large | Case::CancelledLate => [4096, 64],
        _ => [96, 64],
    };
    let pair = (draws.tensor(case, &shape)?, draws.tensor(case, &shape)?);
    Ok(match case {
        Case::Dtype(dtype) if dtype.is_float() => {
            (pair.0.to_dtype(dtype)?, pair.1.to_dtype(dtype)?)
        }
        _ => pair,
    })
}
