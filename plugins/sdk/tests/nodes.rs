//! Nodes as an author writes them.

use kino_plugin::prelude::*;

/// Multiplies every frame by a gain.
#[node(id = "example.gain", version = "1.0.0", like = "frames")]
pub fn gain(
    cx: &mut Cx,
    #[port(about = "What to scale.")] frames: Frames,
    #[param(default = 1.0, range = 0.0..=4.0, unit = "x")] gain: f64,
) -> Result<Frames> {
    frames.map(cx, |input, output| {
        for (o, i) in output.iter_mut().zip(input) {
            *o = i * gain as f32;
        }
    })
}

kino_plugin::plugin!(gain);
