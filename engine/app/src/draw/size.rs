//! How large boxes are and where their ports sit, in pixels.

use super::picture::{Kind, Shape, shorten};

/// Between layers.
pub(crate) const GAP_X: f64 = 56.0;
/// Between boxes of one layer, and around all.
pub(crate) const GAP_Y: f64 = 18.0;
/// The height that a wire takes where it passes a layer.
pub(crate) const TRACK: f64 = 6.0;
/// The height of a port's row.
pub(crate) const ROW: f64 = 19.0;
/// The height of a box's head: name and op.
pub(crate) const HEAD: f64 = 40.0;
/// The height of the box of an input or output.
pub(crate) const PILL: f64 = 40.0;
/// The most characters of a value that are shown.
pub(crate) const VALUE: usize = 26;

/// Width and height.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    /// Width.
    pub(crate) width: f64,
    /// Height.
    pub(crate) height: f64,
}

/// About how wide a text is at the size of the rows.
pub(crate) fn text_width(text: &str) -> f64 {
    text.chars().map(|c| if (c as u32) < 0x1100 { 6.7 } else { 12.0 }).sum()
}

/// The size of a box.
pub(crate) fn of(shape: &Shape) -> Size {
    let head = text_width(&shape.name).mul_add(1.12, 28.0).max(text_width(&shape.op) + 28.0);
    if matches!(shape.kind, Kind::Input | Kind::Output) {
        let value = value_of(shape).map_or(0.0, |value| text_width(&value) + 28.0);
        return Size { width: head.max(value), height: PILL };
    }
    let row = |at: usize| {
        let left = shape.inputs.get(at).map_or(0.0, |row| {
            let value = row.value.as_ref().map(|value| shorten(value, VALUE));
            text_width(&row.name) + value.map_or(0.0, |value| text_width(&value) + 10.0)
        });
        left + shape.outputs.get(at).map_or(0.0, |row| text_width(&row.name) + 24.0)
    };
    let rows = shape.inputs.len().max(shape.outputs.len());
    let widest = (0..rows).map(row).fold(0.0, f64::max) + 28.0;
    Size { width: head.max(widest), height: HEAD + ROW * rows as f64 + 6.0 }
}

/// What the box of an input shows below its name: its default, or its type.
pub(crate) fn value_of(shape: &Shape) -> Option<String> {
    let value = shape.outputs.first().and_then(|row| row.value.as_ref());
    value.map(|value| shorten(value, VALUE))
}

/// How far below a box's upper side the port of this index sits, input or output.
pub(crate) fn port_y(shape: &Shape, index: usize) -> f64 {
    match shape.kind {
        Kind::Input | Kind::Output => PILL / 2.0,
        Kind::Node | Kind::Sink => HEAD + ROW * (index as f64 + 0.5),
    }
}
