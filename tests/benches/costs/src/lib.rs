//! Nodes that do as little as possible, to see what calling them costs.

use kino_plugin::prelude::*;

/// Does nothing.
#[node(id = "costs.empty", version = "1.0.0")]
fn empty() -> i64 {
    7
}

/// Multiplies every frame by a gain.
#[node(id = "costs.gain", version = "1.0.0", like = "frames")]
fn gain(cx: &mut Cx, frames: Frames, gain: f64) -> Result<Frames> {
    let gain = gain as f32;
    frames.map_each(cx, |x| x * gain)
}

/// The same, kept below 1.
#[node(id = "costs.kept", version = "1.0.0", like = "frames")]
fn kept(cx: &mut Cx, frames: Frames, gain: f64) -> Result<Frames> {
    frames.map_samples(cx, |x| (x * gain).min(1.0))
}

/// The same, kept below 1 by what f32 has for it.
#[node(id = "costs.kept_f32", version = "1.0.0", like = "frames")]
fn kept_f32(cx: &mut Cx, frames: Frames, gain: f64) -> Result<Frames> {
    let gain = gain as f32;
    frames.map_each(cx, |x| (x * gain).min(1.0))
}
kino_plugin::plugin!(empty, gain, kept, kept_f32);
