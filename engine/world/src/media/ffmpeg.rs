//! Videos of other containers and codecs, read through a program `ffmpeg` where there is one: what
//! it says of the packets gives size and times without decoding, and raw RGB comes over a pipe.
//!
//! The program reads the one file and nothing else: text files (lists that name other files) are
//! never given to it, and of its protocols it may use that of files alone. It is killed when
//! nobody wants its frames any more.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::colour::{Colour, Conversion, room};
use super::sink::FrameSink;
use super::timing::Timing;
use crate::image::MAX_PIXELS;
use crate::{Error, Result};

/// How often it is asked whether frames are still wanted.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// From this width or height on, colours that no tag describes are taken for BT.709.
pub(super) const HIGH: (usize, usize) = (1280, 577);
/// The most frames of a video.
const MOST_FRAMES: usize = 1 << 22;
/// The most that is kept of what the program says.
const MOST_SAID: u64 = 64 << 10;

/// Which program `ffmpeg` is used. An engine has one as a service of its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FfmpegChoice {
    /// The one on the PATH, if there is one.
    #[default]
    OnPath,
    /// This one.
    Program(PathBuf),
    /// None, even where there is one.
    None,
}

impl FfmpegChoice {
    /// What `KINO_FFMPEG` says: a program, none where it is empty, the one on the PATH where it is
    /// not set.
    pub fn of_environment() -> Self {
        match std::env::var_os("KINO_FFMPEG") {
            Some(named) if named.is_empty() => FfmpegChoice::None,
            Some(named) => FfmpegChoice::Program(named.into()),
            None => FfmpegChoice::OnPath,
        }
    }

    /// The program, if there is one.
    pub fn find(&self) -> Option<PathBuf> {
        match self {
            FfmpegChoice::None => None,
            FfmpegChoice::Program(program) => Some(program.clone()),
            FfmpegChoice::OnPath => {
                let name = format!("ffmpeg{}", std::env::consts::EXE_SUFFIX);
                let folders = std::env::var_os("PATH")?;
                let mut found = std::env::split_paths(&folders).map(|folder| folder.join(&name));
                found.find(|at| at.is_file())
            }
        }
    }
}

/// The program `ffmpeg` that the environment names: see [`FfmpegChoice::of_environment`].
pub fn find_ffmpeg() -> Option<PathBuf> {
    FfmpegChoice::of_environment().find()
}

/// A video that the program can read.
pub(super) struct Foreign {
    program: PathBuf,
    path: PathBuf,
    /// As it is shown: the program turns pictures upright.
    pub(super) size: (usize, usize),
    pub(super) timing: Timing,
    /// What is done with the colours that it gives.
    conversion: Conversion,
    /// Filters that it is given.
    filter: Option<&'static str>,
    /// Which program it is.
    pub(super) version: String,
    /// When the first frame is shown by the clock of the file, which sound shares, in seconds.
    pub(super) begin: f64,
    /// Whether its sound is AAC; none where it has no sound.
    pub(super) sound: Option<bool>,
    /// Whether the file says which matrix its colours have.
    pub(super) is_tagged: bool,
}

/// What the program notes of files that were cut (libavformat's matroskadec and mov).
const CUT: [&str; 2] = ["File ended prematurely", "partial file"];

/// A program that is ended when this is dropped.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program says while it runs, up to a length; the rest is read and forgotten.
pub(super) fn heard(from: Option<ChildStderr>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let Some(mut from) = from else { return String::new() };
        let mut said = Vec::new();
        let _ = from.by_ref().take(MOST_SAID).read_to_end(&mut said);
        let _ = std::io::copy(&mut from, &mut std::io::sink());
        String::from_utf8_lossy(&said).into_owned()
    })
}

impl Foreign {
    /// What the program says of a file.
    ///
    /// # Errors
    /// When it cannot be started, or finds no video in the file.
    pub(super) fn open(program: &Path, path: &Path, tone_map: bool) -> Result<Self> {
        let version = version(program)?;
        let mut command = command(program, path, "info");
        // By the clock of the file, as its sound is: else either would begin at 0 in streams that
        // have no beginning of their own (MPEG-TS).
        command.args(["-copyts", "-map", "0:V:0", "-c", "copy", "-f", "framecrc", "-"]);
        let mut running = start(&mut command, program)?;
        let said = heard(running.0.stderr.take());
        let packets = running.0.stdout.take().map(|out| packets(BufReader::new(out)));
        let packets = packets.transpose().map_err(|message| Error::content(path, message))?;
        let ended = running.0.wait().map_err(Error::io("run", program))?;
        let said = said.join().unwrap_or_default();
        // It reads what is there of a file that was cut, and ends well.
        if CUT.iter().any(|note| said.contains(note)) {
            let error = Error::content(path, "the video ends early, as `ffmpeg` says");
            return Err(error.advise("copy or download it again"));
        }
        let Some(mut packets) =
            packets.filter(|packets| ended.success() && !packets.times.is_empty())
        else {
            let message = format!("`ffmpeg` finds no video in it ({})", last_line(&said));
            return Err(Error::content(path, message));
        };
        if said.contains("rotation of 90") || said.contains("rotation of -90") {
            packets.size = (packets.size.1, packets.size.0);
        }
        let (width, height) = packets.size;
        if width.saturating_mul(height) > MAX_PIXELS || width == 0 || height == 0 {
            return Err(Error::content(path, format!("it claims frames of {width}x{height}")));
        }
        let colour = colour(&said);
        let is_high = width >= HIGH.0 || height >= HIGH.1;
        let is_tagged = colour.matrix != 2;
        // The program takes what is not said for BT.601, whatever the size.
        let filter = (colour.matrix == 2 && is_high).then_some("scale=in_color_matrix=bt709");
        let conversion = colour.conversion((width, height), tone_map).map_err(|message| {
            Error::content(path, message).advise("set `tone_map` to true, or convert it first")
        })?;
        let (size, timing, begin) = (packets.size, packets.timing(), packets.begin());
        let sound = is_aac(&said);
        let (program, path) = (program.to_owned(), path.to_owned());
        Ok(Foreign {
            program,
            path,
            size,
            timing,
            conversion,
            filter,
            version,
            begin,
            sound,
            is_tagged,
        })
    }

    /// The bytes that reading takes beside the frames that it gives: those on their way, of 16 bits
    /// a channel. What the program takes is its own.
    pub(super) fn memory(&self) -> u64 {
        (self.size.0 * self.size.1) as u64 * (2 * 6)
    }

    /// Gives the frames of rising indices to `sink`.
    ///
    /// # Errors
    /// When the program fails, or gives another number of frames than it said.
    pub(super) fn read(&self, frames: &[usize], sink: &mut dyn FrameSink) -> Result<()> {
        let mut command = command(&self.program, &self.path, "error");
        command.args(["-map", "0:V:0", "-fps_mode", "passthrough"]);
        if let Some(filter) = self.filter {
            command.args(["-vf", filter]);
        }
        command.args(["-f", "rawvideo", "-pix_fmt", "rgb48le", "-"]);
        let mut running = start(&mut command, &self.program)?;
        let said = heard(running.0.stderr.take());
        let Some(mut out) = running.0.stdout.take() else {
            return Err(Error::content(&self.path, "`ffmpeg` gives nothing"));
        };
        let (count, length) = (self.timing.ticks.len(), self.size.0 * self.size.1 * 6);
        let (give, take) = sync_channel::<(usize, Vec<u8>)>(2);
        let outcome = std::thread::scope(|scope| {
            let last = frames.last().copied().unwrap_or_default();
            let wanted = frames.iter().copied();
            let thread = scope.spawn(move || pictures(&mut out, length, count, last, wanted, give));
            let mut is_over = false;
            let outcome = loop {
                match take.recv_timeout(LOOK) {
                    Ok((index, bytes)) => match self.rgb(&bytes) {
                        Ok(rgb) => {
                            if sink.frame(index, rgb).is_break() {
                                break Ok(());
                            }
                        }
                        Err(error) => break Err(Error::io("decoded", &self.path)(error)),
                    },
                    Err(RecvTimeoutError::Timeout) if sink.is_wanted() => {}
                    Err(RecvTimeoutError::Timeout) => break Ok(()),
                    // All was read, or something was missing: the thread knows.
                    Err(RecvTimeoutError::Disconnected) => {
                        is_over = true;
                        break Ok(());
                    }
                }
            };
            drop(take);
            // Ends what the thread may wait for.
            let _ = running.0.kill();
            let read = thread.join().unwrap_or_else(|_| Err("reading broke".to_owned()));
            outcome.map(|()| if is_over { read } else { Ok(()) })
        })?;
        drop(running);
        let said = said.join().unwrap_or_default();
        outcome.map_err(|message| {
            let said = last_line(&said);
            let message = if said.is_empty() { message } else { format!("{message} ({said})") };
            Error::content(&self.path, message)
        })
    }

    /// 16 bits a channel as numbers.
    fn rgb(&self, bytes: &[u8]) -> std::io::Result<Vec<f32>> {
        let mut rgb = room(bytes.len() / 2)?;
        let samples = bytes.chunks_exact(2);
        rgb.extend(samples.map(|two| f32::from(u16::from_le_bytes([two[0], two[1]])) / 65535.0));
        self.conversion.encode_all(&mut rgb);
        Ok(rgb)
    }
}

/// Passes the pictures on that are wanted, out of `count` that must come.
fn pictures(
    from: &mut impl Read,
    length: usize,
    count: usize,
    last: usize,
    wanted: impl Iterator<Item = usize>,
    give: std::sync::mpsc::SyncSender<(usize, Vec<u8>)>,
) -> std::result::Result<(), String> {
    let mut wanted = wanted.peekable();
    let mut bytes = Vec::new();
    for index in 0..=last {
        bytes.clear();
        bytes.try_reserve_exact(length).map_err(|_| "there is no memory for a frame".to_owned())?;
        let read = from.by_ref().take(length as u64).read_to_end(&mut bytes);
        if !read.is_ok_and(|read| read == length) {
            return Err(format!("`ffmpeg` gave {index} frames of {count}"));
        }
        if wanted.next_if_eq(&index).is_some()
            && give.send((index, std::mem::take(&mut bytes))).is_err()
        {
            return Ok(());
        }
    }
    if last + 1 == count && from.read(&mut [0]).is_ok_and(|read| read > 0) {
        return Err(format!("`ffmpeg` gave more frames than the {count} that it said"));
    }
    Ok(())
}

/// The forms of files that the program may take one for (its demuxers): those that hold all that
/// they show. Playlists, patterns of names and scripts, which lead it to other files, are none.
const CONTAINERS: &str = "mov,matroska,webm,avi,flv,live_flv,kux,asf,asf_o,mpegts,mpeg,mpegvideo,\
                          mxf,nut,ogg,ivf,yuv4mpegpipe,dv,rm,gif,apng,h264,hevc,vvc,evc,m4v,obu,\
                          av1,cavsvideo,dirac,vc1,vc1test,mjpeg,swf,wtv,nsv,flic,bink,smk,roq,thp,\
                          gxf,lxf,nuv,pmp,r3d,vivo,wav,w64,aiff,au,caf,mp3,aac,flac,ac3,eac3,dts,\
                          dtshd,truehd,mlp,amr,amrnb,amrwb,ape,wv,tta,tak,mpc,mpc8,shn,voc,oma,\
                          iff,xwma,dsf,qoa,sox,act,gsm,ircam,avr,dsicin";

/// The program, told to read a file.
pub(super) fn command(program: &Path, path: &Path, level: &str) -> Command {
    let mut command = Command::new(program);
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut input = OsString::from("file:");
    input.push(absolute);
    command.args(["-hide_banner", "-nostdin", "-loglevel", level]);
    command.args(["-format_whitelist", CONTAINERS]);
    command.args(["-protocol_whitelist", "file", "-i"]).arg(input);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(super) fn start(command: &mut Command, program: &Path) -> Result<Running> {
    command.spawn().map(Running).map_err(Error::io("run", program))
}

/// The first line of what the program says of itself.
pub(super) fn version(program: &Path) -> Result<String> {
    let mut command = Command::new(program);
    command.arg("-version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = start(&mut command, program)?;
    let mut first = String::new();
    if let Some(out) = running.0.stdout.take() {
        let read = BufReader::new(out.take(MOST_SAID)).read_line(&mut first);
        read.map_err(Error::io("run", program))?;
    }
    match first.trim() {
        line if line.starts_with("ffmpeg") => Ok(line.to_owned()),
        _ => Err(Error::content(program, "it does not say that it is ffmpeg")
            .advise("name another in KINO_FFMPEG, or set that to nothing")),
    }
}

pub(super) fn last_line(said: &str) -> &str {
    said.trim_end().lines().next_back().unwrap_or_default().trim()
}

/// What the program says of the first sound of a file: whether it is AAC; none where it says
/// nothing of any.
pub(super) fn is_aac(said: &str) -> Option<bool> {
    let line = said.lines().find(|line| line.contains("Stream #") && line.contains(" Audio: "))?;
    Some(line.contains(" Audio: aac"))
}

/// Size, and when each packet is shown, in seconds of a fraction.
#[derive(Default)]
struct Packets {
    size: (usize, usize),
    /// Seconds a tick.
    base: (u32, u32),
    /// Time and duration.
    times: Vec<(i64, i64)>,
}

/// What the program's list of packets says (`-f framecrc`).
fn packets(from: impl BufRead) -> std::result::Result<Packets, String> {
    /// A packet that is decoded and not shown.
    const DISCARDED: u32 = 4;
    /// The time of a packet that says none (AV_NOPTS_VALUE).
    const NONE: i64 = i64::MIN;
    let mut packets = Packets { base: (1, 1), ..Packets::default() };
    let mut decoded = Vec::new();
    for line in from.lines() {
        let line = line.map_err(|error| format!("`ffmpeg` cannot be heard: {error}"))?;
        let pair = |text: &str, between: char| -> Option<(u32, u32)> {
            let (one, other) = text.trim().split_once(between)?;
            Some((one.parse().ok()?, other.parse().ok()?))
        };
        if let Some(base) = line.strip_prefix("#tb 0:") {
            packets.base =
                pair(base, '/').filter(|base| base.0 > 0 && base.1 > 0).unwrap_or((1, 1));
        } else if let Some(size) = line.strip_prefix("#dimensions 0:") {
            let (width, height) = pair(size, 'x').unwrap_or_default();
            packets.size = (width as usize, height as usize);
        } else if !line.starts_with('#') {
            let mut fields = line.split(',').map(str::trim);
            let number = |field: Option<&str>| field.and_then(|field| field.parse::<i64>().ok());
            let at = [number(fields.nth(1)), number(fields.next()), number(fields.next())];
            let [Some(when), Some(time), Some(duration)] = at else { continue };
            let flags = fields.find_map(|field| field.strip_prefix("F=0x"));
            let flags = flags.and_then(|flags| u32::from_str_radix(flags, 16).ok()).unwrap_or(0);
            if flags & DISCARDED == 0 {
                packets.times.push((time, duration.clamp(0, 1 << 40)));
                decoded.push(when);
            }
            if packets.times.len() > MOST_FRAMES {
                return Err(format!(
                    "it has more than {MOST_FRAMES} frames, the most that are read"
                ));
            }
        }
    }
    // Program streams tell when some packets are shown. Packets are shown in the rhythm in which they
    // are decoded, as much later as the first one is.
    if packets.times.iter().any(|(time, _)| *time == NONE) {
        let first = packets.times.iter().map(|(time, _)| *time).filter(|time| *time != NONE).min();
        let begin = decoded.iter().copied().filter(|when| *when != NONE).min().unwrap_or(0);
        let later = first.map_or(0, |first| first.saturating_sub(begin));
        for ((time, _), when) in packets.times.iter_mut().zip(decoded) {
            *time = when.saturating_add(later);
        }
    }
    packets.times.sort_unstable();
    Ok(packets)
}

impl Packets {
    /// When the first one is shown, in seconds.
    fn begin(&self) -> f64 {
        let begin = self.times.first().map_or(0, |(time, _)| *time);
        begin as f64 * f64::from(self.base.0) / f64::from(self.base.1)
    }

    fn timing(&self) -> Timing {
        let begin = self.times.first().map_or(0, |(time, _)| *time);
        // A tick of several units, such as 1001/24000, becomes as many ticks.
        let (unit, scale) = (i64::from(self.base.0), self.base.1);
        let ticks = |time: i64| time.saturating_sub(begin).saturating_mul(unit);
        let end =
            self.times.last().map_or(0, |(time, duration)| ticks(time.saturating_add(*duration)));
        Timing { ticks: self.times.iter().map(|(time, _)| ticks(*time)).collect(), end, scale }
    }
}

/// The colours that the program tells of the stream, by their names there; the matrix is 2 where it
/// tells none, else one that it applies itself.
fn colour(said: &str) -> Colour {
    let line = said.lines().find(|line| line.contains("Video:")).unwrap_or_default();
    let mut colour = Colour { primaries: 1, transfer: 1, matrix: 2, full_range: false };
    let words = line.split([',', '(', ')']).map(str::trim);
    for word in words {
        let mut parts = word.split('/');
        let matrix = parts.next().unwrap_or_default();
        let known = ["bt709", "bt470bg", "smpte170m", "smpte240m", "bt2020nc", "bt2020c", "gbr"];
        if !known.contains(&matrix) && !word.ends_with("smpte2084") && !word.ends_with("b67") {
            continue;
        }
        if known.contains(&matrix) {
            colour.matrix = 1;
        }
        match parts.next() {
            Some("bt2020") => colour.primaries = 9,
            Some("smpte432") => colour.primaries = 12,
            _ => {}
        }
        match parts.next() {
            Some("smpte2084") => colour.transfer = 16,
            Some("arib-std-b67") => colour.transfer = 18,
            Some("linear") => colour.transfer = 8,
            Some("gamma28" | "bt470bg") => colour.transfer = 5,
            _ => {}
        }
        break;
    }
    colour
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_packets_are_understood() {
        let list = "#tb 0: 1/12288\n#dimensions 0: 48x32\n\
                    0,      -5120,      -2560,      512,      540, 0x7c55fd34, F=0x5\n\
                    0,      -3072,        512,      512,       46, 0xf83f171a, F=0x0\n\
                    0,      -3072,          0,      512,       46, 0xf83f171a\n";
        let packets = packets(list.as_bytes()).unwrap();
        let timing = packets.timing();
        assert_eq!((packets.size, timing.ticks, timing.end), ((48, 32), vec![0, 512], 1024));
        assert_eq!(timing.scale, 12288);
    }

    #[test]
    fn packets_that_say_no_time_are_shown_in_the_rhythm_of_the_others() {
        let list = "#tb 0: 1/90000\n#dimensions 0: 48x32\n0, -3000, 0, 3000, 540, 0x0\n\
                    0, 0, 6000, 3000, 46, 0x0\n\
                    0, 3000, -9223372036854775808, 3000, 46, 0x0, F=0x0\n";
        assert_eq!(packets(list.as_bytes()).unwrap().timing().ticks, vec![0, 3000, 6000]);
    }

    #[test]
    fn the_first_sound_is_told_by_its_name() {
        let said =
            "  Stream #0:0: Video: hevc, yuv420p\n  Stream #0:1(eng): Audio: aac (LC), 44100 Hz\n";
        assert_eq!(is_aac(said), Some(true));
        assert_eq!(is_aac(&said.replace("aac (LC)", "mp3")), Some(false));
        assert_eq!(is_aac("  Stream #0:0: Video: hevc, yuv420p\n"), None);
    }

    #[test]
    fn colours_are_told_by_their_names() {
        let line = |inside: &str| {
            colour(&format!("  Stream #0:0: Video: hevc, yuv420p10le({inside}), 3x3"))
        };
        assert_eq!(line("tv, bt2020nc/bt2020/smpte2084, progressive").transfer, 16);
        assert_eq!(line("tv, bt2020nc/bt2020/arib-std-b67").transfer, 18);
        assert_eq!(line("tv, bt2020nc/bt2020/bt2020-10").primaries, 9);
        let same = line("tv, bt709, progressive");
        assert_eq!((same.matrix, same.primaries, same.transfer), (1, 1, 1));
        assert_eq!(line("tv, progressive").matrix, 2);
    }
}
