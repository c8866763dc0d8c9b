//! Lightness of a frame at several sizes: what motion is searched in.

/// Side of the blocks that are compared.
pub(super) const BLOCK: usize = 8;
/// How far the search at the coarsest size goes to each side, in its pixels.
pub(super) const REACH: i32 = 16;
/// How far a vector may grow past the coarse search while it is refined, in pixels.
const SLACK: i32 = 8;
/// The shortest side of the coarsest size: smaller ones show too little.
const SMALLEST: usize = 70;
/// The most sizes.
const MOST_LEVELS: usize = 6;

/// BT.709's weights of red, green and blue in lightness, here of encoded values, as bytes.
const LUMA: [f32; 3] = [0.2126 * 255.0, 0.7152 * 255.0, 0.0722 * 255.0];

/// A plane of bytes with a margin in which its border goes on.
pub(super) struct Plane {
    pub(super) width: usize,
    pub(super) height: usize,
    /// The longest vector, along each axis, that stays within the margin from every block.
    pub(super) bound: i32,
    margin: usize,
    stride: usize,
    bytes: Vec<u8>,
}

impl Plane {
    fn new(width: usize, height: usize, bound: i32, pixels: &[u8]) -> Self {
        // A block at the border reaches past it, and so does interpolation.
        let margin = bound as usize + 2 * BLOCK;
        let stride = width + 2 * margin;
        let mut bytes = Vec::with_capacity(stride * (height + 2 * margin));
        for y in 0..height + 2 * margin {
            let row = &pixels[y.saturating_sub(margin).min(height - 1) * width..][..width];
            bytes.extend(std::iter::repeat_n(row[0], margin));
            bytes.extend_from_slice(row);
            bytes.extend(std::iter::repeat_n(row[width - 1], margin));
        }
        Plane { width, height, bound, margin, stride, bytes }
    }

    /// The plane with each byte changed.
    fn mapped(&self, change: impl Fn(u8) -> u8) -> Self {
        let bytes = self.bytes.iter().map(|value| change(*value)).collect();
        Plane { bytes, ..*self }
    }

    /// The pixels from (x, y) to the end of the margin; may lie in the margin.
    pub(super) fn from(&self, x: i32, y: i32) -> &[u8] {
        let margin = self.margin as i32;
        let (row, column) = ((y + margin) as usize, (x + margin) as usize);
        &self.bytes[row * self.stride + column..]
    }

    /// The pixels without the margin, row by row.
    fn pixels(&self) -> impl Iterator<Item = u8> + '_ {
        let rows = (0..self.height as i32).map(|y| &self.from(0, y)[..self.width]);
        rows.flatten().copied()
    }

    /// The mean and the standard deviation of the pixels.
    fn spread(&self) -> (f32, f32) {
        let count = (self.width * self.height) as f64;
        let (mut sum, mut squares) = (0.0, 0.0);
        for pixel in self.pixels().map(f64::from) {
            sum += pixel;
            squares += pixel * pixel;
        }
        let mean = sum / count;
        (mean as f32, (squares / count - mean * mean).max(0.0).sqrt() as f32)
    }

    /// The distance between two rows.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Blocks along the height and the width; the last may reach past the border.
    pub(super) fn blocks(&self) -> (usize, usize) {
        (self.height.div_ceil(BLOCK), self.width.div_ceil(BLOCK))
    }
}

/// A frame's lightness, then at half the size, at a quarter, and so on.
pub(super) struct Pyramid {
    pub(super) levels: Vec<Plane>,
}

impl Pyramid {
    /// Of RGB in 0…1, `[height, width, 3]`.
    pub(super) fn new(rgb: &[f32], height: usize, width: usize) -> Self {
        let mut count = 1;
        while count < MOST_LEVELS && height.min(width) >> count >= SMALLEST {
            count += 1;
        }
        let lightness = |rgb: &[f32]| {
            let sum = rgb[0] * LUMA[0] + rgb[1] * LUMA[1] + rgb[2] * LUMA[2];
            (sum + 0.5) as u8
        };
        let mut pixels: Vec<u8> = rgb.chunks_exact(3).map(lightness).collect();
        let (mut height, mut width) = (height, width);
        let mut levels = Vec::with_capacity(count);
        for level in 0..count {
            let bound = (REACH << (count - 1 - level)) + SLACK;
            levels.push(Plane::new(width, height, bound, &pixels));
            pixels = halved(&pixels, height, width);
            (height, width) = (height.div_ceil(2), width.div_ceil(2));
        }
        Pyramid { levels }
    }

    /// This frame as light and as contrasty as another, where that explains most of how they
    /// differ: a fade, in which blocks would else be matched by their lightness alone.
    pub(super) fn toned_as(&self, other: &Pyramid) -> Option<Pyramid> {
        let (own, others) = (self.levels.last()?, other.levels.last()?);
        let ((mean, spread), (wanted, wide)) = (own.spread(), others.spread());
        let gain = if spread >= 1.0 { wide / spread } else { 1.0 };
        let toned: Vec<u8> = (0..=255u8)
            .map(|value| {
                ((f32::from(value) - mean) * gain + wanted).round().clamp(0.0, 255.0) as u8
            })
            .collect();
        let tone = |value: u8| toned[usize::from(value)];
        let difference = |tone: &dyn Fn(u8) -> u8| {
            let pairs = own.pixels().zip(others.pixels());
            pairs.map(|(own, other)| u64::from(tone(own).abs_diff(other))).sum::<u64>()
        };
        let (as_they_are, with) = (difference(&|value| value), difference(&tone));
        (2 * with < as_they_are).then(|| Pyramid {
            levels: self.levels.iter().map(|plane| plane.mapped(tone)).collect(),
        })
    }
}

/// The mean of each 2 × 2 pixels.
fn halved(pixels: &[u8], height: usize, width: usize) -> Vec<u8> {
    let mut half = Vec::with_capacity(height.div_ceil(2) * width.div_ceil(2));
    for y in (0..height).step_by(2) {
        let upper = &pixels[y * width..][..width];
        let lower = &pixels[(y + 1).min(height - 1) * width..][..width];
        let pairs = upper.chunks(2).zip(lower.chunks(2));
        half.extend(pairs.map(|(upper, lower)| {
            let ends = |pair: &[u8]| u32::from(pair[0]) + u32::from(pair[pair.len() - 1]);
            ((ends(upper) + ends(lower) + 2) / 4) as u8
        }));
    }
    half
}
