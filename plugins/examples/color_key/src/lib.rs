//! A colour key: a mask of what has a colour, made by a plugin.

use kino_plugin::prelude::*;

/// Makes a mask of what has a colour, whatever its brightness: 1 where frames have it, 0 where they
/// do not, and all between at soft edges.
///
/// Colours are compared in the plane of chroma, Cb and Cr of BT.709 (each −0.5…0.5), so that light
/// and shadow on a screen of one colour count alike. With d the distance from the key's chroma, a
/// pixel is 1 up to `tolerance` and 0 from `tolerance` + `softness` on; between them it falls as
/// 1 − 3t² + 2t³. A key without chroma (black, grey, white) is compared by luminance as well.
///
/// Shapes: frames `[f, h, w, 3]`, the mask `[f, h, w]`.
#[node(id = "key.color", version = "1.0.0")]
pub fn color_key(
    cx: &mut Cx,
    frames: Frames,
    /// The colour, as `#rrggbb`.
    #[param(default = "#00ff00")]
    color: &str,
    /// How far from it still counts wholly.
    #[param(default = 0.1, range = 0.0..=1.0)]
    tolerance: f64,
    /// How much farther it fades.
    #[param(default = 0.05, range = 0.0..=1.0)]
    softness: f64,
    /// How far what was found grows to each side, so that what shows around it goes with it.
    #[param(default = 0, range = 0..=64, unit = "px")]
    grow: usize,
    /// Mask all else instead.
    #[param(default = false)]
    invert: bool,
) -> Result<Mask> {
    let key = Key::new(parse(color)?, tolerance as f32, softness as f32);
    let [count, height, width] = [frames.count(), frames.height(), frames.width()];
    let mut chunks = Vec::new();
    let mut done = 0;
    for chunk in frames.chunks() {
        let chunk = chunk?;
        let [n, ..] = chunk.shape::<4>()?;
        let mask = Tensor::try_new_with(&[n, height, width], |out: &mut [f32]| {
            // A frame at a time: a long chunk need not lie in a component twice.
            for (index, out) in out.chunks_exact_mut((height * width).max(1)).enumerate() {
                cx.check_cancel()?;
                let pixels = 3 * height * width;
                chunk.with_piece(index * pixels, pixels, |rgb: &[f32]| {
                    for (out, rgb) in out.iter_mut().zip(rgb.chunks_exact(3)) {
                        *out = key.of([rgb[0], rgb[1], rgb[2]]);
                    }
                })?;
                spread(out, [height, width], grow);
                if invert {
                    out.iter_mut().for_each(|value| *value = 1.0 - *value);
                }
                cx.progress(done + index + 1, count);
            }
            Ok(())
        })?;
        chunks.push(mask);
        done += n;
    }
    Ok(Mask(Tensor::concat(&chunks.iter().collect::<Vec<_>>(), 0)?))
}

/// `#rrggbb` as red, green, blue in 0…1.
fn parse(color: &str) -> Result<[f32; 3]> {
    let digits = color.strip_prefix('#').filter(|digits| {
        digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    });
    let Some(digits) = digits else {
        let shown: String = color.chars().take(20).collect();
        return Err(Error::new(format!("expected a colour as #rrggbb, found `{shown}`"))
            .hint("green is #00ff00")
            .with_code("invalid"));
    };
    let level = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).map(f32::from);
    Ok([level(0)? / 255.0, level(2)? / 255.0, level(4)? / 255.0])
}

/// A colour and how near to it counts.
struct Key {
    /// Cb, Cr, and luminance times how much it counts.
    color: [f32; 3],
    /// How much luminance counts: not at all beside a chroma, wholly without.
    luminance: f32,
    tolerance: f32,
    softness: f32,
}

impl Key {
    fn new(rgb: [f32; 3], tolerance: f32, softness: f32) -> Self {
        let [cb, cr, _] = chroma(rgb);
        // A chroma below this is no colour that anybody sees.
        let luminance = if cb.hypot(cr) < 0.05 { 1.0 } else { 0.0 };
        let mut color = chroma(rgb);
        color[2] *= luminance;
        Key { color, luminance, tolerance, softness }
    }

    fn of(&self, rgb: [f32; 3]) -> f32 {
        let [cb, cr, y] = chroma(rgb);
        let [b, r, l] =
            [cb - self.color[0], cr - self.color[1], y * self.luminance - self.color[2]];
        let distance = (b * b + r * r + l * l).sqrt();
        let over = (distance - self.tolerance) / self.softness.max(1e-6);
        // What is no number has no colour.
        let t = if over <= 0.0 {
            0.0
        } else if over < 1.0 {
            over
        } else {
            1.0
        };
        1.0 - t * t * (3.0 - 2.0 * t)
    }
}

/// Makes every place the greatest within so many pixels along each side (dilation by a square, rows
/// first, then columns).
fn spread(mask: &mut [f32], [height, width]: [usize; 2], reach: usize) {
    if reach == 0 {
        return;
    }
    let grown = |line: &[f32], at: usize| {
        let end = (at + reach + 1).min(line.len());
        line[at.saturating_sub(reach)..end].iter().fold(0f32, |most, value| most.max(*value))
    };
    for row in mask.chunks_exact_mut(width.max(1)) {
        let line = row.to_vec();
        row.iter_mut().enumerate().for_each(|(at, value)| *value = grown(&line, at));
    }
    for column in 0..width {
        let line: Vec<f32> = (0..height).map(|row| mask[row * width + column]).collect();
        (0..height).for_each(|row| mask[row * width + column] = grown(&line, row));
    }
}

/// Cb, Cr and luminance (ITU-R BT.709, full range).
fn chroma([r, g, b]: [f32; 3]) -> [f32; 3] {
    let y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    [(b - y) / 1.8556, (r - y) / 1.5748, y]
}

kino_plugin::plugin!(color_key);
