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
        let chunk = |name: &[u8; 4], data: &[u8]| {
            let padded = data.len().next_multiple_of(2);
            let mut chunk = [name.as_slice(), &(data.len() as u32).to_le_bytes(), data].concat();
            chunk.resize(8 + padded, 0);
            chunk
        };
        let flags = if profile.is_some() { 0x20 } else { 0 };
        let mut body = b"WEBP".to_vec();
        body.extend(chunk(b"VP8X", &[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        body.extend(profile.map(|profile| chunk(b"ICCP", profile)).unwrap_or_default());
        body.extend(chunk(b"VP8L", &data));
        [b"RIFF".as_slice(), &(body.len() as u32).to_le_bytes(), &body].concat()
    };
    assert_eq!(read(&place, "a.webp", &webp(None), &[])[0], [200, 80, 40]);
    assert_eq!(read(&place, "b.webp", &webp(Some(&profile)), &[])[0], [216, 69, 17]);
}

/// A lossless WebP of one pixel (RFC 9649 §3): five Huffman codes of one symbol each.
fn lossless([r, g, b]: [u8; 3]) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    let mut put = |value: u32, count: u32| bits.extend((0..count).map(|bit| value >> bit & 1 == 1));
    put(0x2f, 8);
    put(0, 14); // width - 1
    put(0, 14); // height - 1
    put(0, 1); // no alpha
    put(0, 3); // version
    put(0, 1); // no transform
    put(0, 1); // no colour cache
    put(0, 1); // one group of codes
    for symbol in [g, r, b, 255] {
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
    let args = ["run", "g.ron", "-s", "file=b.safetensors", "-s", &format!("name={other}")];
    let said = place.bad(2, &args);
    assert!(said.contains("BOOL") && said.contains("not read"), "{said}");
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
    let word = said(&"x".repeat(5000));
    assert!(word.contains("x…`: it means nothing") && word.len() < 2000, "{word}");
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
    let lora = "\"lora\": (op: \"lora.apply\", in: {\"dit\": \"model.dit\"}, with: {\"path\": \"some.safetensors\"}),";
    let graph = text
        .replace("embedded:shapes", &root.join("tests/ref/wan_t2v/model").display().to_string())
        .replace("\"dit\": \"model.dit\"", "\"dit\": \"lora.dit\"")
        .replacen("nodes: {", &format!("nodes: {{\n{lora}"), 1);
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
             [128, 2], but `blocks.0.attn1.to_q` is [64, 64]: it was made for another size of the \
             model"
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
    let cached = "\"guidance\": \"inputs.guidance\",\n}, with: {\"cache\": 0.3, \"cache_kind\": \"first_block\"}),";
    let graph = text.replace("\"guidance\": \"inputs.guidance\",\n        }),", cached);
    assert_ne!(graph, text);
    place.write("g.ron", &graph);
    place.write("h.ron", graph.replace("0.3", "0.0"));
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
