//! What kind of file something is that is not what was expected, by its first and last bytes, and
//! how it becomes what is read.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::InputFile;

/// What the first bytes of a file look like.
pub fn looks_like(path: &Path) -> Option<&'static str> {
    let mut start = Vec::new();
    InputFile::open(path).ok()?.take(512).read_to_end(&mut start).ok()?;
    if start.is_empty() {
        return Some("an empty file");
    }
    if let Some(brand) = start.get(8..12).filter(|_| start[4..].starts_with(b"ftyp")) {
        return Some(match brand {
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => HEIC,
            b"avif" | b"avis" => "an AVIF image",
            b"crx " => RAW,
            _ => "an mp4 or similar video",
        });
    }
    let known = KINDS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, kind)| *kind);
    let text = || match std::str::from_utf8(&start) {
        Ok(text) => Some(text),
        // Cut in the middle of a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let known = known.or_else(|| structured(&start)).or_else(|| ended(path));
    known.or_else(|| text().and_then(written))
}

/// What a text is; none where it has characters that no text has.
fn written(text: &str) -> Option<&'static str> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let lower = text.to_ascii_lowercase();
    Some(match () {
        _ if lower.starts_with("<svg") => "an SVG drawing",
        _ if lower.starts_with("<!doctype html") || lower.starts_with("<html") => PAGE,
        _ if lower.starts_with("<?xml") || lower.starts_with("<!--") => match () {
            _ if lower.contains("<svg") => "an SVG drawing",
            _ if lower.contains("<html") => PAGE,
            _ => "text",
        },
        _ if text.starts_with("version https://git-lfs") => POINTER,
        _ if text.contains(|c: char| c.is_control() && !c.is_ascii_whitespace()) => return None,
        _ => "text",
    })
}

/// What is told by more than how it begins.
fn structured(start: &[u8]) -> Option<&'static str> {
    let length =
        start.get(..8).map(|length| u64::from_le_bytes(length.try_into().unwrap_or([0; 8])));
    match start {
        // P6 and a number, or comments.
        [b'P', b'1'..=b'6', space, b'0'..=b'9' | b'#' | b' ' | b'\n' | b'\r', ..]
            if space.is_ascii_whitespace() =>
        {
            Some("a PPM, PGM or PBM image")
        }
        [b'P', b'F' | b'f', b'\n' | b'\r' | b' ', b'0'..=b'9', ..] => Some("a PFM image"),
        [10, 0..=5, 1, 1 | 2 | 4 | 8, ..] => Some("a PCX image"),
        [1, 0xda, 0 | 1, 1 | 2, ..] => Some("an SGI image"),
        [1, 0, 0, 0, ..] if start.get(40..44) == Some(b" EMF") => Some("a Windows drawing (EMF)"),
        [_, _, _, _, _, _, _, 0, b'{', ..] if length.is_some_and(|length| length > 1) => {
            Some("a safetensors file")
        }
        _ => None,
    }
}

/// What is told by how it ends.
fn ended(path: &Path) -> Option<&'static str> {
    let mut file = InputFile::open(path).ok()?;
    let mut end = [0; 18];
    file.seek(SeekFrom::End(-(end.len() as i64))).ok()?;
    file.read_exact(&mut end).ok()?;
    (end == *b"TRUEVISION-XFILE.\0").then_some("a TGA image")
}

const PAGE: &str = "a web page";
const POINTER: &str = "a Git LFS pointer";

const HEIC: &str = "an HEIC image, as phones take them";
const RAW: &str = "a raw photo of a camera";

/// How files begin, and what they are. What stands first counts.
const KINDS: [(&[u8], &str); 43] = [
    (b"PK\x03\x04", "a zip archive (PyTorch's pickle files are such)"),
    (b"\x80", "a Python pickle"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "a PostScript drawing"),
    (b"GIF8", "a GIF"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x1aE\xdf\xa3", "a WebM or Matroska video"),
    (b"GGUF", "a GGUF model"),
    (b"\x7fELF", "a program"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"8BPS", "a Photoshop document (PSD)"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"II*\0\x10\0\0\0CR", RAW),
    (b"IIU\0", RAW),
    (b"IIRO", RAW),
    (b"IIRS", RAW),
    (b"FUJIFILMCCD-RAW", RAW),
    (b"II*\0", "a TIFF image, or a raw photo of a camera"),
    (b"MM\0*", "a TIFF image, or a raw photo of a camera"),
    (b"II+\0", "a TIFF image"),
    (b"MM\0+", "a TIFF image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"#?RGBE", "a Radiance HDR image"),
    (b"qoif", "a QOI image"),
    (b"DDS ", "a DDS texture"),
    (b"gimp xcf", "a GIMP document (XCF)"),
    (b"BM", "a BMP image"),
    (b"\0\0\x01\0", "an icon (ICO)"),
    (b"\x76\x2f\x31\x01", "an EXR image"),
    (b"P7\n", "a PAM image"),
    (b"farbfeld", "a farbfeld image"),
    (b"icns", "an icon (ICNS)"),
    (b"\0\0\x02\0", "a cursor (CUR)"),
    (b"\x8aMNG\r\n\x1a\n", "an MNG animation"),
    (b"\x8bJNG\r\n\x1a\n", "a JNG image"),
    (b"\xd7\xcd\xc6\x9a", "a Windows drawing (WMF)"),
    (b"SIMPLE  =", "a FITS image"),
    (b"BPG\xfb", "a BPG image"),
    (b"FLIF", "a FLIF image"),
];

/// How an image that is read is made of a file that is none of them.
pub(crate) fn way_to_an_image(found: &str, path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let stem = path.file_stem()?.to_string_lossy();
    let (name, stem) = (kino_port::escape_line(&name), kino_port::escape_line(&stem));
    Some(match found {
        "a GIF" | "a WebM or Matroska video" | "an mp4 or similar video" => {
            "`video.read` reads it, and with `count: 1` its first frame alone".to_owned()
        }
        "an SVG drawing" => format!("draw it: `rsvg-convert {name} -o {stem}.png`, or inkscape"),
        "a PDF" | "a PostScript drawing" => {
            format!("draw a page of it: `magick -density 150 {name}[0] {stem}.png`")
        }
        RAW => "develop it with darktable or RawTherapee, and save it as PNG or EXR".to_owned(),
        HEIC | "an AVIF image" => {
            format!("convert it: `heif-convert {name} {stem}.png`, or `magick {name} {stem}.png`")
        }
        "a JPEG XL image" => format!("convert it: `djxl {name} {stem}.png`"),
        image if image.contains(" image") || image.contains("document") => {
            format!("convert it: `magick {name}[0] {stem}.png`")
        }
        "a DDS texture" | "an icon (ICO)" | "an icon (ICNS)" | "a cursor (CUR)"
        | "an MNG animation" => format!("convert it: `magick {name}[0] {stem}.png`"),
        "a Windows drawing (WMF)" | "a Windows drawing (EMF)" => {
            format!("draw it: `inkscape {name} -o {stem}.png`")
        }
        PAGE => "download the file itself, not the page about it".to_owned(),
        POINTER => "fetch the file itself: `git lfs pull`".to_owned(),
        "a safetensors file" => "`tensor.read` reads it".to_owned(),
        _ => return None,
    })
}
