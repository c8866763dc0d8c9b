//! Sound: packets as an encoder made them, or samples; and which of it is heard, to the sample.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_port::PortType;
use serde::{Deserialize, Serialize};

use crate::stored::{TensorHeader, TensorReader};
use crate::types::{Field, Fields, Opaque, Tensors, ValueType};
use crate::{Error, Result};

/// The highest rate, in samples a second.
const HIGHEST_RATE: u32 = 1 << 20;
/// The most channels.
const MOST_CHANNELS: u16 = 255;
/// The most packets: 24 hours of AAC at 48 kHz.
const MOST_PACKETS: usize = 1 << 22;
/// The longest sound, in samples: 12 days at 1 MHz. What counts in `u64` cannot overflow below it.
const LONGEST: u64 = 1 << 40;
/// So many packets before the one in which something begins are kept with it: a decoder begins with
/// them, and is right when it comes to what is heard. One is enough for AAC, whose windows overlap
/// by half; encoders of Apple begin a packet earlier.
const LEAD: usize = 2;

/// Sound. A video without sound has one of no length.
#[derive(Clone, Debug)]
pub struct Audio {
    /// What its bytes are.
    pub form: AudioForm,
    /// Ticks a second of all its times: samples a second, but in files that count otherwise.
    pub rate: u32,
    /// The number of channels.
    pub channels: u16,
    /// Of AAC all packets, one after another, `[bytes]` u8; of PCM `[samples, channels]` f32.
    pub data: Tensor,
    /// The packets of AAC, in the order in which they are decoded.
    pub packets: Arc<[AudioPacket]>,
    /// What is heard of AAC, in order; all packets belong to a part, one after another.
    pub parts: Vec<AudioPart>,
}

/// What the bytes of a sound are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AudioForm {
    /// AAC, by its AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1): packets that are passed on as
    /// they are.
    Aac(Vec<u8>),
    /// Samples in −1…1.
    Pcm,
}

/// One packet of a sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioPacket {
    /// Its length in bytes.
    pub bytes: u32,
    /// Its duration in ticks.
    pub duration: u32,
}

/// Something that is heard: packets, without what is left out at their beginning; or silence, where
/// there are no packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioPart {
    /// How many packets are decoded for it.
    pub packets: usize,
    /// How many ticks of those are left out at the beginning.
    pub skip: u64,
    /// How many ticks are heard.
    pub ticks: u64,
}

/// What is known of a sound.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioFact {
    /// What its bytes are.
    pub form: AudioForm,
    /// Ticks a second.
    pub rate: u32,
    /// The number of channels.
    pub channels: u16,
    /// Its length in ticks.
    pub ticks: u64,
    /// The bytes that it takes.
    pub bytes: u64,
}

impl Audio {
    /// The sound of what has none: it lasts no time, and joins with every other.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn none() -> Result<Self> {
        Audio::pcm(Vec::new(), 48_000, 2)
    }

    /// Samples in −1…1, `[samples, channels]`.
    ///
    /// # Errors
    /// When they are no whole number of samples of all channels.
    pub fn pcm(samples: Vec<f32>, rate: u32, channels: u16) -> Result<Self> {
        let shape = (samples.len() / usize::from(channels.max(1)), usize::from(channels));
        let data = Tensor::from_vec(samples, shape, &Device::Cpu)?; // [samples, channels]
        let sound =
            Audio { form: AudioForm::Pcm, rate, channels, data, packets: [].into(), parts: vec![] };
        sound.check()?;
        Ok(sound)
    }

    /// Its length in ticks.
    pub fn ticks(&self) -> u64 {
        match self.form {
            AudioForm::Pcm => self.data.dims().first().map_or(0, |samples| *samples as u64),
            AudioForm::Aac(_) => {
                self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.ticks))
            }
        }
    }

    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        self.ticks() as f64 / f64::from(self.rate)
    }

    /// Whether it lasts no time.
    pub fn is_none(&self) -> bool {
        self.ticks() == 0
    }

    /// The bytes of each packet.
    ///
    /// # Errors
    /// When it holds samples instead of packets.
    pub fn bytes_of_packets(&self) -> Result<Vec<u8>> {
        Ok(self.data.to_vec1::<u8>()?)
    }

    /// What is heard from tick `start` on, for at most `ticks`; past its end there is nothing.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn slice(&self, start: u64, ticks: u64) -> Result<Self> {
        let all = self.ticks();
        let start = start.min(all);
        let ticks = ticks.min(all - start);
        if start == 0 && ticks == all {
            return Ok(self.clone());
        }
        let AudioForm::Aac(_) = &self.form else {
            let data = self.data.narrow(0, start as usize, ticks as usize)?;
            let data = if ticks == 0 { data } else { data.force_contiguous()? };
            return Ok(Audio { data, ..self.clone() });
        };
        let (mut packets, mut parts, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let (mut clock, mut first, mut at) = (0_u64, 0, 0);
        let bytes = self.bytes_of_packets()?;
        for part in &self.parts {
            let own = &self.packets[first..first + part.packets];
            let length: usize = own.iter().map(|packet| packet.bytes as usize).sum();
            // What of this part lies in what is asked for.
            let from = start.max(clock) - clock;
            let to = (start + ticks).min(clock + part.ticks).saturating_sub(clock);
            if from < to {
                let cut = cut(own, part.skip + from, to - from);
                let before: usize = own[..cut.first].iter().map(|p| p.bytes as usize).sum();
                let used = &own[cut.first..cut.first + cut.part.packets];
                let length: usize = used.iter().map(|packet| packet.bytes as usize).sum();
                kept.extend_from_slice(&bytes[at + before..at + before + length]);
                packets.extend_from_slice(used);
                parts.push(cut.part);
            }
            (clock, first, at) = (clock + part.ticks, first + part.packets, at + length);
        }
        let length = kept.len();
        let data = Tensor::from_vec(kept, length, &Device::Cpu)?;
        Ok(Audio { data, packets: packets.into(), parts, ..self.clone() })
    }

    /// Sounds one after another; those that last no time are left out.
    ///
    /// # Errors
    /// When they are of different forms, rates or channels.
    pub fn concat(sounds: &[Arc<Audio>]) -> Result<Self> {
        let mut heard = sounds.iter().filter(|sound| !sound.is_none());
        let Some(first) = heard.next() else {
            return sounds.first().map_or_else(Audio::none, |sound| Ok(Audio::clone(sound)));
        };
        let rest: Vec<_> = heard.collect();
        for sound in &rest {
            join_error(&first.fact(), &sound.fact()).map_or(Ok(()), |e| Err(Error::failed(e)))?;
        }
        let all: Vec<_> = std::iter::once(first).chain(rest).collect();
        let data: Vec<&Tensor> = all.iter().map(|sound| &sound.data).collect();
        let packets = all.iter().flat_map(|sound| sound.packets.iter().copied()).collect();
        let parts = all.iter().flat_map(|sound| sound.parts.iter().copied()).collect();
        Ok(Audio { data: Tensor::cat(&data, 0)?, packets, parts, ..Audio::clone(first) })
    }

    /// The sound after a silence of so many ticks.
    ///
    /// # Errors
    /// When there is no memory for it, or it would be longer than can be.
    pub fn delayed(&self, ticks: u64) -> Result<Self> {
        let mut later = self.clone();
        match (ticks, &self.form) {
            (0, _) => {}
            (_, AudioForm::Aac(_)) => {
                later.parts.insert(0, AudioPart { packets: 0, skip: 0, ticks });
            }
            (_, AudioForm::Pcm) => {
                let shape = (ticks as usize, usize::from(self.channels));
                let silence = Tensor::zeros(shape, DType::F32, &Device::Cpu)?;
                later.data = Tensor::cat(&[&silence, &self.data], 0)?;
            }
        }
        later.check()?;
        Ok(later)
    }
}

/// Packets that were cut out of others.
pub struct AudioCut {
    /// The first of them.
    pub first: usize,
    /// What is heard of them.
    pub part: AudioPart,
}

/// The packets that are decoded to hear `ticks` of `packets`, `skip` after their beginning: those
/// in which it lies, and a few before. Of no packets it is silence.
pub fn cut(packets: &[AudioPacket], skip: u64, ticks: u64) -> AudioCut {
    if packets.is_empty() {
        return AudioCut { first: 0, part: AudioPart { packets: 0, skip: 0, ticks } };
    }
    let (mut clock, mut begins, mut ends) = (0_u64, None, packets.len());
    for (index, packet) in packets.iter().enumerate() {
        let after = clock + u64::from(packet.duration);
        if begins.is_none() && after > skip {
            begins = Some(index);
        }
        if after >= skip.saturating_add(ticks) {
            ends = index + 1;
            break;
        }
        clock = after;
    }
    let first = begins.unwrap_or(packets.len()).saturating_sub(LEAD);
    let before: u64 = packets[..first].iter().map(|packet| u64::from(packet.duration)).sum();
    let packets = ends.max(first) - first;
    AudioCut { first, part: AudioPart { packets, skip: skip - before.min(skip), ticks } }
}

/// Why two sounds do not stand one after another, if they do not.
pub fn join_error(one: &AudioFact, other: &AudioFact) -> Option<String> {
    let name = |fact: &AudioFact| {
        let form = match fact.form {
            AudioForm::Aac(_) => "AAC",
            AudioForm::Pcm => "PCM",
        };
        format!("{form} of {} Hz with {} channels", fact.rate, fact.channels)
    };
    if one.ticks == 0 || other.ticks == 0 {
        return None;
    }
    let same = |one: &AudioFact, other: &AudioFact| {
        (&one.form, one.rate, one.channels) == (&other.form, other.rate, other.channels)
    };
    if same(one, other) {
        return None;
    }
    let (one, other) = (name(one), name(other));
    Some(match one == other {
        true => format!("sounds that are joined are of one form, found {one} of two encoders"),
        false => format!("sounds that are joined are of one form, found {one} and {other}"),
    })
}

/// All of an [`Audio`] but what its tensors hold.
#[derive(Serialize, Deserialize)]
pub struct AudioHeader {
    form: AudioForm,
    rate: u32,
    channels: u16,
    data: TensorHeader,
    /// The number of packets; their table `[packets, 2]`, bytes and duration, follows the data.
    packets: usize,
    parts: Vec<AudioPart>,
}

impl ValueType for Audio {
    const PORT: PortType = PortType::Audio;
    type Fact = AudioFact;
    type Header = AudioHeader;

    fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::failed(format!("a sound {what}")));
        if self.rate == 0 || self.rate > HIGHEST_RATE {
            return wrong(format!("has 1 to {HIGHEST_RATE} ticks a second, found {}", self.rate));
        }
        if self.channels == 0 || self.channels > MOST_CHANNELS {
            return wrong(format!("has 1 to {MOST_CHANNELS} channels, found {}", self.channels));
        }
        let mut ticks = 0_u64;
        for length in self.parts.iter().flat_map(|part| [part.skip, part.ticks]) {
            ticks = ticks.saturating_add(length);
        }
        let dims = self.data.dims();
        match &self.form {
            AudioForm::Pcm => {
                let channels = usize::from(self.channels);
                if self.data.dtype() != DType::F32
                    || !matches!(dims, [_, found] if *found == channels)
                {
                    return wrong(format!("is [samples, {channels}] of f32, found {dims:?}"));
                }
                if !self.packets.is_empty() || !self.parts.is_empty() {
                    return wrong("of samples has no packets".to_owned());
                }
                ticks = dims[0] as u64;
            }
            AudioForm::Aac(config) => {
                if config.len() > 64 {
                    return wrong(format!("has a config of {} bytes", config.len()));
                }
                let bytes: u64 = self.packets.iter().map(|packet| u64::from(packet.bytes)).sum();
                if self.data.dtype() != DType::U8
                    || !matches!(dims, [found] if *found as u64 == bytes)
                {
                    return wrong(format!("has {bytes} bytes by its packets, found {dims:?}"));
                }
                if self.packets.len() > MOST_PACKETS || self.parts.len() > MOST_PACKETS {
                    return wrong(format!("has more than {MOST_PACKETS} packets"));
                }
                let mut left = &self.packets[..];
                for part in &self.parts {
                    let Some((own, rest)) = left.split_at_checked(part.packets) else {
                        return wrong("has parts of more packets than there are".to_owned());
                    };
                    let there: u64 = own.iter().map(|packet| u64::from(packet.duration)).sum();
                    let heard = part.skip.saturating_add(part.ticks);
                    if !own.is_empty() && heard > there {
                        return wrong(format!("has a part of {heard} ticks in packets of {there}"));
                    }
                    left = rest;
                }
                if !left.is_empty() {
                    return wrong(format!("has {} packets in no part", left.len()));
                }
            }
        }
        if ticks > LONGEST {
            return wrong(format!("has at most {LONGEST} ticks, found {ticks}"));
        }
        Ok(())
    }

    fn fact(&self) -> AudioFact {
        AudioFact {
            form: self.form.clone(),
            rate: self.rate,
            channels: self.channels,
            ticks: self.ticks(),
            bytes: self.bytes(),
        }
    }

    fn extent(&self) -> String {
        format!("{} ticks", self.ticks())
    }

    fn bytes_of_fact(fact: &AudioFact) -> u64 {
        fact.bytes
    }

    fn bytes(&self) -> u64 {
        crate::types::storage_bytes(&self.data) + size_of_val(&*self.packets) as u64
    }

    fn field(&self, name: &str) -> Result<Option<Field>> {
        let is_pcm = self.form == AudioForm::Pcm;
        Ok(match name {
            "tensor" if is_pcm => Some(Field::Tensor(self.data.t()?)), // [channels, samples]
            "rate" => Some(Field::Int(self.rate as usize)),
            "channels" => Some(Field::Int(self.channels.into())),
            "seconds" => Some(Field::Real(self.seconds())),
            "packets" if !is_pcm => Some(Field::Opaque(Opaque::new("Packets", self.clone()))),
            _ => None,
        })
    }

    fn from_fields(fields: &dyn Fields) -> Result<Self> {
        let packed = fields.opaque("packets")?;
        let packed = packed.and_then(|packets| packets.get::<Audio>().cloned());
        let Some(samples) = fields.tensor("tensor")? else {
            return packed.ok_or_else(|| {
                Error::failed("a record of type Audio needs `tensor`: f32 [channels, n]")
            });
        };
        let rate = fields.int("rate")?.and_then(|rate| u32::try_from(rate).ok()).unwrap_or(0);
        let channels = u16::try_from(samples.dim(0)?).unwrap_or(u16::MAX);
        let data = samples.t()?.contiguous()?; // [samples, channels]
        let form = AudioForm::Pcm;
        Ok(Audio { form, rate, channels, data, packets: [].into(), parts: vec![] })
    }

    fn header(&self) -> AudioHeader {
        AudioHeader {
            form: self.form.clone(),
            rate: self.rate,
            channels: self.channels,
            data: TensorHeader::of(&self.data),
            packets: self.packets.len(),
            parts: self.parts.clone(),
        }
    }

    fn tensors(&self) -> Tensors<'_> {
        let table = self.packets.iter().flat_map(|packet| [packet.bytes, packet.duration]);
        let table = Tensor::from_iter(table, &Device::Cpu)
            .and_then(|table| table.reshape((self.packets.len(), 2))); // [packets, 2]
        Box::new([Ok(self.data.clone()), table.map_err(Error::from)].into_iter())
    }

    fn restore(header: AudioHeader, tensors: &mut TensorReader<'_>) -> Result<Self> {
        let data = tensors.next_in_main_memory(&header.data)?;
        let table = TensorHeader::new(DType::U32, &[header.packets, 2]);
        let table = tensors.next_in_main_memory(&table)?.to_vec2::<u32>()?;
        let packet = |row: &Vec<u32>| AudioPacket { bytes: row[0], duration: row[1] };
        Ok(Audio {
            form: header.form,
            rate: header.rate,
            channels: header.channels,
            data,
            packets: table.iter().map(packet).collect(),
            parts: header.parts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AAC of `count` packets of 1024 samples, each of as many bytes as its index, and its bytes
    /// all that index; the first is priming.
    fn aac(count: u32) -> Audio {
        let packets = (0..count).map(|index| AudioPacket { bytes: index, duration: 1024 });
        let bytes: Vec<u8> =
            (0..count).flat_map(|index| vec![index as u8; index as usize]).collect();
        let length = bytes.len();
        let part =
            AudioPart { packets: count as usize, skip: 1024, ticks: u64::from(count - 1) * 1024 };
        let sound = Audio {
            form: AudioForm::Aac(vec![0x12, 0x10]),
            rate: 44_100,
            channels: 2,
            data: Tensor::from_vec(bytes, length, &Device::Cpu).unwrap(),
            packets: packets.collect(),
            parts: vec![part],
        };
        sound.check().unwrap();
        sound
    }

    /// The packet, and the tick in it, that is heard at each tick.
    fn heard(sound: &Audio) -> Vec<Option<(u8, u64)>> {
        let bytes = sound.bytes_of_packets().unwrap();
        let (mut at, mut first, mut heard) = (0, 0, Vec::new());
        for part in &sound.parts {
            let mut ticks = Vec::new();
            for packet in &sound.packets[first..first + part.packets] {
                let name = bytes.get(at).copied().filter(|_| packet.bytes > 0).unwrap_or(0);
                at += packet.bytes as usize;
                ticks.extend((0..u64::from(packet.duration)).map(|tick| Some((name, tick))));
            }
            first += part.packets;
            match part.packets {
                0 => heard.extend(vec![None; part.ticks as usize]),
                _ => heard.extend(&ticks[part.skip as usize..][..part.ticks as usize]),
            }
        }
        heard
    }

    #[test]
    fn a_part_is_what_is_heard_there_to_the_sample() {
        let whole = aac(12);
        let all = heard(&whole);
        let (mut seed, length) = (7_u64, all.len() as u64);
        for _ in 0..200 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = (seed >> 33) % (length + 100);
            let ticks = (seed >> 13) % (length + 100);
            let part = whole.slice(start, ticks).unwrap();
            part.check().unwrap();
            let from = start.min(length) as usize;
            let to = (start + ticks).min(length) as usize;
            assert_eq!(heard(&part), all[from..to.max(from)], "{start} {ticks}");
            // Of a part a part, and joined with what it was cut from.
            let again = part.slice(10, 2000).unwrap();
            assert_eq!(
                heard(&again),
                heard(&part).into_iter().skip(10).take(2000).collect::<Vec<_>>()
            );
            let joined = Audio::concat(&[Arc::new(part), Arc::new(again)]).unwrap();
            joined.check().unwrap();
            let cut = joined.slice(500, 3000).unwrap();
            assert_eq!(
                heard(&cut),
                heard(&joined).into_iter().skip(500).take(3000).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn no_more_packets_are_kept_than_are_needed() {
        let whole = aac(100);
        let part = whole.slice(50 * 1024, 1024).unwrap();
        // Packet 51 is heard, after two that prepare it.
        let bytes: Vec<u32> = part.packets.iter().map(|packet| packet.bytes).collect();
        assert_eq!(bytes, [49, 50, 51]);
        assert_eq!(part.parts, [AudioPart { packets: 3, skip: 2048, ticks: 1024 }]);
        assert!(part.bytes() < 200, "{}", part.bytes());
        assert_eq!(whole.slice(0, u64::MAX).unwrap().packets.len(), 100);
        assert!(whole.slice(u64::MAX, 5).unwrap().is_none());
    }

    #[test]
    fn silence_comes_before() {
        let later = aac(5).delayed(700).unwrap();
        assert_eq!(later.ticks(), 700 + 4 * 1024);
        let part = later.slice(600, 200).unwrap();
        assert_eq!(heard(&part)[..100], [None; 100]);
        assert_eq!(heard(&part)[100], Some((1, 0)));
        let pcm = Audio::pcm(vec![0.5; 8], 100, 2).unwrap().delayed(3).unwrap();
        assert_eq!(pcm.ticks(), 7);
        let found = pcm.slice(2, 2).unwrap().data.to_vec2::<f32>().unwrap();
        assert_eq!(found, [[0.0, 0.0], [0.5, 0.5]]);
    }

    #[test]
    fn only_like_is_joined_with_like() {
        let (aac, pcm) = (Arc::new(aac(5)), Arc::new(Audio::pcm(vec![0.0; 8], 100, 2).unwrap()));
        let error = Audio::concat(&[Arc::clone(&aac), Arc::clone(&pcm)]).unwrap_err().to_string();
        let both = "found AAC of 44100 Hz with 2 channels and PCM of 100 Hz with 2 channels";
        assert!(error.ends_with(both), "{error}");
        let other = Audio { form: AudioForm::Aac(vec![0x12, 0x08]), ..Audio::clone(&aac) };
        let error = Audio::concat(&[Arc::clone(&aac), Arc::new(other)]).unwrap_err().to_string();
        assert!(error.ends_with("of two encoders"), "{error}");
        // What lasts no time joins with everything.
        let none = Arc::new(Audio::none().unwrap());
        let joined = Audio::concat(&[Arc::clone(&none), Arc::clone(&aac), none]).unwrap();
        assert_eq!((joined.ticks(), &joined.form), (aac.ticks(), &aac.form));
        assert!(Audio::concat(&[]).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = aac(5);
        let message = |sound: Audio| sound.check().unwrap_err().to_string();
        let part = |packets, skip, ticks| vec![AudioPart { packets, skip, ticks }];
        for (parts, said) in [
            (part(6, 0, 1), "parts of more packets"),
            (part(4, 0, 1), "1 packets in no part"),
            (part(5, 1024, 5 * 1024), "a part of 6144 ticks in packets of 5120"),
            (part(5, u64::MAX, 2), "ticks in packets of"),
            (vec![AudioPart { packets: 0, skip: 0, ticks: u64::MAX }, good.parts[0]], "at most"),
        ] {
            let found = message(Audio { parts, ..good.clone() });
            assert!(found.contains(said), "{found}");
        }
        assert!(message(Audio { rate: 0, ..good.clone() }).contains("ticks a second"));
        assert!(message(Audio { channels: 0, ..good.clone() }).contains("channels"));
        let data = Tensor::zeros(3, DType::U8, &Device::Cpu).unwrap();
        assert!(message(Audio { data, ..good }).contains("10 bytes by its packets, found [3]"));
    }
}
