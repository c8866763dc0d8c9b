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
kino_plugin::plugin!(empty, gain);
