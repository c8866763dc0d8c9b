//! From the colours of a video to those of frames: RGB in 0…1, sRGB-encoded, BT.709 primaries.
//!
//! Numbers of matrices, transfers and primaries are those of ITU-T H.273, which mp4 files and
//! H.264 streams share. What cannot be converted is refused by its name.

use std::io;

use super::demux::Refused;
use crate::light::{light_to_srgb, srgb_to_light};
use crate::orientation::Orientation;

/// What a file says of its colours; 2 stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Colour {
    pub(super) primaries: u8,
    pub(super) transfer: u8,
    pub(super) matrix: u8,
    /// Whether samples use all of 0…255 instead of 16…235 and 16…240.
    pub(super) full_range: bool,
}

/// One picture as planes, chroma at half of both sides; no gaps between rows.
#[derive(Debug, Default)]
pub(super) struct Planes {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) y: Vec<u8>,
    pub(super) u: Vec<u8>,
    pub(super) v: Vec<u8>,
}

/// How RGB that came out of the matrix becomes that of frames.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Encoding {
    /// As it is: sRGB, and the curves that cameras use for the same screens.
    Same,
    /// Light as it is.
    Linear,
    /// A power of 2.8.
    Gamma28,
    /// SMPTE ST 2084.
    Pq,
    /// Hybrid log-gamma, ARIB STD-B67.
    Hlg,
}

/// A conversion that is possible.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Conversion {
    /// What is subtracted of light, and what it is then multiplied by.
    light: (f32, f32),
    /// Red of Cr, green of Cb and of Cr, blue of Cb, of samples less 128.
    chroma: [f32; 4],
    encoding: Encoding,
    /// To BT.709 primaries, in light; none where they are near enough.
    gamut: Option<[[f32; 3]; 3]>,
}

/// BT.2020 to BT.709 primaries (ITU-R BT.2087-0).
const OF_2020: [[f32; 3]; 3] = [
    [1.660_491, -0.587_641_1, -0.072_849_9],
    [-0.124_550_5, 1.132_899_9, -0.008_349_4],
    [-0.018_150_8, -0.100_578_9, 1.118_729_7],
];
/// Display P3 to BT.709 primaries.
const OF_P3: [[f32; 3]; 3] = [
    [1.224_940_2, -0.224_940_2, 0.0],
    [-0.042_056_9, 1.042_056_9, 0.0],
    [-0.019_637_6, -0.078_636_1, 1.098_273_7],
];

impl Colour {
    /// The conversion of pictures of a size; with `tone_map` also of PQ and HLG.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn conversion(
        self,
        (width, height): (usize, usize),
        tone_map: bool,
    ) -> Result<Conversion, Refused> {
        // What is not said is taken for what players take it for (as mpv does): high definition
        // is BT.709. RGB cannot be in 4:2:0.
        let matrix = match self.matrix {
            0 | 2 | 3 if width >= 1280 || height > 576 => 1,
            0 | 2 | 3 => 6,
            matrix => matrix,
        };
        let (red, blue) = match matrix {
            1 => (0.2126, 0.0722),
            4 => (0.30, 0.11),
            5 | 6 => (0.299, 0.114),
            7 => (0.212, 0.087),
            9 => (0.2627, 0.0593),
            8 => return Err("its colours are YCgCo, which is not read here".to_owned()),
            10 => return Err("its colours are BT.2020 of constant luminance".to_owned()),
            14 => return Err("its colours are ICtCp, which is not read here".to_owned()),
            other => return Err(format!("its colours have a matrix of number {other} (H.273)")),
        };
        let hdr = |name: &str| {
            Err(format!("its light is {name} (HDR), which frames cannot hold without tone mapping"))
        };
        let encoding = match self.transfer {
            1 | 2 | 3 | 4 | 6 | 7 | 13 | 14 | 15 => Encoding::Same,
            5 => Encoding::Gamma28,
            8 => Encoding::Linear,
            16 if tone_map => Encoding::Pq,
            18 if tone_map => Encoding::Hlg,
            16 => return hdr("PQ"),
            18 => return hdr("HLG"),
            other => return Err(format!("its light has a curve of number {other} (H.273)")),
        };
        let gamut = match self.primaries {
            // Those of standard definition are near enough that players take them as they are.
            1 | 2 | 3 | 5 | 6 | 7 | 22 => None,
            9 => Some(OF_2020),
            12 => Some(OF_P3),
            other => return Err(format!("its primaries have the number {other} (H.273)")),
        };
        let (light, scale) = match self.full_range {
            true => ((0.0, 1.0 / 255.0), 1.0 / 255.0),
            false => ((16.0, 1.0 / 219.0), 1.0 / 224.0),
        };
        let green = 1.0 - red - blue;
        let (of_red, of_blue) = (2.0 * (1.0 - red) * scale, 2.0 * (1.0 - blue) * scale);
        let chroma =
            [of_red, -of_blue * blue / green, -of_red * red / green, of_blue].map(|n| n as f32);
        Ok(Conversion { light, chroma, encoding, gamut })
    }
}

impl Conversion {
    /// The picture as RGB in 0…1, `[height, width, 3]`, turned upright. Chroma samples stand for
    /// the four pixels that they belong to.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn rgb(&self, planes: &Planes, orientation: Orientation) -> io::Result<Vec<f32>> {
        let (width, height) = (planes.width, planes.height);
        let mut rgb = room(width * height * 3)?;
        self.fill(planes, &mut rgb);
        self.encode_all(&mut rgb);
        upright(rgb, (width, height), orientation)
    }

    /// Brings RGB as the matrix gave it to that of frames.
    pub(super) fn encode_all(&self, rgb: &mut [f32]) {
        if self.encoding != Encoding::Same || self.gamut.is_some() {
            rgb.chunks_exact_mut(3).for_each(|pixel| self.encode(pixel));
        }
    }

    fn fill(&self, planes: &Planes, rgb: &mut Vec<f32>) {
        let (width, height) = (planes.width, planes.height);
        rgb.resize(width * height * 3, 0.0);
        let half = width.div_ceil(2);
        let (black, scale) = self.light;
        let [red, green_of_u, green_of_v, blue] = self.chroma;
        let rows = rgb.chunks_exact_mut(width * 3).zip(planes.y.chunks_exact(width));
        for (row, (to, y)) in rows.enumerate() {
            let u = &planes.u[row / 2 * half..][..half];
            let v = &planes.v[row / 2 * half..][..half];
            let pairs = to.chunks_mut(6).zip(y.chunks(2)).zip(u.iter().zip(v));
            for ((to, y), (&u, &v)) in pairs {
                let (u, v) = (f32::from(u) - 128.0, f32::from(v) - 128.0);
                let add = [red * v, green_of_u * u + green_of_v * v, blue * u];
                for (to, &y) in to.chunks_exact_mut(3).zip(y) {
                    let light = (f32::from(y) - black) * scale;
                    to[0] = (light + add[0]).clamp(0.0, 1.0);
                    to[1] = (light + add[1]).clamp(0.0, 1.0);
                    to[2] = (light + add[2]).clamp(0.0, 1.0);
                }
            }
        }
    }

    /// Brings a pixel to sRGB and BT.709 primaries.
    fn encode(&self, pixel: &mut [f32]) {
        let mut light = [pixel[0], pixel[1], pixel[2]];
        light = match self.encoding {
            Encoding::Same => light.map(srgb_to_light),
            Encoding::Linear => light,
            Encoding::Gamma28 => light.map(|value| value.powf(2.8)),
            Encoding::Pq => tone_mapped(light.map(pq_to_nits)),
            Encoding::Hlg => tone_mapped(hlg_to_nits(light)),
        };
        if let Some(gamut) = &self.gamut {
            let dot = |row: &[f32; 3]| row[0] * light[0] + row[1] * light[1] + row[2] * light[2];
            light = [dot(&gamut[0]), dot(&gamut[1]), dot(&gamut[2])];
        }
        pixel.copy_from_slice(&light.map(|value| light_to_srgb(value.clamp(0.0, 1.0))));
    }
}

/// Empty, with room for so many numbers.
pub(super) fn room(count: usize) -> io::Result<Vec<f32>> {
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
    Ok(numbers)
}

/// A picture of a width and height, turned upright.
pub(super) fn upright(
    rgb: Vec<f32>,
    (width, height): (usize, usize),
    orientation: Orientation,
) -> io::Result<Vec<f32>> {
    if orientation.is_upright() {
        return Ok(rgb);
    }
    let (to_width, to_height) =
        if orientation.is_turned() { (height, width) } else { (width, height) };
    let mut turned = room(rgb.len())?;
    for y in 0..to_height {
        for x in 0..to_width {
            let (from_x, from_y) = orientation.source((x, y), (width, height));
            turned.extend_from_slice(&rgb[(from_y * width + from_x) * 3..][..3]);
        }
    }
    Ok(turned)
}

/// The light of diffuse white in HDR, which becomes 1 (ITU-R BT.2408-7 §2.1).
const WHITE: f32 = 203.0;
/// The brightest light that still shows differences. What a file says of its screen is not read;
/// this is the screen that most are made on, and that HLG is defined for.
const PEAK: f32 = 1000.0;

/// SMPTE ST 2084: constants m1, m2, c1, c2, c3.
const PQ: [f32; 5] = [0.159_301_76, 78.843_75, 0.835_937_5, 18.851_562, 18.6875];

fn pq_to_nits(value: f32) -> f32 {
    let [m1, m2, c1, c2, c3] = PQ;
    let power = value.powf(1.0 / m2);
    10_000.0 * ((power - c1).max(0.0) / (c2 - c3 * power)).powf(1.0 / m1)
}

fn nits_to_pq(nits: f32) -> f32 {
    let [m1, m2, c1, c2, c3] = PQ;
    let power = (nits / 10_000.0).max(0.0).powf(m1);
    ((c1 + c2 * power) / (1.0 + c3 * power)).powf(m2)
}

/// ITU-R BT.2100-2, table 5, for a screen of [`PEAK`]: a gamma of 1.2.
fn hlg_to_nits(signal: [f32; 3]) -> [f32; 3] {
    let scene = signal.map(|value| {
        let (a, b, c) = (0.178_832_77_f32, 0.284_668_92, 0.559_910_7);
        if value <= 0.5 { value * value / 3.0 } else { (((value - c) / a).exp() + b) / 12.0 }
    });
    let light = 0.2627 * scene[0] + 0.678 * scene[1] + 0.0593 * scene[2];
    scene.map(|value| PEAK * light.max(0.0).powf(0.2) * value)
}

/// Light of up to [`PEAK`] as 0…1, [`WHITE`] and less almost as it is: the curve of ITU-R
/// BT.2390-11 §5.4.1 over the brightest of the three colours, so that hues stay.
fn tone_mapped(nits: [f32; 3]) -> [f32; 3] {
    let most = nits[0].max(nits[1]).max(nits[2]);
    if most <= 0.0 {
        return [0.0; 3];
    }
    let peak = nits_to_pq(PEAK);
    let white = nits_to_pq(WHITE) / peak;
    let knee = 1.5 * white - 0.5;
    let from = (nits_to_pq(most) / peak).min(1.0);
    let to = if from < knee {
        from
    } else {
        let t = (from - knee) / (1.0 - knee);
        let (t2, t3) = (t * t, t * t * t);
        (2.0 * t3 - 3.0 * t2 + 1.0) * knee
            + (t3 - 2.0 * t2 + t) * (1.0 - knee)
            + (-2.0 * t3 + 3.0 * t2) * white
    };
    let scale = pq_to_nits(to * peak) / most / WHITE;
    nits.map(|value| value * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: Colour = Colour { primaries: 1, transfer: 1, matrix: 1, full_range: false };

    fn pixel(colour: Colour, [y, u, v]: [u8; 3], tone_map: bool) -> [f32; 3] {
        let planes = Planes { width: 1, height: 1, y: vec![y], u: vec![u], v: vec![v] };
        let conversion = colour.conversion((64, 64), tone_map).unwrap();
        conversion.rgb(&planes, Orientation::of(None)).unwrap().try_into().unwrap()
    }

    #[track_caller]
    fn close(found: [f32; 3], expected: [f32; 3]) {
        let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2.0 / 255.0);
        assert!(near, "{found:?}, expected {expected:?}");
    }

    #[test]
    fn ranges_and_matrices() {
        close(pixel(VIDEO, [235, 128, 128], false), [1.0; 3]);
        close(pixel(VIDEO, [16, 128, 128], false), [0.0; 3]);
        // Red in BT.709 and in BT.601, limited and full (ITU-R BT.709-6 §3, BT.601-7 §2.5).
        close(pixel(VIDEO, [63, 102, 240], false), [1.0, 0.0, 0.0]);
        close(pixel(Colour { matrix: 6, ..VIDEO }, [81, 90, 240], false), [1.0, 0.0, 0.0]);
        let full = Colour { full_range: true, matrix: 6, ..VIDEO };
        close(pixel(full, [76, 85, 255], false), [1.0, 0.0, 0.0]);
        // Nothing is said: by the size.
        let none = Colour { matrix: 2, ..VIDEO };
        assert_eq!(
            none.conversion((640, 480), false),
            Colour { matrix: 6, ..VIDEO }.conversion((1, 1), false)
        );
        assert_eq!(none.conversion((1280, 720), false), VIDEO.conversion((1, 1), false));
    }

    #[test]
    fn hdr_is_refused_by_name_and_mapped_by_request() {
        for (transfer, name, white) in [(16, "PQ", 148), (18, "HLG", 180)] {
            let colour = Colour { transfer, primaries: 9, matrix: 9, full_range: false };
            let said = colour.conversion((64, 64), false).unwrap_err();
            assert!(said.contains(name) && said.contains("HDR"), "{said}");
            let grey = |y: u8| pixel(colour, [y, 128, 128], true)[0];
            // Diffuse white (58% of PQ, 75% of HLG) is bright, the brightest is 1, and nothing
            // turns back.
            assert!((0.85..1.0).contains(&grey(white)), "{name}: {}", grey(white));
            assert!(grey(235) > 0.99 && grey(16) < 0.01, "{name}: {} {}", grey(235), grey(16));
            assert!((17..=235).all(|y| grey(y) >= grey(y - 1)), "{name}");
        }
    }

    #[test]
    fn wide_primaries_are_brought_to_709_and_grey_stays() {
        let wide = Colour { primaries: 9, matrix: 9, ..VIDEO };
        close(pixel(wide, [126, 128, 128], false), [(126.0 - 16.0) / 219.0; 3]);
        // A green inside of both: less red and blue by BT.2020 than by BT.709.
        let [red, green, _] = pixel(wide, [126, 118, 118], false);
        let [same_red, same_green, _] =
            pixel(Colour { primaries: 1, ..wide }, [126, 118, 118], false);
        assert!(red < same_red && green > same_green);
        assert!(Colour { primaries: 8, ..VIDEO }.conversion((1, 1), false).is_err());
        assert!(Colour { matrix: 14, ..VIDEO }.conversion((1, 1), false).is_err());
        assert!(Colour { transfer: 9, ..VIDEO }.conversion((1, 1), false).is_err());
    }
}
