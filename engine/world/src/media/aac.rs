//! AAC in mp4 and QuickTime files: the packets of a track, and which of them are heard. Packets are
//! passed on as they are; nothing here decodes them.

use std::io::{Read, Seek, SeekFrom};

use candle_core::{Device, Tensor};
use kino_node::{Audio, AudioFact, AudioForm, AudioPacket, AudioPart, cut_packets};

use super::demux::{Refused, Sample, Track, TrackKind, first};
use crate::InputFile;

/// So many packets before the one in which something begins are looked at.
const LOOK_BACK: usize = 4;
/// The longest packet.
const LONGEST_PACKET: u32 = 1 << 20;
/// The most packets that are heard.
const MOST_PACKETS: usize = 1 << 22;
/// The most ticks that are heard.
const LONGEST: u64 = 1 << 40;

/// What an AudioSpecificConfig says (ISO/IEC 14496-3 §1.6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AacConfig {
    /// Samples a second of what is coded.
    pub(super) rate: u32,
    /// 0 where the stream itself says it.
    pub(super) channels: u16,
}

/// Rates by their index (ISO/IEC 14496-3 table 1.18).
const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

impl AacConfig {
    /// Reads a config; none where it is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut at = 0;
        let mut take = |bits: u32| -> Option<u32> {
            let mut value = 0;
            for _ in 0..bits {
                let byte = bytes.get(at / 8)?;
                value = value << 1 | u32::from(byte >> (7 - at % 8) & 1);
                at += 1;
            }
            Some(value)
        };
        if take(5)? == 31 {
            take(6)?;
        }
        let rate = match take(4)? {
            15 => take(24)?,
            index => *RATES.get(index as usize)?,
        };
        let channels = match take(4)? {
            7 => 8,
            channels @ 0..=6 => channels as u16,
            11 => 7,
            12 | 14 => 8,
            13 => 24,
            _ => return None,
        };
        (rate > 0).then_some(AacConfig { rate, channels })
    }
}

/// A track of AAC.
#[derive(Debug)]
pub(super) struct AacTrack {
    samples: Vec<Sample>,
    fact: AudioFact,
    /// What is heard, in order: the first sample of each part, and the part.
    heard: Vec<(usize, AudioPart)>,
}

/// What sound a file has.
#[derive(Debug)]
pub(super) enum SoundTrack {
    /// None.
    None,
    /// AAC, which is passed on.
    Aac(Box<AacTrack>),
    /// Something else, in words.
    Other(String),
}

/// The sound that players play, of the tracks of a file.
///
/// # Errors
/// When its tables are damaged, or it plays more than can be.
pub(super) fn sound_of(tracks: &mut Vec<Track>, length: u64) -> Result<SoundTrack, Refused> {
    let is_sound = |track: &Track| track.kind == TrackKind::Audio && !track.samples.is_empty();
    let enabled = tracks.iter().position(|track| is_sound(track) && track.enabled);
    let Some(index) = enabled.or_else(|| tracks.iter().position(is_sound)) else {
        return Ok(SoundTrack::None);
    };
    let track = tracks.swap_remove(index);
    if track.format != *b"mp4a" {
        return Ok(SoundTrack::Other(name(&track.format)));
    }
    match config(&track.description)? {
        Config::Aac(config, channels) => {
            AacTrack::new(track, config, channels, length).map(Box::new).map(SoundTrack::Aac)
        }
        Config::Other(name) => Ok(SoundTrack::Other(name)),
    }
}

/// What the four letters of a sample description stand for.
fn name(format: &[u8; 4]) -> String {
    let known = match format {
        b"ac-3" | b"sac3" => "AC-3",
        b"ec-3" => "E-AC-3",
        b"alac" => "Apple Lossless",
        b"Opus" => "Opus",
        b"fLaC" => "FLAC",
        b".mp3" => "MP3",
        b"sowt" | b"twos" | b"lpcm" | b"in24" | b"in32" | b"fl32" | b"fl64" | b"raw " | b"ipcm"
        | b"fpcm" => "PCM",
        b"enca" => "encrypted sound",
        other => {
            return format!(
                "sound of the form `{}`",
                String::from_utf8_lossy(other).escape_default()
            );
        }
    };
    known.to_owned()
}

enum Config {
    Aac(Vec<u8>, u16),
    Other(String),
}

/// The config in the `esds` of an `mp4a` (ISO/IEC 14496-1 §7.2.6.5), and the channels.
fn config(description: &[u8]) -> Result<Config, Refused> {
    let short = |at: usize| {
        description.get(at..).and_then(<[u8]>::first_chunk).map(|two| u16::from_be_bytes(*two))
    };
    let cut = || "it is damaged: the description of its sound ends early".to_owned();
    let (version, channels) = short(8).zip(short(16)).ok_or_else(cut)?;
    // QuickTime's longer descriptions; where a box follows at once, it is none of those.
    let longer = [28, 44, 64].get(usize::from(version)).copied().unwrap_or(28);
    let found = [longer, 28].into_iter().find_map(|at| {
        let boxes = description.get(at..)?;
        let plain = first(boxes, b"esds").ok().flatten();
        plain.or_else(|| first(first(boxes, b"wave").ok()??, b"esds").ok().flatten())
    });
    let esds = found.ok_or("it is damaged: the config of its sound (`esds`) is missing")?;
    let stream = descriptor(esds.get(4..).ok_or_else(cut)?, 3).ok_or_else(cut)?;
    // What else may stand in front of the decoder's own description.
    let flags = *stream.get(2).ok_or_else(cut)?;
    let mut at = 3;
    at += if flags & 0x80 != 0 { 2 } else { 0 };
    at += if flags & 0x40 != 0 { 1 + usize::from(*stream.get(at).ok_or_else(cut)?) } else { 0 };
    at += if flags & 0x20 != 0 { 2 } else { 0 };
    let decoder = stream.get(at..).and_then(|rest| descriptor(rest, 4)).ok_or_else(cut)?;
    match decoder.first().ok_or_else(cut)? {
        // MPEG-4, and AAC of MPEG-2.
        0x40 | 0x66..=0x68 => {}
        0x69 | 0x6b => return Ok(Config::Other("MP3".to_owned())),
        0xa5 => return Ok(Config::Other("AC-3".to_owned())),
        0xa6 => return Ok(Config::Other("E-AC-3".to_owned())),
        0xa9 => return Ok(Config::Other("DTS".to_owned())),
        other => return Ok(Config::Other(format!("sound of the object type {other:#x}"))),
    }
    let specific = decoder.get(13..).and_then(|rest| descriptor(rest, 5));
    let specific = specific.ok_or("it is damaged: the config of its AAC is missing")?;
    let parsed = AacConfig::parse(specific).filter(|_| specific.len() <= 64);
    let parsed = parsed.ok_or("it is damaged: the config of its AAC says no rate or channels")?;
    let channels = if parsed.channels > 0 { parsed.channels } else { channels.max(1) };
    Ok(Config::Aac(specific.to_vec(), channels))
}

/// The contents of the descriptor of a tag at the beginning of `bytes`.
fn descriptor(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let (found, mut rest) = bytes.split_first()?;
    if *found != tag {
        return None;
    }
    let mut length = 0;
    for _ in 0..4 {
        let (byte, after) = rest.split_first()?;
        (length, rest) = (length << 7 | usize::from(byte & 0x7f), after);
        if byte & 0x80 == 0 {
            return rest.get(..length);
        }
    }
    None
}

/// What an edit plays: ticks of the track from a start on, or of silence.
struct Played {
    start: Option<u64>,
    ticks: u64,
}

/// What the edits of a track play, which lasts until `end`.
fn played(track: &Track, end: i64) -> Result<Vec<Played>, Refused> {
    let of = |start: Option<i64>, ticks: i64| Played {
        start: start.map(i64::unsigned_abs),
        ticks: ticks.unsigned_abs(),
    };
    if track.edits.is_empty() {
        return Ok(vec![of(Some(0), end)]);
    }
    let mut all = Vec::new();
    for (index, edit) in track.edits.iter().enumerate() {
        let left = end.saturating_sub(edit.start);
        let (wanted, is_last) = (edit.duration, index + 1 == track.edits.len());
        match edit.rate {
            0x0001_0000 if edit.start >= 0 && left > 0 => {
                let ticks = if wanted == 0 { left } else { wanted.min(left) };
                all.push(of(Some(edit.start), ticks));
                if !is_last && wanted > left {
                    all.push(of(None, wanted - left));
                }
            }
            // An empty edit, or one behind the end; or a picture that stands still.
            0x0001_0000 | 0 => all.push(of(None, wanted)),
            rate => {
                let rate = f64::from(rate) / 65536.0;
                return Err(format!("an edit of its sound plays at {rate} times the speed"));
            }
        }
    }
    Ok(all)
}

impl AacTrack {
    fn new(track: Track, config: Vec<u8>, channels: u16, length: u64) -> Result<Self, Refused> {
        let mut samples = track.samples.clone();
        let (mut end, count) = (0, samples.len());
        for (index, sample) in samples.iter_mut().enumerate() {
            if sample.size > LONGEST_PACKET {
                return Err(format!(
                    "it is damaged: packet {} of {count} of its sound has {} bytes",
                    index + 1,
                    sample.size
                ));
            }
            // Packets of sound are heard in the order in which they are decoded.
            sample.time = end;
            end += i64::from(sample.duration);
        }
        let (mut heard, mut bytes, mut ticks, mut packets) = (Vec::new(), 0_u64, 0_u64, 0_usize);
        for played in played(&track, end)? {
            let (first, part) = match played.start {
                None => (0, AudioPart { packets: 0, skip: 0, ticks: played.ticks }),
                Some(start) => part(&samples, start, played.ticks),
            };
            let own = &samples[first..first + part.packets];
            bytes += own.iter().map(|sample| u64::from(sample.size)).sum::<u64>();
            ticks = ticks.saturating_add(part.ticks);
            packets += part.packets;
            // What is played over and over is not meant to be.
            if bytes > length || packets > MOST_PACKETS {
                return Err("its edits play more sound than the file holds".to_owned());
            }
            if ticks > LONGEST {
                return Err(format!("its sound would last {ticks} ticks; at most {LONGEST}"));
            }
            if part.ticks > 0 {
                heard.push((first, part));
            }
        }
        let bytes = bytes + (packets * size_of::<AudioPacket>()) as u64;
        let (form, rate) = (AudioForm::Aac(config), track.timescale);
        if rate > 1 << 20 {
            return Err(format!("its sound has {rate} ticks a second"));
        }
        Ok(AacTrack { samples, fact: AudioFact { form, rate, channels, ticks, bytes }, heard })
    }

    /// What is known of it.
    pub(super) fn fact(&self) -> &AudioFact {
        &self.fact
    }

    /// The track with what is heard from tick `start` on, for at most `ticks`.
    pub(super) fn slice(&self, start: u64, ticks: u64) -> Self {
        let end = start.saturating_add(ticks);
        let (mut clock, mut heard) = (0, Vec::new());
        for (first, whole) in &self.heard {
            let from = start.max(clock) - clock;
            let to = end.min(clock + whole.ticks).saturating_sub(clock);
            if from < to && whole.packets == 0 {
                heard.push((0, AudioPart { ticks: to - from, ..*whole }));
            } else if from < to {
                let begin = self.samples[*first].time as u64 + whole.skip;
                heard.push(part(&self.samples, begin + from, to - from));
            }
            clock += whole.ticks;
        }
        let own =
            heard.iter().flat_map(|(first, part)| &self.samples[*first..first + part.packets]);
        let bytes =
            own.map(|sample| u64::from(sample.size) + size_of::<AudioPacket>() as u64).sum();
        let ticks = heard.iter().map(|(_, part)| part.ticks).sum();
        let fact = AudioFact { bytes, ticks, ..self.fact.clone() };
        AacTrack { samples: self.samples.clone(), fact, heard }
    }

    /// Reads the packets; none where `is_wanted` says that nobody waits for them any more.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn read(
        &self,
        file: &mut InputFile,
        is_wanted: &mut dyn FnMut() -> bool,
    ) -> std::io::Result<Option<Audio>> {
        let (mut data, mut packets) = (Vec::new(), Vec::new());
        let reserved = data.try_reserve_exact(self.fact.bytes as usize);
        reserved.map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        let own = self.heard.iter().flat_map(|(first, p)| &self.samples[*first..first + p.packets]);
        let mut at = None;
        for (index, sample) in own.enumerate() {
            if index % 512 == 0 && !is_wanted() {
                return Ok(None);
            }
            // Packets mostly stand one behind the other.
            if at != Some(sample.offset) {
                file.seek(SeekFrom::Start(sample.offset))?;
            }
            let read = file.take(sample.size.into()).read_to_end(&mut data)?;
            if read != sample.size as usize {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            at = sample.offset.checked_add(sample.size.into());
            packets.push(packet(sample));
        }
        let length = data.len();
        let data = Tensor::from_vec(data, length, &Device::Cpu).map_err(std::io::Error::other)?;
        let AudioFact { form, rate, channels, .. } = self.fact.clone();
        let parts = self.heard.iter().map(|(_, part)| *part).collect();
        Ok(Some(Audio { form, rate, channels, data, packets: packets.into(), parts }))
    }
}

fn packet(sample: &Sample) -> AudioPacket {
    AudioPacket { bytes: sample.size, duration: sample.duration }
}

/// The samples that are decoded to hear `ticks` from tick `start` on: the first, and the part.
fn part(samples: &[Sample], start: u64, ticks: u64) -> (usize, AudioPart) {
    let ends = |sample: &Sample| sample.time as u64 + u64::from(sample.duration);
    let index = samples.partition_point(|sample| ends(sample) <= start);
    let first = index.saturating_sub(LOOK_BACK).min(samples.len());
    let last = samples.partition_point(|sample| (sample.time as u64) < start.saturating_add(ticks));
    let packets: Vec<_> = samples[first..last.max(first)].iter().map(packet).collect();
    let begin = samples.get(first).map_or(start, |sample| sample.time as u64);
    let cut = cut_packets(&packets, start.saturating_sub(begin), ticks);
    (first + cut.first, cut.part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_say_rate_and_channels() {
        let parse =
            |bytes: &[u8]| AacConfig::parse(bytes).map(|config| (config.rate, config.channels));
        assert_eq!(parse(&[0x12, 0x10]), Some((44_100, 2)));
        assert_eq!(parse(&[0x11, 0x88]), Some((48_000, 1)));
        // A rate that is written out: 24 bits behind the index 15.
        assert_eq!(parse(&[0x17, 0x80, 0x1f, 0x40, 0x08]), Some((16_000, 1)));
        // HE-AAC: the rate of what is coded.
        assert_eq!(parse(&[0x2b, 0x11, 0x88, 0x00]), Some((24_000, 2)));
        assert_eq!(parse(&[0x16, 0xf8]), None);
        assert_eq!(parse(&[0x12]), None);
    }

    #[test]
    fn descriptors_are_read_with_lengths_of_every_form() {
        assert_eq!(descriptor(&[3, 2, 7, 8, 9], 3), Some(&[7, 8][..]));
        assert_eq!(descriptor(&[3, 0x80, 0x80, 0x80, 1, 7], 3), Some(&[7][..]));
        assert_eq!(descriptor(&[3, 0x80, 0x80, 0x80, 0x80, 7], 3), None);
        assert_eq!(descriptor(&[3, 5, 7], 3), None);
        assert_eq!(descriptor(&[4, 1, 7], 3), None);
    }

    /// A track of 20 packets of 1024 ticks with these edits: `(duration, start)`.
    fn track(edits: &[(i64, i64)]) -> Result<AacTrack, Refused> {
        let sample = |index: u32| Sample {
            offset: u64::from(index) * 10,
            size: 10,
            duration: 1024,
            time: 0,
            sync: true,
        };
        let edits = edits.iter().map(|(duration, start)| super::super::demux::Edit {
            duration: *duration,
            start: *start,
            rate: 0x0001_0000,
        });
        let track = Track {
            kind: TrackKind::Audio,
            enabled: true,
            timescale: 48_000,
            format: *b"mp4a",
            description: Vec::new(),
            samples: (0..20).map(sample).collect(),
            edits: edits.collect(),
            matrix: [1.0, 0.0, 0.0, 1.0],
        };
        AacTrack::new(track, vec![0x11, 0x90], 2, 1000)
    }

    #[test]
    fn edits_are_heard_in_their_order() {
        let heard = |edits: &[(i64, i64)]| track(edits).unwrap().heard;
        let part = |packets, skip, ticks| AudioPart { packets, skip, ticks };
        assert_eq!(heard(&[]), [(0, part(20, 0, 20_480))]);
        assert_eq!(heard(&[(19_000, 1024)]), [(0, part(20, 1024, 19_000))]);
        // Priming as encoders of Apple write it, and all that is left.
        assert_eq!(heard(&[(0, 2112)]), [(0, part(20, 2112, 18_368))]);
        // Silence first; more than there is.
        assert_eq!(
            heard(&[(500, -1), (99_999, 5 * 1024)]),
            [(0, part(0, 0, 500)), (3, part(17, 2048, 15 * 1024))]
        );
        // The same twice, and what is missing between.
        assert_eq!(
            heard(&[(2048, 19 * 1024), (100, 0)]),
            [(17, part(3, 2048, 1024)), (0, part(0, 0, 1024)), (0, part(1, 0, 100))]
        );
        let all = vec![(0, 0); 9];
        let error = track(&all).unwrap_err();
        assert_eq!(error, "its edits play more sound than the file holds");
        assert!(track(&[(i64::MAX / 4, -1)]).unwrap_err().contains("would last"));
        assert!(track(&[(5, i64::MAX)]).unwrap().heard[0].1.packets == 0);
        assert!(track(&[(5, i64::MIN)]).unwrap().heard[0].1.packets == 0);
    }

    #[test]
    fn a_part_of_a_track_is_that_of_its_sound() {
        let whole = track(&[(700, -1), (9000, 1500), (3000, 12_000)]).unwrap();
        for (start, ticks) in [(0, 100), (600, 300), (700, 9000), (5000, 5000), (9650, 9999)] {
            let part = whole.slice(start, ticks);
            let all = whole.fact.ticks;
            assert_eq!(part.fact.ticks, ticks.min(all - start));
            // The ticks of the track that are heard.
            let heard = |track: &AacTrack| -> Vec<u64> {
                let ticks = track.heard.iter().flat_map(|(first, part)| {
                    let begin = track.samples[*first].time as u64 + part.skip;
                    let begin = if part.packets == 0 { u64::MAX / 2 } else { begin };
                    (0..part.ticks)
                        .map(move |tick| if begin > 1 << 60 { begin } else { begin + tick })
                });
                ticks.collect()
            };
            let expected = heard(&whole)[start as usize..][..part.fact.ticks as usize].to_vec();
            assert!(heard(&part) == expected, "{start} {ticks}");
        }
    }
}
