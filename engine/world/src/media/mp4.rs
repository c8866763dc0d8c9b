//! The tables of an mp4 file with one H.264 track (ISO/IEC 14496-12, -14, -15).

use super::boxes::{boxed, full};

/// One track of H.264 samples of equal duration.
#[derive(Debug, Default)]
pub(super) struct Track {
    pub(super) width: u16,
    pub(super) height: u16,
    /// Ticks a second.
    pub(super) timescale: u32,
    /// Ticks a sample.
    pub(super) delta: u32,
    pub(super) sizes: Vec<u32>,
    /// Samples that decode on their own, from 1.
    pub(super) sync: Vec<u32>,
    /// Where the first sample stands; the others follow.
    pub(super) data: u64,
    pub(super) sps: Vec<u8>,
    pub(super) pps: Vec<u8>,
}

/// Ticks a second and a frame that express `fps` exactly where it is whole or n·1000/1001, else the
/// nearest fraction with at most 1001 below, so that 32 bits of ticks last for many hours.
pub(super) fn timing(fps: f64) -> (u32, u32) {
    let near = |ticks: f64, delta: f64| (ticks / delta - fps).abs() <= 5e-5 * fps;
    let whole = fps.round();
    if (fps - whole).abs() < 1e-9 {
        return (whole as u32 * 1000, 1000);
    }
    let film = (fps * 1.001).round() * 1000.0;
    if film > 0.0 && near(film, 1001.0) {
        return (film as u32, 1001);
    }
    let error = |delta: &u32| ((fps * f64::from(*delta)).round() / f64::from(*delta) - fps).abs();
    let best = (1..=1001u32).min_by(|a, b| error(a).total_cmp(&error(b))).unwrap_or(1001);
    let ticks = (fps * f64::from(best)).round();
    if ticks >= 1.0 && near(ticks, f64::from(best)) {
        // A timescale of a thousand or more, as players like it.
        let more = (1000.0 / ticks).ceil().max(1.0) as u32;
        return (ticks as u32 * more, best * more);
    }
    (1000, (1000.0 / fps).round().clamp(1.0, f64::from(u32::MAX)) as u32)
}

pub(super) fn file_type() -> Vec<u8> {
    boxed(b"ftyp", &[b"isom", &0x200u32.to_be_bytes(), b"isomiso2avc1mp41"])
}

/// The `moov` box: everything but the samples.
pub(super) fn movie(track: &Track, comment: Option<&str>) -> Vec<u8> {
    let duration = track.delta.saturating_mul(track.sizes.len() as u32);
    let header = full(
        b"mvhd",
        0,
        &[
            &[0; 8],
            &track.timescale.to_be_bytes(),
            &duration.to_be_bytes(),
            &0x0001_0000u32.to_be_bytes(),
            &0x0100u16.to_be_bytes(),
            &[0; 10],
            &matrix(),
            &[0; 24],
            &2u32.to_be_bytes(),
        ],
    );
    let mut parts = vec![header, trak(track, duration)];
    parts.extend(comment.map(tags));
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    boxed(b"moov", &parts)
}

/// The identity, as 16.16 and 2.30 fixed point.
fn matrix() -> Vec<u8> {
    [0x0001_0000u32, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000]
        .iter()
        .flat_map(|n| n.to_be_bytes())
        .collect()
}

fn trak(track: &Track, duration: u32) -> Vec<u8> {
    let side = |side: u16| (u32::from(side) << 16).to_be_bytes();
    let header = full(
        b"tkhd",
        3,
        &[
            &[0; 8],
            &1u32.to_be_bytes(),
            &[0; 4],
            &duration.to_be_bytes(),
            &[0; 16],
            &matrix(),
            &side(track.width),
            &side(track.height),
        ],
    );
    let media_header = full(
        b"mdhd",
        0,
        &[
            &[0; 8],
            &track.timescale.to_be_bytes(),
            &duration.to_be_bytes(),
            &0x55c4u16.to_be_bytes(),
            &[0; 2],
        ],
    );
    let handler = full(b"hdlr", 0, &[&[0; 4], b"vide", &[0; 12], b"VideoHandler\0"]);
    let reference = full(b"dref", 0, &[&1u32.to_be_bytes(), &full(b"url ", 1, &[])]);
    let information = boxed(
        b"minf",
        &[&full(b"vmhd", 1, &[&[0; 8]]), &boxed(b"dinf", &[&reference]), &sample_table(track)],
    );
    boxed(b"trak", &[&header, &boxed(b"mdia", &[&media_header, &handler, &information])])
}

fn sample_table(track: &Track) -> Vec<u8> {
    let count = track.sizes.len() as u32;
    let sizes: Vec<u8> = track.sizes.iter().flat_map(|size| size.to_be_bytes()).collect();
    let sync: Vec<u8> = track.sync.iter().flat_map(|sample| sample.to_be_bytes()).collect();
    let one = 1u32.to_be_bytes();
    boxed(
        b"stbl",
        &[
            &full(b"stsd", 0, &[&one, &sample_entry(track)]),
            &full(b"stts", 0, &[&one, &count.to_be_bytes(), &track.delta.to_be_bytes()]),
            &full(b"stss", 0, &[&(track.sync.len() as u32).to_be_bytes(), &sync]),
            &full(b"stsc", 0, &[&one, &one, &count.to_be_bytes(), &one]),
            &full(b"stsz", 0, &[&[0; 4], &count.to_be_bytes(), &sizes]),
            &full(b"co64", 0, &[&one, &track.data.to_be_bytes()]),
        ],
    )
}

fn sample_entry(track: &Track) -> Vec<u8> {
    let profile = track.sps.get(1..4).unwrap_or(&[66, 0, 40]);
    let configuration = boxed(
        b"avcC",
        &[
            &[1],
            profile,
            &[0xff, 0xe1],
            &(track.sps.len() as u16).to_be_bytes(),
            &track.sps,
            &[1],
            &(track.pps.len() as u16).to_be_bytes(),
            &track.pps,
        ],
    );
    // BT.709 primaries, transfer and matrix; limited range.
    let colour = boxed(b"colr", &[b"nclx", &[0, 1, 0, 1, 0, 1, 0]]);
    let resolution = 0x0048_0000u32.to_be_bytes();
    boxed(
        b"avc1",
        &[
            &[0; 6],
            &1u16.to_be_bytes(),
            &[0; 16],
            &track.width.to_be_bytes(),
            &track.height.to_be_bytes(),
            &resolution,
            &resolution,
            &[0; 4],
            &1u16.to_be_bytes(),
            &[0; 32],
            &0x0018u16.to_be_bytes(),
            &0xffffu16.to_be_bytes(),
            &configuration,
            &colour,
        ],
    )
}

/// The comment tag as players know it (`moov/udta/meta/ilst/©cmt`).
fn tags(comment: &str) -> Vec<u8> {
    let text =
        |kind: &[u8; 4], text: &str| boxed(kind, &[&full(b"data", 1, &[&[0; 4], text.as_bytes()])]);
    let encoder = concat!("Kinograph ", env!("CARGO_PKG_VERSION"));
    let list = boxed(b"ilst", &[&text(b"\xa9too", encoder), &text(b"\xa9cmt", comment)]);
    let handler = full(b"hdlr", 0, &[&[0; 4], b"mdirappl", &[0; 9]]);
    boxed(b"udta", &[&full(b"meta", 0, &[&handler, &list])])
}

#[cfg(test)]
mod tests {
    use super::timing;

    #[test]
    fn rates_are_exact() {
        assert_eq!(timing(8.0), (8000, 1000));
        assert_eq!(timing(23.976), (24_000, 1001));
        assert_eq!(timing(29.97), (30_000, 1001));
        assert_eq!(timing(24_000.0 / 1001.0), (24_000, 1001));
        assert_eq!(timing(12.5), (1000, 80));
        assert_eq!(timing(0.5), (1000, 2000));
        for fps in [0.01, 0.3, 7.3, 14.985, 23.9, 47.952, 59.94, 99.99, 119.88, 999.5] {
            let (ticks, delta) = timing(fps);
            let is = f64::from(ticks) / f64::from(delta);
            assert!((is / fps - 1.0).abs() < 1e-4, "{fps}: {ticks}/{delta}");
        }
    }
}
