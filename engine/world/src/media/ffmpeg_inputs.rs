//! What a program `ffmpeg` reads beside frames: sound in a file of its own, and metadata.

use std::path::Path;

use kino_node::Audio;

use super::mp4::{Chunk, SoundTrack, file_type, movie};
use crate::{Error, Result};

/// Puts a sound into a file of its own, and says how the program reads that.
pub(super) fn add_sound(sound: &Audio, folder: &Path) -> Result<Vec<String>> {
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
pub(super) fn described(text: &str) -> String {
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
    fn what_has_a_meaning_in_descriptions_is_escaped() {
        assert_eq!(described("a=b\n;#\\"), ";FFMETADATA1\ncomment=a\\=b\\\n\\;\\#\\\\\n");
    }
}
