//! The sequence parameter set of H.264 (ITU-T H.264 §7.3.2.1, E.1.1): what a stream says of its
//! pictures before any of them is decoded.

/// What is known of the pictures of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sps {
    /// After cropping.
    pub(super) width: usize,
    /// After cropping.
    pub(super) height: usize,
    pub(super) profile: u8,
    /// 1 is 4:2:0; 0 grey, 2 4:2:2, 3 4:4:4.
    pub(super) chroma: u32,
    /// Bits a sample, of light and of colour.
    pub(super) bits: [u32; 2],
    /// Whether pictures may be two fields.
    pub(super) interlaced: bool,
    /// Pictures that the decoder keeps.
    pub(super) references: u32,
    /// Width by height of a pixel.
    pub(super) pixel: (u32, u32),
    /// Whether samples use all of 0…255, where it is said.
    pub(super) full_range: Option<bool>,
    /// Primaries, transfer and matrix by their numbers in ITU-T H.273, where they are said.
    pub(super) colour: Option<[u8; 3]>,
}

/// Bits from the highest of each byte on, without the bytes that only keep start codes apart.
struct Bits {
    bytes: Vec<u8>,
    at: usize,
}

impl Bits {
    fn new(unit: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(unit.len());
        let mut zeros = 0;
        for &byte in unit {
            if zeros >= 2 && byte == 3 {
                zeros = 0;
                continue;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            bytes.push(byte);
        }
        Bits { bytes, at: 0 }
    }

    fn bit(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1 == 1;
        self.at += 1;
        Some(bit)
    }

    fn bits(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0, |value, _| Some(value << 1 | u32::from(self.bit()?)))
    }

    /// ue(v): Exp-Golomb.
    fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1_u32 << zeros) - 1 + self.bits(zeros)?)
    }

    /// se(v).
    fn signed(&mut self) -> Option<i64> {
        let code = i64::from(self.golomb()?);
        Some(if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) })
    }
}

/// The profiles whose sets say how their colours are sampled.
const HIGH: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

impl Sps {
    /// Of a unit, its first byte included; none where it ends early or says what cannot be.
    pub(super) fn parse(unit: &[u8]) -> Option<Sps> {
        if unit.first()? & 0x1f != 7 {
            return None;
        }
        let mut bits = Bits::new(&unit[1..]);
        let profile = bits.bits(8)? as u8;
        bits.bits(16)?;
        bits.golomb()?;
        let (mut chroma, mut depths) = (1, [8, 8]);
        if HIGH.contains(&profile) {
            chroma = bits.golomb()?;
            if chroma == 3 {
                bits.bit()?;
            }
            depths = [bits.golomb()?.checked_add(8)?, bits.golomb()?.checked_add(8)?];
            bits.bit()?;
            if bits.bit()? {
                let lists = if chroma == 3 { 12 } else { 8 };
                for index in 0..lists {
                    if bits.bit()? {
                        skip_scaling_list(&mut bits, if index < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        bits.golomb()?;
        match bits.golomb()? {
            0 => drop(bits.golomb()?),
            1 => {
                bits.bit()?;
                bits.signed()?;
                bits.signed()?;
                for _ in 0..bits.golomb()?.min(256) {
                    bits.signed()?;
                }
            }
            _ => {}
        }
        let references = bits.golomb()?;
        bits.bit()?;
        let across = bits.golomb()?.checked_add(1)? as usize;
        let units = bits.golomb()?.checked_add(1)? as usize;
        let interlaced = !bits.bit()?;
        if interlaced {
            bits.bit()?;
        }
        bits.bit()?;
        let fields = if interlaced { 2 } else { 1 };
        let (mut width, mut height) = (across.checked_mul(16)?, units.checked_mul(16 * fields)?);
        if bits.bit()? {
            // In units of chroma samples, and of two rows where there are fields.
            let unit = [if matches!(chroma, 1 | 2) { 2 } else { 1 }, {
                fields * if chroma == 1 { 2 } else { 1 }
            }];
            let mut cut = || Some(bits.golomb()? as usize);
            let [left, right, top, bottom] = [cut()?, cut()?, cut()?, cut()?];
            width = width.checked_sub(left.checked_add(right)?.checked_mul(unit[0])?)?;
            height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit[1])?)?;
        }
        if width == 0 || height == 0 {
            return None;
        }
        let mut sps = Sps {
            width,
            height,
            profile,
            chroma,
            bits: depths,
            interlaced,
            references,
            pixel: (1, 1),
            full_range: None,
            colour: None,
        };
        // What is said beside may end early; players take such streams, too.
        if bits.bit() == Some(true) {
            let _ = usability(&mut bits, &mut sps);
        }
        Some(sps)
    }
}

fn skip_scaling_list(bits: &mut Bits, size: usize) -> Option<()> {
    let (mut last, mut next) = (8_i64, 8_i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.signed()? + 256) % 256;
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// Video usability information (E.1.1), up to the colours.
fn usability(bits: &mut Bits, sps: &mut Sps) -> Option<()> {
    /// Table E-1: the shapes of pixels that have a number.
    const SHAPES: [(u32, u32); 17] = [
        (1, 1),
        (1, 1),
        (12, 11),
        (10, 11),
        (16, 11),
        (40, 33),
        (24, 11),
        (20, 11),
        (32, 11),
        (80, 33),
        (18, 11),
        (15, 11),
        (64, 33),
        (160, 99),
        (4, 3),
        (3, 2),
        (2, 1),
    ];
    if bits.bit()? {
        sps.pixel = match bits.bits(8)? {
            255 => (bits.bits(16)?, bits.bits(16)?),
            index => SHAPES.get(index as usize).copied().unwrap_or((1, 1)),
        };
    }
    if bits.bit()? {
        bits.bit()?;
    }
    if bits.bit()? {
        bits.bits(3)?;
        sps.full_range = Some(bits.bit()?);
        if bits.bit()? {
            sps.colour = Some([bits.bits(8)? as u8, bits.bits(8)? as u8, bits.bits(8)? as u8]);
        }
    }
    Some(())
}
