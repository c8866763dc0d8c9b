//! Which containers a program `ffmpeg` writes, and in which form: five have one of our own, of all
//! other endings the program is asked. Nothing here writes a file for anybody.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use kino_node::Audio;

use super::ffmpeg::{Foreign, HIGH, heard, start, version};
use super::ffmpeg_inputs::add_sound;
use super::reader::VideoReader;
use crate::{Error, InputFile, Result};

/// A container that the program writes.
#[derive(Clone, Debug)]
pub struct ForeignFormat(pub(super) Arc<Container>);

impl PartialEq for ForeignFormat {
    fn eq(&self, other: &Self) -> bool {
        self.0.extension == other.0.extension
    }
}

impl Eq for ForeignFormat {}

/// How one container is written.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) extension: String,
    pub(super) muxer: String,
    pub(super) colour: Colours,
    /// What else becomes of the frames.
    pub(super) video: Vec<String>,
    /// What becomes of the sound; none where there can be none.
    pub(super) sound: Option<SoundRule>,
    /// Whether it knows the rates of film and television alone ([`FIXED_RATES`]).
    pub(super) has_fixed_rates: bool,
}

/// The form in which a container has its colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    /// As they are.
    Rgb,
    /// Limited range and the matrix of BT.709, and tags that say so.
    Tagged,
    /// Limited range and the matrix that is taken for granted where no tag says one: BT.601 up to
    /// 1279×576, else BT.709.
    Untagged,
    /// Full range and the matrix of BT.601, as in JPEG.
    Jpeg,
}

impl Colours {
    pub(super) fn args(self, (width, height): (usize, usize)) -> Vec<&'static str> {
        let is_high = width >= HIGH.0 || height >= HIGH.1;
        let filter = match self {
            Colours::Rgb => return Vec::new(),
            Colours::Jpeg => "scale=out_color_matrix=bt601:out_range=pc",
            Colours::Untagged if !is_high => "scale=out_color_matrix=bt601:out_range=tv",
            Colours::Tagged | Colours::Untagged => "scale=out_color_matrix=bt709:out_range=tv",
        };
        match self {
            Colours::Tagged => [&["-vf", filter][..], BT709].concat(),
            _ => vec!["-vf", filter],
        }
    }
}

/// What becomes of sound.
#[derive(Debug)]
pub(super) enum SoundRule {
    /// AAC stays as it is, PCM becomes this.
    Keep(Vec<String>),
    /// All becomes this.
    Encode(Vec<String>),
}

/// The tags of BT.709 in limited range.
const BT709: &[&str] = &[
    "-colorspace",
    "bt709",
    "-color_primaries",
    "bt709",
    "-color_trc",
    "bt709",
    "-color_range",
    "tv",
];

/// The containers that have a form of their own: ending, muxer, colours, video, and sound (`copy`
/// before it where AAC stays as it is). All others are written as the program itself would.
type Rule = (&'static str, &'static str, Colours, &'static str, &'static str);
const RULES: [Rule; 5] = [
    (
        "webm",
        "webm",
        Colours::Tagged,
        "-c:v libvpx-vp9 -crf 18 -b:v 0 -row-mt 1 -pix_fmt yuv420p",
        "-c:a libopus -b:a 160k",
    ),
    ("mkv", "matroska", Colours::Rgb, "-c:v ffv1 -level 3 -pix_fmt gbrp10le", "copy -c:a flac"),
    (
        "mov",
        "mov",
        Colours::Tagged,
        "-c:v prores_ks -profile:v 3 -vendor apl0 -pix_fmt yuv422p10le -movflags use_metadata_tags",
        "copy -c:a pcm_s24le",
    ),
    (
        "gif",
        "gif",
        Colours::Rgb,
        "-vf split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1 -loop 0",
        "",
    ),
    ("avi", "avi", Colours::Jpeg, "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p", "-c:a pcm_s16le"),
];

/// What is better than an encoder's own choice, which for the older ones is 200 kbit/s.
const QUALITY: [(&[&str], &str); 4] = [
    (
        &[
            "mpeg1video",
            "mpeg2video",
            "mpeg4",
            "msmpeg4v2",
            "msmpeg4v3",
            "msmpeg4",
            "wmv1",
            "wmv2",
            "flv",
            "flv1",
            "h263",
            "h263p",
            "h261",
            "rv10",
            "rv20",
            "mjpeg",
            "amv",
            "svq1",
        ],
        "-q:v 2",
    ),
    (&["theora", "libtheora"], "-q:v 9"),
    (&["h264", "hevc", "libx264", "libx265"], "-crf 18"),
    (&["vp8", "vp9", "av1"], "-crf 18 -b:v 0"),
];

/// Muxers that hold AAC although the program would choose an older form of sound.
const AAC_MUXERS: [&str; 2] = ["mpegts", "flv"];

/// What the program is tried with, one after another: sizes that old codecs take, and a rate, with
/// whether it is one of few.
const TRIED: [((usize, usize), (f64, bool)); 3] =
    [((352, 288), (8.0, false)), ((352, 288), (25.0, true)), ((720, 576), (25.0, true))];

/// The rates that MPEG-1 and its kin know (ISO/IEC 11172-2 §2.4.3.2), as fractions.
const FIXED_RATES: [(u32, u32); 8] =
    [(24_000, 1001), (24, 1), (25, 1), (30_000, 1001), (30, 1), (50, 1), (60_000, 1001), (60, 1)];

/// The rate of [`FIXED_RATES`] at which frames of another are shown: the least of which it is a
/// part, else the least that is not lower, else the highest.
pub(super) fn fixed_rate(fps: f64) -> (u32, u32) {
    let rate = |(ticks, delta): (u32, u32)| f64::from(ticks) / f64::from(delta);
    let is_multiple = |fixed: &&(u32, u32)| {
        let times = rate(**fixed) / fps;
        times.round() >= 1.0 && (times - times.round()).abs() < 1e-4
    };
    let found = FIXED_RATES.iter().find(is_multiple);
    let found = found.or_else(|| FIXED_RATES.iter().find(|fixed| rate(**fixed) >= fps));
    found.copied().unwrap_or((60, 1))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

impl ForeignFormat {
    /// The container that an ending names, in the form that is documented.
    pub(super) fn known(extension: &str) -> Option<Self> {
        let &(extension, muxer, colour, video, sound) =
            RULES.iter().find(|(known, ..)| *known == extension)?;
        let sound = match sound.strip_prefix("copy ") {
            Some(args) => Some(SoundRule::Keep(words(args))),
            None => (!sound.is_empty()).then(|| SoundRule::Encode(words(sound))),
        };
        let (extension, muxer, video) = (extension.to_owned(), muxer.to_owned(), words(video));
        let has_fixed_rates = false;
        let container = Container { extension, muxer, colour, video, sound, has_fixed_rates };
        Some(ForeignFormat(Arc::new(container)))
    }

    /// The container that the program itself takes an ending for; none where it knows none. What
    /// was found is kept for each program.
    ///
    /// # Errors
    /// When the program cannot be started, or can write no video that is one file and is read
    /// again; what it said.
    pub(super) fn ask(program: &Path, extension: &str) -> Result<Option<Self>> {
        type Found = std::result::Result<Option<ForeignFormat>, String>;
        static FOUND: Mutex<BTreeMap<(String, String), Found>> = Mutex::new(BTreeMap::new());
        /// Endings are what people write; a program knows about 200.
        const MOST_KEPT: usize = 1024;
        let is_ending = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if extension.is_empty() || extension.len() > 16 || !extension.chars().all(is_ending) {
            return Ok(None);
        }
        let key = (format!("{} {}", program.display(), version(program)?), extension.to_owned());
        let known = FOUND.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let found = match known {
            Some(found) => found,
            None => {
                let found = trial(program, extension)?;
                let mut kept = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() >= MOST_KEPT {
                    kept.clear();
                }
                kept.insert(key, found.clone());
                found
            }
        };
        found.map_err(|said| {
            let message = format!("`ffmpeg` writes no video as .{extension}: {said}");
            Error::refused(message, "write .mp4, .mkv, .webm or .mov")
        })
    }

    /// Its ending, without the dot.
    pub fn extension(&self) -> &str {
        &self.0.extension
    }

    /// Whether it has a form of our own, in which it takes frames of any size.
    pub(super) fn is_known(&self) -> bool {
        RULES.iter().any(|(extension, ..)| *extension == self.0.extension)
    }

    /// Whether it holds sound.
    pub fn holds_sound(&self) -> bool {
        self.0.sound.is_some()
    }
}

/// Has the program write a file of this ending as it likes, looks at what became of it, and reads
/// it again. None where it knows no such ending; else why it is no video.
fn trial(
    program: &Path,
    extension: &str,
) -> Result<std::result::Result<Option<ForeignFormat>, String>> {
    let mut first: Option<String> = None;
    let forms = PLANES.into_iter();
    let forms: Vec<_> = forms.flat_map(|planes| RESAMPLED.map(|sound| (planes, sound))).collect();
    for ((size, rate), form) in
        TRIED.into_iter().flat_map(|tried| forms.iter().map(move |form| (tried, *form)))
    {
        let folder = tempfile::tempdir().map_err(Error::io("made", &std::env::temp_dir()))?;
        let path = folder.path().join(format!("try.{extension}"));
        match write_trial(program, &path, (size, rate.0), form)? {
            Ok(log) => {
                let written = understood(program, &path, &log, extension)?;
                return Ok(written.map(|mut container| {
                    container.has_fixed_rates = rate.1;
                    let (colour, planes) = form.0;
                    container.video.extend(words(planes));
                    if colour == Colours::Jpeg {
                        container.colour = colour;
                    }
                    if let Some(SoundRule::Encode(args) | SoundRule::Keep(args)) =
                        &mut container.sound
                    {
                        args.extend(words(form.1));
                    }
                    Some(ForeignFormat(Arc::new(container)))
                }));
            }
            // What libavformat says of a name that it has no muxer for.
            Err(log) if log.contains("output format for") => return Ok(Ok(None)),
            Err(log) if log.contains("Output #0, image2,") => {
                return Ok(Err("it is an image".to_owned()));
            }
            Err(log) => {
                first.get_or_insert_with(|| cause(&log));
            }
        }
    }
    Ok(Err(first.unwrap_or_default()))
}

/// The planes that nearly every player shows, else what an encoder chooses, else those of JPEG.
const PLANES: [(Colours, &str); 3] = [
    (Colours::Tagged, "-pix_fmt yuv420p"),
    (Colours::Tagged, ""),
    (Colours::Jpeg, "-pix_fmt yuvj420p"),
];
/// What becomes of sound: nothing where a container takes any rate, else what old ones take.
const RESAMPLED: [&str; 3] = ["", "-ar 44100", "-ar 48000 -ac 2"];

/// What the program wrote, by its log and by what it reads of it again; why it is no video.
fn understood(
    program: &Path,
    path: &Path,
    log: &str,
    extension: &str,
) -> Result<std::result::Result<Container, String>> {
    let Some(mut container) = container_of(log, extension) else {
        return Ok(Err("it holds no video".to_owned()));
    };
    let folder = path.parent().unwrap_or(path);
    let files = std::fs::read_dir(folder).map_err(Error::io("read", folder))?.count();
    if files != 1 {
        return Ok(Err(format!("it makes {files} files of one video")));
    }
    let read = InputFile::open(path)
        .and_then(|mut file| VideoReader::open_with(&mut file, false, Some(program)));
    match read {
        Ok(read) if read.info().times.len() > 1 => {}
        Ok(_) => return Ok(Err("it holds one picture".to_owned())),
        Err(_) => return Ok(Err("it cannot be read again".to_owned())),
    }
    let is_tagged = Foreign::open(program, path, false).is_ok_and(|back| back.is_tagged);
    if container.colour == Colours::Tagged && !is_tagged {
        container.colour = Colours::Untagged;
    }
    Ok(Ok(container))
}

/// Has the program write a few frames and a sound as it likes; what it said.
fn write_trial(
    program: &Path,
    path: &Path,
    ((width, height), fps): ((usize, usize), f64),
    ((colour, planes), resampled): ((Colours, &str), &str),
) -> Result<std::result::Result<String, String>> {
    let mut command = Command::new(program);
    command.args(["-hide_banner", "-nostdin", "-loglevel", "info", "-bitexact"]);
    command.args(["-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", &format!("{width}x{height}")]);
    command.args(["-r", &fps.to_string(), "-i", "pipe:0"]);
    let besides = tempfile::tempdir().map_err(Error::io("made", &std::env::temp_dir()))?;
    // Of a rate that few codecs of old know.
    let samples = Audio::pcm(vec![0.0; 9600], 16_000, 1);
    let samples = samples.map_err(|error| Error::content(program, error.to_string()))?;
    command.args(add_sound(&samples, besides.path())?);
    command.args(colour.args((width, height))).args(words(planes)).args(words(resampled));
    let mut out = std::ffi::OsString::from("file:");
    out.push(path);
    command.arg("-y").arg(out);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = start(&mut command, program)?;
    let said = heard(running.0.stderr.take());
    let input = running.0.stdin.take();
    let feeder = std::thread::spawn(move || {
        let Some(mut input) = input else { return };
        let frame = vec![0x80; width * height * 6];
        // Where the program reads no more it says why itself.
        let _ = (0..5).try_for_each(|_| input.write_all(&frame));
    });
    let ended = running.0.wait().map_err(Error::io("run", program))?;
    let _ = feeder.join();
    let said = said.join().unwrap_or_default();
    Ok(if ended.success() { Ok(said) } else { Err(said) })
}

/// The line that says why, of all that the program said: the first that a part of it says of the
/// output, behind what is said of the inputs.
pub(super) fn cause(log: &str) -> String {
    let of_output = log.rsplit_once("Stream mapping:").map_or(log, |(_, rest)| rest);
    let lines = || of_output.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find(|line| line.starts_with('[') && !line.contains("Error"));
    let line = line.or_else(|| lines().next_back()).unwrap_or_default();
    let said = line.split_once("] ").map_or(line, |(_, said)| said);
    said.chars().take(300).collect()
}

/// What the program chose, by what it says of its output (`Output #0, mpegts, to '…':` and
/// `Stream #0:0: Video: mpeg2video (Main), …`); none where there is no video in it.
fn container_of(log: &str, extension: &str) -> Option<Container> {
    let mut lines = log.lines().skip_while(|line| !line.starts_with("Output #0, "));
    let head = lines.next()?.strip_prefix("Output #0, ")?;
    let muxer = head.split_once(", to ")?.0.to_owned();
    let codec = |line: &str, kind: &str| -> Option<String> {
        let (_, rest) = line.trim().strip_prefix("Stream #0:")?.split_once(kind)?;
        let name = rest.split([' ', ',']).find(|word| !word.is_empty())?;
        Some(name.to_owned())
    };
    let streams: Vec<&str> = lines.collect();
    let of = |kind: &str| streams.iter().find_map(|line| codec(line, kind));
    let video = of(" Video: ")?;
    let sound = of(" Audio: ").map(|sound| match AAC_MUXERS.contains(&&*muxer) || sound == "aac" {
        true => SoundRule::Keep(Vec::new()),
        false => SoundRule::Encode(Vec::new()),
    });
    let quality = QUALITY.iter().find(|(codecs, _)| codecs.contains(&&*video));
    let colour = Colours::Tagged;
    let video = quality.map(|(_, args)| words(args)).unwrap_or_default();
    let (extension, has_fixed_rates) = (extension.to_owned(), false);
    Some(Container { extension, muxer, colour, video, sound, has_fixed_rates })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_has_one_rule() {
        for (extension, ..) in RULES {
            let known = ForeignFormat::known(extension).unwrap();
            assert_eq!(known.extension(), extension);
        }
        assert!(ForeignFormat::known("mp4").is_none());
        assert!(!ForeignFormat::known("gif").unwrap().holds_sound());
    }

    #[test]
    fn what_the_program_chose_is_told_by_its_log() {
        let log = "Input #0, rawvideo, from 'pipe:0':\n  Stream #0:0: Video: rawvideo, rgb48le\n\
                   Output #0, mpegts, to 'file:/tmp/a.ts':\n  Metadata:\n    encoder : Lavf\n  \
                   Stream #0:0: Video: mpeg2video (Main), yuv420p(tv), 352x288, q=2-31\n  \
                   Stream #0:1: Audio: mp2, 48000 Hz, stereo, s16, 384 kb/s\n";
        let container = container_of(log, "ts").unwrap();
        assert_eq!((&*container.muxer, container.video.join(" ")), ("mpegts", "-q:v 2".to_owned()));
        assert!(matches!(container.sound, Some(SoundRule::Keep(_))));
        let silent = container_of(&log.replace("Audio", "Data"), "ts").unwrap();
        assert!(silent.sound.is_none());
        assert!(
            container_of(&log.replace("#0:0: Video: mpeg2", "#0:0: Data: mpeg2"), "ts").is_none()
        );
    }

    #[test]
    fn rates_become_those_of_television() {
        assert_eq!(fixed_rate(8.0), (24, 1));
        assert_eq!(fixed_rate(10.0), (30, 1));
        assert_eq!(fixed_rate(25.0), (25, 1));
        assert_eq!(fixed_rate(16.0), (24_000, 1001));
        assert_eq!(fixed_rate(29.97), (30_000, 1001));
        assert_eq!(fixed_rate(120.0), (60, 1));
    }

    #[test]
    fn of_all_that_is_said_the_cause_is_taken() {
        let log = "Stream mapping:\n[mpeg1video @ 0x5] MPEG-1/2 does not support 5/1 fps\n\
                   [vost#0:0 @ 0x5] Error while opening encoder\nConversion failed!\n";
        assert_eq!(cause(log), "MPEG-1/2 does not support 5/1 fps");
        assert_eq!(cause("Conversion failed!\n"), "Conversion failed!");
    }
}
