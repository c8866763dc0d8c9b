//! Runs nodes in plain tests, without the engine.
//!
//! A node is called through the very functions that the engine calls, by a small host that holds
//! values in memory and computes every operation in its plainest form. Outside of an engine that
//! host is simply there: tensors can be made and computed with in any test.
//!
//! ```
//! use kino_plugin::prelude::*;
//! use kino_plugin::testing;
//!
//! /// Turns frames into their negative.
//! #[node(id = "example.negative", version = "1.0.0", like = "frames")]
//! fn negative(cx: &mut Cx, frames: Frames) -> Result<Frames> {
//!     frames.map(cx, |input, output| {
//!         for (o, i) in output.iter_mut().zip(input) {
//!             *o = 1.0 - i;
//!         }
//!     })
//! }
//!
//! fn main() -> Result<()> {
//!     let frames = Frames::random(7, [3, 4, 5, 3]);
//!     let out = testing::run::<negative>().input("frames", &frames).call()?;
//!     let expected = frames.joined()?.affine(-1.0, 1.0)?;
//!     testing::assert_close(&out.frames("frames")?.joined()?, &expected, 1e-6);
//!     assert_eq!(out.progress().last(), Some(&(3, 3)));
//!
//!     let cancelled = testing::run::<negative>().input("frames", &frames).cancel_after(1).call();
//!     assert_eq!(cancelled.err(), Some(Error::Cancelled));
//!     Ok(())
//! }
//! ```
//!
//! - [`run`] runs a node once, [`open`] makes an instance that runs many times, saves and restores.
//! - `.file(path, contents)` grants a file, `.without(output)` leaves an output unread,
//!   `.cancel_after(n)` cancels after the n-th time that the node asks.
//! - [`assert_close`] takes the greatest difference, or [`relative`]`(1e-5)`.
//! - [`golden`] compares with a file beside the test; `KINO_BLESS=1 cargo test` writes it.

mod array;
mod call;
mod compare;
mod fit;
mod held;
mod opaque;
mod operations;
mod ports;
mod run;
mod show;
mod table;

pub use call::Logged;
pub use compare::{Tolerance, assert_close, compare, golden, relative};
pub use opaque::opaque;
pub use run::{Done, Opened, Opening, Run, descriptor, open, run};
pub use table::table;
