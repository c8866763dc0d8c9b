//! Write nodes for Kinograph: one source, a native library or a sandboxed WebAssembly component.
//!
//! # A node is a function
//!
//! ```
//! use kino_plugin::prelude::*;
//!
//! /// Multiplies every frame by a gain.
//! #[node(id = "example.gain", version = "1.0.0", like = "frames")]
//! fn gain(
//!     cx: &mut Cx,
//!     frames: Frames,
//!     #[param(default = 1.0, range = 0.0..=4.0)] gain: f64,
//! ) -> Result<Frames> {
//!     frames.map_samples(cx, |x| (x * gain).min(1.0))
//! }
//! kino_plugin::plugin!(gain);
//! # use kino_plugin::testing;
//! # fn main() -> Result<()> {
//! # let frames = Frames::random(1, [2, 4, 4, 3]);
//! # let out = testing::run::<gain>().input("frames", &frames).param("gain", 2.0).call()?;
//! # let expected = frames.joined()?.mul(2.0)?.min(1.0)?;
//! # testing::assert_close(&out.frames("frames")?.joined()?, &expected, 1e-6);
//! # Ok(())
//! # }
//! ```
//!
//! The documentation comment is the node's help, its first sentence the summary. Parameters are
//! input ports, named as they are; what the function gives is the output. The crate is a `cdylib`,
//! and an `rlib` for its tests. In a graph: `(op: "example.gain", in: {"frames": "decode"}, with:
//! {"gain": 1.5})`.
//!
//! | in Rust | in graphs |
//! |---|---|
//! | `String`, `&str`, an enum with `#[derive(Choice)]` | Text (with choices) |
//! | `i64`, `u64`, `usize`, `i128`, … | Int, with the range of the type |
//! | `f64`, `f32` | Real |
//! | `bool`, [`Path`] | Bool, Path |
//! | [`Frames`], [`Tensor`], [`Mask`], [`Sigmas`] | the same |
//! | [`Latent`], [`Patches`], [`Conditioning`], [`ImageConditioning`] | the same |
//! | [`Given`], [`Control`], [`Audio`] | the same: passed on, read by their fields, or made |
//! | [`Dit`], [`Vae`], [`TextEncoder`], [`ImageEncoder`], [`Guider`], [`File`], [`Any`] | the same, to be passed on |
//! | a struct with `#[port_type("example.depth")]` | `example.depth` |
//! | `&T`, `Option<T>`, `Vec<T>`, `Vec<(String, T)>` of one | the same; not required; a list; a list with names |
//!
//! An output is called as its type is (`frames`, `text`, `depth`), unless `output = "name"` or
//! `outputs("a", "b")` says otherwise. Several are a tuple, or a struct with `#[derive(Outputs)]`;
//! an `Option` may be left out where [`Cx::wants`] says that nobody reads it.
//!
//! # A node with state is an `impl` block
//!
//! ```
//! use kino_plugin::prelude::*;
//!
//! /// A table of colours.
//! struct Table(Vec<f32>);
//!
//! /// Looks every channel up in a table, which a granted file holds.
//! #[node(id = "example.table", version = "1.0.0", like = "frames")]
//! impl Table {
//!     fn load(cx: &mut Cx) -> Result<Self> {
//!         let text = cx.read_text("luts/table.txt")?;
//!         Ok(Table(text.lines().map(str::parse).collect::<Result<_, _>>()?))
//!     }
//!
//!     fn run(&mut self, cx: &mut Cx, frames: Frames) -> Result<Frames> {
//!         ensure!(!self.0.is_empty(), "luts/table.txt: expected a number a line, found none");
//!         let last = self.0.len() - 1;
//!         frames.map(cx, |input, output| {
//!             for (o, i) in output.iter_mut().zip(input) {
//!                 *o = self.0[((i * last as f32).round() as usize).min(last)];
//!             }
//!         })
//!     }
//! }
//! kino_plugin::plugin!(Table);
//! # use kino_plugin::testing;
//! # fn main() -> Result<()> {
//! # let frames = Frames::random(1, [2, 4, 4, 3]);
//! # let run = testing::run::<Table>().file("luts/table.txt", "1\n0").input("frames", &frames);
//! # let found = run.call()?.frames("frames")?.joined()?.to_vec::<f32>()?;
//! # let expected = frames.joined()?.to_vec::<f32>()?;
//! # assert!(expected.iter().zip(found).all(|(i, o)| o == f32::from(*i < 0.5)));
//! # Ok(())
//! # }
//! ```
//!
//! There is one instance for each node of a graph. `load` runs once (without it, `Default` makes
//! the state), `run` many times. When a newer build takes over, what `save(&self) -> Vec<u8>` gave
//! reaches `restore(cx, saved: &[u8]) -> Result<Self>`; where that fails, `load` runs again. As a
//! component, a node that traps or runs out of time loses its state.
//!
//! # A guider joins velocities
//!
//! ```
//! use kino_plugin::prelude::*;
//!
//! /// Remembers the change of the step before.
//! #[derive(Default)]
//! struct Momentum(Option<Tensor>);
//!
//! /// Classifier-free guidance (arXiv:2207.12598) with momentum.
//! #[guider(id = "guide.momentum", version = "1.0.0")]
//! impl Momentum {
//!     fn guide(
//!         &mut self,
//!         _step: SamplingStep,
//!         with_text: Tensor,
//!         without_text: Tensor,
//!         #[param(default = 4.0, range = 1.0..=30.0)] scale: f64,
//!     ) -> Result<Tensor> {
//!         let mut change = with_text.sub(&without_text)?;
//!         if let Some(before) = &self.0 {
//!             change = change.add(&before.mul(0.5)?)?;
//!         }
//!         self.0 = Some(change.clone());
//!         without_text.add(&change.mul(scale)?)
//!     }
//! }
//! kino_plugin::plugin!(Momentum);
//! # fn main() {}
//! ```
//!
//! The engine makes a new one for every sampling run and asks it once a step.
//!
//! # What a node can do
//!
//! - [`Cx`] reports progress, says whether the run was cancelled, and reads granted files.
//! - [`Tensor`]s are computed with by methods ([`Tensor::matmul`], [`Tensor::conv2d`],
//!   [`Tensor::add`], …), which the engine runs where the tensor lies, a GPU too.
//!   [`Tensor::as_slice`] is the engine's own memory in a native plugin; in a component it copies
//!   the tensor once, and [`Tensor::with_piece`] hands over a piece of it.
//! - [`Frames`] come in chunks: [`Frames::map_samples`] goes over numbers by themselves,
//!   [`Frames::map`] over elements, [`Frames::map_frames`] over frames, [`Frames::map_chunks`] over
//!   tensors. None of them holds a whole video, and all of them
//!   look at the cancel flag.
//! - Events of [`tracing`] reach the engine's log, from the thread that the node was called on.
//!   Spans are not kept.
//! - An error has a message and a hint: `Err(Error::new("…").hint("…"))`, [`bail!`], [`ensure!`],
//!   or `?` on whatever implements [`std::error::Error`]. A panic ends the node with its message
//!   and place, and nothing else.
//! - [`mod@testing`] runs a node in a plain `cargo test`.

// The macros write paths that begin with the crate's own name.
extern crate self as kino_plugin;

mod cx;
mod element;
mod error;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod exports;
mod frames;
mod half;
#[doc(hidden)]
pub mod host;
mod literal;
mod log;
#[doc(hidden)]
pub mod node;
mod operand;
mod operations;
mod plugin;
pub mod port;
pub mod prelude;
mod sample;
#[doc(hidden)]
pub mod scalars;
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
pub mod shim;
mod step;
mod tensor;
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
pub mod testing;
mod types;

pub use cx::Cx;
pub use element::{Bf16, Element, F16};
pub use error::{Error, Result};
pub use frames::{FrameView, Frames, FramesBuilder};
pub use host::{Device, Value, ValueKind};
pub use kino_contract::ops::{Conv, Filter, Padding};
pub use kino_contract::{DType, code};
pub use kino_plugin_macros::{Choice, Outputs, guider, node, port_type};
pub use operand::Operand;
pub use sample::Sample;
pub use scalars::Path;
#[allow(deprecated)]
pub use step::Moment;
pub use step::SamplingStep;
pub use tensor::Tensor;
pub use tracing;
pub use types::{
    Any, Audio, Conditioning, Control, Dit, File, Given, Guider, ImageConditioning, ImageEncoder,
    Latent, Mask, Patches, Sigmas, TextEncoder, Vae,
};
#[doc(hidden)]
pub use {kino_abi as abi, serde_json as json};

/// What [`ValueKind`] was called.
#[deprecated(note = "it is called `ValueKind`")]
pub type Kind = ValueKind;
