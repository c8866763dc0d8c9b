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
/// When the file cannot be read, or is neither mp4, QuickTime, Matroska, WebM, WebP,
/// PNG nor EXR.
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
    if start.starts_with(&EBML) {
        return Ok(matroska_comment(&mut file));
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

/// In mp4 files `moov/udta/meta/ilst/©cmt`; in QuickTime files the entry of `moov/meta/ilst` whose
/// name among the `keys` is `comment`.
fn comment(movie: &[u8]) -> Option<String> {
    let text = |entry: &[u8]| String::from_utf8(find_box(entry, b"data")?.get(8..)?.to_vec()).ok();
    let of_user = || {
        let meta = find_box(find_box(movie, b"udta")?, b"meta")?.get(4..)?;
        text(find_box(find_box(meta, b"ilst")?, b"\xa9cmt")?)
    };
    let named = || {
        let meta =
            find_box(movie, b"meta").or_else(|| find_box(find_box(movie, b"udta")?, b"meta"))?;
        // Of QuickTime without a version, of mp4 with one.
        let meta = if meta.get(4..8) == Some(b"hdlr") { meta } else { meta.get(4..)? };
        let mut keys = find_box(meta, b"keys")?.get(8..)?;
        let mut index = 0_u32;
        while let Some((length, _)) = keys.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let name = keys.get(8..length)?;
            index += 1;
            if name == b"comment" {
                return text(find_box(find_box(meta, b"ilst")?, &index.to_be_bytes())?);
            }
            keys = keys.get(length.max(8)..)?;
        }
        None
    };
    of_user().or_else(named)
}

/// How Matroska and WebM files begin (RFC 8794).
const EBML: [u8; 4] = [0x1a, 0x45, 0xdf, 0xa3];

/// The number at the beginning of `bytes`, with its length; its length's mark stays in where it is
/// an identifier (RFC 8794 §4).
fn ebml_number(bytes: &[u8], keeps_mark: bool) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = first.leading_zeros() as usize + 1;
    let own = bytes.get(..length).filter(|_| length <= 8)?;
    let mark = if keeps_mark { 0 } else { 0x80_u64 << (7 * (length - 1)) };
    Some((own.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)) & !mark, length))
}

/// The elements among `bytes`.
fn ebml_elements(mut bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        let (id, start) = ebml_number(bytes, true)?;
        let (length, size) = ebml_number(bytes.get(start..)?, false)?;
        let (begin, length) = (start + size, usize::try_from(length).ok()?);
        let contents = bytes.get(begin..begin.checked_add(length)?)?;
        bytes = &bytes[begin + length..];
        Some((id, contents))
    })
}

/// The tag `COMMENT` (RFC 9559 §5.1.8): tags of the segment, with what stands before them unread.
fn matroska_comment(file: &mut InputFile) -> Option<String> {
    const SEGMENT: u64 = 0x1853_8067;
    const TAGS: u64 = 0x1254_c367;
    const MOST_ELEMENTS: usize = 1 << 20;
    let length = file.stamp().length;
    let mut at = 0_u64;
    for _ in 0..MOST_ELEMENTS {
        file.seek(SeekFrom::Start(at)).ok()?;
        let mut head = Vec::new();
        file.take(16).read_to_end(&mut head).ok()?;
        let (id, start) = ebml_number(&head, true)?;
        let (size, after) = ebml_number(head.get(start..)?, false)?;
        at = at.checked_add((start + after) as u64)?;
        match id {
            SEGMENT => {}
            TAGS if size <= LONGEST && size <= length.checked_sub(at)? => {
                let mut tags = vec![0; size as usize];
                file.seek(SeekFrom::Start(at)).ok()?;
                file.read_exact(&mut tags).ok()?;
                return comment_among(&tags);
            }
            _ => at = at.checked_add(size)?,
        }
    }
    None
}

fn comment_among(tags: &[u8]) -> Option<String> {
    let inside = |contents, wanted| {
        ebml_elements(contents).filter(move |(id, _)| *id == wanted).map(|(_, inside)| inside)
    };
    let simple = inside(tags, 0x7373).flat_map(|tag| inside(tag, 0x67c8));
    let found = simple.filter(|tag| inside(tag, 0x45a3).next() == Some(b"COMMENT"));
    let text = found.filter_map(|tag| inside(tag, 0x4487).next()).next()?;
    String::from_utf8(text.to_vec()).ok()
}
