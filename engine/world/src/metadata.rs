//! The text that a video or image carries.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::exr::{MAGIC, text_of};
use crate::media::{exif_of, find_box};
use crate::{Error, InputFile, Result, looks_like};

/// The keyword of the text in PNG and EXR files.
pub(crate) const KEYWORD: &str = "kinograph";
/// No text is longer.
const LONGEST: u64 = 64 << 20;

/// The text stored in a video or image, if there is one. The format is told by the contents.
///
/// # Errors
/// When the file cannot be read, or is neither mp4, WebP, PNG nor EXR.
pub fn read_metadata(path: &Path) -> Result<Option<String>> {
    let mut file = InputFile::open(path)?;
    let mut start = [0; 12];
    let mut got = 0;
    while got < start.len() {
        match file.read(&mut start[got..]).map_err(Error::io("read", path))? {
            0 => break,
            n => got += n,
        }
    }
    if start.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Ok(png_text(path));
    }
    if start.starts_with(&MAGIC) {
        return Ok(text_of(&mut file, path, KEYWORD));
    }
    if start.starts_with(b"RIFF") && start[8..] == *b"WEBP" {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).map_err(Error::io("read", path))?;
        file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        return Ok(exif_of(&bytes));
    }
    if start[4..8] == *b"ftyp" {
        return Ok(mp4_comment(&mut file));
    }
    let found = looks_like(path).unwrap_or("something else");
    Err(Error::content(path, format!("expected an mp4, WebP, PNG or EXR file, found {found}")))
}

fn png_text(path: &Path) -> Option<String> {
    let limits = png::Limits { bytes: LONGEST as usize };
    let decoder =
        png::Decoder::new_with_limits(BufReader::new(InputFile::open(path).ok()?), limits);
    let reader = decoder.read_info().ok()?;
    let mut chunk = reader.info().utf8_text.iter().find(|chunk| chunk.keyword == KEYWORD)?.clone();
    chunk.decompress_text_with_limit(LONGEST as usize).ok()?;
    chunk.get_text().ok()
}

/// `moov/udta/meta/ilst/©cmt/data`, with the boxes before `moov` skipped unread.
fn mp4_comment(file: &mut InputFile) -> Option<String> {
    let length = file.stamp().length;
    let mut at = 0u64;
    while at + 8 <= length {
        file.seek(SeekFrom::Start(at)).ok()?;
        let mut head = [0; 16];
        let read = file.read(&mut head).ok()?;
        let short = u64::from(u32::from_be_bytes(head[..4].try_into().ok()?));
        let size = match short {
            0 => length - at,
            1 if read == 16 => u64::from_be_bytes(head[8..].try_into().ok()?),
            size => size,
        };
        if size < 8 || size > length - at {
            return None;
        }
        if head[4..8] == *b"moov" {
            if size > LONGEST {
                return None;
            }
            let mut movie = vec![0; size as usize - 8];
            file.seek(SeekFrom::Start(at + 8)).ok()?;
            file.read_exact(&mut movie).ok()?;
            return comment(&movie);
        }
        at += size;
    }
    None
}

fn comment(movie: &[u8]) -> Option<String> {
    let meta = find_box(find_box(movie, b"udta")?, b"meta")?.get(4..)?;
    let data = find_box(find_box(find_box(meta, b"ilst")?, b"\xa9cmt")?, b"data")?;
    String::from_utf8(data.get(8..)?.to_vec()).ok()
}
