//! Videos out through a program `ffmpeg`: containers that are not written here, each with one
//! documented form of video and sound. Frames go over a pipe, 16 bits a channel; the file appears
//! whole or not at all, and the program is ended when nobody wants the file any more.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use kino_node::{Audio, AudioForm, Cancel};
use tempfile::TempDir;

use super::ffmpeg::{LOOK, Running, heard, last_line, start, version};
use super::mp4::{Chunk, SoundTrack, file_type, movie, timing};
use super::writer::{VideoSpec, VideoWriter, wide_bytes};
use crate::{AtomicFile, Error, Result};

/// A container that the program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForeignFormat {
    /// VP9 and Opus.
    WebM,
    /// FFV1 of 10 bits, without loss.
    Matroska,
    /// ProRes 422 HQ.
    QuickTime,
    /// A palette a frame; no sound.
    Gif,
    /// Motion JPEG and PCM.
    Avi,
}

/// How one container is written.
struct Rule {
    format: ForeignFormat,
    extension: &'static str,
    muxer: &'static str,
    /// The colours of the frames, and what else becomes of them.
    colour: &'static [&'static str],
    video: &'static [&'static str],
    /// What becomes of the sound; none where there can be none.
    sound: Option<SoundRule>,
}

/// What becomes of sound.
enum SoundRule {
    /// AAC stays as it is, PCM becomes this.
    Keep(&'static [&'static str]),
    /// All becomes this.
    Encode(&'static [&'static str]),
}

/// Limited range and the matrix of BT.709, and tags that say so.
const BT709: &[&str] = &[
    "-vf",
    "scale=out_color_matrix=bt709:out_range=tv",
    "-colorspace",
    "bt709",
    "-color_primaries",
    "bt709",
    "-color_trc",
    "bt709",
    "-color_range",
    "tv",
];

static RULES: &[Rule] = &[
    Rule {
        format: ForeignFormat::WebM,
        extension: "webm",
        muxer: "webm",
        colour: BT709,
        video: &[
            "-c:v",
            "libvpx-vp9",
            "-crf",
            "18",
            "-b:v",
            "0",
            "-row-mt",
            "1",
            "-pix_fmt",
            "yuv420p",
        ],
        sound: Some(SoundRule::Encode(&["-c:a", "libopus", "-b:a", "160k"])),
    },
    Rule {
        format: ForeignFormat::Matroska,
        extension: "mkv",
        muxer: "matroska",
        colour: &[],
        video: &["-c:v", "ffv1", "-level", "3", "-pix_fmt", "gbrp10le"],
        sound: Some(SoundRule::Keep(&["-c:a", "flac"])),
    },
    Rule {
        format: ForeignFormat::QuickTime,
        extension: "mov",
        muxer: "mov",
        colour: BT709,
        video: &[
            "-c:v",
            "prores_ks",
            "-profile:v",
            "3",
            "-vendor",
            "apl0",
            "-pix_fmt",
            "yuv422p10le",
            "-movflags",
            "use_metadata_tags",
        ],
        sound: Some(SoundRule::Keep(&["-c:a", "pcm_s24le"])),
    },
    Rule {
        format: ForeignFormat::Gif,
        extension: "gif",
        muxer: "gif",
        colour: &[],
        video: &[
            "-vf",
            "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1",
            "-loop",
            "0",
        ],
        sound: None,
    },
    Rule {
        format: ForeignFormat::Avi,
        extension: "avi",
        muxer: "avi",
        colour: &["-vf", "scale=out_color_matrix=bt601:out_range=pc"],
        video: &["-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p"],
        sound: Some(SoundRule::Encode(&["-c:a", "pcm_s16le"])),
    },
];

impl ForeignFormat {
    /// The container that an ending names.
    pub(super) fn of(extension: &str) -> Option<Self> {
        RULES.iter().find(|rule| rule.extension == extension).map(|rule| rule.format)
    }

    /// Its ending, without the dot.
    pub fn extension(self) -> &'static str {
        self.rule().extension
    }

    /// Whether it holds sound.
    pub fn holds_sound(self) -> bool {
        self.rule().sound.is_some()
    }

    fn rule(self) -> &'static Rule {
        RULES.iter().find(|rule| rule.format == self).unwrap_or(&RULES[0])
    }

    /// Tries whether the program writes this container for frames of such a size: two small frames
    /// of the same parity. What it says of its version.
    ///
    /// # Errors
    /// When it cannot be started, or was built without what that takes.
    pub fn check(self, program: &Path, (width, height): (usize, usize)) -> Result<String> {
        /// What was found to work: trying takes a tenth of a second, and plans are made often.
        static WORKS: Mutex<BTreeSet<(String, ForeignFormat, bool, bool)>> =
            Mutex::new(BTreeSet::new());
        let version = version(program)?;
        let key =
            (format!("{} {version}", program.display()), self, width % 2 == 1, height % 2 == 1);
        if WORKS.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Ok(version);
        }
        let folder = tempfile::tempdir().map_err(Error::io("made", &std::env::temp_dir()))?;
        let path = folder.path().join(format!("try.{}", self.extension()));
        let (width, height) = (64 + width % 2, 48 + height % 2);
        let samples = Audio::pcm(vec![0.0; 9600], 48_000, 2);
        let samples = samples.map_err(|error| Error::content(program, error.to_string()))?;
        let spec = VideoSpec {
            width,
            height,
            count: 2,
            fps: 10.0,
            audio: self.holds_sound().then_some(&samples),
            ffmpeg: Some(program),
            ..VideoSpec::default()
        };
        let mut writer = ForeignWriter::create(&path, &spec, self)?;
        let frame = vec![0.5; width * height * 3];
        let tried = writer.push(&frame).and_then(|()| writer.push(&frame));
        let tried = tried.and_then(|()| Box::new(writer).finish());
        tried.map_err(|error| {
            let message = format!("this ffmpeg cannot write .{}: {error}", self.extension());
            Error::refused(message, "use a build of ffmpeg that has the encoder, or write .mp4")
        })?;
        WORKS.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        Ok(version)
    }
}

/// A file that the program writes.
pub(super) struct ForeignWriter {
    /// Dropped before the file, so that nobody writes what is removed.
    running: Running,
    program: PathBuf,
    /// Frames on their way; none once all are there.
    frames: Option<SyncSender<Vec<u8>>>,
    feeder: Option<JoinHandle<()>>,
    said: Option<JoinHandle<String>>,
    file: AtomicFile,
    size: (usize, usize),
    cancel: Cancel,
    /// What else the program reads.
    _besides: TempDir,
}

impl ForeignWriter {
    pub(super) fn create(path: &Path, spec: &VideoSpec<'_>, format: ForeignFormat) -> Result<Self> {
        let Some(program) = spec.ffmpeg else {
            return Err(Error::refused(
                format!("{}: .{} is written through `ffmpeg`", path.display(), format.extension()),
                "put `ffmpeg` on the PATH, or name it with `kino config set ffmpeg PATH`",
            ));
        };
        let rule = format.rule();
        let file = AtomicFile::create(path)?;
        let besides = tempfile::tempdir().map_err(Error::io("made", &std::env::temp_dir()))?;
        let (ticks, delta) = timing(spec.fps);
        let mut command = Command::new(program);
        command.args(["-hide_banner", "-nostdin", "-loglevel", "error"]);
        command.args(["-f", "rawvideo", "-pix_fmt", "rgb48le"]);
        command.args(["-s", &format!("{}x{}", spec.width, spec.height)]);
        command.args(["-r", &format!("{ticks}/{delta}"), "-i", "pipe:0"]);
        let (mut inputs, mut maps) = (1, vec!["-map".to_owned(), "0:v".to_owned()]);
        // Of AAC that is silence alone there is nothing to hand on.
        let is_heard = |sound: &&Audio| {
            !sound.is_none() && (sound.form == AudioForm::Pcm || !sound.packets.is_empty())
        };
        if let Some(sound) = spec.audio.filter(is_heard)
            && let Some(rule) = &rule.sound
        {
            let shown = spec.count as u128 * u128::from(delta) * u128::from(sound.rate);
            let most = u64::try_from(shown / u128::from(ticks.max(1))).unwrap_or(u64::MAX);
            let failed = |error: kino_node::Error| Error::content(path, error.to_string());
            let sound = sound.slice(0, most).map_err(failed)?;
            let is_aac = !sound.packets.is_empty();
            command.args(add_sound(&sound, besides.path())?);
            maps.extend(["-map".to_owned(), format!("{inputs}:a")]);
            inputs += 1;
            maps.extend(match rule {
                SoundRule::Keep(_) if is_aac => vec!["-c:a".to_owned(), "copy".to_owned()],
                SoundRule::Keep(args) | SoundRule::Encode(args) => {
                    args.iter().map(|arg| (*arg).to_owned()).collect()
                }
            });
        }
        if let Some(text) = spec.metadata {
            let place = besides.path().join("metadata.txt");
            std::fs::write(&place, described(text)).map_err(Error::io("written", &place))?;
            command.args(["-f", "ffmetadata", "-i"]).arg(&place);
            maps.extend(["-map_metadata".to_owned(), inputs.to_string()]);
        }
        command.args(maps).args(rule.colour).args(rule.video).args(["-f", rule.muxer, "-y"]);
        let mut out = std::ffi::OsString::from("file:");
        let place = std::path::absolute(file.place()).map_err(Error::io("written", path))?;
        out.push(place);
        command.arg(out);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = start(&mut command, program)?;
        let said = Some(heard(running.0.stderr.take()));
        let (frames, take) = sync_channel::<Vec<u8>>(1);
        let input = running.0.stdin.take();
        let feeder = std::thread::spawn(move || {
            let Some(mut input) = input else { return };
            // Where the program reads no more it says why itself.
            while let Ok(bytes) = take.recv() {
                if input.write_all(&bytes).is_err() {
                    return;
                }
            }
        });
        Ok(ForeignWriter {
            running,
            program: program.to_owned(),
            frames: Some(frames),
            feeder: Some(feeder),
            said,
            file,
            size: (spec.width, spec.height),
            cancel: spec.cancel.cloned().unwrap_or_default(),
            _besides: besides,
        })
    }

    /// Ends the program, and says what it said.
    fn failed(&mut self, message: &str) -> Error {
        let _ = self.running.0.kill();
        self.frames = None;
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        let said = last_line(&said);
        let message =
            if said.is_empty() { message.to_owned() } else { format!("{message} ({said})") };
        Error::content(self.file.target(), message)
    }
}

impl VideoWriter for ForeignWriter {
    fn push(&mut self, frame: &[f32]) -> Result<()> {
        // The program reads the lower byte first.
        let mut bytes = wide_bytes(frame, self.size)?;
        bytes.chunks_exact_mut(2).for_each(|two| two.swap(0, 1));
        loop {
            let Some(frames) = &self.frames else {
                return Err(self.failed("`ffmpeg` reads no more frames"));
            };
            match frames.try_send(bytes) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => {
                    return Err(self.failed("`ffmpeg` ended before all frames were there"));
                }
                Err(TrySendError::Full(back)) => bytes = back,
            }
            if self.cancel.is_cancelled() {
                return Err(self.failed("it was cancelled"));
            }
            std::thread::sleep(LOOK / 25);
        }
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<PathBuf>> {
        // The end of its input, once what is on its way is there.
        self.frames = None;
        let ended = loop {
            let ended = self.running.0.try_wait().map_err(Error::io("run", &self.program))?;
            if let Some(ended) = ended {
                break ended;
            }
            if self.cancel.is_cancelled() {
                return Err(self.failed("it was cancelled"));
            }
            std::thread::sleep(LOOK / 10);
        };
        let _ = self.feeder.take().map(JoinHandle::join);
        if !ended.success() {
            return Err(self.failed("`ffmpeg` failed"));
        }
        let ForeignWriter { file, .. } = *self;
        Ok(vec![file.finish()?])
    }
}

/// Puts a sound into a file of its own, and says how the program reads that.
fn add_sound(sound: &Audio, folder: &Path) -> Result<Vec<String>> {
    let place = folder.join(if sound.packets.is_empty() { "sound.f32" } else { "sound.m4a" });
    let failed = |error: &dyn std::fmt::Display| Error::content(&place, error.to_string());
    let name = place.to_str().ok_or_else(|| failed(&"the folder of temporary files is no text"))?;
    let (bytes, mut args) = if sound.packets.is_empty() {
        let samples = sound.data.flatten_all().and_then(|all| all.to_vec1::<f32>());
        let samples = samples.map_err(|error| failed(&error))?;
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let (rate, channels) = (sound.rate.to_string(), sound.channels.to_string());
        let args = ["-f", "f32le", "-ar", &rate, "-ac", &channels].map(str::to_owned);
        (bytes, args.to_vec())
    } else {
        (sound_file(sound).map_err(|error| failed(&error))?, Vec::new())
    };
    std::fs::write(&place, bytes).map_err(Error::io("written", &place))?;
    args.extend(["-i".to_owned(), name.to_owned()]);
    Ok(args)
}

/// A sound of AAC as an m4a file.
fn sound_file(sound: &Audio) -> kino_node::Result<Vec<u8>> {
    let data = sound.bytes_of_packets()?;
    let head = file_type();
    let samples = sound.packets.len() as u32;
    let track =
        |offset| SoundTrack { sound: sound.clone(), chunks: vec![Chunk { offset, samples }] };
    let tables = movie(None, Some(&track(0)), None).len();
    let offset = (head.len() + tables) as u64 + 16;
    let tables = movie(None, Some(&track(offset)), None);
    let length = (data.len() as u64 + 16).to_be_bytes();
    Ok([&head[..], &tables, &1u32.to_be_bytes(), b"mdat", &length, &data].concat())
}

/// A text as the program reads it (`ffmetadata`): what has a meaning there is escaped.
fn described(text: &str) -> String {
    let mut file = String::from(";FFMETADATA1\ncomment=");
    for c in text.chars() {
        if matches!(c, '=' | ';' | '#' | '\\' | '\n') {
            file.push('\\');
        }
        file.push(c);
    }
    file.push('\n');
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_has_one_rule() {
        for rule in RULES {
            assert_eq!(ForeignFormat::of(rule.extension), Some(rule.format));
            assert_eq!(rule.format.extension(), rule.extension);
        }
        assert_eq!(ForeignFormat::of("mp4"), None);
    }

    #[test]
    fn what_has_a_meaning_in_descriptions_is_escaped() {
        assert_eq!(described("a=b\n;#\\"), ";FFMETADATA1\ncomment=a\\=b\\\n\\;\\#\\\\\n");
    }
}
