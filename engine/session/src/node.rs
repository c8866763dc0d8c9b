//! Nodes of a program that embeds the engine, and what they are written with.
//!
//! A node is a signature and a function. The name and version stand for what the function computes:
//! where that changes, the version does, or results that were kept are taken for those of the new
//! one.
//!
//! ```
//! use kino_session::node::{PortType, Signature, NodeTraits, Value, edge, int, ports};
//! use kino_session::{Engine, inputs};
//!
//! let square = Signature {
//!     name: "example.square".into(),
//!     version: "1".into(),
//!     about: "Multiplies a number by itself.".into(),
//!     inputs: ports![int("a", 0)],
//!     outputs: ports![edge("value", PortType::Int)],
//!     traits: NodeTraits::LIGHT,
//! };
//! let engine = Engine::builder().device("cpu").no_cache();
//! let engine = engine.node_fn(square, |_, inputs| {
//!     let a: i64 = inputs.int("a")?;
//!     Ok(vec![Some(Value::Int(i128::from(a) * i128::from(a)))])
//! });
//! let graph = engine.build()?.open_text("demo.ron", r#"Graph(version: 1,
//!     nodes: {"square": (op: "example.square", with: {"a": 12})},
//!     outputs: {"square": "square"})"#, ".".as_ref())?;
//! let done = graph.run(inputs! {}).start()?.wait()?;
//! assert_eq!(done.output::<i128>("square")?, 144);
//! # Ok::<(), kino_session::Error>(())
//! ```

pub use kino_node::{
    Cx, Error, Inputs, Node, NodeDef, OutputFile, Outputs, Result, Services, Value, no_infer,
};
pub use kino_port::{
    Facts, NodeTraits, PlanError, Port, PortType, Signature, StepInfo, bool, count, edge, int,
    list, optional, path, ports, real, text,
};

/// A node of a program that embeds the engine: a signature and a function. Nothing is known of its
/// results before it runs.
pub(crate) struct NodeFn<F> {
    pub(crate) signature: Signature,
    pub(crate) run: F,
}

impl<F> Node for NodeFn<F>
where
    F: Fn(&mut Cx<'_>, &Inputs<'_>) -> Result<Outputs> + Send + Sync,
{
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn infer(&self, services: &Services, facts: &Facts) -> Result<StepInfo, Vec<PlanError>> {
        no_infer(services, facts)
    }

    fn run(&self, cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
        (self.run)(cx, inputs)
    }
}
