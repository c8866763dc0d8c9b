//! Colours in mp4 files: what goes in as red is red when a player decodes it as the file says
//! (BT.709, limited range).
#![cfg(feature = "h264")]

use kino_world::media::{VideoSpec, create};
use openh264::decoder::Decoder;
use openh264::formats::YUVSource;

const SIDE: usize = 64;

/// Every frame's middle pixel, as RGB bytes by BT.709.
fn middles(file: &[u8]) -> Vec<[f64; 3]> {
    let mdat = file.windows(4).position(|four| four == b"mdat").unwrap() + 12;
    let avcc = file.windows(4).position(|four| four == b"avcC").unwrap() + 4;
    let short = |at: usize| u16::from_be_bytes([file[at], file[at + 1]]) as usize;
    let sps = avcc + 6;
    let pps = sps + 2 + short(sps) + 1;
    let mut units = vec![&file[sps + 2..][..short(sps)], &file[pps + 2..][..short(pps)]];
    let mut at = mdat;
    while at < file.len() {
        let length = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        units.push(&file[at + 4..][..length]);
        at += 4 + length;
    }
    let (mut decoder, mut found) = (Decoder::new().unwrap(), Vec::new());
    for unit in units {
        let stream = [&[0, 0, 0, 1][..], unit].concat();
        if let Some(picture) = decoder.decode(&stream).unwrap() {
            let (ys, us, vs) = picture.strides();
            let (half, quarter) = (SIDE / 2, SIDE / 4);
            let y = (f64::from(picture.y()[half * ys + half]) - 16.0) * 255.0 / 219.0;
            let u = (f64::from(picture.u()[quarter * us + quarter]) - 128.0) * 255.0 / 224.0;
            let v = (f64::from(picture.v()[quarter * vs + quarter]) - 128.0) * 255.0 / 224.0;
            found.push([y + 1.5748 * v, y - 0.1873 * u - 0.4681 * v, y + 1.8556 * u]);
        }
    }
    found
}

#[test]
fn colours_come_back_within_three_of_255() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("colours.mp4");
    let colours = [
        [1.0, 0.0, 0.0],
        [0.0, 1.0, 0.0],
        [0.0, 0.0, 1.0],
        [1.0, 1.0, 1.0],
        [0.0, 0.0, 0.0],
        [0.9, 0.6, 0.2],
        [0.3, 0.1, 0.5],
    ];
    let spec = VideoSpec { width: SIDE, height: SIDE, count: 7, fps: 24.0, ..VideoSpec::default() };
    let mut writer = create(&path, &spec).unwrap();
    for colour in colours {
        writer.push(&colour.repeat(SIDE * SIDE)).unwrap();
    }
    writer.finish().unwrap();
    let found = middles(&std::fs::read(&path).unwrap());
    assert_eq!(found.len(), colours.len());
    for (index, (found, colour)) in found.iter().zip(colours).enumerate() {
        let near =
            |channel: usize| (found[channel] - f64::from(colour[channel]) * 255.0).abs() < 3.0;
        assert!((0..3).all(near), "frame {index}: {found:?}, expected {colour:?}");
    }
}

#[test]
fn players_can_begin_before_the_end_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.mp4");
    let spec = VideoSpec {
        width: SIDE,
        height: SIDE,
        count: 2,
        fps: 8.0,
        metadata: Some("text"),
        ..VideoSpec::default()
    };
    let mut writer = create(&path, &spec).unwrap();
    (0..2).for_each(|_| writer.push(&[0.5; SIDE * SIDE * 3]).unwrap());
    writer.finish().unwrap();
    let file = std::fs::read(&path).unwrap();
    let place = |kind: &[u8; 4]| file.windows(4).position(|four| four == kind).unwrap();
    assert!(place(b"moov") < place(b"mdat"));
}

#[test]
fn noise_is_encoded_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noise.mp4");
    let (width, height) = (832, 480);
    let spec = VideoSpec { width, height, count: 3, fps: 8.0, ..VideoSpec::default() };
    let mut writer = create(&path, &spec).unwrap();
    let mut state = 1u64;
    for _ in 0..3 {
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / 16_777_216.0
        };
        let frame: Vec<f32> = (0..width * height * 3).map(|_| noise()).collect();
        writer.push(&frame).unwrap();
    }
    writer.finish().unwrap();
    let file = std::fs::read(&path).unwrap();
    let at = file.windows(4).position(|four| four == b"stsz").unwrap();
    assert_eq!(file[at + 12..at + 16], 3u32.to_be_bytes());
}
