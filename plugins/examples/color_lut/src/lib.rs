//! Colours frames by a table in a file.

mod cube;

use cube::Cube;
use kino_plugin::prelude::*;

/// Colours frames by the three-dimensional table of a .cube file.
///
/// Each pixel is looked up between the eight entries of the table around it. Most programs for
/// grading colours write such files (Adobe's Cube LUT Specification 1.0). The file must lie in
/// what the plugin was granted to read.
#[node(id = "color.lut", version = "1.0.0", like = "frames")]
pub fn color_lut(
    cx: &mut Cx,
    frames: Frames,
    /// The .cube file, relative to the graph.
    path: Path,
    /// How far to go from the frames towards the table's colours.
    #[param(default = 1.0, range = 0.0..=1.0)]
    strength: f64,
) -> Result<Frames> {
    let cube = Cube::parse(&cx.read_text(&path)?).map_err(|error| error.at(&path))?;
    let strength = strength as f32;
    frames.map_frames(cx, |frame, out, _| {
        for (rgb, out) in frame.rgb.chunks_exact(3).zip(out.chunks_exact_mut(3)) {
            let rgb = [rgb[0], rgb[1], rgb[2]];
            for ((out, was), table) in out.iter_mut().zip(rgb).zip(cube.look_up(rgb)) {
                *out = (was + strength * (table - was)).clamp(0.0, 1.0);
            }
        }
        Ok(())
    })
}

kino_plugin::plugin!(color_lut);
