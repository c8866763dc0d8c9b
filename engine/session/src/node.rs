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
//!
//! A program may have types of values of its own, and services that its nodes reach:
//!
//! ```
//! use std::sync::Arc;
//!
//! use kino_session::node::{
//!     NodeTraits, PortType, Result, Signature, TensorReader, Tensors, Value, ValueType, edge,
//!     ports,
//! };
//! use kino_session::{Engine, inputs};
//!
//! /// When a shot was taken: a value that the engine carries and keeps, and knows nothing of.
//! struct Taken(i64);
//!
//! impl ValueType for Taken {
//!     const PORT: PortType = PortType::Custom(std::borrow::Cow::Borrowed("example.taken"));
//!     type Fact = ();
//!     type Header = i64;
//!
//!     fn check(&self) -> Result<()> {
//!         Ok(())
//!     }
//!     fn fact(&self) {}
//!     fn header(&self) -> i64 {
//!         self.0
//!     }
//!     fn tensors(&self) -> Tensors<'_> {
//!         Box::new(std::iter::empty())
//!     }
//!     fn restore(header: i64, _: &mut TensorReader<'_>) -> Result<Self> {
//!         Ok(Taken(header))
//!     }
//! }
//!
//! /// What a node asks for the time.
//! struct Clock(i64);
//!
//! let shot = Signature {
//!     name: "example.shot".into(),
//!     version: "1".into(),
//!     about: "Says when a shot was taken.".into(),
//!     inputs: ports![],
//!     outputs: ports![edge("taken", Taken::PORT)],
//!     traits: NodeTraits::LIGHT,
//! };
//! let engine = Engine::builder().device("cpu").no_cache();
//! let engine = engine.value_type::<Taken>().service(Arc::new(Clock(1888)));
//! let engine = engine.node_fn(shot, |cx, _| {
//!     let clock = cx.services.get::<Clock>()?;
//!     Ok(vec![Some(Value::from(Taken(clock.0)))])
//! });
//! let graph = engine.build()?.open_text("demo.ron", r#"Graph(version: 1,
//!     nodes: {"shot": (op: "example.shot")}, outputs: {"taken": "shot"})"#, ".".as_ref())?;
//! let done = graph.run(inputs! {}).start()?.wait()?;
//! let taken = done.report.output("taken").and_then(|value| value.get::<Taken>());
//! assert_eq!(taken.map(|taken| taken.0), Some(1888));
//! # Ok::<(), kino_session::Error>(())
//! ```

pub use kino_node::{
    Cx, Error, Inputs, Node, NodeDef, OutputFile, Outputs, Result, Services, TensorHeader,
    TensorReader, Tensors, Value, ValueType, no_infer,
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
