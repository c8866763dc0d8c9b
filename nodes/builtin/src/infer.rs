//! Reading facts and collecting errors: what every node does while a plan is made.

use std::any::Any;
use std::sync::Arc;

use kino_node::{Error, ValueType};
use kino_port::{Fact, Facts, Literal, PlanError, StepInfo};

use crate::models::{MissingPart, Network, VaeHandle};

/// What inference gives: what is known of the results, or every reason against them.
pub(crate) type InferResult = Result<StepInfo, Vec<PlanError>>;

/// One inference in the making: the facts of the inputs, and the errors found so far.
pub(crate) struct InferCx<'a> {
    facts: &'a Facts,
    errors: Vec<PlanError>,
}

impl<'a> InferCx<'a> {
    /// What is inferred, with no errors yet.
    pub(crate) fn new(facts: &'a Facts) -> Self {
        InferCx { facts, errors: Vec::new() }
    }

    /// Adds an error.
    pub(crate) fn error(&mut self, error: PlanError) {
        self.errors.push(error);
    }

    /// Adds what a check objects to.
    pub(crate) fn take<T>(&mut self, checked: Result<T, PlanError>) -> Option<T> {
        checked.map_err(|error| self.error(error)).ok()
    }

    /// The result, if nothing was wrong.
    pub(crate) fn finish(self, infer: StepInfo) -> InferResult {
        if self.errors.is_empty() { Ok(infer) } else { Err(self.errors) }
    }

    /// The part of a model at a port, if it is known; objects where the model has no such part.
    pub(crate) fn part<T: Any + Send + Sync>(&mut self, port: &str) -> Option<Arc<T>> {
        if let Some(missing) = self.facts.typed::<MissingPart>(port) {
            let mut error = PlanError::at(port, missing.message.clone());
            error.hint = missing.hint.clone();
            self.error(if missing.of_machine { error.of_machine() } else { error });
            return None;
        }
        match self.facts.get(port)? {
            Fact::Typed(description) => Arc::clone(description).downcast().ok(),
            _ => None,
        }
    }

    /// The autoencoder at port `vae`, if weights of this network of it are all there.
    pub(crate) fn vae(&mut self, network: Network) -> Option<Arc<VaeHandle>> {
        let vae = self.part::<VaeHandle>("vae")?;
        match vae.fault(network) {
            Some(fault) => {
                self.error(PlanError::at("vae", fault));
                None
            }
            None => Some(vae),
        }
    }

    /// What is known of the value of type `T` at a port.
    pub(crate) fn known<T: ValueType>(&mut self, port: &str) -> Option<T::Fact> {
        let known = known::<T>(port, self.facts.get(port)?);
        self.take(known).flatten()
    }

    /// What is known of the value of type `T` at a port, which may be nothing.
    pub(crate) fn partly<T: ValueType<Fact: Default>>(&mut self, port: &str) -> T::Fact {
        self.known::<T>(port).unwrap_or_default()
    }

    /// A count or size at a port, if it is known; ranges were checked before.
    pub(crate) fn size(&self, port: &str) -> Option<usize> {
        usize::try_from(self.facts.int(port)?).ok()
    }
}

/// The facts of a list port with the names of its items.
pub(crate) fn named_facts<'a>(facts: &'a Facts, port: &str) -> Vec<(Option<Arc<str>>, &'a Fact)> {
    match facts.get(port) {
        None => Vec::new(),
        Some(Fact::List(items)) => items.iter().map(|(name, fact)| (name.clone(), fact)).collect(),
        Some(one) => vec![(None, one)],
    }
}

/// The texts of a list port, if all are known.
pub(crate) fn known_texts(facts: &Facts, port: &str) -> Option<Vec<String>> {
    let text = |literal: &Literal| match literal {
        Literal::Text(text) => Some(text.clone().into_owned()),
        _ => None,
    };
    match facts.get(port)? {
        Fact::Literal(Literal::List(items)) => items.iter().map(text).collect(),
        _ => facts.items(port).into_iter().map(|fact| text(fact.literal()?)).collect(),
    }
}

/// What is known of a value of type `T` that arrives as `fact`; of a tensor that becomes one, what
/// its shape says.
pub(crate) fn known<T: ValueType>(port: &str, fact: &Fact) -> Result<Option<T::Fact>, PlanError> {
    kino_node::known::<T>(fact).map_err(|message| PlanError::at(port, message))
}

/// The whole numbers beside `value` that are `first` more than a multiple of `step`, as words:
/// `near it: 13 and 17`.
pub(crate) fn near(value: usize, first: usize, step: usize) -> String {
    let step = step.max(1);
    let below = value.saturating_sub(first) / step * step + first;
    let below = if below == 0 { step } else { below };
    if below >= value {
        return format!("near it: {below}");
    }
    format!("near it: {below} and {}", below.saturating_add(step))
}

/// A transformer that was fed at `port` has no input for given frames.
pub(crate) fn takes_no_given(port: &str) -> PlanError {
    PlanError::at(port, "this transformer was made for text alone: it takes no given frames").hint(
        "models that continue frames are the embedded one, Wan 2.2 TI2V, and Wan I2V and FLF2V",
    )
}

/// A transformer that was fed at `port` is given frames by a control.
pub(crate) fn reads_control(port: &str) -> PlanError {
    PlanError::at(port, "this transformer is given frames by a control")
        .hint("a `vace` node makes one of a video, a mask and pictures, for `control`")
}

/// A transformer that was fed at `port` has no blocks for a control.
pub(crate) fn takes_no_control(port: &str) -> PlanError {
    PlanError::at(port, "this transformer takes no control: it has no blocks beside the main ones")
        .hint("Wan VACE takes one; frames that a clip must contain come by a `given` node")
}

/// Bytes of so many numbers in f32 as these sizes multiplied; more than there are is the most there
/// can be.
pub(crate) fn f32_bytes(sizes: &[usize]) -> u64 {
    sizes.iter().fold(4, |bytes: u64, size| bytes.saturating_mul(*size as u64))
}

/// The bytes of numbers in f32 of these sizes; 0 where one is not known.
pub(crate) fn f32_bytes_of(sizes: &[Option<usize>]) -> u64 {
    let known = sizes.iter().copied().collect::<Option<Vec<usize>>>();
    known.map_or(0, |sizes| f32_bytes(&sizes))
}

/// Whether sizes may be the same: those that are known of both are.
pub(crate) fn may_be<const N: usize>(one: [Option<usize>; N], other: [Option<usize>; N]) -> bool {
    one.iter().zip(other).all(|(one, other)| one.zip(other).is_none_or(|(one, other)| one == other))
}

/// What is known of sizes by either of two that are the same.
pub(crate) fn by_either<const N: usize>(
    one: [Option<usize>; N],
    other: [Option<usize>; N],
) -> [Option<usize>; N] {
    std::array::from_fn(|axis| one[axis].or(other[axis]))
}

/// A size in a message.
pub(crate) fn shown(size: Option<usize>) -> String {
    size.map_or_else(|| "?".to_owned(), |size| size.to_string())
}

/// A shape in a message: `[16, 5, 8, 12]`.
pub(crate) fn shape_text(sizes: &[Option<usize>]) -> String {
    let sizes: Vec<String> = sizes.iter().copied().map(shown).collect();
    format!("[{}]", sizes.join(", "))
}

/// The error of a check as the error of a run, for what was not known while planning.
pub(crate) fn refuse(error: PlanError) -> Error {
    let PlanError { port, message, hint, .. } = error;
    match (port, hint) {
        (Some(port), None) => Error::Input { port, message },
        (Some(port), hint) => Error::input(&port, message).with_hint(hint),
        (None, hint) => Error::failed(message).with_hint(hint),
    }
}
