//! Networks that make frames between frames, told by the names and shapes of their weights.

mod detect;
mod ifnet;

pub use detect::read_interpolator;
