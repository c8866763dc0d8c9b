//! WAV files: PCM as it is, in 8 to 32 bits a sample or as floating point.

use std::io::{Read, Seek, SeekFrom};

use kino_node::{Audio, AudioFact, AudioForm};

use super::demux::Refused;
use crate::InputFile;

/// The most chunks that are looked at.
const MOST_CHUNKS: usize = 1 << 12;
/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// How a sample is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sample {
    /// From 0 to 255.
    U8,
    /// So many bytes, signed.
    Int(usize),
    F32,
    F64,
}

/// A file whose chunks were found.
#[derive(Debug)]
pub(super) struct Wav {
    fact: AudioFact,
    sample: Sample,
    /// Where the samples begin, and their bytes.
    data: (u64, u64),
}

impl Sample {
    fn bytes(self) -> usize {
        match self {
            Sample::U8 => 1,
            Sample::Int(bytes) => bytes,
            Sample::F32 => 4,
            Sample::F64 => 8,
        }
    }

    fn read(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Sample::U8, [byte]) => (f32::from(*byte) - 128.0) / 128.0,
            (Sample::F32, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
            (Sample::F64, bytes) => {
                bytes.try_into().map(f64::from_le_bytes).unwrap_or_default() as f32
            }
            (Sample::Int(_), bytes) => {
                // In the upper bytes of 32 bits, so that its sign is theirs.
                let value = bytes.iter().rev().fold(0_u32, |n, byte| n << 8 | u32::from(*byte));
                let value = (value << (32 - 8 * bytes.len())) as i32;
                (f64::from(value) / 2_147_483_648.0) as f32
            }
            _ => 0.0,
        }
    }
}

impl Wav {
    /// Finds the chunks of a file.
    ///
    /// # Errors
    /// When it is damaged, ends early, or its samples have a form that is not read here.
    pub(super) fn open(file: &mut InputFile) -> Result<Self, Refused> {
        let length = file.stamp().length;
        let failed = |error: std::io::Error| format!("it cannot be read: {error}");
        let (mut at, mut format) = (12_u64, None);
        for _ in 0..MOST_CHUNKS {
            if at.saturating_add(8) > length {
                break;
            }
            file.seek(SeekFrom::Start(at)).map_err(failed)?;
            let mut head = [0; 8];
            file.read_exact(&mut head).map_err(failed)?;
            let size = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
            let left = length - at - 8;
            match &head[..4] {
                b"fmt " => {
                    let mut chunk = vec![0; size.min(40).min(left) as usize];
                    file.read_exact(&mut chunk).map_err(failed)?;
                    format = Some(read_format(&chunk)?);
                }
                b"data" => {
                    let (sample, rate, channels) =
                        format.ok_or("it is damaged: its samples come before their form")?;
                    // Who wrote to a pipe could not say the length.
                    let size = if size >= u64::from(u32::MAX) - 8 { left } else { size };
                    if size > left {
                        return Err(format!(
                            "it ends early: {size} bytes of samples are said, {left} are there"
                        ));
                    }
                    let each = (sample.bytes() * usize::from(channels)) as u64;
                    let ticks = size / each;
                    let fact = AudioFact {
                        form: AudioForm::Pcm,
                        rate,
                        channels,
                        ticks,
                        bytes: ticks * u64::from(channels) * 4,
                    };
                    return Ok(Wav { fact, sample, data: (at + 8, ticks * each) });
                }
                _ => {}
            }
            // Chunks begin at even places.
            at = at.saturating_add(8 + size + size % 2);
        }
        Err("it is damaged or ends early: it has no samples (`data`)".to_owned())
    }

    pub(super) fn fact(&self) -> &AudioFact {
        &self.fact
    }

    /// Reads the samples; none where nobody waits for them any more.
    ///
    /// # Errors
    /// When they cannot be read, or there is no memory for them.
    pub(super) fn read(
        &self,
        file: &mut InputFile,
        is_wanted: &mut dyn FnMut() -> bool,
    ) -> std::io::Result<Option<Audio>> {
        let (at, length) = self.data;
        let each = self.sample.bytes();
        let mut samples: Vec<f32> = Vec::new();
        let count = (length / each as u64) as usize;
        samples.try_reserve_exact(count).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        file.seek(SeekFrom::Start(at))?;
        let (mut left, mut piece) = (length as usize, vec![0; PIECE / 24 * 24]);
        while left > 0 {
            if !is_wanted() {
                return Ok(None);
            }
            let now = left.min(piece.len());
            file.read_exact(&mut piece[..now])?;
            samples.extend(piece[..now].chunks_exact(each).map(|bytes| self.sample.read(bytes)));
            left -= now;
        }
        // No number that is none reaches what comes after.
        samples.iter_mut().filter(|sample| !sample.is_finite()).for_each(|sample| *sample = 0.0);
        let sound = Audio::pcm(samples, self.fact.rate, self.fact.channels);
        sound.map(Some).map_err(std::io::Error::other)
    }
}

/// The form of the samples, their rate and channels.
fn read_format(chunk: &[u8]) -> Result<(Sample, u32, u16), Refused> {
    let short = |at: usize| {
        chunk.get(at..).and_then(<[u8]>::first_chunk).map(|two| u16::from_le_bytes(*two))
    };
    let rate = chunk.get(4..).and_then(<[u8]>::first_chunk).map(|four| u32::from_le_bytes(*four));
    let parts = (short(0), short(2), rate, short(14));
    let (Some(tag), Some(channels), Some(rate), Some(bits)) = parts else {
        return Err("it is damaged: the form of its samples (`fmt `) ends early".to_owned());
    };
    // An extensible form says the tag in the first bytes of an identifier.
    let tag = match (tag, short(24)) {
        (0xfffe, Some(tag)) => tag,
        (0xfffe, None) => return Err("it is damaged or ends early in `fmt `".to_owned()),
        (tag, _) => tag,
    };
    let sample = match (tag, bits) {
        (1, 8) => Sample::U8,
        (1, 16 | 24 | 32) => Sample::Int(usize::from(bits / 8)),
        (3, 32) => Sample::F32,
        (3, 64) => Sample::F64,
        (1 | 3, bits) => return Err(format!("its samples have {bits} bits")),
        (tag, _) => return Err(format!("its samples have the form {tag:#06x}, no PCM")),
    };
    if channels == 0 || channels > 255 || rate == 0 || rate > 1 << 20 {
        return Err(format!("it is damaged: it has {channels} channels of {rate} Hz"));
    }
    Ok((sample, rate, channels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_every_form_are_the_same_numbers() {
        assert_eq!(Sample::U8.read(&[0]), -1.0);
        assert_eq!(Sample::U8.read(&[192]), 0.5);
        assert_eq!(Sample::Int(2).read(&i16::MIN.to_le_bytes()), -1.0);
        assert_eq!(Sample::Int(2).read(&8192_i16.to_le_bytes()), 0.25);
        assert_eq!(Sample::Int(3).read(&[0, 0, 0xc0]), -0.5);
        assert_eq!(Sample::Int(3).read(&[1, 0, 0]), 1.0 / 8_388_608.0);
        assert_eq!(Sample::Int(4).read(&(1_i32 << 30).to_le_bytes()), 0.5);
        assert_eq!(Sample::F32.read(&0.3_f32.to_le_bytes()), 0.3);
        assert_eq!(Sample::F64.read(&0.25_f64.to_le_bytes()), 0.25);
    }
}
