//! The chunks of a PNG that its decoder does not look for, or not everywhere: orientation and
//! colour profile wherever they stand, the profile inflated to no more than one may have, and
//! whether the file ends as it must (W3C PNG, third edition, §5 and §11.3).

use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};

use flate2::read::ZlibDecoder;

use crate::InputFile;
use crate::profile::{DAMAGED, LONGEST, Refused};

/// The longest orientation that is read; what cameras note beside it goes with it.
const LONGEST_EXIF: u64 = 1 << 20;

/// The longest file whose missing end is put behind it, in memory.
const LONGEST_CUT: u64 = 1 << 30;

/// The most chunks that are looked at: those of 8 GB, as most programs cut pixels.
const MOST_CHUNKS: usize = 1 << 20;

/// The last chunk, with its checksum.
const END: [u8; 12] = *b"\0\0\0\0IEND\xae\x42\x60\x82";

/// A file, or one in memory.
pub(crate) trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

/// What the decoder reads.
pub(crate) type PngSource<'f> = BufReader<Box<dyn Source + 'f>>;

/// What was found.
#[derive(Default)]
pub(crate) struct PngChunks {
    /// The first EXIF.
    pub(crate) exif: Option<Vec<u8>>,
    /// The colour profile, or why it is none.
    pub(crate) icc: Option<Result<Vec<u8>, Refused>>,
    /// Whether the file ends behind a chunk that is not the last.
    lacks_end: bool,
}

impl PngChunks {
    /// Looks through the chunks of a file that begins as a PNG does.
    pub(crate) fn of(file: &mut InputFile) -> io::Result<Self> {
        let length = file.stamp().length;
        file.seek(SeekFrom::Start(8))?;
        let (mut from, mut at, mut found) = (BufReader::new(file), 8_u64, PngChunks::default());
        for _ in 0..MOST_CHUNKS {
            if at + 12 > length {
                found.lacks_end = at == length;
                break;
            }
            let mut head = [0; 8];
            from.read_exact(&mut head)?;
            if !head[4..].iter().all(u8::is_ascii_alphabetic) {
                break;
            }
            let size = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
            at += size + 12;
            if at > length || &head[4..] == b"IEND" {
                return Ok(found);
            }
            match &head[4..] {
                b"eXIf" if found.exif.is_none() && size <= LONGEST_EXIF => {
                    found.exif = Some(contents(&mut from, size)?);
                    from.seek_relative(4)?;
                }
                b"iCCP" if found.icc.is_none() && size <= LONGEST as u64 => {
                    found.icc = Some(inflated(&contents(&mut from, size)?));
                    from.seek_relative(4)?;
                }
                _ => from.seek_relative(size as i64 + 4)?,
            }
        }
        Ok(found)
    }

    /// The file for its decoder; with an end, if it is whole but for that, as what was streamed may
    /// be.
    pub(crate) fn source<'f>(&self, file: &'f mut InputFile) -> io::Result<PngSource<'f>> {
        file.rewind()?;
        let source: Box<dyn Source + 'f> = match self.lacks_end {
            true if file.stamp().length <= LONGEST_CUT => {
                let mut bytes = Vec::new();
                file.take(LONGEST_CUT).read_to_end(&mut bytes)?;
                bytes.extend(END);
                Box::new(Cursor::new(bytes))
            }
            _ => Box::new(file),
        };
        Ok(BufReader::new(source))
    }
}

fn contents(from: &mut impl Read, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(size).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == size {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A profile behind its name and the kind of its compression (§11.3.2.3).
fn inflated(chunk: &[u8]) -> Result<Vec<u8>, Refused> {
    let damaged = || DAMAGED.to_owned();
    let name = chunk.iter().take(80).position(|byte| *byte == 0).ok_or_else(damaged)?;
    let Some([0, packed @ ..]) = chunk.get(name + 1..) else { return Err(damaged()) };
    let mut profile = Vec::new();
    let read = ZlibDecoder::new(packed).take(LONGEST as u64 + 1).read_to_end(&mut profile);
    match read {
        Ok(length) if length > LONGEST => {
            Err(format!("its colour profile has more than {LONGEST} bytes"))
        }
        Ok(_) => Ok(profile),
        Err(_) => Err(damaged()),
    }
}
