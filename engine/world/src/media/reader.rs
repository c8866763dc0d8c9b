//! Videos in: what is known of one before it is decoded, and its frames one after another. What a
//! file is, its bytes say, not its name.

use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;

use kino_node::{Audio, AudioFact};

use super::animated::{Animated, Animation};
use super::audio::VideoSound;
use super::avc::{AvcTrack, foreign, is_foreign};
use super::demux::tracks;
use super::ffmpeg::Foreign;
use super::ffmpeg_audio::ForeignSound;
use super::sink::FrameSink;
use super::timing::{Timing, VideoInfo};
use crate::{Error, InputFile, Result, looks_like};

/// A video whose tables were read.
pub struct VideoReader {
    info: VideoInfo,
    form: Form,
    sound: VideoSound,
    /// When the first frame is shown by the clock of the file, in seconds.
    begin: f64,
}

enum Form {
    #[cfg_attr(not(feature = "h264"), expect(dead_code, reason = "nothing decodes it"))]
    Avc(Box<AvcTrack>),
    Animation(Animation),
    /// Through a program `ffmpeg`.
    Foreign(Box<Foreign>),
    /// An image: one frame.
    Still,
}

impl VideoReader {
    /// Reads the tables of a video: mp4 and QuickTime with H.264, GIF, WebP, PNG; with `tone_map`
    /// also of HDR.
    ///
    /// # Errors
    /// When it is something else, is damaged or ends early, or has colours that frames cannot hold.
    pub fn open(file: &mut InputFile, tone_map: bool) -> Result<Self> {
        Self::open_with(file, tone_map, None)
    }

    /// As [`VideoReader::open`]; what it does not know is read through a program `ffmpeg`, if one
    /// is given ([`find_ffmpeg`](super::find_ffmpeg) looks for it).
    ///
    /// # Errors
    /// As [`VideoReader::open`], and when the program fails.
    pub fn open_with(file: &mut InputFile, tone_map: bool, ffmpeg: Option<&Path>) -> Result<Self> {
        match (Self::open_own(file, tone_map, ffmpeg), ffmpeg) {
            (Err(error), Some(program)) if is_foreign(&error) => {
                let foreign = Foreign::open(program, file.path(), tone_map)?;
                let info = foreign.timing.info(foreign.size, foreign.memory());
                let (begin, version) = (foreign.begin, foreign.version.clone());
                let sound = foreign.sound.map_or(VideoSound::None, |is_aac| {
                    VideoSound::Foreign(ForeignSound::new(program, file.path(), is_aac, version))
                });
                Ok(VideoReader { info, form: Form::Foreign(Box::new(foreign)), sound, begin })
            }
            (opened, _) => opened,
        }
    }

    fn open_own(file: &mut InputFile, tone_map: bool, ffmpeg: Option<&Path>) -> Result<Self> {
        let path = file.path().to_owned();
        let mut start = [0; 12];
        let failed = |error| Error::io("read", &path)(error);
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let read = file.take(12).read(&mut start).map_err(failed)?;
        match &start[..read] {
            b"" => Err(Error::content(&path, "expected a video, found an empty file")),
            [b'G', b'I', b'F', b'8', ..] => Self::animation(file, Animation::Gif),
            [0x89, b'P', b'N', b'G', ..] => Self::animation(file, Animation::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => {
                Self::animation(file, Animation::WebP)
            }
            [_, _, _, _, b'f', b't', b'y', b'p', ..]
            | [_, _, _, _, b'm', b'o', b'o', b'v', ..]
            | [_, _, _, _, b'm', b'd', b'a', b't', ..]
            | [_, _, _, _, b'w', b'i', b'd', b'e', ..]
            | [_, _, _, _, b'f', b'r', b'e', b'e', ..]
            | [_, _, _, _, b's', b'k', b'i', b'p', ..] => Self::movie(file, tone_map, ffmpeg),
            other => Err(unknown(&path, other)),
        }
    }

    fn movie(file: &mut InputFile, tone_map: bool, ffmpeg: Option<&Path>) -> Result<Self> {
        let path = file.path().to_owned();
        let mut tracks = tracks(file).map_err(|message| {
            if message.contains("fragments") {
                foreign(&path, message)
            } else {
                Error::content(&path, message)
            }
        })?;
        let sound = VideoSound::of(&mut tracks, file);
        let track = AvcTrack::open(file, tracks, tone_map)?;
        let sound = match (sound, ffmpeg) {
            (VideoSound::Unreadable(_), Some(program)) => {
                VideoSound::Foreign(ForeignSound::open(program, &path)?)
            }
            (sound, _) => sound,
        };
        let info = track.timing().info(track.size(), track.memory());
        let begin = track.timeline.begin as f64 / f64::from(track.track.timescale);
        Ok(VideoReader { info, form: Form::Avc(Box::new(track)), sound, begin })
    }

    fn animation(file: &mut InputFile, form: Animation) -> Result<Self> {
        let path = file.path().to_owned();
        let scanned = form.scan(file).map_err(|message| Error::content(&path, message))?;
        let bytes = |(width, height): (usize, usize), pixel: usize| (width * height * pixel) as u64;
        match scanned {
            Some(Animated { size, timing }) => {
                let pixel = match form {
                    // The canvas, and a decoded frame.
                    Animation::Gif | Animation::Png => 16 + 8,
                    // The decoder's canvas, a frame of it, planes and what they are made of.
                    Animation::WebP => 44,
                };
                let info = timing.info(size, bytes(size, pixel));
                Ok(Self::silent(info, Form::Animation(form)))
            }
            None => {
                let size = file.image_size()?;
                let info = Timing::still().info(size, bytes(size, 12));
                Ok(Self::silent(info, Form::Still))
            }
        }
    }

    /// What has no sound.
    fn silent(info: VideoInfo, form: Form) -> Self {
        VideoReader { info, form, sound: VideoSound::None, begin: 0.0 }
    }

    /// The program that it or its sound is read through, by what that says of its version; none
    /// where it is read without one. Another may give other numbers.
    pub fn program(&self) -> Option<&str> {
        match &self.form {
            Form::Foreign(foreign) => Some(&foreign.version),
            _ => self.sound.program(),
        }
    }

    /// What is known of its sound from one time on, up to another, in seconds from its first frame
    /// on: a sound of no length where it has none. Nothing is known of what is read through a
    /// program.
    ///
    /// # Errors
    /// When only other programs read it, and none was given.
    pub fn sound(
        &self,
        file: &InputFile,
        from: f64,
        until: Option<f64>,
    ) -> Result<Option<AudioFact>> {
        let until = until.map(|until| self.begin + until);
        self.sound.fact(file.path(), self.begin + from, until)
    }

    /// Reads its sound from one time on, up to another, in seconds from its first frame on; none
    /// where `is_wanted` says that nobody waits for it any more.
    ///
    /// # Errors
    /// As [`VideoReader::sound`], and when it cannot be read.
    pub fn read_sound(
        &self,
        file: &mut InputFile,
        (from, until): (f64, Option<f64>),
        is_wanted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Audio>> {
        let until = until.map(|until| self.begin + until);
        self.sound.read(file, (self.begin + from, until), is_wanted)
    }

    /// What is known of it.
    pub fn info(&self) -> &VideoInfo {
        &self.info
    }

    /// Decodes the frames of these indices, which rise, and no more than they need: from the key
    /// frame before the first one on, or from the beginning of an animation.
    ///
    /// # Errors
    /// When what is needed is damaged or ends early.
    pub fn read(
        &self,
        file: &mut InputFile,
        frames: &[usize],
        sink: &mut dyn FrameSink,
    ) -> Result<()> {
        let (Some(&first), Some(&last)) = (frames.first(), frames.last()) else { return Ok(()) };
        let rises = frames.windows(2).all(|pair| pair[0] < pair[1]);
        if !rises || last >= self.info.times.len() {
            return Err(Error::refused("frames are read by rising indices of the file", ""));
        }
        let path = file.path().to_owned();
        match &self.form {
            #[cfg(feature = "h264")]
            Form::Avc(track) => super::decode::decode(file, track, frames, sink),
            #[cfg(not(feature = "h264"))]
            Form::Avc(_) => Err(Error::refused(
                format!("{}: this build cannot read H.264", path.display()),
                "build with the feature `h264`",
            )),
            Form::Foreign(foreign) => foreign.read(frames, sink),
            Form::Animation(form) => {
                let mut wanted = frames.iter().peekable();
                let mut each = |index: usize, rgb: Vec<f32>| match wanted.next_if(|w| **w == index)
                {
                    Some(_) => sink.frame(index, rgb),
                    None if sink.is_wanted() => ControlFlow::Continue(()),
                    None => ControlFlow::Break(()),
                };
                let drawn = form.draw(file, (first, last), &mut each);
                drawn.map_err(|message| Error::content(&path, message))
            }
            Form::Still => {
                let mut image = file.read_image()?;
                // As what is animated is shown: over black.
                image.over([0.0; 3]);
                if (image.width, image.height) != (self.info.width, self.info.height) {
                    return Err(Error::content(&path, "it changed while it was read"));
                }
                let _ = sink.frame(0, image.rgb);
                Ok(())
            }
        }
    }
}

/// The error to what is no video that is read.
fn unknown(path: &Path, start: &[u8]) -> Error {
    let expected = "expected a video (mp4, mov, GIF, WebP, PNG), found";
    match start {
        [0xff, 0xd8, 0xff, ..] => {
            let error = Error::content(path, format!("{expected} a JPEG image"));
            error.advise("read it with `image.read`")
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', b' '] => {
            foreign(path, format!("{expected} an AVI video"))
        }
        [0x1a, b'E', 0xdf, 0xa3, ..] => {
            foreign(path, format!("{expected} a WebM or Matroska video"))
        }
        // Its pictures may look like text.
        [b'Y', b'U', b'V', b'4', b'M', b'P', b'E', b'G', b'2', b' ', ..] => {
            foreign(path, format!("{expected} an uncompressed video (YUV4MPEG2)"))
        }
        [0x47, ..]
        | [b'F', b'L', b'V', ..]
        | [0x30, 0x26, 0xb2, 0x75, ..]
        | [0, 0, 1, 0xba, ..] => {
            let kind = "an MPEG stream, Flash or Windows Media video";
            foreign(path, format!("{expected} {kind}"))
        }
        _ => match looks_like(path) {
            // Texts may be lists that name other files.
            Some(found @ ("text" | "an empty file" | "a web page" | "a Git LFS pointer")) => {
                Error::content(path, format!("{expected} {found}"))
            }
            found => foreign(path, format!("{expected} {}", found.unwrap_or("something else"))),
        },
    }
}
