//! Sound through a program `ffmpeg`: that of other containers and codecs becomes AAC, and so do
//! samples that go into a file which holds none. AAC is passed on as it is, whatever it is in.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use kino_node::Audio;

use super::aac::{SoundTrack, sound_of};
use super::demux::tracks;
use super::ffmpeg::{LOOK, Running, command, heard, is_aac, last_line, start, version};
use crate::{Error, InputFile, Result};

/// What AAC that is encoded here takes, for two channels.
const RATE: &str = "192k";

/// Sound of a file that the program can read.
#[derive(Debug)]
pub(super) struct ForeignSound {
    program: PathBuf,
    path: PathBuf,
    /// Whether it is AAC, which is passed on.
    is_aac: bool,
    /// Which program it is.
    pub(super) version: String,
}

impl ForeignSound {
    /// Of a file that was looked at.
    pub(super) fn new(program: &Path, path: &Path, is_aac: bool, version: String) -> Self {
        ForeignSound { program: program.to_owned(), path: path.to_owned(), is_aac, version }
    }

    /// What the program says of a file.
    ///
    /// # Errors
    /// When it cannot be started, or finds no sound in the file.
    pub(super) fn open(program: &Path, path: &Path) -> Result<Self> {
        let version = version(program)?;
        let mut command = command(program, path, "info", None);
        command.args(["-map", "0:a:0", "-c", "copy", "-t", "0.1", "-f", "null", "-"]);
        let (ended, said) = run(&mut command, program, &mut || true)?.unwrap_or_default();
        match is_aac(&said).filter(|_| ended.is_some_and(|ended| ended.success())) {
            Some(is_aac) => Ok(ForeignSound::new(program, path, is_aac, version)),
            None => {
                let message = format!("`ffmpeg` finds no sound in it ({})", last_line(&said));
                Err(Error::content(path, message))
            }
        }
    }

    /// Reads it, by the clock of its file; none where nobody waits for it any more.
    ///
    /// # Errors
    /// When the program fails.
    pub(super) fn read(&self, is_wanted: &mut dyn FnMut() -> bool) -> Result<Option<Audio>> {
        let mut command = command(&self.program, &self.path, "error", None);
        command.args(["-copyts", "-map", "0:a:0", "-vn", "-sn", "-dn", "-map_metadata", "-1"]);
        match self.is_aac {
            true => command.args(["-c:a", "copy"]),
            false => command.args(["-c:a", "aac", "-b:a", RATE]),
        };
        through(&mut command, &self.program, &self.path, None, is_wanted)
    }
}

/// Samples as AAC, of the same length; none where nobody waits for it any more.
///
/// # Errors
/// When the program fails.
pub fn encode_aac(
    program: &Path,
    sound: &Audio,
    is_wanted: &mut dyn FnMut() -> bool,
) -> Result<Option<Audio>> {
    let failed = |error: kino_node::Error| Error::content(program, error.to_string());
    let samples = sound.data.flatten_all().and_then(|all| all.to_vec1::<f32>());
    let samples = samples.map_err(|error| failed(error.into()))?;
    let mut command = Command::new(program);
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-f", "f32le"]);
    command.args(["-ar", &sound.rate.to_string(), "-ac", &sound.channels.to_string()]);
    command.args(["-i", "pipe:0", "-c:a", "aac", "-b:a", RATE]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let encoded = through(&mut command, program, program, Some(&samples), is_wanted)?;
    let Some(mut encoded) = encoded else { return Ok(None) };
    // Its file says lengths in thousandths of a second; here they are known to the sample.
    let ticks = u128::from(sound.ticks()) * u128::from(encoded.rate) / u128::from(sound.rate);
    if let [part] = &mut encoded.parts[..] {
        let own = encoded.packets.iter().map(|packet| u64::from(packet.duration)).sum::<u64>();
        part.ticks = (ticks as u64).min(own.saturating_sub(part.skip));
    }
    Ok(Some(encoded))
}

/// Runs the program, which writes a file of AAC, and reads that.
fn through(
    command: &mut Command,
    program: &Path,
    path: &Path,
    samples: Option<&[f32]>,
    is_wanted: &mut dyn FnMut() -> bool,
) -> Result<Option<Audio>> {
    let folder = tempfile::tempdir().map_err(Error::io("made", std::env::temp_dir().as_path()))?;
    let out = folder.path().join("sound.m4a");
    let mut name = std::ffi::OsString::from("file:");
    name.push(&out);
    command.args(["-f", "ipod", "-y"]).arg(name);
    let ran = match samples {
        None => run(command, program, is_wanted)?,
        Some(samples) => feed(command, program, samples, is_wanted)?,
    };
    let Some((ended, said)) = ran else { return Ok(None) };
    if !ended.is_some_and(|ended| ended.success()) {
        let message = format!("`ffmpeg` made no AAC of it ({})", last_line(&said));
        return Err(Error::content(path, message));
    }
    let mut file = InputFile::open(&out)?;
    let length = file.stamp().length;
    let refused = |message: String| Error::content(path, format!("what ffmpeg made: {message}"));
    let mut tracks = tracks(&mut file).map_err(refused)?;
    match sound_of(&mut tracks, length).map_err(refused)? {
        SoundTrack::Aac(track) => track.read(&mut file, is_wanted).map_err(Error::io("read", &out)),
        SoundTrack::None => Audio::none().map(Some).map_err(|error| refused(error.to_string())),
        SoundTrack::Other(found) => Err(refused(format!("it is {found}"))),
    }
}

/// How the program ended and what it said; none where nobody waits for it any more.
type Ran = Option<(Option<ExitStatus>, String)>;

/// Runs the program to its end.
fn run(command: &mut Command, program: &Path, is_wanted: &mut dyn FnMut() -> bool) -> Result<Ran> {
    command.stdout(Stdio::null());
    wait(start(command, program)?, program, is_wanted)
}

/// Runs the program with samples as its input.
fn feed(
    command: &mut Command,
    program: &Path,
    samples: &[f32],
    is_wanted: &mut dyn FnMut() -> bool,
) -> Result<Ran> {
    let mut running = start(command, program)?;
    let input = running.0.stdin.take();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let Some(mut input) = input else { return };
            for piece in samples.chunks(1 << 16) {
                let bytes: Vec<u8> = piece.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                // Where the program reads no more it says why itself.
                if input.write_all(&bytes).is_err() {
                    return;
                }
            }
        });
        // When it is killed, its input breaks, and the thread ends.
        wait(running, program, is_wanted)
    })
}

fn wait(mut running: Running, program: &Path, is_wanted: &mut dyn FnMut() -> bool) -> Result<Ran> {
    let said = heard(running.0.stderr.take());
    let ended = loop {
        if let Some(ended) = running.0.try_wait().map_err(Error::io("run", program))? {
            break ended;
        }
        if !is_wanted() {
            return Ok(None);
        }
        std::thread::sleep(LOOK / 5);
    };
    Ok(Some((Some(ended), said.join().unwrap_or_default())))
}
