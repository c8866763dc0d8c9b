//! Reading facts and collecting objections: what every node does while a plan is made.

use std::any::Any;
use std::sync::Arc;

use kino_node::{ConditioningFact, Error, FramesFact, LatentFact, TensorFact};
use kino_port::{Fact, Facts, Literal, Objection, Survey};

use crate::model::Absent;

/// What a survey gives: what is known of the results, or every reason against them.
pub(crate) type Surveyed = Result<Survey, Vec<Objection>>;

/// One survey in the making: the facts of the inputs, and the objections found so far.
pub(crate) struct Review<'a> {
    facts: &'a Facts,
    objections: Vec<Objection>,
}

impl<'a> Review<'a> {
    /// A review without objections.
    pub(crate) fn new(facts: &'a Facts) -> Self {
        Review { facts, objections: Vec::new() }
    }

    /// Adds an objection.
    pub(crate) fn object(&mut self, objection: Objection) {
        self.objections.push(objection);
    }

    /// Adds what a check objects to.
    pub(crate) fn take<T>(&mut self, checked: Result<T, Objection>) -> Option<T> {
        checked.map_err(|objection| self.object(objection)).ok()
    }

    /// The survey, if nothing was objected to.
    pub(crate) fn finish(self, survey: Survey) -> Surveyed {
        if self.objections.is_empty() { Ok(survey) } else { Err(self.objections) }
    }

    /// The part of a model at a port, if it is known; objects where the model has no such part.
    pub(crate) fn part<T: Any + Send + Sync>(&mut self, port: &str) -> Option<Arc<T>> {
        if let Some(absent) = self.facts.own::<Absent>(port) {
            let mut objection = Objection::at(port, absent.message.clone());
            objection.hint = absent.hint.clone();
            self.object(objection);
            return None;
        }
        match self.facts.get(port)? {
            Fact::Own(description) => Arc::clone(description).downcast().ok(),
            _ => None,
        }
    }

    /// What is known of the latent at a port.
    pub(crate) fn latent(&mut self, port: &str) -> Option<LatentFact> {
        let known = latent_fact(port, self.facts.get(port)?);
        self.take(known).flatten()
    }

    /// What is known of the frames at a port.
    pub(crate) fn frames(&mut self, port: &str) -> Option<FramesFact> {
        let known = frames_fact(port, self.facts.get(port)?);
        self.take(known).flatten()
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

/// A latent as it is known; of a tensor, its shape without a leading batch of one.
pub(crate) fn latent_fact(port: &str, fact: &Fact) -> Result<Option<LatentFact>, Objection> {
    if let Some(latent) = fact.get::<LatentFact>() {
        return Ok(Some(latent.clone()));
    }
    let Some(tensor) = fact.get::<TensorFact>() else { return Ok(None) };
    match *tensor.shape.as_slice() {
        [c, f, h, w] | [1, c, f, h, w] => Ok(Some(LatentFact { shape: [c, f, h, w], space: None })),
        _ => Err(misshapen(port, "a latent is [c, f, h, w] or [1, c, f, h, w]", tensor)),
    }
}

/// Frames as they are known; of a tensor, its shape.
pub(crate) fn frames_fact(port: &str, fact: &Fact) -> Result<Option<FramesFact>, Objection> {
    if let Some(frames) = fact.get::<FramesFact>() {
        return Ok(Some(frames.clone()));
    }
    let Some(tensor) = fact.get::<TensorFact>() else { return Ok(None) };
    match *tensor.shape.as_slice() {
        [count, height, width, 3] if count > 0 => {
            Ok(Some(FramesFact { count: Some(count), height, width, fps: None }))
        }
        _ => Err(misshapen(port, "frames are [count, height, width, 3]", tensor)),
    }
}

/// Text embeddings as they are known; of a tensor, its shape without a leading batch of one.
pub(crate) fn text_fact(port: &str, fact: &Fact) -> Result<Option<ConditioningFact>, Objection> {
    if let Some(text) = fact.get::<ConditioningFact>() {
        return Ok(Some(text.clone()));
    }
    let Some(tensor) = fact.get::<TensorFact>() else { return Ok(None) };
    match *tensor.shape.as_slice() {
        [rows, dim] | [1, rows, dim] => Ok(Some(ConditioningFact { rows, dim })),
        _ => Err(misshapen(port, "embeddings are [rows, dim] or [1, rows, dim]", tensor)),
    }
}

fn misshapen(port: &str, expected: &str, found: &TensorFact) -> Objection {
    Objection::at(port, format!("{expected}, found a tensor {:?}", found.shape))
}

/// The whole numbers beside `value` that are `first` more than a multiple of `step`, as words:
/// `near it: 13 and 17`.
pub(crate) fn near(value: usize, first: usize, step: usize) -> String {
    let below = value.saturating_sub(first) / step * step + first;
    let below = if below == 0 { step } else { below };
    if below >= value {
        return format!("near it: {below}");
    }
    format!("near it: {below} and {}", below + step)
}

/// The objection of a check as the error of a run, for what was not known while planning.
pub(crate) fn refuse(objection: Objection) -> Error {
    let Objection { port, message, hint } = objection;
    match (port, hint) {
        (Some(port), None) => Error::Input { port, message },
        (Some(port), hint) => Error::Failed { message: format!("input `{port}`: {message}"), hint },
        (None, hint) => Error::Failed { message, hint },
    }
}
