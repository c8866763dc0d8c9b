//! The picture as SVG: boxes with ports, wires coloured by what travels along them.

use std::fmt::Write;

use super::layout::{Layout, Placed, layout};
use super::picture::{Kind, Picture, Row, Shape, colour, shorten};
use super::size::{HEAD, VALUE, port_y, value_of};

const STYLE: &str = "\
text { font: 12px ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, 'Noto Sans', sans-serif; fill: #1f2937 }
.name { font-weight: 600; font-size: 13px }
.op, .about { fill: #6b7280 }
.value { fill: #6b7280; text-anchor: end }
.out { text-anchor: end }
.box { fill: #ffffff; stroke: #9ca3af }
.sink { stroke: #374151; stroke-width: 1.6 }
.input, .output { fill: #f3f4f6; stroke: #9ca3af }
.head { fill: #eef2f7 }
.wire { fill: none; stroke-width: 2; stroke-opacity: .85 }
";

/// Draws a picture as an SVG document.
pub(crate) fn svg(picture: &Picture) -> String {
    let placed = layout(picture);
    let caption = if picture.about.is_empty() { 0.0 } else { 30.0 };
    let (width, height) = (placed.size.0.max(240.0), placed.size.1 + caption);
    let mut to = String::new();
    let _ = writeln!(
        to,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n<style>\n{STYLE}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
    );
    if !picture.about.is_empty() {
        let about = escape(&shorten(&picture.about, (width / 7.0) as usize));
        let _ = writeln!(to, "<text class=\"about\" x=\"18\" y=\"26\">{about}</text>");
    }
    let _ = writeln!(to, "<g transform=\"translate(0 {caption})\">");
    wires(picture, &placed, &mut to);
    for (shape, place) in picture.boxes.iter().zip(&placed.boxes) {
        match shape.kind {
            Kind::Input | Kind::Output => pill(shape, place, &mut to),
            Kind::Node | Kind::Sink => node(shape, place, &mut to),
        }
    }
    to.push_str("</g>\n</svg>\n");
    to
}

fn wires(picture: &Picture, placed: &Layout, to: &mut String) {
    for (wire, points) in picture.wires.iter().zip(&placed.wires) {
        let Some(((x, y), rest)) = points.split_first() else { continue };
        let mut path = format!("M{x:.1} {y:.1}");
        let mut last = (*x, *y);
        for point in rest {
            let bend = ((point.0 - last.0) / 2.0).max(12.0);
            if (point.1 - last.1).abs() < 0.05 {
                let _ = write!(path, " L{:.1} {:.1}", point.0, point.1);
            } else {
                let _ = write!(
                    path,
                    " C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}",
                    last.0 + bend,
                    last.1,
                    point.0 - bend,
                    point.1,
                    point.0,
                    point.1
                );
            }
            last = *point;
        }
        let (from, into) = (&picture.boxes[wire.from.0], &picture.boxes[wire.to.0]);
        let title = escape(&format!("{} → {}: {}", from.name, into.name, wire.ty));
        let colour = colour(&wire.ty);
        let _ = writeln!(
            to,
            "<path class=\"wire\" stroke=\"{colour}\" d=\"{path}\"><title>{title}</title></path>"
        );
    }
}

fn pill(shape: &Shape, place: &Placed, to: &mut String) {
    let Placed { x, y, size } = *place;
    let class = if shape.kind == Kind::Input { "input" } else { "output" };
    let below = value_of(shape).unwrap_or_else(|| shape.op.clone());
    let middle = x + size.width / 2.0;
    let _ = writeln!(
        to,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"20\"/>\
         <text class=\"name\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">{}</text>\
         <text class=\"op\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">{}</text>",
        size.width,
        size.height,
        y + 17.0,
        escape(&shape.name),
        y + 32.0,
        escape(&below)
    );
    let ports = [(shape.inputs.first(), x), (shape.outputs.first(), x + size.width)];
    for (row, at) in ports.into_iter().filter_map(|(row, at)| row.map(|row| (row, at))) {
        dot(at, y + port_y(shape, 0), row, to);
    }
}

fn node(shape: &Shape, place: &Placed, to: &mut String) {
    let Placed { x, y, size } = *place;
    let class = if shape.kind == Kind::Sink { "box sink" } else { "box" };
    let (right, bottom) = (x + size.width, HEAD - 6.0);
    let _ = writeln!(
        to,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"7\"/>\
         <path class=\"head\" d=\"M{:.1} {:.1} v-{:.1} q0 -6 6 -6 h{:.1} q6 0 6 6 v{:.1} z\"/>\
         <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
         <text class=\"op\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        size.width,
        size.height,
        x + 1.0,
        y + bottom,
        bottom - 7.0,
        size.width - 14.0,
        bottom - 7.0,
        x + 12.0,
        y + 16.0,
        escape(&shape.name),
        x + 12.0,
        y + 30.0,
        escape(&shape.op)
    );
    let taken = |at: usize| {
        shape.outputs.get(at).map_or(0.0, |row| super::size::text_width(&row.name) + 22.0)
    };
    for (at, row) in shape.inputs.iter().enumerate() {
        let middle = y + port_y(shape, at);
        let _ = writeln!(
            to,
            "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x + 12.0,
            middle + 4.0,
            escape(&row.name)
        );
        match &row.value {
            Some(value) => {
                let (value, edge) = (escape(&shorten(value, VALUE)), right - 12.0 - taken(at));
                let _ = writeln!(
                    to,
                    "<text class=\"value\" x=\"{edge:.1}\" y=\"{:.1}\">{value}</text>",
                    middle + 4.0
                );
            }
            None => dot(x, middle, row, to),
        }
    }
    for (at, row) in shape.outputs.iter().enumerate() {
        let middle = y + port_y(shape, at);
        let (edge, name) = (right - 12.0, escape(&row.name));
        let _ = writeln!(
            to,
            "<text class=\"out\" x=\"{edge:.1}\" y=\"{:.1}\">{name}</text>",
            middle + 4.0
        );
        dot(right, middle, row, to);
    }
}

fn dot(x: f64, y: f64, row: &Row, to: &mut String) {
    let _ = writeln!(
        to,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{}\" stroke=\"#ffffff\">\
         <title>{}: {}</title></circle>",
        colour(&row.ty),
        escape(&row.name),
        escape(&row.ty.to_string())
    );
}

/// A text as XML holds it: markup escaped, characters that XML forbids left out.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\t' | '\n' | '\r' => escaped.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_break_out() {
        assert_eq!(escape("<a b='\"&\u{0}\u{1b}'>"), "&lt;a b=&apos;&quot;&amp;&apos;&gt;");
    }
}
