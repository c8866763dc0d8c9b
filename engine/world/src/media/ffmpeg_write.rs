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

use super::ffmpeg::{LOOK, Running, heard, start, version};
use super::ffmpeg_format::{ForeignFormat, SoundRule, cause, fixed_rate};
use super::ffmpeg_inputs::{add_sound, described};
use super::mp4::timing;
use super::writer::{VideoSpec, VideoWriter, wide_bytes};
use crate::{AtomicFile, Error, Result};

impl ForeignFormat {
    /// Tries whether the program writes this container for frames of such a size: two frames, of
    /// the same parity where it is a container of any size, at the rate, if that is known. What it
    /// says of its version.
    ///
    /// # Errors
    /// When it cannot be started, or was built without what that takes.
    pub fn check(&self, program: &Path, size: (usize, usize), fps: Option<f64>) -> Result<String> {
        /// Program, ending, width, height and rate.
        type Tried = (String, String, usize, usize, u64);
        /// What was found to work: trying takes a tenth of a second, and plans are made often.
        static WORKS: Mutex<BTreeSet<Tried>> = Mutex::new(BTreeSet::new());
        let version = version(program)?;
        let is_known = self.is_known();
        let (width, height) = match is_known {
            true => (64 + size.0 % 2, 48 + size.1 % 2),
            // Codecs may take few sizes, so it is that of the frames.
            false => size,
        };
        let fps = fps.unwrap_or(8.0);
        let key = (
            format!("{} {version}", program.display()),
            self.0.extension.clone(),
            width,
            height,
            fps.to_bits(),
        );
        if WORKS.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Ok(version);
        }
        let folder = tempfile::tempdir().map_err(Error::io("made", &std::env::temp_dir()))?;
        let path = folder.path().join(format!("try.{}", self.extension()));
        let samples = Audio::pcm(vec![0.0; 9600], 48_000, 2);
        let samples = samples.map_err(|error| Error::content(program, error.to_string()))?;
        let spec = VideoSpec {
            width,
            height,
            count: 2,
            fps,
            audio: self.holds_sound().then_some(&samples),
            ffmpeg: Some(program),
            ..VideoSpec::default()
        };
        let mut writer = ForeignWriter::create(&path, &spec, self)?;
        let frame = vec![0.5; width * height * 3];
        let tried = writer.push(&frame).and_then(|()| writer.push(&frame));
        let tried = tried.and_then(|()| Box::new(writer).finish());
        tried.map_err(|error| {
            let extension = self.extension();
            let message = match is_known {
                true => format!("this ffmpeg cannot write .{extension}: {error}"),
                false => format!(
                    "this ffmpeg cannot write frames of {width}x{height}, {fps} a second, as \
                     .{extension}: {error}"
                ),
            };
            Error::refused(
                message,
                "use a build of ffmpeg that has the encoder, another size or rate, or write .mp4",
            )
        })?;
        let mut works = WORKS.lock().unwrap_or_else(PoisonError::into_inner);
        if works.len() >= 1024 {
            works.clear();
        }
        works.insert(key);
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
    pub(super) fn create(
        path: &Path,
        spec: &VideoSpec<'_>,
        format: &ForeignFormat,
    ) -> Result<Self> {
        let Some(program) = spec.ffmpeg else {
            return Err(Error::refused(
                format!("{}: .{} is written through `ffmpeg`", path.display(), format.extension()),
                "put `ffmpeg` on the PATH, or name it with `kino config set ffmpeg PATH`",
            ));
        };
        let rule = &*format.0;
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
                SoundRule::Keep(args) | SoundRule::Encode(args) => args.clone(),
            });
        }
        if let Some(text) = spec.metadata {
            let place = besides.path().join("metadata.txt");
            std::fs::write(&place, described(text)).map_err(Error::io("written", &place))?;
            command.args(["-f", "ffmetadata", "-i"]).arg(&place);
            maps.extend(["-map_metadata".to_owned(), inputs.to_string()]);
        }
        command.args(maps).args(rule.colour.args((spec.width, spec.height))).args(&rule.video);
        if rule.has_fixed_rates {
            let (ticks, delta) = fixed_rate(spec.fps);
            command.args(["-r", &format!("{ticks}/{delta}")]);
        }
        command.args(["-f", &rule.muxer, "-y"]);
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
        let said = cause(&said);
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
