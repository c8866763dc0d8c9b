//! The tables of an mp4 file with one H.264 track, and one of AAC where it has sound (ISO/IEC
//! 14496-12, -14, -15).

use kino_node::{Audio, AudioForm};

use super::aac::AacConfig;
use super::boxes::{boxed, full, full_version};

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
    /// Where its samples stand.
    pub(super) chunks: Vec<Chunk>,
    pub(super) sps: Vec<u8>,
    pub(super) pps: Vec<u8>,
}

/// Samples that stand one after another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    /// Where the first one stands.
    pub(super) offset: u64,
    pub(super) samples: u32,
}

/// The sound of a movie.
#[derive(Debug)]
pub(super) struct SoundTrack {
    pub(super) sound: Audio,
    /// Where its packets stand.
    pub(super) chunks: Vec<Chunk>,
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
pub(super) fn movie(
    track: Option<&Track>,
    sound: Option<&SoundTrack>,
    comment: Option<&str>,
) -> Vec<u8> {
    let own = track.map_or(1, |track| track.timescale.max(1));
    let duration = track.map_or(0, |track| track.delta.saturating_mul(track.sizes.len() as u32));
    // Edits of sound are in ticks of the movie: with those of the sound they are exact.
    let scale = sound.map_or(own, |sound| sound.sound.rate);
    let shown = (u128::from(duration) * u128::from(scale) / u128::from(own)) as u64;
    let heard = sound.map_or(0, |sound| sound.sound.ticks());
    let header = timed(
        b"mvhd",
        0,
        shown.max(heard),
        |long| [zeros(if long { 16 } else { 8 }), scale.to_be_bytes().to_vec()].concat(),
        &[
            &0x0001_0000u32.to_be_bytes(),
            &0x0100u16.to_be_bytes(),
            &[0; 10],
            &matrix(),
            &[0; 24],
            &(if sound.is_some() { 3u32 } else { 2 }).to_be_bytes(),
        ],
    );
    let mut parts = vec![header];
    parts.extend(track.map(|track| trak(track, shown, duration)));
    parts.extend(sound.map(sound_trak));
    parts.extend(comment.map(tags));
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    boxed(b"moov", &parts)
}

fn zeros(count: usize) -> Vec<u8> {
    vec![0; count]
}

/// A box that says a duration, of 32 bits where that is enough, between `before` and `after`.
fn timed(
    kind: &[u8; 4],
    flags: u32,
    duration: u64,
    before: impl Fn(bool) -> Vec<u8>,
    after: &[&[u8]],
) -> Vec<u8> {
    let after = after.concat();
    match u32::try_from(duration) {
        Ok(duration) => full(kind, flags, &[&before(false), &duration.to_be_bytes(), &after]),
        Err(_) => full_version(kind, 1, flags, &[&before(true), &duration.to_be_bytes(), &after]),
    }
}

/// `tkhd`: a track that is shown or heard.
fn track_header(id: u32, duration: u64, is_sound: bool, size: (u16, u16)) -> Vec<u8> {
    let side = |side: u16| (u32::from(side) << 16).to_be_bytes();
    // Layer, group of alternatives, loudness, and what is reserved around them.
    let mut kind = [0; 16];
    if is_sound {
        kind[11] = 1;
        kind[12] = 1;
    }
    timed(
        b"tkhd",
        3,
        duration,
        |long| [zeros(if long { 16 } else { 8 }), id.to_be_bytes().to_vec(), zeros(4)].concat(),
        &[&kind, &matrix(), &side(size.0), &side(size.1)],
    )
}

/// `stsc` and `co64`: where samples stand.
fn places(chunks: &[Chunk]) -> [Vec<u8>; 2] {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        if runs.last().is_none_or(|(_, samples)| *samples != chunk.samples) {
            runs.push((index as u32 + 1, chunk.samples));
        }
    }
    let table = |runs: &[(u32, u32)]| -> Vec<u8> {
        runs.iter()
            .flat_map(|(first, many)| [*first, *many, 1])
            .flat_map(u32::to_be_bytes)
            .collect()
    };
    let offsets: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.offset.to_be_bytes()).collect();
    [
        full(b"stsc", 0, &[&(runs.len() as u32).to_be_bytes(), &table(&runs)]),
        full(b"co64", 0, &[&(chunks.len() as u32).to_be_bytes(), &offsets]),
    ]
}

/// The track of the sound: its packets, and by an edit list what of them is heard.
fn sound_trak(track: &SoundTrack) -> Vec<u8> {
    let sound = &track.sound;
    let media: u64 = sound.packets.iter().map(|packet| u64::from(packet.duration)).sum();
    let header = track_header(2, sound.ticks(), true, (0, 0));
    let media_header = timed(
        b"mdhd",
        0,
        media,
        |long| [zeros(if long { 16 } else { 8 }), sound.rate.to_be_bytes().to_vec()].concat(),
        &[&0x55c4u16.to_be_bytes(), &[0; 2]],
    );
    let handler = full(b"hdlr", 0, &[&[0; 4], b"soun", &[0; 12], b"SoundHandler\0"]);
    let reference = full(b"dref", 0, &[&1u32.to_be_bytes(), &full(b"url ", 1, &[])]);
    let information = boxed(
        b"minf",
        &[&full(b"smhd", 0, &[&[0; 4]]), &boxed(b"dinf", &[&reference]), &sound_table(track)],
    );
    let media = boxed(b"mdia", &[&media_header, &handler, &information]);
    boxed(b"trak", &[&header, &boxed(b"edts", &[&edits(sound)]), &media])
}

/// The edit list: when each part is heard, in ticks of the sound.
fn edits(sound: &Audio) -> Vec<u8> {
    let mut table = (sound.parts.len() as u32).to_be_bytes().to_vec();
    let (mut first, mut before) = (0, 0_u64);
    for part in &sound.parts {
        let own = &sound.packets[first..first + part.packets];
        // A silence begins nowhere.
        let start = if own.is_empty() { -1 } else { (before + part.skip) as i64 };
        table.extend(part.ticks.to_be_bytes());
        table.extend(start.to_be_bytes());
        table.extend(0x0001_0000u32.to_be_bytes());
        before += own.iter().map(|packet| u64::from(packet.duration)).sum::<u64>();
        first += part.packets;
    }
    full_version(b"elst", 1, 0, &[&table])
}

fn sound_table(track: &SoundTrack) -> Vec<u8> {
    let sound = &track.sound;
    let count = sound.packets.len() as u32;
    let sizes: Vec<u8> =
        sound.packets.iter().flat_map(|packet| packet.bytes.to_be_bytes()).collect();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for packet in sound.packets.iter() {
        match runs.last_mut() {
            Some((many, duration)) if *duration == packet.duration => *many += 1,
            _ => runs.push((1, packet.duration)),
        }
    }
    let times: Vec<u8> =
        runs.iter().flat_map(|(many, each)| [*many, *each]).flat_map(u32::to_be_bytes).collect();
    let [stsc, co64] = places(&track.chunks);
    let one = 1u32.to_be_bytes();
    // A decoder that begins anywhere needs the packet before (ISO/IEC 14496-12 §10.1, `roll`).
    let roll =
        full_version(b"sgpd", 1, 0, &[b"roll", &2u32.to_be_bytes(), &one, &(-1i16).to_be_bytes()]);
    let rolls = full(b"sbgp", 0, &[b"roll", &one, &count.to_be_bytes(), &one]);
    boxed(
        b"stbl",
        &[
            &full(b"stsd", 0, &[&one, &sound_entry(sound)]),
            &full(b"stts", 0, &[&(runs.len() as u32).to_be_bytes(), &times]),
            &stsc,
            &full(b"stsz", 0, &[&[0; 4], &count.to_be_bytes(), &sizes]),
            &co64,
            &roll,
            &rolls,
        ],
    )
}

/// `mp4a` with its `esds` (ISO/IEC 14496-14 §5.6, 14496-1 §7.2.6.5).
fn sound_entry(sound: &Audio) -> Vec<u8> {
    let config: &[u8] = match &sound.form {
        AudioForm::Aac(config) => config,
        AudioForm::Pcm => &[],
    };
    let rate = AacConfig::parse(config).map_or(sound.rate, |config| config.rate);
    // A tag, and a length of one byte: all of it is shorter than 128.
    let described = |tag: u8, parts: &[&[u8]]| -> Vec<u8> {
        let contents = parts.concat();
        [&[tag, contents.len() as u8], &contents[..]].concat()
    };
    let seconds = sound.packets.iter().map(|packet| u64::from(packet.duration)).sum::<u64>().max(1);
    let bits = sound.data.elem_count() as u64 * 8;
    let average = (u128::from(bits) * u128::from(sound.rate) / u128::from(seconds)) as u32;
    let specific = described(5, &[config]);
    let decoder = described(
        4,
        // MPEG-4 audio; a stream of sound; no buffer is said.
        &[&[0x40, 0x15, 0, 0, 0], &average.to_be_bytes(), &average.to_be_bytes(), &specific],
    );
    let stream = described(3, &[&2u16.to_be_bytes(), &[0], &decoder, &described(6, &[&[2]])]);
    boxed(
        b"mp4a",
        &[
            &[0; 6],
            &1u16.to_be_bytes(),
            &[0; 8],
            &sound.channels.to_be_bytes(),
            &16u16.to_be_bytes(),
            &[0; 4],
            // What does not fit stands in the config alone.
            &u16::try_from(rate).unwrap_or(0).to_be_bytes(),
            &[0; 2],
            &full(b"esds", 0, &[&stream]),
        ],
    )
}

/// The identity, as 16.16 and 2.30 fixed point.
fn matrix() -> Vec<u8> {
    [0x0001_0000u32, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000]
        .iter()
        .flat_map(|n| n.to_be_bytes())
        .collect()
}

fn trak(track: &Track, shown: u64, duration: u32) -> Vec<u8> {
    let header = track_header(1, shown, false, (track.width, track.height));
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
    let [stsc, co64] = places(&track.chunks);
    boxed(
        b"stbl",
        &[
            &full(b"stsd", 0, &[&one, &sample_entry(track)]),
            &full(b"stts", 0, &[&one, &count.to_be_bytes(), &track.delta.to_be_bytes()]),
            &full(b"stss", 0, &[&(track.sync.len() as u32).to_be_bytes(), &sync]),
            &stsc,
            &full(b"stsz", 0, &[&[0; 4], &count.to_be_bytes(), &sizes]),
            &co64,
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
