//! mp4 and QuickTime files, read: tracks, their samples, and when each is shown, as the sample
//! tables and edit lists say (ISO/IEC 14496-12; QuickTime File Format). What headers say of counts
//! and durations is not used.
//!
//! It knows nothing of what samples hold. Whatever the bytes are, work and memory are bounded by
//! the length of the file.

use std::io::{Read, Seek, SeekFrom};

use crate::InputFile;

/// The most samples of a track: 19 hours at 60 frames a second.
const MOST_SAMPLES: usize = 1 << 22;
/// The longest tables that are read.
const LONGEST_TABLES: u64 = 256 << 20;
/// The most boxes at the top of a file.
const MOST_BOXES: usize = 1 << 16;

/// Why a file cannot be read, in words; who calls adds the path.
pub(super) type Refused = String;

/// What a track carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrackKind {
    Video,
    Audio,
    Other,
}

/// One track and all its samples.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) kind: TrackKind,
    /// Whether players show it unless told otherwise.
    pub(super) enabled: bool,
    /// Ticks a second of its samples' times.
    pub(super) timescale: u32,
    /// Four letters: the form of its samples.
    pub(super) format: [u8; 4],
    /// The sample description behind its length and letters.
    pub(super) description: Vec<u8>,
    /// The samples in the order in which they are decoded.
    pub(super) samples: Vec<Sample>,
    /// What of it is shown or heard, and when.
    pub(super) edits: Vec<Edit>,
    /// The matrix that pictures are shown by: `[a, b, c, d]`.
    pub(super) matrix: [f64; 4],
}

/// Where a sample lies and when it is shown, in ticks of its track.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) offset: u64,
    pub(super) size: u32,
    /// Until the next one, in the order of decoding.
    pub(super) duration: u32,
    /// When it is shown, before edits.
    pub(super) time: i64,
    /// Whether the tables say that it decodes on its own.
    pub(super) sync: bool,
}

/// One entry of an edit list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edit {
    /// In ticks of the track; 0 in the last one means all that is left.
    pub(super) duration: i64,
    /// The first tick that is shown; negative where nothing is.
    pub(super) start: i64,
    /// 16.16 fixed point.
    pub(super) rate: i32,
}

/// A sample that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Its index among the track's samples.
    pub(super) sample: u32,
    /// When, in ticks of the track.
    pub(super) time: i64,
}

/// All that is shown of a track, in order.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) shown: Vec<Shown>,
    /// When the last one ends.
    pub(super) end: i64,
    /// When the first one is shown by the clock of the movie, which sound shares.
    pub(super) begin: i64,
}

/// The tracks of a file.
///
/// # Errors
/// When the tables are missing, damaged, contradict each other, or speak of bytes behind the end.
pub(super) fn tracks(file: &mut InputFile) -> Result<Vec<Track>, Refused> {
    let length = file.stamp().length;
    let movie = tables(file, length)?;
    let (mut scale, mut turned, mut fragments) = (0, IDENTITY, false);
    let mut parts = Vec::new();
    for part in boxes(&movie) {
        match part? {
            (b"mvhd", contents) => (scale, turned) = movie_header(contents)?,
            (b"trak", contents) => parts.push(contents),
            (b"mvex", _) => fragments = true,
            _ => {}
        }
    }
    let read = |contents: &&[u8]| track(contents, scale, turned, length).transpose();
    let mut tracks = parts.iter().filter_map(read).collect::<Result<Vec<Track>, Refused>>()?;
    if let Some(heard) = gapless(&movie) {
        let bare = |track: &&mut Track| track.kind == TrackKind::Audio && track.edits.is_empty();
        tracks.iter_mut().filter(bare).for_each(|track| track.edits.push(heard));
    }
    if fragments && tracks.iter().all(|track| track.samples.is_empty()) {
        return Err("it is in fragments, whose tables are not read here".to_owned());
    }
    Ok(tracks)
}

/// What iTunes and its kin say of the sound where no edit list does: the tag `iTunSMPB` has, in
/// hexadecimal digits, nothing, what an encoder put before the beginning, what it put behind the
/// end, and how many samples lie between.
fn gapless(movie: &[u8]) -> Option<Edit> {
    let part = |bytes, kind| first(bytes, kind).ok().flatten();
    let meta = part(part(movie, b"udta")?, b"meta")?;
    let list = part(meta.get(4..)?, b"ilst")?;
    let tags = boxes(list).filter_map(Result::ok).filter(|(kind, _)| *kind == b"----");
    let text = tags.map(|(_, tag)| tag).find_map(|tag| {
        let name = part(tag, b"name")?.get(4..)?;
        (name == b"iTunSMPB").then(|| part(tag, b"data")?.get(8..)).flatten()
    })?;
    let mut fields = std::str::from_utf8(text).ok()?.split_ascii_whitespace().skip(1);
    let mut number = || i64::from_str_radix(fields.next()?, 16).ok().filter(|n| *n >= 0);
    let (start, _, duration) = (number()?, number()?, number()?);
    (duration > 0).then_some(Edit { duration, start, rate: 0x0001_0000 })
}

/// The contents of `moov`.
fn tables(file: &mut InputFile, length: u64) -> Result<Vec<u8>, Refused> {
    let failed = |error: std::io::Error| format!("it cannot be read: {error}");
    let mut at = 0_u64;
    for _ in 0..MOST_BOXES {
        if at.saturating_add(8) > length {
            break;
        }
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        let mut head = [0; 16];
        file.read_exact(&mut head[..8]).map_err(failed)?;
        let short = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let (size, header) = match short {
            0 => (length - at, 8),
            1 if at.saturating_add(16) <= length => {
                file.read_exact(&mut head[8..]).map_err(failed)?;
                let long = head[8..].try_into().map(u64::from_be_bytes).unwrap_or_default();
                (long, 16)
            }
            size => (u64::from(size), 8),
        };
        let is_tables = head[4..8] == *b"moov";
        if size < header || (is_tables && size > length - at) {
            return Err("it is damaged or ends early: a box has no length that can be".to_owned());
        }
        if is_tables {
            if size > LONGEST_TABLES {
                return Err(format!("its tables are longer than {LONGEST_TABLES} bytes"));
            }
            let mut contents = vec![0; (size - header) as usize];
            file.read_exact(&mut contents).map_err(failed)?;
            return Ok(contents);
        }
        at = at.saturating_add(size);
    }
    Err("it ends early or was never finished: it has no tables of samples (`moov`)".to_owned())
}

/// The boxes among `bytes`: letters and contents. Less than a box at the end is padding.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = Result<(&[u8; 4], &[u8]), Refused>> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let [_, _, _, _, letters @ ..] = head;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let (header, length) = match length {
            // Some QuickTime files end a list with a length of zero and nothing behind.
            0 if rest.is_empty() || *letters == [0; 4] => return None,
            0 => (8, bytes.len() as u64),
            1 => (16, rest.first_chunk().map_or(0, |long| u64::from_be_bytes(*long))),
            length => (8, u64::from(length)),
        };
        if length < header || length > bytes.len() as u64 {
            let name = String::from_utf8_lossy(letters).escape_default().to_string();
            bytes = &[];
            return Some(Err(format!("it is damaged: the box `{name}` is longer than what is in")));
        }
        let letters = bytes[4..].first_chunk()?;
        let contents = &bytes[header as usize..length as usize];
        bytes = &bytes[length as usize..];
        Some(Ok((letters, contents)))
    })
}

/// The first box of these letters.
pub(super) fn first<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Result<Option<&'a [u8]>, Refused> {
    for part in boxes(bytes) {
        match part? {
            (letters, contents) if letters == kind => return Ok(Some(contents)),
            _ => {}
        }
    }
    Ok(None)
}

fn need<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Result<&'a [u8], Refused> {
    first(bytes, kind)?.ok_or_else(|| missing(kind))
}

fn missing(kind: &[u8; 4]) -> Refused {
    format!("it is damaged: `{}` is missing in its tables", String::from_utf8_lossy(kind))
}

fn cut(kind: &str) -> Refused {
    format!("it is damaged: the table `{kind}` ends early")
}

/// A 32-bit number at a place.
fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))
}

fn very_long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|eight| u64::from_be_bytes(*eight))
}

/// The entries of a table behind version, flags and count, each of `size` bytes; the count must
/// not exceed what is there.
fn entries<'a>(
    table: &'a [u8],
    kind: &str,
    at: usize,
    size: usize,
) -> Result<std::slice::ChunksExact<'a, u8>, Refused> {
    let count = long(table, at).ok_or_else(|| cut(kind))? as usize;
    let bytes = count.checked_mul(size).and_then(|bytes| table.get(at + 4..)?.get(..bytes));
    Ok(bytes.ok_or_else(|| cut(kind))?.chunks_exact(size))
}

const IDENTITY: [f64; 4] = [1.0, 0.0, 0.0, 1.0];

/// `[a, b, c, d]` of a matrix of nine numbers.
fn matrix(bytes: &[u8], at: usize) -> Option<[f64; 4]> {
    let number = |index: usize| Some(f64::from(long(bytes, at + 4 * index)? as i32) / 65536.0);
    Some([number(0)?, number(1)?, number(3)?, number(4)?])
}

/// Ticks a second, and the matrix.
fn movie_header(contents: &[u8]) -> Result<(u32, [f64; 4]), Refused> {
    let is_long = contents.first() == Some(&1);
    let scale = long(contents, if is_long { 20 } else { 12 });
    let matrix = matrix(contents, if is_long { 48 } else { 36 });
    scale.zip(matrix).ok_or_else(|| cut("mvhd"))
}

/// What is turned by the first matrix and then by the second.
fn both([a, b, c, d]: [f64; 4], [e, f, g, h]: [f64; 4]) -> [f64; 4] {
    [a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h]
}

/// A track; none where it has no samples' description.
fn track(
    contents: &[u8],
    movie_scale: u32,
    turned: [f64; 4],
    length: u64,
) -> Result<Option<Track>, Refused> {
    let header = need(contents, b"tkhd")?;
    let is_long = header.first() == Some(&1);
    let matrix = matrix(header, if is_long { 52 } else { 40 }).ok_or_else(|| cut("tkhd"))?;
    let enabled = header.get(3).is_some_and(|flags| flags & 1 == 1);
    let media = need(contents, b"mdia")?;
    let media_header = need(media, b"mdhd")?;
    let is_long = media_header.first() == Some(&1);
    let timescale = long(media_header, if is_long { 20 } else { 12 }).ok_or_else(|| cut("mdhd"))?;
    let kind = match need(media, b"hdlr")?.get(8..12) {
        Some(b"vide") => TrackKind::Video,
        Some(b"soun") => TrackKind::Audio,
        _ => TrackKind::Other,
    };
    if kind == TrackKind::Other {
        return Ok(None);
    }
    if timescale == 0 {
        return Err("it is damaged: a track has 0 ticks a second".to_owned());
    }
    let information = need(media, b"minf")?;
    let table = need(information, b"stbl")?;
    let Some((format, description)) = description(need(table, b"stsd")?)? else {
        return Ok(None);
    };
    let edits = match first(contents, b"edts")? {
        Some(list) => edits(need(list, b"elst")?, movie_scale, timescale)?,
        None => Vec::new(),
    };
    let samples = samples(table, length)?;
    let matrix = both(matrix, turned);
    Ok(Some(Track { kind, enabled, timescale, format, description, samples, edits, matrix }))
}

/// The letters of a box, and what is in it.
type Contents = ([u8; 4], Vec<u8>);

/// The first sample description.
fn description(table: &[u8]) -> Result<Option<Contents>, Refused> {
    let first = boxes(table.get(8..).ok_or_else(|| cut("stsd"))?).next().transpose()?;
    Ok(first.map(|(format, contents)| (*format, contents.to_vec())))
}

fn edits(table: &[u8], movie_scale: u32, scale: u32) -> Result<Vec<Edit>, Refused> {
    if movie_scale == 0 {
        return Err("it is damaged: it has 0 ticks a second".to_owned());
    }
    let is_long = table.first() == Some(&1);
    let edit = |entry: &[u8]| {
        let (duration, start, rate) = if is_long {
            (very_long(entry, 0)?, very_long(entry, 8)? as i64, long(entry, 16)?)
        } else {
            (long(entry, 0)?.into(), i64::from(long(entry, 4)? as i32), long(entry, 8)?)
        };
        // To ticks of the track, rounded; what is longer than can be is all that there is.
        let ticks = u128::from(duration) * u128::from(scale) + u128::from(movie_scale) / 2;
        let ticks = (ticks / u128::from(movie_scale)).min(i64::MAX as u128 / 4) as i64;
        Some(Edit { duration: ticks, start, rate: rate as i32 })
    };
    entries(table, "elst", 4, if is_long { 20 } else { 12 })?
        .map(|entry| edit(entry).ok_or_else(|| cut("elst")))
        .collect()
}

/// All samples of a table.
fn samples(table: &[u8], length: u64) -> Result<Vec<Sample>, Refused> {
    let mut samples = sizes(table, length)?;
    if samples.is_empty() {
        return Ok(samples);
    }
    offsets(table, &mut samples)?;
    let count = samples.len();
    let lost = samples.iter().position(|sample| {
        sample.offset.checked_add(sample.size.into()).is_none_or(|end| end > length)
    });
    if let Some(index) = lost {
        return Err(format!(
            "it ends early: sample {} of {count} lies behind the end of the file",
            index + 1
        ));
    }
    times(table, &mut samples)?;
    match first(table, b"stss")? {
        None => samples.iter_mut().for_each(|sample| sample.sync = true),
        Some(table) => {
            for entry in entries(table, "stss", 4, 4)? {
                let index = long(entry, 0).unwrap_or_default() as usize;
                let sample = index.checked_sub(1).and_then(|index| samples.get_mut(index));
                let sample = sample.ok_or_else(|| {
                    format!("it is damaged: it names a key frame {index} of {count}")
                })?;
                sample.sync = true;
            }
        }
    }
    Ok(samples)
}

/// The samples with their sizes.
fn sizes(table: &[u8], length: u64) -> Result<Vec<Sample>, Refused> {
    let of = |size: u32| Sample { offset: 0, size, duration: 0, time: 0, sync: false };
    let admit = |count: usize| {
        if count > MOST_SAMPLES {
            return Err(format!("it claims {count} samples; at most {MOST_SAMPLES} are read"));
        }
        Ok(count)
    };
    if let Some(table) = first(table, b"stsz")? {
        let size = long(table, 4).ok_or_else(|| cut("stsz"))?;
        if size == 0 {
            let entries = entries(table, "stsz", 8, 4)?;
            admit(entries.len())?;
            return Ok(entries.map(|entry| of(long(entry, 0).unwrap_or_default())).collect());
        }
        let count = long(table, 8).ok_or_else(|| cut("stsz"))?;
        if u64::from(count) * u64::from(size) > length {
            return Err(format!(
                "it ends early, or its tables lie: {count} samples of {size} bytes are more than \
                 the file holds"
            ));
        }
        return Ok(vec![of(size); admit(count as usize)?]);
    }
    let table = need(table, b"stz2").map_err(|_| missing(b"stsz"))?;
    let count = admit(long(table, 8).ok_or_else(|| cut("stz2"))? as usize)?;
    let bytes = table.get(12..).unwrap_or_default();
    let field = table.get(7).copied().unwrap_or_default();
    let size = |index: usize| -> Option<u32> {
        Some(match field {
            4 => u32::from(bytes.get(index / 2)? >> (4 - 4 * (index % 2)) & 0xf),
            8 => u32::from(*bytes.get(index)?),
            16 => u32::from(u16::from_be_bytes(*bytes.get(2 * index..)?.first_chunk()?)),
            _ => return None,
        })
    };
    (0..count).map(|index| size(index).map(of).ok_or_else(|| cut("stz2"))).collect()
}

/// Where each sample lies: chunks, and how many samples are in each.
fn offsets(table: &[u8], samples: &mut [Sample]) -> Result<(), Refused> {
    let count = samples.len();
    let chunks: Vec<u64> = match first(table, b"co64")? {
        Some(table) => {
            let entries = entries(table, "co64", 4, 8)?;
            entries.map(|entry| very_long(entry, 0).unwrap_or_default()).collect()
        }
        None => {
            let entries = entries(need(table, b"stco")?, "stco", 4, 4)?;
            entries.map(|entry| long(entry, 0).unwrap_or_default().into()).collect()
        }
    };
    let runs: Vec<[usize; 3]> = entries(need(table, b"stsc")?, "stsc", 4, 12)?
        .map(|entry| [0, 4, 8].map(|at| long(entry, at).unwrap_or_default() as usize))
        .collect();
    let damaged = || "it is damaged: its table of chunks contradicts itself".to_owned();
    let Some([1, _, described]) = runs.first().copied() else { return Err(damaged()) };
    let (mut next, mut run) = (0, 0);
    for (index, &chunk) in chunks.iter().enumerate() {
        if next == count {
            break;
        }
        while runs.get(run + 1).is_some_and(|[first, ..]| *first <= index + 1) {
            run += 1;
        }
        let [_, many, description] = runs[run];
        if description != described {
            return Err("its samples have several descriptions, of which one can be read".into());
        }
        if many == 0 {
            return Err(damaged());
        }
        let mut offset = chunk;
        for sample in samples[next..].iter_mut().take(many) {
            sample.offset = offset;
            offset = offset.checked_add(sample.size.into()).ok_or_else(damaged)?;
            next += 1;
        }
    }
    if next < count {
        return Err(format!(
            "it is damaged: its tables have sizes of {count} samples, and places of {next}"
        ));
    }
    Ok(())
}

/// When each sample is shown: durations in the order of decoding, and how much later than that.
fn times(table: &[u8], samples: &mut [Sample]) -> Result<(), Refused> {
    let count = samples.len();
    let (mut next, mut time) = (0, 0_i64);
    for entry in entries(need(table, b"stts")?, "stts", 4, 8)? {
        let [many, delta] = [0, 4].map(|at| long(entry, at).unwrap_or_default());
        let many = many as usize;
        if many > count - next {
            return Err(format!(
                "it is damaged: its table of times has more samples than the {count} that there are"
            ));
        }
        for sample in &mut samples[next..next + many] {
            (sample.time, sample.duration) = (time, delta);
            time += i64::from(delta);
        }
        next += many;
    }
    if next < count {
        return Err(format!("it is damaged: it has times for {next} of {count} samples"));
    }
    let Some(table) = first(table, b"ctts")? else { return Ok(()) };
    let mut next = 0;
    for entry in entries(table, "ctts", 4, 8)? {
        let [many, later] = [0, 4].map(|at| long(entry, at).unwrap_or_default());
        let end = next + (many as usize).min(count - next);
        // Signed in version 1; in version 0 by what QuickTime's writers do.
        samples[next..end].iter_mut().for_each(|sample| sample.time += i64::from(later as i32));
        next = end;
    }
    if next < count {
        return Err(format!("it is damaged: it has orders for {next} of {count} samples"));
    }
    Ok(())
}

impl Track {
    /// What is shown, in order; the first one at 0. A frame that an edit begins within is not
    /// shown, as in other programs.
    ///
    /// # Errors
    /// When an edit plays faster or slower, or so much is shown that it cannot be meant.
    pub(super) fn timeline(&self) -> Result<Timeline, Refused> {
        let mut order: Vec<u32> = (0..self.samples.len() as u32).collect();
        let time = |index: u32| self.samples[index as usize].time;
        let end = |index: u32| time(index) + i64::from(self.samples[index as usize].duration);
        order.sort_by_key(|index| time(*index));
        let last = order.iter().map(|index| end(*index)).max().unwrap_or_default();
        let mut shown: Vec<Shown> = Vec::new();
        let mut clock = 0_i64;
        if self.edits.is_empty() {
            shown.extend(order.iter().map(|&sample| Shown { sample, time: time(sample) }));
            clock = last;
        }
        for edit in &self.edits {
            let after = clock.saturating_add(edit.duration);
            if edit.start >= 0 {
                let from = order.partition_point(|index| time(*index) < edit.start);
                match edit.rate {
                    0x0001_0000 => {
                        let until = match edit.duration {
                            0 => i64::MAX,
                            duration => edit.start.saturating_add(duration),
                        };
                        let to = order.partition_point(|index| time(*index) < until);
                        if shown.len() + to.saturating_sub(from) > MOST_SAMPLES {
                            return Err(format!("its edits show more than {MOST_SAMPLES} samples"));
                        }
                        let part = order.get(from..to).unwrap_or_default();
                        let at = |sample: u32| clock.saturating_add(time(sample) - edit.start);
                        shown.extend(part.iter().map(|&sample| Shown { sample, time: at(sample) }));
                    }
                    // One frame stands still.
                    0 => {
                        let to = order.partition_point(|index| time(*index) <= edit.start);
                        let still = to.checked_sub(1).and_then(|index| order.get(index));
                        shown.extend(still.map(|&sample| Shown { sample, time: clock }));
                    }
                    rate => {
                        let rate = f64::from(rate) / 65536.0;
                        return Err(format!("an edit of it plays at {rate} times the speed"));
                    }
                }
            }
            clock = match edit.duration {
                0 => clock.max(shown.last().map_or(0, |shown| {
                    let duration = self.samples[shown.sample as usize].duration;
                    shown.time.saturating_add(duration.into())
                })),
                _ => after,
            };
        }
        let begin = shown.first().map_or(0, |shown| shown.time);
        shown.iter_mut().for_each(|shown| shown.time -= begin);
        let latest = shown.last().map_or(0, |shown| shown.time);
        Ok(Timeline { shown, end: (clock - begin).max(latest), begin })
    }
}

/// The bytes of a sample.
///
/// # Errors
/// When they cannot be read.
pub(super) fn read_sample(
    file: &mut InputFile,
    sample: &Sample,
    into: &mut Vec<u8>,
) -> std::io::Result<()> {
    into.clear();
    file.seek(SeekFrom::Start(sample.offset))?;
    // The tables were held against the length of the file.
    let read = file.take(sample.size.into()).read_to_end(into)?;
    match read == sample.size as usize {
        true => Ok(()),
        false => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}
