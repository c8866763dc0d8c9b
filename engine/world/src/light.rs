//! Between light and the numbers of frames: the curve of sRGB (IEC 61966-2-1), and primaries.

/// Light of an encoded value. Beyond 1 the curve goes on as it is, and below 0 it is mirrored
/// (scRGB, IEC 61966-2-2 annex B), so that highlights and what is out of gamut come back.
pub(crate) fn srgb_to_light(value: f32) -> f32 {
    let size = value.abs();
    let light = if size <= 0.040_45 { size / 12.92 } else { ((size + 0.055) / 1.055).powf(2.4) };
    light.copysign(value)
}

/// The encoded value of light, beyond 1 and below 0 as in [`srgb_to_light`].
pub(crate) fn light_to_srgb(light: f32) -> f32 {
    let size = light.abs();
    let value =
        if size <= 0.003_130_8 { size * 12.92 } else { 1.055 * size.powf(1.0 / 2.4) - 0.055 };
    value.copysign(light)
}

/// The places of red, green, blue and white on the CIE 1931 diagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Primaries(pub(crate) [[f64; 2]; 4]);

/// Those of BT.709, which frames have.
pub(crate) const BT709: Primaries =
    Primaries([[0.64, 0.33], [0.30, 0.60], [0.15, 0.06], [0.3127, 0.3290]]);

pub(crate) type Matrix = [[f64; 3]; 3];

/// Cone responses by Bradford (Lam 1985), from XYZ.
const BRADFORD: Matrix =
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]];

fn times(a: &Matrix, b: &Matrix) -> Matrix {
    let cell = |row: usize, column: usize| (0..3).map(|k| a[row][k] * b[k][column]).sum();
    std::array::from_fn(|row| std::array::from_fn(|column| cell(row, column)))
}

fn apply(matrix: &Matrix, [x, y, z]: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|row| matrix[row][0] * x + matrix[row][1] * y + matrix[row][2] * z)
}

/// The inverse, if there is one.
fn inverse(m: &Matrix) -> Option<Matrix> {
    let minor = |r: usize, c: usize| {
        let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
        m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
    };
    let whole = (0..3).map(|c| m[0][c] * minor(0, c)).sum::<f64>();
    (whole.is_finite() && whole.abs() > 1e-9)
        .then(|| std::array::from_fn(|row| std::array::from_fn(|c| minor(c, row) / whole)))
}

/// XYZ of a place on the diagram, with Y = 1.
fn xyz([x, y]: [f64; 2]) -> Option<[f64; 3]> {
    (y.abs() > 1e-6 && x.is_finite() && y.is_finite()).then(|| [x / y, 1.0, (1.0 - x - y) / y])
}

impl Primaries {
    /// RGB to XYZ (SMPTE RP 177).
    fn to_xyz(self) -> Option<Matrix> {
        let [red, green, blue, white] = self.0.map(xyz);
        let (red, green, blue) = (red?, green?, blue?);
        let columns: Matrix = std::array::from_fn(|row| [red[row], green[row], blue[row]]);
        let scale = apply(&inverse(&columns)?, white?);
        Some(std::array::from_fn(|row| std::array::from_fn(|c| columns[row][c] * scale[c])))
    }

    /// What brings light of these primaries to those of BT.709, white to white; none where no such
    /// primaries can be. The identity where they are BT.709's own.
    pub(crate) fn to_bt709(self) -> Option<[[f32; 3]; 3]> {
        let cones = |white: [f64; 2]| xyz(white).map(|white| apply(&BRADFORD, white));
        let (from, to) = (cones(self.0[3])?, cones(BT709.0[3])?);
        let ratios: [f64; 3] = std::array::from_fn(|cone| to[cone] / from[cone]);
        let scaled: Matrix =
            std::array::from_fn(|row| std::array::from_fn(|c| BRADFORD[row][c] * ratios[row]));
        let adapt = times(&inverse(&BRADFORD)?, &scaled);
        let back = inverse(&BT709.to_xyz()?)?;
        let whole = times(&back, &times(&adapt, &self.to_xyz()?));
        let finite = whole.iter().flatten().all(|number| number.is_finite() && number.abs() < 1e3);
        finite.then(|| whole.map(|row| row.map(|number| number as f32)))
    }
}

/// The white of profiles (ICC.1:2022 §7.2.16): D50.
const D50: [f64; 3] = [0.9642, 1.0, 0.8249];

/// What brings light to BT.709 primaries, of which `to_xyz` says the XYZ with white at D50; none
/// where it is no such matrix.
pub(crate) fn from_d50(to_xyz: Matrix) -> Option<[[f32; 3]; 3]> {
    let (from, to) = (apply(&BRADFORD, D50), apply(&BRADFORD, xyz(BT709.0[3])?));
    let scaled: Matrix =
        std::array::from_fn(|row| std::array::from_fn(|c| BRADFORD[row][c] * to[row] / from[row]));
    let adapt = times(&inverse(&BRADFORD)?, &scaled);
    let whole = times(&inverse(&BT709.to_xyz()?)?, &times(&adapt, &to_xyz));
    let finite = whole.iter().flatten().all(|number| number.is_finite() && number.abs() < 1e3);
    finite.then(|| whole.map(|row| row.map(|number| number as f32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_goes_on_beyond_white_and_comes_back() {
        for light in [0.0, 1e-4, 0.002, 0.18, 0.5, 1.0, 3.0, 100.0, 65_504.0, -0.3, -1e-5] {
            let back = srgb_to_light(light_to_srgb(light));
            assert!((back - light).abs() <= light.abs() * 2e-6, "{light}: {back}");
        }
        assert!(light_to_srgb(0.0) == 0.0 && (light_to_srgb(1.0) - 1.0).abs() < 1e-6);
        assert!((light_to_srgb(0.214_041_14) - 0.5).abs() < 1e-6);
        assert!(light_to_srgb(4.0) > 1.8);
    }

    #[test]
    fn primaries_are_brought_to_those_of_frames() {
        let close = |found: Primaries, expected: [[f32; 3]; 3]| {
            let found = found.to_bt709().unwrap();
            let pairs = found.iter().flatten().zip(expected.iter().flatten());
            assert!(pairs.clone().all(|(a, b)| (a - b).abs() < 2e-3), "{found:?}");
        };
        close(BT709, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);
        // ITU-R BT.2087-0.
        close(
            Primaries([[0.708, 0.292], [0.170, 0.797], [0.131, 0.046], [0.3127, 0.3290]]),
            [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
        );
        // ACEScg to sRGB, from the ACES white point (S-2014-004) by Bradford.
        close(
            Primaries([[0.713, 0.293], [0.165, 0.830], [0.128, 0.044], [0.32168, 0.33767]]),
            [[1.7051, -0.6218, -0.0833], [-0.1303, 1.1408, -0.0105], [-0.0240, -0.1290, 1.1530]],
        );
        let line = Primaries([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [0.3127, 0.3290]]);
        assert_eq!(line.to_bt709(), None);
        assert_eq!(Primaries([[0.3, 0.0]; 4]).to_bt709(), None);
        assert_eq!(Primaries([[f64::NAN, 0.3]; 4]).to_bt709(), None);
    }
}
