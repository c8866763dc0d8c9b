//! Colour profiles of stills, to the colours of frames: RGB in 0…1, encoded by the curve of sRGB,
//! BT.709 primaries. Read are ICC profiles made of curves and a matrix (ICC.1:2022 §8.3.4, and
//! §8.3.2 for grey), which displays and cameras have, and what PNG says in its chunks (W3C PNG,
//! third edition, §11.3.2). What cannot be converted is refused by its name.

use crate::light::{Primaries, from_d50, light_to_srgb, srgb_to_light};

/// The largest profile; those of displays and cameras have some thousand bytes.
pub(crate) const LONGEST: usize = 16 << 20;

/// How near two numbers of 0…1 are that nobody tells apart in 8 bits.
const NEAR: f32 = 1.0 / 1024.0;

/// Said of a profile that cannot be read.
pub(crate) const DAMAGED: &str = "its colour profile is damaged";

/// What to do about a file whose colours are not converted.
pub(crate) const WAY: &str =
    "save it in sRGB, as an editor does, or: `magick IN -profile sRGB.icc OUT.png`";

/// Why a profile is not converted.
pub(crate) type Refused = String;

/// From the colours of a file to those of frames.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColorProfile {
    /// Of red, green and blue; of grey the first.
    curves: [Curve; 3],
    /// To BT.709 primaries, in light; none where they are those.
    gamut: Option<[[f32; 3]; 3]>,
}

/// From an encoded value to light.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Curve {
    /// That of sRGB.
    Srgb,
    /// A power.
    Gamma(f32),
    /// `(a·x + b)^g + e` from `d` on, below it `c·x + f`.
    Parametric { g: f32, a: f32, b: f32, c: f32, d: f32, e: f32, f: f32 },
    /// Light at steps of one length from 0 to 1, and straight lines between.
    Table(Vec<f32>),
}

impl Curve {
    fn light(&self, value: f32) -> f32 {
        match self {
            Curve::Srgb => srgb_to_light(value),
            Curve::Gamma(gamma) => value.max(0.0).powf(*gamma),
            Curve::Parametric { g, a, b, c, d, e, f } => match value >= *d {
                true => (a * value + b).max(0.0).powf(*g) + e,
                false => c * value + f,
            },
            Curve::Table(table) => {
                let at = value.clamp(0.0, 1.0) * (table.len() - 1) as f32;
                let low = (at as usize).min(table.len() - 2);
                table[low] + (table[low + 1] - table[low]) * (at - low as f32)
            }
        }
    }

    /// Whether nobody tells it from that of sRGB.
    fn is_srgb(&self) -> bool {
        (0..=255)
            .map(|step| step as f32 / 255.0)
            .all(|value| (light_to_srgb(self.light(value)) - value).abs() < NEAR)
    }
}

impl ColorProfile {
    /// One of curves and primaries; none where they are those of frames.
    fn of(curves: [Curve; 3], gamut: [[f32; 3]; 3]) -> Option<Self> {
        let is_own = |row: usize, c: usize| {
            (gamut[row][c] - if row == c { 1.0 } else { 0.0 }).abs() < 2.0 * NEAR
        };
        let is_near = (0..3).all(|row| (0..3).all(|c| is_own(row, c)));
        let gamut = (!is_near).then_some(gamut);
        let is_same = gamut.is_none() && curves.iter().all(Curve::is_srgb);
        (!is_same).then_some(ColorProfile { curves, gamut })
    }

    /// What a PNG says of its colours by the numbers of ITU-T H.273 (cICP); none where they are
    /// those of frames.
    pub(crate) fn of_code_points(
        primaries: u8,
        transfer: u8,
        matrix: u8,
        is_full_range: bool,
    ) -> Result<Option<Self>, Refused> {
        if matrix != 0 || !is_full_range {
            return Err("its colours are no RGB of full range (cICP)".to_owned());
        }
        let white = [0.3127, 0.3290];
        let primaries = Primaries(match primaries {
            1 | 2 => [[0.64, 0.33], [0.30, 0.60], [0.15, 0.06], white],
            4 => [[0.67, 0.33], [0.21, 0.71], [0.14, 0.08], [0.310, 0.316]],
            5 => [[0.64, 0.33], [0.29, 0.60], [0.15, 0.06], white],
            6 | 7 => [[0.630, 0.340], [0.310, 0.595], [0.155, 0.070], white],
            9 => [[0.708, 0.292], [0.170, 0.797], [0.131, 0.046], white],
            11 => [[0.680, 0.320], [0.265, 0.690], [0.150, 0.060], [0.314, 0.351]],
            12 => [[0.680, 0.320], [0.265, 0.690], [0.150, 0.060], white],
            other => return Err(format!("its primaries have the number {other} (cICP)")),
        });
        let curve = match transfer {
            // What cameras encode by these curves is meant for the screens that sRGB is for.
            1 | 2 | 6 | 13 | 14 | 15 => Curve::Srgb,
            4 => Curve::Gamma(2.2),
            5 => Curve::Gamma(2.8),
            8 => Curve::Gamma(1.0),
            16 => return Err("its light is PQ (HDR), which frames do not hold".to_owned()),
            18 => return Err("its light is HLG (HDR), which frames do not hold".to_owned()),
            other => return Err(format!("its light has a curve of number {other} (cICP)")),
        };
        let gamut = primaries.to_bt709().ok_or("its primaries are none")?;
        Ok(ColorProfile::of([curve.clone(), curve.clone(), curve], gamut))
    }

    /// What a PNG says of its colours by an exponent (gAMA: encoded is light to its power) and by
    /// the places of its primaries (cHRM), as far as it says them.
    pub(crate) fn of_gamma(
        exponent: Option<f32>,
        primaries: Option<Primaries>,
    ) -> Result<Option<Self>, Refused> {
        let curve = match exponent.filter(|exponent| *exponent > 0.0) {
            // What stands beside sRGB for readers that do not know it.
            Some(exponent) if (exponent - 1.0 / 2.2).abs() < 2e-4 => Curve::Srgb,
            Some(exponent) if (0.1..=10.0).contains(&exponent) => Curve::Gamma(1.0 / exponent),
            Some(exponent) => return Err(format!("its gamma is {exponent} (gAMA)")),
            None => Curve::Srgb,
        };
        let gamut = match primaries {
            Some(primaries) => primaries.to_bt709().ok_or("its primaries are none (cHRM)")?,
            None => [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        };
        Ok(ColorProfile::of([curve.clone(), curve.clone(), curve], gamut))
    }

    /// What an ICC profile says of pixels that are grey, or red, green and blue; none where it is
    /// that of frames.
    pub(crate) fn of_icc(bytes: &[u8], is_grey: bool) -> Result<Option<Self>, Refused> {
        let damaged = || DAMAGED.to_owned();
        let profile = Icc::open(bytes).ok_or_else(damaged)?;
        match (&profile.space, is_grey) {
            (b"GRAY", true) => {
                let curve = profile.curve(b"kTRC").ok_or_else(|| profile.refused(is_grey))?;
                let same = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
                Ok(ColorProfile::of([curve.clone(), curve.clone(), curve], same))
            }
            // Grey in the colours of a screen has the curve of that screen; its primaries do nothing.
            (b"RGB ", _) => {
                let columns = [b"rXYZ", b"gXYZ", b"bXYZ"].map(|tag| profile.xyz(tag));
                let curves = [b"rTRC", b"gTRC", b"bTRC"].map(|tag| profile.curve(tag));
                let ([Some(r), Some(g), Some(b)], [Some(red), Some(green), Some(blue)]) =
                    (columns, curves)
                else {
                    return Err(profile.refused(is_grey));
                };
                let gamut = from_d50([0, 1, 2].map(|row| [r[row], g[row], b[row]]));
                let gamut = gamut.ok_or_else(damaged)?;
                Ok(ColorProfile::of([red, green, blue], gamut))
            }
            _ => Err(profile.refused(is_grey)),
        }
    }

    /// Brings colours to those of frames; what they cannot show is cut off.
    pub(crate) fn convert(&self, rgb: &mut [f32]) {
        let mut before = ([f32::NAN; 3], [0.0; 3]);
        for pixel in rgb.chunks_exact_mut(3) {
            let found = [pixel[0], pixel[1], pixel[2]];
            // Pictures have areas of one colour, and powers take long.
            if found != before.0 {
                let light: [f32; 3] = std::array::from_fn(|c| self.curves[c].light(found[c]));
                let light = match &self.gamut {
                    None => light,
                    Some(gamut) => {
                        gamut.map(|row| row[0] * light[0] + row[1] * light[1] + row[2] * light[2])
                    }
                };
                // No number at all becomes 0 here, too.
                before = (found, light.map(|light| light_to_srgb(within_unit(light))));
            }
            pixel.copy_from_slice(&before.1);
        }
    }
}

/// An ICC profile whose header and table of tags were found (ICC.1:2022 §7).
struct Icc<'b> {
    bytes: &'b [u8],
    /// The colours of the image: `RGB `, `GRAY`, `CMYK`, …
    space: [u8; 4],
}

impl<'b> Icc<'b> {
    fn open(bytes: &'b [u8]) -> Option<Self> {
        let is_profile = bytes.get(36..40) == Some(b"acsp");
        is_profile.then_some(())?;
        Some(Icc { bytes, space: bytes.get(16..20)?.try_into().ok()? })
    }

    /// Why nothing is made of it.
    fn refused(&self, is_grey: bool) -> String {
        let space = String::from_utf8_lossy(&self.space).trim_end().to_owned();
        match &self.space {
            b"GRAY" if !is_grey => "its colour profile is for grey, and it is not".to_owned(),
            b"RGB " | b"GRAY" => format!(
                "its colour profile ({space}) is made of tables rather than of curves and a matrix"
            ),
            b"CMYK" => "its colours are CMYK, those of a printing press".to_owned(),
            _ => format!("its colour profile is for {}", space.escape_default()),
        }
    }

    fn number(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    /// A number of 16 bits before and 16 behind the point.
    fn fixed(&self, at: usize) -> Option<f64> {
        Some(f64::from(self.number(at)? as i32) / 65536.0)
    }

    /// Where the contents of a tag begin, and its type.
    fn tag(&self, name: &[u8; 4]) -> Option<(usize, &'b [u8])> {
        let count = self.number(128)?.min(1000) as usize;
        let entry = (0..count).map(|n| 132 + 12 * n);
        let entry = entry.into_iter().find(|at| self.bytes.get(*at..at + 4) == Some(name))?;
        let at = self.number(entry + 4)? as usize;
        Some((at, self.bytes.get(at..at.checked_add(4)?)?))
    }

    fn xyz(&self, name: &[u8; 4]) -> Option<[f64; 3]> {
        let (at, kind) = self.tag(name)?;
        (kind == b"XYZ ").then_some(())?;
        Some([self.fixed(at + 8)?, self.fixed(at + 12)?, self.fixed(at + 16)?])
    }

    /// A curve: a table or a power (§10.6), or a formula (§10.18).
    fn curve(&self, name: &[u8; 4]) -> Option<Curve> {
        let (at, kind) = self.tag(name)?;
        let curve = match kind {
            b"curv" => self.table(at)?,
            b"para" => self.formula(at)?,
            _ => return None,
        };
        let is_finite = (0..=16).all(|step| curve.light(step as f32 / 16.0).is_finite());
        is_finite.then_some(curve)
    }

    fn table(&self, at: usize) -> Option<Curve> {
        let count = self.number(at + 8)? as usize;
        let bytes = self.bytes.get(at + 12..(at + 12).checked_add(count.checked_mul(2)?)?)?;
        let levels: Vec<u16> =
            bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        Some(match levels.as_slice() {
            [] => Curve::Gamma(1.0),
            [gamma] => Curve::Gamma(f32::from(*gamma) / 256.0),
            levels => {
                Curve::Table(levels.iter().map(|level| f32::from(*level) / 65535.0).collect())
            }
        })
    }

    fn formula(&self, at: usize) -> Option<Curve> {
        let kind = self.number(at + 8)? >> 16;
        let parameter = |n: usize| self.fixed(at + 12 + 4 * n).map(|number| number as f32);
        let g = parameter(0)?;
        let (a, b) = match kind {
            0 => return Some(Curve::Gamma(g)),
            1..=4 => (parameter(1)?, parameter(2)?),
            _ => return None,
        };
        let below = if a == 0.0 { 0.0 } else { -b / a };
        let (c, d, e, f) = match kind {
            1 => (0.0, below, 0.0, 0.0),
            2 => (0.0, below, parameter(3)?, parameter(3)?),
            3 => (parameter(3)?, parameter(4)?, 0.0, 0.0),
            _ => (parameter(3)?, parameter(4)?, parameter(5)?, parameter(6)?),
        };
        Some(Curve::Parametric { g, a, b, c, d, e, f })
    }
}

/// Cut to 0…1; what is no number is 0.
fn within_unit(light: f32) -> f32 {
    if light.is_nan() { 0.0 } else { light.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A profile of some tags.
    fn icc(space: &[u8; 4], tags: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes[16..20].copy_from_slice(space);
        bytes[36..40].copy_from_slice(b"acsp");
        bytes.extend((tags.len() as u32).to_be_bytes());
        let mut at = 132 + 12 * tags.len();
        for (name, contents) in tags {
            bytes.extend(*name);
            bytes.extend((at as u32).to_be_bytes());
            bytes.extend((contents.len() as u32).to_be_bytes());
            at += contents.len();
        }
        tags.iter().for_each(|(_, contents)| bytes.extend(contents));
        bytes
    }

    fn fixed(numbers: &[f64]) -> Vec<u8> {
        numbers.iter().flat_map(|n| ((n * 65536.0).round() as i32).to_be_bytes()).collect()
    }

    fn xyz(numbers: [f64; 3]) -> Vec<u8> {
        [b"XYZ \0\0\0\0".to_vec(), fixed(&numbers)].concat()
    }

    fn para(kind: u16, numbers: &[f64]) -> Vec<u8> {
        let kind = kind.to_be_bytes();
        [b"para\0\0\0\0".to_vec(), kind.to_vec(), vec![0; 2], fixed(numbers)].concat()
    }

    fn curv(levels: &[u16]) -> Vec<u8> {
        let levels: Vec<u8> = levels.iter().flat_map(|level| level.to_be_bytes()).collect();
        let count = (levels.len() as u32 / 2).to_be_bytes();
        [b"curv\0\0\0\0".to_vec(), count.to_vec(), levels].concat()
    }

    /// Primaries of Display P3 and of sRGB as profiles have them, white at D50.
    const P3: [[f64; 3]; 3] =
        [[0.51512, 0.2412, -0.00105], [0.29198, 0.69225, 0.04189], [0.1571, 0.06657, 0.78407]];
    const SRGB: [[f64; 3]; 3] =
        [[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.7141]];
    const OF_SRGB: [f64; 5] = [2.4, 1.0 / 1.055, 0.055 / 1.055, 1.0 / 12.92, 0.04045];

    fn screen(columns: [[f64; 3]; 3], curve: &[u8]) -> Vec<u8> {
        let [r, g, b] = columns.map(xyz);
        let curve = || curve.to_vec();
        icc(
            b"RGB ",
            &[
                (b"rXYZ", r),
                (b"gXYZ", g),
                (b"bXYZ", b),
                (b"rTRC", curve()),
                (b"gTRC", curve()),
                (b"bTRC", curve()),
            ],
        )
    }

    fn converted(profile: &ColorProfile, rgb: [u8; 3]) -> [u8; 3] {
        let mut pixel = rgb.map(|value| f32::from(value) / 255.0);
        profile.convert(&mut pixel);
        pixel.map(|value| (value * 255.0).round() as u8)
    }

    #[test]
    fn colours_of_a_screen_are_brought_to_those_of_frames() {
        let p3 = ColorProfile::of_icc(&screen(P3, &para(3, &OF_SRGB)), false).unwrap().unwrap();
        assert_eq!(converted(&p3, [200, 80, 40]), [216, 69, 17]);
        assert_eq!(converted(&p3, [0, 255, 0]), [0, 255, 0], "what frames do not show is cut off");
        assert_eq!(converted(&p3, [255, 255, 255]), [255; 3]);
        assert_eq!(converted(&p3, [90, 90, 90]), [90; 3]);
        // The same by the numbers of H.273 and by places of primaries.
        let points = ColorProfile::of_code_points(12, 13, 0, true).unwrap().unwrap();
        assert_eq!(converted(&points, [200, 80, 40]), [216, 69, 17]);
        let places = Primaries([[0.68, 0.32], [0.265, 0.69], [0.15, 0.06], [0.3127, 0.329]]);
        let places = ColorProfile::of_gamma(Some(0.45455), Some(places)).unwrap().unwrap();
        assert_eq!(converted(&places, [200, 80, 40]), [216, 69, 17]);
    }

    #[test]
    fn what_is_srgb_stays_to_the_bit() {
        let table: Vec<u16> = (0..1024)
            .map(|step| (srgb_to_light(step as f32 / 1023.0) * 65535.0).round() as u16)
            .collect();
        for curve in [para(3, &OF_SRGB), curv(&table)] {
            assert_eq!(ColorProfile::of_icc(&screen(SRGB, &curve), false), Ok(None));
        }
        assert_eq!(ColorProfile::of_code_points(1, 13, 0, true), Ok(None));
        assert_eq!(ColorProfile::of_gamma(Some(0.45455), None), Ok(None));
        assert_eq!(ColorProfile::of_gamma(None, None), Ok(None));
    }

    #[test]
    fn curves_of_all_kinds() {
        let of = |curve: Vec<u8>| {
            let profile = ColorProfile::of_icc(&icc(b"GRAY", &[(b"kTRC", curve)]), true);
            let profile = profile.unwrap().unwrap();
            profile.curves[0].light(0.5)
        };
        let close = |found: f32, expected: f32| assert!((found - expected).abs() < 1e-4, "{found}");
        close(of(curv(&[])), 0.5);
        // 1.8 in steps of 1/256.
        close(of(curv(&[460])), 0.5_f32.powf(460.0 / 256.0));
        close(of(curv(&[0, 10_000, 65_535])), 10_000.0 / 65_535.0);
        close(of(para(0, &[2.0])), 0.25);
        close(of(para(1, &[2.0, 1.0, 0.25])), 0.5625);
        close(of(para(2, &[2.0, 1.0, 0.25, 0.125])), 0.6875);
        close(of(para(4, &[2.0, 1.0, 0.0, 0.5, 0.75, 0.1, 0.2])), 0.45);
        let light = ColorProfile::of_gamma(Some(1.0), None).unwrap().unwrap();
        assert_eq!(converted(&light, [128, 128, 128]), [188; 3]);
    }

    #[test]
    fn what_cannot_be_converted_is_named() {
        let said = |bytes: &[u8], grey| ColorProfile::of_icc(bytes, grey).unwrap_err();
        assert!(said(&icc(b"CMYK", &[]), false).contains("CMYK"));
        assert!(said(&icc(b"RGB ", &[(b"A2B0", vec![0; 40])]), false).contains("tables"));
        assert!(said(&icc(b"Lab ", &[]), false).contains("for Lab"));
        assert!(said(b"", false).contains("damaged"));
        assert!(ColorProfile::of_code_points(9, 16, 0, true).unwrap_err().contains("PQ"));
        assert!(ColorProfile::of_code_points(1, 13, 1, true).unwrap_err().contains("no RGB"));
        assert!(ColorProfile::of_gamma(Some(1e9), None).is_err());
        let whole = screen(P3, &para(3, &OF_SRGB));
        for cut in 0..whole.len() {
            // It is read as far as it says what is asked, or refused.
            let _ = ColorProfile::of_icc(&whole[..cut], cut % 2 == 0);
        }
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = 128 + (state >> 33) as usize % (bytes.len() - 128);
                bytes[at] = (state >> 20) as u8;
            }
            if let Ok(Some(profile)) = ColorProfile::of_icc(&bytes, false) {
                let mut pixel = [0.1, 0.5, 0.9];
                profile.convert(&mut pixel);
                assert!(pixel.iter().all(|value| (0.0..=1.0).contains(value)), "{profile:?}");
            }
        }
    }
}
