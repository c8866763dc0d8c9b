//! Sound in: a file's own, or that of a video. What a file is, its bytes say, not its name.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use kino_node::{Audio, AudioFact};

use super::aac::{AacTrack, SoundTrack, sound_of};
use super::demux::tracks;
use super::ffmpeg_audio::ForeignSound;
use super::wav::Wav;
use crate::{Error, InputFile, Result, looks_like};

/// What to do about sound that only other programs read.
const FOREIGN: &str = "put `ffmpeg` on the PATH or name it with `kino config set ffmpeg PATH`: then it \
                       is read through that; or convert it: ffmpeg -i IN -c:a aac OUT.m4a";

/// A file of sound whose tables were read.
#[derive(Debug)]
pub struct AudioReader {
    form: Form,
}

#[derive(Debug)]
enum Form {
    Aac(Box<AacTrack>),
    Wav(Wav),
    Foreign(ForeignSound),
}

/// The sound of a video.
#[derive(Debug)]
pub(super) enum VideoSound {
    None,
    Aac(Box<AacTrack>),
    Foreign(ForeignSound),
    /// What only other programs read, and there is none.
    Unreadable(String),
    /// What is damaged. That concerns nobody who reads the frames alone.
    Damaged(String),
}

fn foreign(path: &Path, message: String) -> Error {
    Error::content(path, message).advise(FOREIGN)
}

impl AudioReader {
    /// Reads the tables of a file of sound: AAC in m4a, mp4 and QuickTime, WAV; what else there is
    /// is read through a program `ffmpeg`, if one is given.
    ///
    /// # Errors
    /// When it holds no sound, is damaged or ends early, or only other programs read it and there
    /// is none.
    pub fn open(file: &mut InputFile, ffmpeg: Option<&Path>) -> Result<Self> {
        match (Self::open_own(file), ffmpeg) {
            (Err(error), Some(program)) if error.hint() == Some(FOREIGN) => {
                let form = Form::Foreign(ForeignSound::open(program, file.path())?);
                Ok(AudioReader { form })
            }
            (opened, _) => opened,
        }
    }

    fn open_own(file: &mut InputFile) -> Result<Self> {
        let path = file.path().to_owned();
        let mut start = [0; 12];
        file.seek(SeekFrom::Start(0)).map_err(Error::io("read", &path))?;
        let read = file.take(12).read(&mut start).map_err(Error::io("read", &path))?;
        let content = |message: String| Error::content(&path, message);
        let form = match &start[..read] {
            b"" => return Err(content("expected sound, found an empty file".to_owned())),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E'] => {
                Form::Wav(Wav::open(file).map_err(|message| {
                    // What is no fault of the file is left to others.
                    let is_fault = message.contains("damaged") || message.contains("early");
                    if is_fault { content(message) } else { foreign(&path, message) }
                })?)
            }
            [_, _, _, _, b'f', b't', b'y', b'p', ..]
            | [_, _, _, _, b'm', b'o', b'o', b'v', ..]
            | [_, _, _, _, b'm', b'd', b'a', b't', ..]
            | [_, _, _, _, b'w', b'i', b'd', b'e', ..]
            | [_, _, _, _, b'f', b'r', b'e', b'e', ..]
            | [_, _, _, _, b's', b'k', b'i', b'p', ..] => {
                let length = file.stamp().length;
                let mut tracks = tracks(file).map_err(|message| {
                    let is_foreign = message.contains("fragments");
                    if is_foreign { foreign(&path, message) } else { content(message) }
                })?;
                match sound_of(&mut tracks, length).map_err(content)? {
                    SoundTrack::Aac(track) => Form::Aac(track),
                    SoundTrack::None => return Err(content("it has no sound".to_owned())),
                    SoundTrack::Other(found) => {
                        let message = format!("its sound is {found}; AAC is read here");
                        return Err(foreign(&path, message));
                    }
                }
            }
            _ => match looks_like(&path) {
                // Texts may be lists that name other files.
                Some(found @ ("text" | "an empty file" | "a web page" | "a Git LFS pointer")) => {
                    return Err(content(format!("expected sound (m4a, mp4, WAV), found {found}")));
                }
                found => {
                    let found = found.unwrap_or("something else");
                    let message = format!("expected sound (m4a, mp4, WAV), found {found}");
                    return Err(foreign(&path, message));
                }
            },
        };
        Ok(AudioReader { form })
    }

    /// What is known of it; nothing of what is read through a program.
    pub fn fact(&self) -> Option<&AudioFact> {
        match &self.form {
            Form::Aac(track) => Some(track.fact()),
            Form::Wav(wav) => Some(wav.fact()),
            Form::Foreign(_) => None,
        }
    }

    /// The program that it is read through, by what that says of its version.
    pub fn program(&self) -> Option<&str> {
        match &self.form {
            Form::Foreign(foreign) => Some(&foreign.version),
            _ => None,
        }
    }

    /// Reads it; none where `is_wanted` says that nobody waits for it any more.
    ///
    /// # Errors
    /// When it cannot be read, or the program fails.
    pub fn read(
        &self,
        file: &mut InputFile,
        is_wanted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Audio>> {
        let path = file.path().to_owned();
        match &self.form {
            Form::Aac(track) => track.read(file, is_wanted).map_err(Error::io("read", &path)),
            Form::Wav(wav) => wav.read(file, is_wanted).map_err(Error::io("read", &path)),
            Form::Foreign(foreign) => foreign.read(is_wanted),
        }
    }
}

impl VideoSound {
    /// Of the tracks of a file.
    pub(super) fn of(tracks: &mut Vec<super::demux::Track>, file: &InputFile) -> Self {
        match sound_of(tracks, file.stamp().length) {
            Ok(SoundTrack::None) => VideoSound::None,
            Ok(SoundTrack::Aac(track)) => VideoSound::Aac(track),
            Ok(SoundTrack::Other(found)) => {
                VideoSound::Unreadable(format!("its sound is {found}; AAC is read here"))
            }
            Err(message) => VideoSound::Damaged(message),
        }
    }

    /// What is known of the sound from a time of the movie on, up to another; of what is read
    /// through a program nothing.
    ///
    /// # Errors
    /// When only other programs read it, and there is none.
    pub(super) fn fact(
        &self,
        path: &Path,
        from: f64,
        until: Option<f64>,
    ) -> Result<Option<AudioFact>> {
        match self {
            VideoSound::None => {
                let none =
                    Audio::none().map_err(|error| Error::content(path, error.to_string()))?;
                Ok(Some(kino_node::ValueType::fact(&none)))
            }
            VideoSound::Aac(track) => {
                let (before, start, ticks) = ticks(track.fact().rate, from, until);
                let fact = track.slice(start, ticks).fact().clone();
                let ticks = if fact.ticks > 0 { fact.ticks + before } else { 0 };
                Ok(Some(AudioFact { ticks, ..fact }))
            }
            VideoSound::Foreign(_) => Ok(None),
            VideoSound::Unreadable(message) => Err(foreign(path, message.clone())),
            VideoSound::Damaged(message) => Err(Error::content(path, message.clone())),
        }
    }

    /// Reads the sound from a time of the movie on, up to another; none where nobody waits for it
    /// any more.
    ///
    /// # Errors
    /// As [`VideoSound::fact`], and when it cannot be read or the program fails.
    pub(super) fn read(
        &self,
        file: &mut InputFile,
        (from, until): (f64, Option<f64>),
        is_wanted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Audio>> {
        let path = file.path().to_owned();
        let failed = |error: kino_node::Error| Error::content(&path, error.to_string());
        let (sound, before) = match self {
            VideoSound::None => return Audio::none().map(Some).map_err(failed),
            VideoSound::Aac(track) => {
                let (before, start, ticks) = ticks(track.fact().rate, from, until);
                let sound = track.slice(start, ticks).read(file, is_wanted);
                (sound.map_err(Error::io("read", &path))?, before)
            }
            VideoSound::Foreign(foreign) => {
                let Some(sound) = foreign.read(is_wanted)? else { return Ok(None) };
                let (before, start, ticks) = ticks(sound.rate, from, until);
                (Some(sound.slice(start, ticks).map_err(failed)?), before)
            }
            VideoSound::Unreadable(message) => return Err(foreign(&path, message.clone())),
            VideoSound::Damaged(message) => return Err(Error::content(&path, message.clone())),
        };
        match sound {
            Some(sound) if !sound.is_none() => sound.delayed(before).map(Some).map_err(failed),
            sound => Ok(sound),
        }
    }

    /// The program that it is read through.
    pub(super) fn program(&self) -> Option<&str> {
        match self {
            VideoSound::Foreign(foreign) => Some(&foreign.version),
            _ => None,
        }
    }
}

/// Times as ticks: silence before the movie begins, the first tick, and how many follow.
fn ticks(rate: u32, from: f64, until: Option<f64>) -> (u64, u64, u64) {
    let at = |seconds: f64| (seconds * f64::from(rate)).round() as i64;
    let (from, until) = (at(from), until.map_or(i64::MAX, at));
    let before = from.min(0).unsigned_abs();
    let start = from.max(0).unsigned_abs();
    (before, start, until.saturating_sub(from.max(0)).max(0).unsigned_abs())
}
