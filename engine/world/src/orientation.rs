//! How a picture lies in its file: turned by right angles, mirrored. Cameras note it, in EXIF for
//! images and as a matrix for videos; readers turn the picture upright.

/// How the camera was held (EXIF 2.32, tag 0x0112): 1 to 8, of which 1 is upright.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Orientation(u8);

impl Orientation {
    /// What a matrix of an mp4 file says, `[a, b, c, d]` of (x, y) → (a·x + c·y, b·x + d·y); none
    /// where it turns by no right angle, or pulls the picture out of shape.
    pub(crate) fn of_matrix([a, b, c, d]: [f64; 4]) -> Option<Self> {
        let same = |one: f64, other: f64| (one.abs() - other.abs()).abs() <= 1e-3 * one.abs();
        let none = |one: f64, other: f64, of: f64| one.abs().max(other.abs()) <= 1e-3 * of.abs();
        if a != 0.0 && same(a, d) && none(b, c, a) {
            return Some(Orientation(match (a > 0.0, d > 0.0) {
                (true, true) => 1,
                (false, true) => 2,
                (false, false) => 3,
                (true, false) => 4,
            }));
        }
        if b != 0.0 && same(b, c) && none(a, d, b) {
            return Some(Orientation(match (b > 0.0, c > 0.0) {
                (true, true) => 5,
                (true, false) => 6,
                (false, false) => 7,
                (false, true) => 8,
            }));
        }
        None
    }

    /// Whether nothing is to be done.
    pub(crate) fn is_upright(self) -> bool {
        self.0 == 1
    }

    /// What EXIF says; upright where it says nothing.
    pub(crate) fn of(exif: Option<&[u8]>) -> Self {
        Orientation(exif.and_then(orientation_of).unwrap_or(1))
    }

    /// Whether width and height change places.
    pub(crate) fn is_turned(self) -> bool {
        self.0 >= 5
    }

    /// Where a pixel of the upright image stands in the stored one of a width and height.
    pub(crate) fn source(
        self,
        (x, y): (usize, usize),
        (width, height): (usize, usize),
    ) -> (usize, usize) {
        match self.0 {
            2 => (width - 1 - x, y),
            3 => (width - 1 - x, height - 1 - y),
            4 => (x, height - 1 - y),
            5 => (y, x),
            6 => (y, height - 1 - x),
            7 => (width - 1 - y, height - 1 - x),
            8 => (width - 1 - y, x),
            _ => (x, y),
        }
    }
}

/// The orientation in the first directory of a TIFF structure.
fn orientation_of(exif: &[u8]) -> Option<u8> {
    let little = match exif.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| -> Option<u16> {
        let bytes = exif.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| -> Option<u32> {
        let bytes = exif.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = long(4)? as usize;
    for index in 0..usize::from(short(directory)?) {
        let entry = directory.checked_add(2 + 12 * index)?;
        if short(entry)? == 0x112 && short(entry + 2)? == 3 && long(entry + 4)? == 1 {
            let value = short(entry + 8)?;
            return (1..=8).contains(&value).then_some(value as u8);
        }
    }
    None
}
