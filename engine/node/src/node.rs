//! Nodes and the registry that finds them by name.

use std::collections::HashMap;
use std::sync::Arc;

use kino_port::{Facts, PlanError, Signature, StepInfo};

use crate::{Cx, Error, Inputs, Outputs, Result, Services};

/// Something that a graph can name as `op`.
pub trait Node: Send + Sync {
    /// What it is called, takes and gives.
    fn signature(&self) -> &Signature;

    /// What is known of its results before anything runs.
    ///
    /// # Errors
    /// Every reason why it cannot run with what it is given.
    fn infer(&self, services: &Services, facts: &Facts) -> Result<StepInfo, Vec<PlanError>>;

    /// Computes the outputs, in the signature's order. Those that [`Cx::wants`] denies may be left
    /// out.
    ///
    /// # Errors
    /// When it cannot; the message says where, what was expected, what to do.
    fn run(&self, cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs>;

    /// The lazy inputs that the node needs, asked once all others are there. Unless a node says
    /// otherwise, inference is asked again, now with the literals that have arrived: the input
    /// that it names, else all of them.
    ///
    /// # Errors
    /// When it cannot say.
    fn choose(&self, services: &Services, inputs: &Inputs<'_>) -> Result<Vec<String>> {
        match self.infer(services, &inputs.facts()) {
            Ok(StepInfo { chosen: Some(port), .. }) => Ok(vec![port.to_owned()]),
            Ok(_) => {
                let lazy = self.signature().inputs.iter().filter(|port| port.lazy);
                Ok(lazy.map(|port| port.name.clone().into_owned()).collect())
            }
            Err(errors) => {
                let mut errors = errors.into_iter();
                let first = errors.next();
                let first = first.unwrap_or_else(|| PlanError::new("the node refuses its inputs"));
                Err(Error::failed(first.message).with_hint(first.hint))
            }
        }
    }
}

/// A node as plain data: a signature and two functions.
pub struct NodeDef {
    /// What it is called, takes and gives.
    pub signature: Signature,
    /// See [`Node::infer`].
    pub infer: fn(&Services, &Facts) -> Result<StepInfo, Vec<PlanError>>,
    /// See [`Node::run`].
    pub run: fn(&mut Cx<'_>, &Inputs<'_>) -> Result<Outputs>,
}

impl Node for NodeDef {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn infer(&self, services: &Services, facts: &Facts) -> Result<StepInfo, Vec<PlanError>> {
        (self.infer)(services, facts)
    }

    fn run(&self, cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
        (self.run)(cx, inputs)
    }
}

/// The inference of a node of whose results nothing is known before it runs.
///
/// # Errors
/// None.
pub fn no_infer(_: &Services, _: &Facts) -> Result<StepInfo, Vec<PlanError>> {
    Ok(StepInfo::default())
}

/// The nodes that graphs can use, by name.
#[derive(Clone, Default)]
pub struct Registry {
    order: Vec<Arc<dyn Node>>,
    by_name: HashMap<String, usize>,
}

impl Registry {
    /// A registry of static nodes.
    pub fn of(nodes: &'static [&'static NodeDef]) -> Self {
        let mut registry = Registry::default();
        for node in nodes {
            registry.insert(Arc::new(Borrowed(node)));
        }
        registry
    }

    /// Adds a node, or replaces the one of its name.
    pub fn insert(&mut self, node: Arc<dyn Node>) {
        let name = node.signature().name.clone().into_owned();
        match self.by_name.get(&name) {
            Some(index) => self.order[*index] = node,
            None => {
                self.by_name.insert(name, self.order.len());
                self.order.push(node);
            }
        }
    }

    /// The node of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Node>> {
        self.by_name.get(name).map(|index| &self.order[*index])
    }

    /// All nodes, in the order in which they were added.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<dyn Node>> {
        self.order.iter()
    }
}

/// A static node as a shared one.
struct Borrowed(&'static NodeDef);

impl Node for Borrowed {
    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn infer(&self, services: &Services, facts: &Facts) -> Result<StepInfo, Vec<PlanError>> {
        self.0.infer(services, facts)
    }

    fn run(&self, cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
        self.0.run(cx, inputs)
    }
}
