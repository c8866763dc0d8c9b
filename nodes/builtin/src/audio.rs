//! `audio.read`, `audio.trim`, `audio.concat`: sound on its way from file to file.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use kino_node::{
    Audio, AudioFact, AudioForm, Cx, Error, Inputs, NodeDef, Outputs, Result, Services, Value,
    ValueType, audio_join_error,
};
use kino_port::{
    Fact, Facts, Literal, NodeTraits, PlanError, PortType, Signature, StepInfo, edge, list,
    optional_list, path as path_port, ports, real,
};
use kino_world::InputFile;
use kino_world::media::{AudioReader, encode_aac};

use crate::error::{IntoNode, at_port};
use crate::files::{PlannedInput, ffmpeg, open};
use crate::infer::{InferCx, InferResult, known, named_facts, refuse};

/// The longest time that a node is asked for, in seconds.
const LONGEST: f64 = 1e6;

/// Reads sound.
pub(crate) static READ: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("audio.read"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(READ_ABOUT),
        inputs: ports![
            path_port("path").about("An m4a, mp4, mov or WAV file, relative to the graph.")
        ],
        outputs: ports![
            edge("audio", PortType::Audio).about("The sound, with the times of its file.")
        ],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_read,
    run: read,
};

const READ_ABOUT: &str = "Reads the sound of a file. The contents decide what it is, not the name: \
m4a, mp4 or QuickTime with AAC, whose packets are passed on as they are and never encoded again, or \
WAV (PCM of 8 to 32 bits, or floating point). Edit lists are followed, so that what an encoder put \
before the beginning is not heard. Other containers and codecs are read through a program `ffmpeg`, \
where one is on the PATH or named in the settings: AAC is passed on, all else becomes AAC of 192 \
kbit/s. The sound of a video is `video.read`'s, too, in step with its frames.\n\n\
Example:\n    \"music\": (op: \"audio.read\", with: {\"path\": \"music.m4a\"}),";

/// A part of a sound.
pub(crate) static TRIM: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("audio.trim"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(TRIM_ABOUT),
        inputs: ports![
            edge("audio", PortType::Audio).about("The sound to cut."),
            real("start", 0.0)
                .within(0.0, LONGEST)
                .unit("s")
                .about("How much is left out at the beginning."),
            real("duration", 1.0)
                .within(0.0, LONGEST)
                .or_none()
                .unit("s")
                .about("How much is taken; if not given, all that follows."),
        ],
        outputs: ports![edge("audio", PortType::Audio).about("This part of it.")],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_trim,
    run: trim,
};

const TRIM_ABOUT: &str = "Takes a part of a sound: `duration` seconds from `start` on, to the sample. \
Nothing is decoded: of AAC those packets are kept that are needed, two before them so that a decoder \
is ready, and an edit list says what is heard. A part that reaches past the end is an error.\n\n\
Example:\n    \"refrain\": (op: \"audio.trim\", in: {\"audio\": \"music\"}, with: {\"start\": 12.5, \
\"duration\": 8.0}),";

/// Sounds one after another.
pub(crate) static CONCAT: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("audio.concat"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(CONCAT_ABOUT),
        inputs: ports![
            list("parts", PortType::Audio)
                .about("Sounds of one form, in their order; a map's names say nothing."),
            optional_list("starts", PortType::Real).within(0.0, LONGEST).unit("s").about(
                "When each part begins, in seconds from the beginning on, one for each; if not given, \
                 where the one before it ends."
            ),
        ],
        outputs: ports![edge("audio", PortType::Audio).about("All of them, one after another.")],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_concat,
    run: concat,
};

const CONCAT_ABOUT: &str = "Puts sounds one after another. All are of one form: AAC of one encoder's \
settings, or PCM, of one rate and one number of channels. Sounds of no length, such as those of \
videos without sound, may be among them. With `starts`, each part begins at its time: before it there \
is silence, or the part before it is cut. Nothing is decoded; where AAC is joined, an edit list says \
what is heard, which players follow to the sample or (ffmpeg) to the packet of about 20 ms.\n\n\
Example:\n    \"whole\": (op: \"audio.concat\", in: {\"parts\": [\"opening\", \"refrain\"]}),";

/// Sound that only a program could read that is not there; what is known of an output in its place.
#[derive(Clone, Debug)]
pub(crate) struct UnreadableSound {
    message: String,
    hint: Option<String>,
}

/// What is known of a sound that was looked for, as a fact: nothing of what a program reads.
pub(crate) fn fact_of(found: kino_world::Result<Option<AudioFact>>) -> Fact {
    match found {
        Ok(Some(fact)) => Fact::typed(fact),
        Ok(None) => Fact::Unknown,
        Err(error) => {
            let hint = error.hint().map(str::to_owned);
            Fact::typed(UnreadableSound { message: error.to_string(), hint })
        }
    }
}

/// What is known of the sound at a port; objects where it cannot be read.
pub(crate) fn known_sound(review: &mut InferCx<'_>, port: &str, fact: &Fact) -> Option<AudioFact> {
    if let Some(UnreadableSound { message, hint }) = fact.get::<UnreadableSound>() {
        let mut error = PlanError::at(port, message.clone());
        error.hint = hint.clone();
        review.error(error);
        return None;
    }
    review.take(known::<Audio>(port, fact)).flatten()
}

/// A value that was read, unless nobody waits for it any more.
pub(crate) fn unless_cancelled<T>(read: Option<T>) -> Result<T> {
    read.ok_or(Error::Cancelled)
}

/// Bytes that AAC and its tables take at least, however short.
const LEAST: u64 = 4 << 10;

fn infer_read(services: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let Some(path) = facts.text("path") else { return review.finish(StepInfo::default()) };
    let ffmpeg = ffmpeg(services);
    let open =
        |file: &mut InputFile| AudioReader::open(file, ffmpeg.as_deref()).map_err(at_port("path"));
    let Some((source, sound)) = review.take(PlannedInput::look(services, path, open)) else {
        return review.finish(StepInfo::default());
    };
    let mut key = source.key();
    key.extend(sound.program().unwrap_or_default().bytes());
    let memory = sound.fact().map_or(0, |fact| fact.bytes + LEAST);
    let outputs = vec![fact_of(Ok(sound.fact().cloned()))];
    review.finish(StepInfo { key, memory, outputs, reads: vec![source.read], ..Default::default() })
}

fn read(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let mut file = open(cx, inputs.text("path")?)?;
    let sound = AudioReader::open(&mut file, ffmpeg(cx.services).as_deref()).node()?;
    let bytes = sound.fact().map_or(0, |fact| fact.bytes);
    cx.services.ledger.check(bytes, "the sound")?;
    let read = sound.read(&mut file, &mut || !cx.cancel.is_cancelled()).node()?;
    Ok(vec![Some(Value::from(unless_cancelled(read)?))])
}

/// The first tick, and how many, of a sound of `all` ticks.
fn taken(
    (all, rate): (u64, u32),
    start: f64,
    duration: Option<f64>,
) -> Result<(u64, u64), PlanError> {
    let at = |seconds: f64| (seconds * f64::from(rate)).round().max(0.0) as u64;
    let lasts = || format!("the sound lasts {:.3} s", all as f64 / f64::from(rate));
    let first = at(start);
    if first >= all {
        let error = PlanError::at("start", format!("{}, found start {start} s", lasts()));
        return Err(error.hint("begin earlier"));
    }
    let left = all - first;
    match duration {
        None => Ok((first, left)),
        // What was computed from a length may be a sample beside it.
        Some(duration) if at(duration) <= left.saturating_add(1) => {
            Ok((first, at(duration).min(left)))
        }
        Some(duration) => {
            let message = format!("{}, found {duration} s from {start} s on", lasts());
            let error = PlanError::at("duration", message);
            Err(error.hint("leave `duration` out to take all that follows"))
        }
    }
}

fn infer_trim(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let Some(fact) = facts.get("audio") else { return review.finish(StepInfo::default()) };
    let sound = known_sound(&mut review, "audio", fact);
    let (Some(sound), Some(start)) = (sound, facts.real("start")) else {
        return review.finish(StepInfo::default());
    };
    let duration = facts.real("duration");
    if facts.is_fed("duration") != duration.is_some() {
        return review.finish(StepInfo::default());
    }
    let part = review.take(taken((sound.ticks, sound.rate), start, duration));
    let Some((_, ticks)) = part else { return review.finish(StepInfo::default()) };
    let part = u128::from(sound.bytes) * u128::from(ticks) / u128::from(sound.ticks.max(1));
    let bytes = part as u64 + LEAST;
    let memory = bytes + sound.bytes;
    let outputs = vec![Fact::typed(AudioFact { ticks, bytes, ..sound })];
    review.finish(StepInfo { memory, outputs, ..StepInfo::default() })
}

fn trim(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let sound = inputs.value::<Audio>("audio")?;
    let duration = inputs.get("duration").map(|_| inputs.real("duration")).transpose()?;
    let whole = (sound.ticks(), sound.rate);
    let (start, ticks) = taken(whole, inputs.real("start")?, duration).map_err(refuse)?;
    Ok(vec![Some(Value::from(sound.slice(start, ticks)?))])
}

/// Checks when parts begin: a time for each, none before the one before it.
fn check_starts(starts: &[f64], parts: usize) -> Result<(), PlanError> {
    if starts.len() != parts {
        let message =
            format!("expected one time for each of {parts} parts, found {}", starts.len());
        return Err(PlanError::at("starts", message).hint("the first may be 0"));
    }
    match starts.windows(2).find(|pair| pair[0] > pair[1]) {
        Some(pair) => {
            let message =
                format!("parts begin one after another, found {} s before {} s", pair[0], pair[1]);
            Err(PlanError::at("starts", message).hint("give the parts in the order of their times"))
        }
        None => Ok(()),
    }
}

/// Where a part begins that is meant to begin at a time, in ticks; the parts before it last
/// `so_far`.
fn begin(start: Option<f64>, rate: u32, so_far: u64) -> u64 {
    start.map_or(so_far, |start| (start * f64::from(rate)).round() as u64)
}

/// The times at which parts begin, if all are known; none where none are given.
fn known_starts(facts: &Facts) -> Option<Option<Vec<f64>>> {
    let real = |literal: &Literal| match literal {
        Literal::Real(value) => Some(*value),
        Literal::Int(value) => Some(*value as f64),
        _ => None,
    };
    match facts.get("starts") {
        None => Some(None),
        Some(Fact::Literal(Literal::List(items))) => {
            items.iter().map(real).collect::<Option<_>>().map(Some)
        }
        Some(_) => {
            let items = facts.items("starts").into_iter();
            items.map(|fact| real(fact.literal()?)).collect::<Option<_>>().map(Some)
        }
    }
}

fn infer_concat(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let items = named_facts(facts, "parts");
    let starts = known_starts(facts);
    if let Some(Some(starts)) = &starts
        && review.take(check_starts(starts, items.len())).is_none()
    {
        return review.finish(StepInfo::default());
    }
    let parts: Vec<AudioFact> =
        items.iter().filter_map(|(_, fact)| known_sound(&mut review, "parts", fact)).collect();
    let heard: Vec<&AudioFact> = parts.iter().filter(|part| part.ticks > 0).collect();
    if let Some((first, rest)) = heard.split_first()
        && let Some(message) = rest.iter().find_map(|part| audio_join_error(first, part))
    {
        let error = PlanError::at("parts", message);
        review.error(
            error.hint("convert one first: ffmpeg -i IN -c:a aac -ar RATE -ac CHANNELS OUT.m4a"),
        );
    }
    let first = heard.first().copied().or(parts.first());
    let (Some(first), Some(starts), true) = (first, starts, parts.len() == items.len()) else {
        return review.finish(StepInfo::default());
    };
    let (mut ticks, mut bytes) = (0_u64, 0_u64);
    for (index, part) in parts.iter().enumerate().filter(|(_, part)| part.ticks > 0) {
        let start = starts.as_ref().map(|starts| starts[index]);
        let begin = begin(start, first.rate, ticks);
        bytes = bytes.saturating_add(part.bytes).saturating_add(silence(first, begin, ticks));
        ticks = begin.saturating_add(part.ticks);
    }
    let outputs = vec![Fact::typed(AudioFact { ticks, bytes, ..first.clone() })];
    review.finish(StepInfo { memory: bytes, outputs, ..StepInfo::default() })
}

/// The bytes of the silence between the end of parts and the beginning of the next.
fn silence(sound: &AudioFact, begin: u64, end: u64) -> u64 {
    match sound.form {
        AudioForm::Pcm => begin.saturating_sub(end).saturating_mul(4 * u64::from(sound.channels)),
        AudioForm::Aac(_) => 0,
    }
}

fn concat(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let parts: Vec<Arc<Audio>> =
        inputs.list::<Audio>("parts")?.into_iter().map(|(_, part)| part).collect();
    let starts = inputs.items("starts");
    let whole = match starts.is_empty() {
        true => Audio::concat(&parts)?,
        false => {
            let starts = starts.iter().filter_map(|(_, value)| match value {
                Value::Real(start) => Some(*start),
                Value::Int(start) => Some(*start as f64),
                _ => None,
            });
            let starts: Vec<f64> = starts.collect();
            check_starts(&starts, parts.len()).map_err(refuse)?;
            at_times(cx, &parts, &starts)?
        }
    };
    kino_node::ValueType::check(&whole)?;
    Ok(vec![Some(Value::from(whole))])
}

/// Parts, each at its time.
fn at_times(cx: &Cx<'_>, parts: &[Arc<Audio>], starts: &[f64]) -> Result<Audio> {
    let (mut whole, mut rate) = (Vec::<Arc<Audio>>::new(), None);
    let mut end = 0;
    for (part, start) in parts.iter().zip(starts).filter(|(part, _)| !part.is_none()) {
        let begin = begin(Some(*start), *rate.get_or_insert(part.rate), end);
        if begin < end {
            let so_far = Audio::concat(&whole)?.slice(0, begin)?;
            (whole, end) = (vec![Arc::new(so_far)], begin);
        }
        cx.services
            .ledger
            .check(silence(&part.fact(), begin, end), "the silence between sounds")?;
        whole.push(Arc::new(part.delayed(begin - end)?));
        end = begin + part.ticks();
    }
    match (whole.is_empty(), parts.first()) {
        (true, Some(none)) => Ok(Audio::clone(none)),
        _ => Audio::concat(&whole),
    }
}

/// What to do where samples go into a file that holds AAC, and no program encodes them.
const ENCODER: &str = "put `ffmpeg` on the PATH or name it with `kino config set ffmpeg PATH`; or give \
                       AAC, which is passed on as it is: ffmpeg -i IN -c:a aac OUT.m4a";

/// Objects to sound that cannot go into a file of AAC.
pub(crate) fn check_aac(form: &AudioForm, program: Option<&Path>) -> Result<(), PlanError> {
    match (form, program) {
        (AudioForm::Pcm, None) => {
            let message = "an mp4 file holds sound as AAC, and PCM is encoded by `ffmpeg` alone";
            Err(PlanError::at("audio", message).hint(ENCODER).of_machine())
        }
        _ => Ok(()),
    }
}

/// The sound as AAC: as it is, or encoded by a program.
pub(crate) fn as_aac(cx: &Cx<'_>, sound: &Arc<Audio>) -> Result<Arc<Audio>> {
    let program = ffmpeg(cx.services);
    if sound.is_none() {
        return Ok(Arc::clone(sound));
    }
    check_aac(&sound.form, program.as_deref()).map_err(refuse)?;
    match (&sound.form, program) {
        (AudioForm::Pcm, Some(program)) => {
            let encoded = encode_aac(&program, sound, &mut || !cx.cancel.is_cancelled()).node()?;
            unless_cancelled(encoded).map(Arc::new)
        }
        _ => Ok(Arc::clone(sound)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_lies_within_the_sound() {
        let all = (48_000, 48_000);
        assert_eq!(taken(all, 0.0, None), Ok((0, 48_000)));
        assert_eq!(taken(all, 0.25, Some(0.5)), Ok((12_000, 24_000)));
        assert_eq!(taken(all, 0.25, Some(0.75)), Ok((12_000, 36_000)));
        // A third of a second thrice is a second, whatever the roundings are.
        assert_eq!(taken((44_101, 44_100), 2.0 / 3.0, Some(0.333_35)), Ok((29_400, 14_701)));
        assert_eq!(taken(all, 0.5, Some(0.0)), Ok((24_000, 0)));
        let error = taken(all, 0.5, Some(0.6)).unwrap_err();
        assert_eq!(error.message, "the sound lasts 1.000 s, found 0.6 s from 0.5 s on");
        let error = taken(all, 1.0, None).unwrap_err();
        assert_eq!(error.message, "the sound lasts 1.000 s, found start 1 s");
    }
}
