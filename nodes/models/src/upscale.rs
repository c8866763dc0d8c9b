//! Networks that enlarge frames, each told from the others by the names and shapes of its weights.
//!
//! Files are those that users of Real-ESRGAN, ESRGAN and SPAN have, as safetensors. A network works
//! on whole frames; [`Tiling`] cuts what is too large for memory.

mod detect;
mod layers;
mod rrdb;
mod span;
mod srvgg;
mod tiling;

pub use detect::read_upscaler;
pub use tiling::Tiling;
