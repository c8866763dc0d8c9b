//! Files that people give to graphs and that are not what they seem: hidden colours, profiles,
//! several frames, other formats, whole numbers, no numbers. Each is read as it is meant, or
//! refused with what it is and what to do.

mod common;

use std::fs;
use std::io::{BufReader, Cursor};

use common::{Place, Ran, event};

/// Reads the picture `image` and writes it as it was read.
const GRAPH: &str = r##"Graph(version: 1,
    inputs: {"image": (type: "Path"), "background": (type: "Text", default: "#000000")},
    nodes: {
        "img":  (op: "image.read", in: {"path": "inputs.image", "background": "inputs.background"}),
        "file": (op: "image.write", in: {"frames": "img"}, with: {"path": "out-{n}.png"}),
    },
    outputs: {"image": "file"},
)"##;

/// Reads the tensor `frames` of `file` as frames.
const TENSOR: &str = r#"Graph(version: 1,
    inputs: {"file": (type: "Path"), "name": (type: "Text", default: "frames")},
    nodes: {
        "t":    (op: "tensor.read", in: {"path": "inputs.file", "name": "inputs.name"}),
        "file": (op: "video.write", in: {"frames": "t"}, with: {"path": "out-{n}_%02d.png"}),
    },
    outputs: {"file": "file"},
)"#;

fn input(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/inputs");
    fs::read(format!("{folder}/{name}")).unwrap()
}

fn place(graph: &str) -> Place {
    let place = Place::new();
    place.write("g.ron", graph);
    place
}

/// The pixels of a PNG.
fn pixels(bytes: &[u8]) -> Vec<[u8; 3]> {
    let mut reader = png::Decoder::new(BufReader::new(Cursor::new(bytes))).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels.as_chunks::<3>().0.to_vec()
}

/// What `image.read` makes of a file.
#[track_caller]
fn read(place: &Place, name: &str, bytes: &[u8], more: &[&str]) -> Vec<[u8; 3]> {
    place.write(name, bytes);
    let image = format!("image={name}");
    let lines = place.json(&[&["run", "g.ron", "-s", &image], more].concat());
    let file = event(&lines, "outputs")["files"][0]["path"].as_str().unwrap().to_owned();
    pixels(&fs::read(place.path(&file)).unwrap())
}

/// What is said of a file, in one line whatever the width at which it was broken.
#[track_caller]
fn refused(place: &Place, input: &str, name: &str, bytes: &[u8]) -> String {
    place.write(name, bytes);
    let ran: Ran = place.kino(&["run", "g.ron", "-s", &format!("{input}={name}")]);
    assert!(ran.code == 1 || ran.code == 2, "{name}: {}\n{}", ran.code, ran.err);
    assert_eq!(place.files("out"), [""; 0], "{name}");
    ran.err.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn hidden_colours_stay_hidden() {
    let place = place(GRAPH);
    let names = ["hidden_red.png", "hidden_black.png", "hidden_green.webp"];
    for background in ["#000000", "#20a0ff"] {
        let background = format!("background={background}");
        let more = ["-s", &background];
        let frames = names.map(|name| read(&place, name, &input(name), &more));
        assert!(frames[0] == frames[1] && frames[1] == frames[2], "{background}");
        let shown = if background.ends_with("ff") { [0x20, 0xa0, 0xff] } else { [0; 3] };
        assert!(frames[0].contains(&shown), "{background}: {:?}", &frames[0][..4]);
    }
}

#[test]
fn animated_images_are_counted_and_read_as_videos() {
    let place = place(GRAPH);
    for name in ["anim.png", "anim.webp"] {
        let said = refused(&place, "image", name, &input(name));
        assert!(said.contains("it is animated: it holds") && said.contains("frames"), "{said}");
        assert!(said.contains("`video.read` reads them all"), "{said}");
        let video = format!(
            r#"Graph(version: 1, nodes: {{"clip": (op: "video.read", with: {{"path": "{name}", "count": 1}}),
                "file": (op: "image.write", in: {{"frames": "clip.frames"}}, with: {{"path": "{name}.png"}})}})"#
        );
        place.write("first.ron", video);
        place.good(&["run", "first.ron", "-o", "first"]);
    }
}

#[test]
fn a_profile_is_brought_to_srgb() {
    let place = self::place(GRAPH);
    let found = read(&place, "p3.png", &input("p3.png"), &[]);
    assert_eq!(found[0], [216, 69, 17]);
    // In chunks of a PNG, too: linear light, and Display P3 by numbers.
    let chunked = |name: &[u8; 4], contents: &[u8]| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_chunk(png::chunk::ChunkType(*name), contents).unwrap();
        writer.write_image_data(&[200, 80, 40]).unwrap();
        drop(writer);
        bytes
    };
    let of = |name: &str, bytes: &[u8]| read(&place, name, bytes, &[])[0];
    assert_eq!(of("linear.png", &chunked(b"gAMA", &100_000_u32.to_be_bytes())), [229, 152, 110]);
    assert_eq!(of("usual.png", &chunked(b"gAMA", &45_455_u32.to_be_bytes())), [200, 80, 40]);
    assert_eq!(of("points.png", &chunked(b"cICP", &[12, 13, 0, 1])), [216, 69, 17]);
    let places = [31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000_u32];
    let places: Vec<u8> = places.iter().flat_map(|place| place.to_be_bytes()).collect();
    assert_eq!(of("places.png", &chunked(b"cHRM", &places)), [216, 69, 17]);
    // What nobody here converts is named.
    let said = refused(&self::place(GRAPH), "image", "pq.png", &chunked(b"cICP", &[9, 16, 0, 1]));
    assert!(said.contains("PQ (HDR)") && said.contains("save it in sRGB"), "{said}");
}

#[test]
fn a_profile_in_a_jpeg_and_a_webp_is_brought_to_srgb() {
    // The profile of the PNG, as it is packed in there.
    let png = input("p3.png");
    let decoder = png::Decoder::new(BufReader::new(Cursor::new(&png))).read_info().unwrap();
    let profile = decoder.info().icc_profile.as_ref().unwrap().to_vec();
    let place = place(GRAPH);
    // A JPEG: its profile in a segment behind the mark of its beginning.
    let jpeg = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../world/tests/images/baseline.jpg"));
    let jpeg = jpeg.unwrap();
    let contents = [b"ICC_PROFILE\0\x01\x01", profile.as_slice()].concat();
    let length = (contents.len() as u16 + 2).to_be_bytes();
    let segment = [&[0xff, 0xe2], &length[..], &contents].concat();
    let with = [&jpeg[..2], &segment, &jpeg[2..]].concat();
    let (plain, converted) = (read(&place, "a.jpg", &jpeg, &[]), read(&place, "b.jpg", &with, &[]));
    let differ = plain.iter().zip(&converted).filter(|(a, b)| a != b).count();
    assert!(differ > plain.len() / 10, "{differ} of {} differ", plain.len());
    // A WebP of one colour: the same pixel as the PNG's.
    let webp = |profile: Option<&[u8]>| {
        let data = lossless([200, 80, 40]);
        let flags = if profile.is_some() { 0x20 } else { 0 };
        let mut body = b"WEBP".to_vec();
        body.extend(riff(b"VP8X", &[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        body.extend(profile.map(|profile| riff(b"ICCP", profile)).unwrap_or_default());
        body.extend(riff(b"VP8L", &data));
        [b"RIFF".as_slice(), &(body.len() as u32).to_le_bytes(), &body].concat()
    };
    assert_eq!(read(&place, "a.webp", &webp(None), &[])[0], [200, 80, 40]);
    assert_eq!(read(&place, "b.webp", &webp(Some(&profile)), &[])[0], [216, 69, 17]);
}

/// A chunk of a RIFF file.
fn riff(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut chunk = [name.as_slice(), &(data.len() as u32).to_le_bytes(), data].concat();
    chunk.resize(8 + data.len().next_multiple_of(2), 0);
    chunk
}

/// Animated, of one pixel: PNG with more chunks, WebP, GIF.
fn moving_png(color: &[u8], chunks: &[(&[u8; 4], &[u8])], icc: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut info = png::Info::with_size(1, 1);
    info.color_type = if color.len() == 4 { png::ColorType::Rgba } else { png::ColorType::Rgb };
    info.bit_depth = png::BitDepth::Eight;
    info.icc_profile = icc.map(|icc| icc.to_vec().into());
    let mut encoder = png::Encoder::with_info(&mut bytes, info).unwrap();
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    for (name, contents) in chunks {
        writer.write_chunk(png::chunk::ChunkType(**name), contents).unwrap();
    }
    writer.write_image_data(color).unwrap();
    writer.write_image_data(color).unwrap();
    drop(writer);
    bytes
}

fn moving_webp(color: [u8; 4], icc: Option<&[u8]>) -> Vec<u8> {
    let image = riff(b"VP8L", &lossless_alpha(color));
    let frame = [&[0; 12][..], &[100, 0, 0, 0], &image].concat();
    let flags = 2 | if icc.is_some() { 0x20 } else { 0 } | 0x10;
    let mut body = b"WEBP".to_vec();
    body.extend(riff(b"VP8X", &[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    body.extend(icc.map(|icc| riff(b"ICCP", icc)).unwrap_or_default());
    body.extend(riff(b"ANIM", &[0; 6]));
    body.extend(riff(b"ANMF", &frame));
    body.extend(riff(b"ANMF", &frame));
    [b"RIFF".as_slice(), &(body.len() as u32).to_le_bytes(), &body].concat()
}

fn moving_gif([r, g, b]: [u8; 3], icc: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = b"GIF89a\x01\0\x01\0\x80\0\0".to_vec();
    bytes.extend([r, g, b, 0, 0, 0]);
    if let Some(icc) = icc {
        bytes.extend(b"\x21\xff\x0bICCRGBG1012");
        icc.chunks(255).for_each(|part| {
            bytes.push(part.len() as u8);
            bytes.extend(part);
        });
        bytes.push(0);
    }
    bytes.extend(b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0\x3b");
    bytes
}

/// The first frame of what moves, over a background.
#[track_caller]
fn first_frame(name: &str, bytes: &[u8], background: &str) -> Result<[u8; 3], String> {
    let place = place(&format!(
        r##"Graph(version: 1, nodes: {{
            "clip": (op: "video.read", with: {{"path": "{name}", "count": 1, "background": "{background}"}}),
            "file": (op: "image.write", in: {{"frames": "clip.frames"}}, with: {{"path": "x.png"}})}})"##
    ));
    place.write(name, bytes);
    let mut command = place.command(&["run", "g.ron"]);
    let ran = Ran::of(command.env("KINO_FFMPEG", "").output().unwrap());
    match ran.code {
        0 => Ok(pixels(&fs::read(place.path("out/x.png")).unwrap())[0]),
        _ => Err(ran.err.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")),
    }
}

#[test]
fn colours_of_what_moves_are_brought_to_srgb_as_those_of_stills() {
    let png = input("p3.png");
    let decoder = png::Decoder::new(BufReader::new(Cursor::new(&png))).read_info().unwrap();
    let profile = decoder.info().icc_profile.as_ref().unwrap().to_vec();
    let profile = Some(profile.as_slice());
    let color = [200, 80, 40];
    let first = |name: &str, bytes: &[u8]| first_frame(name, bytes, "#000000");
    let gamma = 100_000_u32.to_be_bytes();
    for (name, bytes, expected) in [
        ("a.png", moving_png(&color, &[], None), color),
        ("b.png", moving_png(&color, &[], profile), [216, 69, 17]),
        ("c.png", moving_png(&color, &[(b"gAMA", &gamma)], None), [229, 152, 110]),
        ("d.png", moving_png(&color, &[(b"cICP", &[12, 13, 0, 1])], None), [216, 69, 17]),
        ("a.webp", moving_webp([200, 80, 40, 255], None), color),
        ("b.webp", moving_webp([200, 80, 40, 255], profile), [216, 69, 17]),
        ("a.gif", moving_gif(color, None), color),
        ("b.gif", moving_gif(color, profile), [216, 69, 17]),
    ] {
        assert_eq!(first(name, &bytes), Ok(expected), "{name}");
    }
    let pq = moving_png(&color, &[(b"cICP", &[9, 16, 0, 1])], None);
    let said = first("pq.png", &pq).unwrap_err();
    assert!(said.contains("PQ (HDR)") && said.contains("save it in sRGB"), "{said}");
    let said = first("x.webp", &moving_webp([200, 80, 40, 255], Some(&[0; 200]))).unwrap_err();
    assert!(said.contains("its colour profile is damaged"), "{said}");
}

#[test]
fn what_moves_is_put_on_the_background() {
    let png = input("p3.png");
    let decoder = png::Decoder::new(BufReader::new(Cursor::new(&png))).read_info().unwrap();
    let profile = decoder.info().icc_profile.as_ref().unwrap().to_vec();
    for (name, bytes) in [
        ("a.png", moving_png(&[200, 80, 40, 0], &[], None)),
        ("b.png", moving_png(&[200, 80, 40, 0], &[], Some(&profile))),
        ("a.webp", moving_webp([200, 80, 40, 0], None)),
        ("b.webp", moving_webp([200, 80, 40, 0], Some(&profile))),
        ("still.png", input("hidden_red.png")),
    ] {
        for (background, expected) in [("#000000", [0; 3]), ("#20a0ff", [0x20, 0xa0, 0xff])] {
            assert_eq!(first_frame(name, &bytes, background), Ok(expected), "{name}");
        }
    }
    // Half of it.
    let half = moving_png(&[200, 80, 40, 51], &[], None);
    assert_eq!(first_frame("h.png", &half, "#ffffff"), Ok([244, 220, 212]));
    let said = first_frame("a.png", &half, "blue").unwrap_err();
    assert!(said.contains("expected a colour such as #20a0ff, found `blue`"), "{said}");
}

/// A lossless WebP of one pixel (RFC 9649 §3): five Huffman codes of one symbol each.
fn lossless([r, g, b]: [u8; 3]) -> Vec<u8> {
    lossless_alpha([r, g, b, 255])
}

fn lossless_alpha([r, g, b, a]: [u8; 4]) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    let mut put = |value: u32, count: u32| bits.extend((0..count).map(|bit| value >> bit & 1 == 1));
    put(0x2f, 8);
    put(0, 14); // width - 1
    put(0, 14); // height - 1
    put(u32::from(a < 255), 1); // whether there is alpha
    put(0, 3); // version
    put(0, 1); // no transform
    put(0, 1); // no colour cache
    put(0, 1); // one group of codes
    for symbol in [g, r, b, a] {
        put(1, 1); // a simple code
        put(0, 1); // of one symbol
        put(1, 1); // of eight bits
        put(symbol.into(), 8);
    }
    // The code of distances.
    put(1, 1);
    put(0, 1);
    put(0, 1);
    put(0, 1);
    let byte = |bits: &[bool]| bits.iter().rev().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit));
    bits.chunks(8).map(byte).collect()
}

/// The chunks of a PNG, each whole.
fn png_chunks(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut at, mut chunks) = (8, Vec::new());
    while let Some(length) = bytes.get(at..at + 4) {
        let end = at + 12 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
        chunks.push(bytes[at..end].to_vec());
        at = end;
    }
    chunks
}

fn png_chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(name);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes(), name.as_slice(), data, &crc.sum().to_be_bytes()].concat()
}

#[test]
fn corners_of_png() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[200, 80, 40, 1, 2, 3]).unwrap();
    drop(writer);
    let chunks = png_chunks(&bytes);
    let with = |parts: &[&[u8]]| [&bytes[..8], &parts.concat()].concat();
    let [head, data, end] = chunks.as_slice() else { panic!("{} chunks", chunks.len()) };
    let place = place(GRAPH);
    // The orientation stands before or behind the pixels: turned by 180 degrees.
    let mut exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0".to_vec();
    exif.extend([0; 4]);
    let exif = png_chunk(b"eXIf", &exif);
    for (name, bytes) in
        [("a.png", with(&[head, &exif, data, end])), ("b.png", with(&[head, data, &exif, end]))]
    {
        assert_eq!(read(&place, name, &bytes, &[]), [[1, 2, 3], [200, 80, 40]], "{name}");
    }
    // Without its end it is whole; without all of its pixels it is not.
    assert_eq!(read(&place, "c.png", &with(&[head, data]), &[]), [[200, 80, 40], [1, 2, 3]]);
    let cut = with(&[head, &data[..data.len() - 5]]);
    let refuses = |name: &str, bytes: &[u8]| refused(&self::place(GRAPH), "image", name, bytes);
    assert!(refuses("cut.png", &cut).contains("ends early"));
    assert!(refuses("none.png", &with(&[head])).contains("ends early"));
    // A profile that cannot be unpacked, and one that would fill the memory.
    let icc = |packed: &[u8]| png_chunk(b"iCCP", &[b"x\0\0".as_slice(), packed].concat());
    let packed = |profile: &mut dyn std::io::Read| {
        let mut packed = Vec::new();
        let mut packer = flate2::read::ZlibEncoder::new(profile, flate2::Compression::fast());
        std::io::Read::read_to_end(&mut packer, &mut packed).unwrap();
        packed
    };
    let huge = packed(&mut std::io::Read::take(std::io::repeat(0), 17 << 20));
    for (name, chunk, expected) in [
        ("d.png", icc(b"no zlib"), "its colour profile is damaged"),
        ("e.png", icc(&packed(&mut &[0_u8; 200][..])), "its colour profile is damaged"),
        ("f.png", icc(&huge), "its colour profile has more than 16777216 bytes"),
        ("g.png", png_chunk(b"iCCP", b"without end"), "its colour profile is damaged"),
    ] {
        let said = refuses(name, &with(&[head, &chunk, data, end]));
        assert!(said.contains(expected) && said.contains("save it in sRGB"), "{name}: {said}");
    }
}

#[test]
fn corners_of_jpeg() {
    let jpeg = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../world/tests/images/baseline.jpg"));
    let jpeg = jpeg.unwrap();
    let refuses = |name: &str, bytes: &[u8]| refused(&place(GRAPH), "image", name, bytes);
    // The first of two segments of a profile.
    let contents = [b"ICC_PROFILE\0\x01\x02".as_slice(), &[0; 200]].concat();
    let length = (contents.len() as u16 + 2).to_be_bytes();
    let with = [&jpeg[..2], &[0xff, 0xe2], &length, &contents, &jpeg[2..]].concat();
    assert!(refuses("a.jpg", &with).contains("its colour profile is damaged"));
    // Other ways to code it, which its first segment of a frame says.
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    for (marker, expected) in [
        (0xc3, "a lossless JPEG image"),
        (0xf7, "a JPEG-LS image"),
        (0xc9, "an arithmetically coded JPEG image"),
        (0xc5, "a hierarchical JPEG image"),
    ] {
        let mut other = jpeg.clone();
        other[frame + 1] = marker;
        let said = refuses("b.jpg", &other);
        assert!(said.contains(&format!("found {expected}")), "{said}");
        assert!(said.contains("magick b.jpg[0] b.png"), "{said}");
    }
}

#[test]
fn a_png_may_be_wider_than_a_webp() {
    for (width, height) in [(20_000, 1), (1, 20_000)] {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Grayscale);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&vec![9; (width * height) as usize]).unwrap();
        drop(writer);
        assert_eq!(read(&place(GRAPH), "a.png", &bytes, &[]), vec![[9; 3]; 20_000]);
    }
}

#[test]
fn other_formats_are_named_with_the_way_to_convert_them() {
    let place = place(GRAPH);
    let ftyp = |brand: &[u8; 4]| [&[0, 0, 0, 24], b"ftyp".as_slice(), brand, &[0; 40]].concat();
    for (name, bytes, found, way) in [
        ("a.heic", ftyp(b"heic"), "an HEIC image", "heif-convert a.heic a.png"),
        ("a.avif", ftyp(b"avif"), "an AVIF image", "magick a.avif a.png"),
        ("a.cr3", ftyp(b"crx "), "a raw photo", "darktable"),
        ("a.mp4", ftyp(b"isom"), "an mp4", "`video.read` reads it"),
        ("a.gif", b"GIF89a\x01\0\x01\0\0\0\0".to_vec(), "a GIF", "`video.read` reads it"),
        ("a.jxl", b"\xff\x0a\0\0\0\0".to_vec(), "a JPEG XL image", "djxl a.jxl a.png"),
        ("b.jxl", b"\0\0\0\x0cJXL \r\n\x87\n".to_vec(), "a JPEG XL image", "djxl b.jxl b.png"),
        ("a.svg", b"<?xml version='1.0'?>\n<svg/>".to_vec(), "an SVG", "rsvg-convert a.svg"),
        ("b.svg", "\u{feff}<svg/>".as_bytes().to_vec(), "an SVG", "rsvg-convert b.svg"),
        ("a.psd", b"8BPS\0\x01".to_vec(), "a Photoshop document", "magick a.psd[0] a.png"),
        ("a.xcf", b"gimp xcf v011".to_vec(), "a GIMP document", "magick a.xcf[0] a.png"),
        ("a.tif", b"II*\0\x08\0\0\0".to_vec(), "a TIFF image", "magick a.tif[0] a.png"),
        ("a.cr2", b"II*\0\x10\0\0\0CR\x02\0".to_vec(), "a raw photo", "darktable"),
        ("a.bmp", b"BM\0\0\0\0".to_vec(), "a BMP image", "magick a.bmp[0] a.png"),
        ("a.ico", b"\0\0\x01\0\x01\0".to_vec(), "an icon", "magick a.ico[0] a.png"),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n".to_vec(), "a JPEG 2000", "magick a.jp2[0] a.png"),
        ("a.hdr", b"#?RADIANCE\n".to_vec(), "a Radiance HDR", "magick a.hdr[0] a.png"),
        ("a.qoi", b"qoif\0\0\0\0".to_vec(), "a QOI image", "magick a.qoi[0] a.png"),
        ("a.pdf", b"%PDF-1.7".to_vec(), "a PDF", "magick -density 150 a.pdf[0] a.png"),
        ("a.ppm", b"P6\n1 1\n255\n\xff\0\0".to_vec(), "a PPM, PGM or PBM", "magick a.ppm[0] a.png"),
        ("b.pgm", b"P2\n# by hand\n1 1 255 7".to_vec(), "a PPM, PGM or PBM", "magick b.pgm[0]"),
        ("a.pam", b"P7\nWIDTH 1\n".to_vec(), "a PAM image", "magick a.pam[0] a.png"),
        ("a.pfm", b"PF\n1 1\n-1.0\n\0\0\0\0".to_vec(), "a PFM image", "magick a.pfm[0] a.png"),
        ("a.tga", [[0; 30].as_slice(), b"TRUEVISION-XFILE.\0"].concat(), "a TGA image", "magick"),
        ("a.pcx", vec![10, 5, 1, 8, 0, 0], "a PCX image", "magick a.pcx[0] a.png"),
        ("a.sgi", vec![1, 0xda, 0, 1, 0, 2], "an SGI image", "magick a.sgi[0] a.png"),
        ("a.icns", b"icns\0\0\0\x08".to_vec(), "an icon (ICNS)", "magick a.icns[0] a.png"),
        ("a.cur", b"\0\0\x02\0\x01\0".to_vec(), "a cursor", "magick a.cur[0] a.png"),
        ("a.ff", b"farbfeld\0\0\0\x01".to_vec(), "a farbfeld image", "magick a.ff[0] a.png"),
        ("a.mng", b"\x8aMNG\r\n\x1a\n".to_vec(), "an MNG animation", "magick a.mng[0] a.png"),
        ("a.wmf", b"\xd7\xcd\xc6\x9a\0\0".to_vec(), "a Windows drawing", "inkscape a.wmf -o"),
        (
            "b.png",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n".to_vec(),
            "a Git LFS pointer",
            "git lfs pull",
        ),
        ("c.png", b"<!DOCTYPE html>\n<html>404".to_vec(), "a web page", "the file itself"),
        ("d.png", safetensors("{}", &[]), "a safetensors file", "`tensor.read` reads it"),
        ("e.png", vec![0; 5000], "something else", ""),
        ("f.png", b"wOFF\0\x01\0\0".to_vec(), "something else", ""),
        ("a.txt", b"not a picture".to_vec(), "text", ""),
        ("a.png", Vec::new(), "an empty file", ""),
    ] {
        let said = refused(&place, "image", name, &bytes);
        assert!(said.contains(&format!("found {found}")), "{name}: {said}");
        assert!(said.contains(way), "{name}: {said}");
    }
}

#[test]
fn whole_numbers_are_levels_and_what_is_no_number_is_counted() {
    let place = place(TENSOR);
    place.write("u8.safetensors", input("u8.safetensors"));
    let lines = place.json(&["run", "g.ron", "-s", "file=u8.safetensors"]);
    let file = event(&lines, "outputs")["files"][0]["path"].as_str().unwrap().to_owned();
    let raw = input("u8.safetensors");
    let start = 8 + u64::from_le_bytes(raw[..8].try_into().unwrap()) as usize;
    let pixels = pixels(&fs::read(place.path(&file)).unwrap());
    assert_eq!(pixels.as_flattened(), &raw[start..start + pixels.len() * 3], "level by level");
    fs::remove_dir_all(place.path("out")).unwrap();
    let numbers = (0..96).map(|n| if n % 8 == 0 { f32::NAN } else { 0.5 });
    let numbers: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
    let header = r#"{"frames": {"dtype": "F32", "shape": [2, 4, 4, 3], "data_offsets": [0, 384]}}"#;
    let nan = safetensors(header, &numbers);
    let said = refused(&place, "file", "nan.safetensors", &nan);
    assert!(said.contains("12 of 96 numbers of these frames are NaN"), "{said}");
}

/// A file of one tensor `frames`.
fn one_tensor(dtype: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let end = data.len();
    safetensors(
        &format!(
            r#"{{"frames": {{"dtype": "{dtype}", "shape": {shape:?}, "data_offsets": [0, {end}]}}}}"#
        ),
        data,
    )
}

#[test]
fn wide_whole_numbers_that_would_be_black_are_refused() {
    let place = place(TENSOR);
    let frames = |dtype: &str, level: i64| {
        let bytes: Vec<u8> = (0..24)
            .flat_map(|_| match dtype {
                "I16" => (level as i16).to_le_bytes().to_vec(),
                "I32" => (level as i32).to_le_bytes().to_vec(),
                "U32" => (level as u32).to_le_bytes().to_vec(),
                _ => level.to_le_bytes().to_vec(),
            })
            .collect();
        one_tensor(dtype, &[2, 2, 2, 3], &bytes)
    };
    for dtype in ["I16", "I32", "U32", "I64"] {
        let name = format!("{dtype}.safetensors");
        for level in [1, 200, 255] {
            let said = refused(&place, "file", &name, &frames(dtype, level));
            assert!(said.contains(&format!("whole numbers of {dtype} are levels")), "{said}");
            assert!(said.contains(&format!("none here is above {level}")), "{said}");
            assert!(said.contains("save them as U8, of which 255 is 1"), "{said}");
        }
    }
    // Levels of the whole type, and nothing but black.
    let most = [("I16", 32_767), ("I32", 2_147_483_647), ("U32", 4_294_967_295), ("I64", i64::MAX)];
    for (dtype, largest) in most {
        for (level, expected) in [(largest, [255; 3]), (0, [0; 3])] {
            place.write("x.safetensors", frames(dtype, level));
            let lines = place.json(&["run", "g.ron", "-s", "file=x.safetensors"]);
            let file = event(&lines, "outputs")["files"][0]["path"].as_str().unwrap().to_owned();
            assert_eq!(pixels(&fs::read(place.path(&file)).unwrap())[0], expected, "{dtype}");
        }
    }
}

#[test]
fn masks_of_whole_numbers_are_read_as_tools_write_them() {
    let graph = r#"Graph(version: 1, inputs: {"file": (type: "Path")}, nodes: {
        "t": (op: "tensor.read", in: {"path": "inputs.file"}),
        "turned": (op: "mask.invert", in: {"mask": "t"}),
        "file": (op: "tensor.write", in: {"tensors": {"mask": "turned"}}, with: {"path": "m-{n}.safetensors"}),
    }, outputs: {"file": "file"})"#;
    let place = place(graph);
    let wide = |levels: [i64; 4]| levels.iter().flat_map(|level| level.to_le_bytes()).collect();
    let float = |levels: [f32; 4]| levels.iter().flat_map(|level| level.to_le_bytes()).collect();
    let cases: [(&str, Vec<u8>); 7] = [
        ("U8", vec![0, 255, 255, 0]),
        ("U8", vec![0, 1, 1, 0]),
        ("BOOL", vec![0, 1, 1, 0]),
        ("BOOL", vec![0, 2, 255, 0]),
        ("I64", wide([0, 1, 1, 0])),
        ("I64", wide([0, i64::MAX, i64::MAX, 0])),
        ("F32", float([0.0, 1.0, 1.0, 0.0])),
    ];
    for (dtype, data) in cases {
        place.write("m.safetensors", one_tensor(dtype, &[1, 2, 2], &data));
        let lines = place.json(&["run", "g.ron", "-s", "file=m.safetensors"]);
        let file = event(&lines, "outputs")["files"][0]["path"].as_str().unwrap().to_owned();
        let bytes = fs::read(place.path(&file)).unwrap();
        let expected: Vec<u8> = float([1.0, 0.0, 0.0, 1.0]);
        assert!(bytes.ends_with(&expected), "{dtype} {data:?}");
    }
    let grey = one_tensor("I64", &[1, 2, 2], &wide([0, 255, 255, 0]));
    let said = refused(&self::place(graph), "file", "x.safetensors", &grey);
    assert!(said.contains("none here is above 255") && said.contains("as U8"), "{said}");
}

#[test]
fn a_tensor_without_elements_is_refused_in_the_plan() {
    for (port, shape) in [
        ("frames", &[0, 4, 4, 3][..]),
        ("frames", &[2, 0, 4, 3]),
        ("mask", &[0, 4, 4]),
        ("mask", &[1, 4, 0]),
    ] {
        let next = match port {
            "frames" => r#"(op: "frames.reverse", in: {"frames": "t"})"#,
            _ => r#"(op: "mask.invert", in: {"mask": "t"})"#,
        };
        let place = place(&format!(
            r#"Graph(version: 1, nodes: {{
                "t": (op: "tensor.read", with: {{"path": "x.safetensors"}}), "next": {next}}},
                outputs: {{"next": "next"}})"#
        ));
        place.write("x.safetensors", one_tensor("F32", shape, &[]));
        let said = place.bad(2, &["plan", "g.ron"]);
        let said = said.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains("in which there is nothing"), "{shape:?}: {said}");
    }
}

/// Each claims to be what it is not, and is a terabyte, of which nothing lies on the disk: whoever
/// reads all of it first is not done by the end of the test.
#[test]
fn what_a_file_is_is_told_before_all_of_it_is_read() {
    let place = Place::new();
    let begun = std::time::Instant::now();
    for (op, name, start, expected) in [
        ("image.read", "a.png", &b"\0\0\0"[..], "expected a PNG"),
        ("image.read", "b.png", b"\x89PNG\r\n\x1a\n\0\0", "damaged or ends early"),
        ("mask.read", "c.png", b"BM", "a BMP image"),
        ("video.read", "d.mp4", b"\xff\xd8\xff", "a JPEG image"),
        ("audio.read", "e.wav", b"RIFF", "e.wav"),
        ("tensor.read", "f.safetensors", b"\x02\0\0\0\0\0\0\0{}", "behind its last tensor"),
        ("tensor.read", "g.safetensors", b"\0\0\0", "expected a safetensors file"),
    ] {
        let output = match op {
            "mask.read" => "mask",
            "audio.read" => "audio",
            "tensor.read" => "tensor",
            _ => "frames",
        };
        place.write(
            "g.ron",
            format!(
                r#"Graph(version: 1, nodes: {{"r": (op: "{op}", with: {{"path": "{name}"}})}},
                    outputs: {{"r": "r.{output}"}})"#
            ),
        );
        let path = place.write(name, start);
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(1 << 40).unwrap();
        let mut command = place.command(&["plan", "g.ron"]);
        let running = command.env("KINO_FFMPEG", "").stderr(std::process::Stdio::piped());
        let mut running = running.spawn().unwrap();
        while running.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(20));
            if begun.elapsed().as_secs() > 60 {
                running.kill().unwrap();
                panic!("{name} is still read");
            }
        }
        let said = String::from_utf8(running.wait_with_output().unwrap().stderr).unwrap();
        let said = said.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(expected), "{name}: {said}");
    }
}

/// A file of this header and data.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn only_the_tensor_that_is_asked_for_matters() {
    let tensors = r#"Graph(version: 1, inputs: {"file": (type: "Path"), "name": (type: "Text", default: "frames")},
        nodes: {"t": (op: "tensor.read", in: {"path": "inputs.file", "name": "inputs.name"}),
            "file": (op: "tensor.write", in: {"tensors": {"copy": "t"}}, with: {"path": "copy.safetensors"})})"#;
    let place = place(tensors);
    place.write("b.safetensors", input("with_BOOL.safetensors"));
    place.good(&["run", "g.ron", "-s", "file=b.safetensors", "-o", "copied"]);
    let names = String::from_utf8_lossy(&input("with_BOOL.safetensors")).into_owned();
    let other = names.split('"').collect::<Vec<_>>();
    let other = other.windows(5).find(|w| w[2] == "dtype" && w[4] == "BOOL").map(|w| w[0]).unwrap();
    place.good(&[
        "run",
        "g.ron",
        "-s",
        "file=b.safetensors",
        "-s",
        &format!("name={other}"),
        "-o",
        "bool",
    ]);
    // Types that this version knows, those that the format knows, and those that nobody does.
    for (dtype, elements, bytes) in [
        ("C64", 1, 8),
        ("U16", 4, 8),
        ("F8_E8M0", 8, 8),
        ("F8_E5M2", 8, 8),
        ("F8_E4M3FNUZ", 8, 8),
        ("F4", 16, 8),
        ("F6_E3M2", 16, 12),
        ("I128", 1, 16),
        ("X7", 3, 7),
        ("bool", 4, 4),
    ] {
        let header = format!(
            r#"{{"frames": {{"dtype": "U8", "shape": [1, 1, 1, 3], "data_offsets": [0, 3]}},
                "b": {{"dtype": "{dtype}", "shape": [{elements}], "data_offsets": [3, {}]}}}}"#,
            3 + bytes
        );
        let file = format!("{dtype}.safetensors");
        place.write(&file, safetensors(&header, &vec![1; 3 + bytes]));
        let file = format!("file={file}");
        place.good(&["run", "g.ron", "-s", &file, "-o", dtype]);
        // The tensor itself is refused by its name, in the plan.
        let said = place.bad(2, &["plan", "g.ron", "-s", &file, "-s", "name=b"]);
        assert!(said.contains(dtype) && said.contains("not read"), "{dtype}: {said}");
    }
    // One rule for what is broken, as models' weights have it.
    let entry = |name: &str| {
        format!(r#""{name}": {{"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}"#)
    };
    for (header, data, expect) in [
        (format!("{{{}}}", entry("frames")), &[1, 2, 3][..], "goes on for 1 bytes behind"),
        (format!("{{{}}}", entry("frames")), &[1], "ends early"),
        (format!("{{{}, {}}}", entry("frames"), entry("frames")), &[1, 2], "names `frames` twice"),
    ] {
        let said = refused(&place, "file", "x.safetensors", &safetensors(&header, data));
        assert!(said.contains(expect), "{said}");
    }
}

#[test]
fn graphs_in_utf_16_are_read_by_their_mark() {
    let place = place("");
    let text = r#"Graph(version: 1, nodes: {"a": (op: "text.join", with: {"parts": ["猫"]})}, outputs: {"a": "a"})"#;
    let wide = |order: fn(u16) -> [u8; 2]| {
        let units: Vec<u16> = std::iter::once(0xfeff).chain(text.encode_utf16()).collect();
        units.into_iter().flat_map(order).collect::<Vec<u8>>()
    };
    for bytes in [
        wide(u16::to_le_bytes),
        wide(u16::to_be_bytes),
        [b"\xef\xbb\xbf", text.as_bytes()].concat(),
    ] {
        place.write("g.ron", &bytes);
        place.good(&["check", "g.ron"]);
        assert_eq!(place.good(&["run", "g.ron", "-q"]), "a = \"猫\"\n");
        place.write(
            "outer.ron",
            r#"Graph(version: 1, nodes: {"g": (op: "./g.ron")}, outputs: {"a": "g.a"})"#,
        );
        assert_eq!(place.good(&["run", "outer.ron", "-q"]), "a = \"猫\"\n");
        place.write("g.ron", &bytes[..bytes.len() - 1]);
    }
    place.write("g.ron", [0xff, 0xfe, 0x00, 0xd8]);
    assert!(place.bad(2, &["check", "g.ron"]).contains("is no text"));
}

#[test]
fn tiles_that_would_be_seen_are_refused() {
    let place = place(
        r#"Graph(version: 1, inputs: {"tile": (type: "Int", default: 0)}, nodes: {
            "model": (op: "model.load", with: {"source": "embedded:shapes"}),
            "noise": (op: "latent.noise", in: {"vae": "model.vae"}, with: {"seed": 4, "width": 64, "height": 64}),
            "frames": (op: "vae.decode", in: {"vae": "model.vae", "latent": "noise", "tile": "inputs.tile"}),
            "d": (op: "image.write", in: {"frames": "frames"}, with: {"path": "{tile}.png"}),
        })"#,
    );
    for tile in [1, 8, 15, 16, 31] {
        let said = place.bad(2, &["run", "g.ron", "-s", &format!("tile={tile}")]);
        assert!(said.contains("the least is 32"), "{tile}: {said}");
    }
    for tile in [0, 32, 64] {
        place.good(&["run", "g.ron", "-s", &format!("tile={tile}")]);
    }
}

#[test]
fn a_drawing_is_svg_dot_or_mermaid() {
    let place = Place::new();
    for name in ["x.png", "x.pdf", "x.jpg"] {
        let said = place.bad(2, &["draw", "text_to_image", "-o", name]);
        assert!(said.contains("`kino draw` writes SVG, DOT and Mermaid"), "{said}");
        assert!(!place.path(name).exists());
    }
    for (name, begins) in
        [("x.svg", "<svg"), ("x.dot", "digraph"), ("x.mmd", "flowchart"), ("x", "<svg")]
    {
        place.good(&["draw", "text_to_image", "-o", name]);
        let drawn = fs::read_to_string(place.path(name)).unwrap();
        assert!(drawn.contains(begins), "{name}: {}", &drawn[..40]);
    }
    place.good(&["draw", "text_to_image", "-o", "x.png", "--format", "svg"]);
}

#[test]
fn what_a_model_does_not_read_of_a_prompt_is_told() {
    let place = Place::new();
    let said = |prompt: &str| {
        let ran = place.kino(&["plan", "text_to_image", "--set", &format!("prompt={prompt}")]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.err.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let cat = said("a cat walks through the grass, a red cat!");
    assert!(cat.contains("does not know `cat`, `walks`, `through` and `grass`"), "{cat}");
    assert!(cat.contains("`kino nodes model.load` lists"), "{cat}");
    assert!(said("a red dragon").contains("does not know `dragon`: it means nothing"));
    let long = said(&format!("a red circle moves right {}and a star", "and a ring ".repeat(30)));
    assert!(long.contains("longer than the model reads: `"), "{long}");
    assert!(long.contains("is left out") && !long.contains("does not know"), "{long}");
    assert!(said("🦊🦊").contains("does not know `🦊🦊`"));
    // Words end where signs, marks and Chinese characters begin.
    assert_eq!(said("a RED circle; 一个蓝色方形,(white background)..."), "");
    let glued = said("a red🦊circle→right, a dragon-star");
    assert!(glued.contains("does not know `🦊`, `→` and `dragon`:"), "{glued}");
    let word = said(&"x".repeat(5000));
    assert!(word.contains("x…`: it means nothing") && word.len() < 2000, "{word}");
    // Of a sweep each run's, once.
    let sweep = ["--sweep", "prompt=a red monkey", "--sweep", "prompt=a red koala"];
    let ran = place.kino(&[["run", "text_to_image", "-s", "steps=1"].as_slice(), &sweep].concat());
    assert!(ran.err.contains("`monkey`") && ran.err.contains("`koala`"), "{}", ran.err);
    // Also in a check, of what the graph itself says.
    let text = r#"Graph(version: 1, inputs: {"p": (type: "Text", default: "a giraffe")}, nodes: {
        "m": (op: "model.load", with: {"source": "embedded:shapes"}),
        "t": (op: "text.encode", in: {"encoder": "m.text_encoder", "prompt": "inputs.p"}),
    }, outputs: {"t": "t"})"#;
    place.write("p.ron", text);
    let checked = place.kino(&["check", "p.ron"]);
    assert_eq!(checked.code, 0);
    assert!(checked.err.contains("does not know `giraffe`"), "{}", checked.err);
    // All that is listed is known, in both languages.
    let listed = place.good(&["nodes", "model.load"]);
    let listed = listed.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = listed.split("Colours: ").nth(1).unwrap().split("Two objects").next().unwrap();
    let words: Vec<String> = words
        .split(['.', ',', ':'])
        .map(str::trim)
        .filter(|word| !["", "Shapes", "Sizes", "What they do", "Backgrounds"].contains(word))
        .map(str::to_owned)
        .collect();
    assert!(words.len() > 20 && words.contains(&"stays still".to_owned()), "{words:?}");
    for known in words.iter().map(String::as_str).chain(["一个蓝色方形，白色背景"]) {
        assert_eq!(said(known), "", "{known}");
    }
    let lines = place.json(&["plan", "text_to_image", "--set", "prompt=a cat"]);
    assert_eq!(lines[0]["diagnostics"][0]["severity"], "warning", "{}", lines[0]["diagnostics"]);
}

/// A safetensors file of zeros.
fn zeros(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let mut end = 0;
    let entry = |(name, shape): &(&str, &[usize])| {
        let begin = end;
        end += 4 * shape.iter().product::<usize>();
        format!(
            "\"{name}\": {{\"dtype\": \"F32\", \"shape\": {shape:?}, \"data_offsets\": [{begin}, {end}]}}"
        )
    };
    let header = format!("{{{}}}", tensors.iter().map(entry).collect::<Vec<_>>().join(", "));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.resize(file.len() + end, 0);
    file
}

/// A LoRA of which the model has some layers: check, plan and run name what changes nothing.
#[test]
fn what_of_a_lora_changes_nothing_is_told() {
    let place = Place::new();
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let text = fs::read_to_string(root.join("graphs/text_to_image.ron")).unwrap();
    let named =
        |input: &str, file: &str| format!("\"{input}\": (type: \"Text\", default: \"{file}\"");
    let graph = text
        .replace("embedded:shapes", &root.join("tests/ref/wan_t2v/model").display().to_string())
        .replace(&named("lora", ""), &named("lora", "some.safetensors"));
    assert!(graph.contains("some.safetensors"));
    place.write("g.ron", graph);
    let layer = |name: &str| {
        let name = format!("diffusion_model.blocks.0.{name}");
        (format!("{name}.lora_A.weight"), format!("{name}.lora_B.weight"))
    };
    let write = |inner: usize| {
        let (q, k) = (layer("self_attn.q"), layer("cross_attn.k_img"));
        let (down, up): (&[usize], &[usize]) = (&[2, inner], &[inner, 2]);
        let own: [(&str, &[usize]); 4] = [(&q.0, down), (&q.1, up), (&k.0, down), (&k.1, up)];
        place.write("some.safetensors", zeros(&own));
    };
    write(64);
    let small = ["--set", "width=32", "--set", "height=32", "--set", "steps=1"];
    for command in ["check", "plan", "run"] {
        let sizes = if command == "check" { &[][..] } else { &small };
        let args = [&[command, "g.ron"][..], sizes].concat();
        let ran = place.kino(&args);
        assert_eq!(ran.code, 0, "{command}: {}\n{}", ran.out, ran.err);
        let said = ran.err.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = "of its 2 layers the transformer has not \
                        `diffusion_model.blocks.0.cross_attn.k_img`, which changes nothing";
        assert!(said.contains(expected), "{command}: {said}");
        let lines = place.json(&args);
        let told =
            lines.iter().flat_map(|line| line["diagnostics"].as_array().into_iter().flatten());
        let warned = |one: &serde_json::Value| {
            one["severity"] == "warning" && one["message"].to_string().contains("k_img")
        };
        assert!(told.into_iter().any(warned), "{command}: {lines:?}");
    }
    // One that was made for a model of another width names the tensor and both sizes.
    write(128);
    let told = place.bad(2, &["check", "g.ron"]);
    let told = told.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told.contains(
            "`diffusion_model.blocks.0.self_attn.q.lora_A.weight` is [2, 128] and its other half \
             [128, 2], but `blocks.0.attn1.to_q.weight` is [64, 64]: it was made for another size of \
             the model"
        ),
        "{told}"
    );
}

/// What a step cache saved stands in the line of its step and in the events; another threshold is
/// another step, and one that the graph has already needs nothing.
#[test]
fn what_a_step_cache_saved_is_told() {
    let place = Place::new();
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let text = fs::read_to_string(root.join("graphs/text_to_image.ron")).unwrap();
    let input = "\"cache\": (type: \"Real\", default: ";
    let graph = text.replace(&format!("{input}0.0"), &format!("{input}0.3"));
    assert_ne!(graph, text);
    place.write("g.ron", &graph);
    place.write("h.ron", &text);
    let small = ["--set", "width=32", "--set", "height=32", "--set", "steps=20"];
    let ran = place.kino(&[&["run", "g.ron"][..], &small].concat());
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    let told = ran.err.lines().find(|line| line.contains("dit.sample")).unwrap();
    let (_, told) = told.split_once("step cache: ").unwrap_or_else(|| panic!("{}", ran.err));
    let (reused, rest) = told.split_once(' ').unwrap();
    assert!(rest.starts_with("of 40 passes were reused"), "{told}");
    assert!((1..=36).contains(&reused.parse().unwrap()), "{told}");
    let notes = |graph: &str| {
        let lines = place.json(&[&["run", graph, "--no-cache"][..], &small].concat());
        let finished =
            |line: &&serde_json::Value| line["event"] == "finished" && line["op"] == "dit.sample";
        lines.iter().find(finished).unwrap()["notes"].clone()
    };
    let expected = format!("step cache: {reused} of 40 passes were reused");
    assert_eq!(notes("g.ron"), serde_json::json!([expected]));
    assert_eq!(notes("h.ron"), serde_json::Value::Null);
    let status = |graph: &str| {
        let plan = place.json(&[&["plan", graph][..], &small].concat());
        let steps = plan[0]["steps"].as_array().unwrap();
        let step = steps.iter().find(|step| step["op"] == "dit.sample").unwrap();
        step["status"].as_str().unwrap().to_owned()
    };
    assert_ne!(status("g.ron"), "run");
    assert_eq!(status("h.ron"), "run", "the threshold is part of the key");
}
