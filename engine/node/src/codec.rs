//! Values as bytes, for the cache on disk: `KINOVAL2`, the length of a JSON header, the header,
//! then all tensor data in the header's order.

use std::io::{Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::stored::{TensorHeader, TensorReader, write_tensor};
use crate::table::type_of_name;
use crate::types::{CustomTypes, TypeDef};
use crate::{Error, OutputFile, Outputs, Record, Result, Services, Typed, Value};

const MAGIC: &[u8; 8] = b"KINOVAL2";
/// No header of values that the engine writes comes near this.
const LONGEST_HEADER: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
enum Form {
    Text(String),
    /// In decimal: JSON numbers end at 64 bits.
    Int(String),
    /// The bits, so that nothing is rounded.
    Real(u64),
    Bool(bool),
    Tensor(TensorHeader),
    File(OutputFile),
    List(Vec<(Option<String>, Form)>),
    Custom(String, Vec<(String, Form)>),
    /// The name of a type of the table, and what that type keeps beside its tensors.
    Typed(String, serde_json::Value),
    /// The same with fields beside those of its type.
    Open(String, serde_json::Value, Vec<(String, Form)>),
}

/// Whether a value can be kept on disk; parts of models and guiders cannot.
pub fn is_storable(value: &Value) -> bool {
    match value {
        Value::Part(_) => false,
        Value::Typed(value) => {
            value.def().is_storable && value.more().iter().all(|(_, field)| is_storable(field))
        }
        Value::List(items) => items.iter().all(|(_, item)| is_storable(item)),
        Value::Custom(record) => record.fields.iter().all(|(_, field)| is_storable(field)),
        _ => true,
    }
}

/// Writes outputs; frames go chunk by chunk.
///
/// # Errors
/// When a value is not storable, or writing fails.
pub fn encode(outputs: &[Option<Value>], to: &mut dyn Write) -> Result<()> {
    let forms = outputs.iter().map(|value| value.as_ref().map(form).transpose());
    let forms = forms.collect::<Result<Vec<_>>>()?;
    let header = serde_json::to_vec(&forms).map_err(|error| Error::failed(error.to_string()))?;
    to.write_all(MAGIC)?;
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    outputs.iter().flatten().try_for_each(|value| write_tensors(value, to))
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// When the bytes are something else or end early.
pub fn decode(from: &mut dyn Read, services: &Services) -> Result<Outputs> {
    let mut start = [0; 16];
    from.read_exact(&mut start)?;
    let (magic, length) = start.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
    if magic != MAGIC || length > LONGEST_HEADER {
        return Err(Error::failed("these bytes are no stored value"));
    }
    let mut header = vec![0; length as usize];
    from.read_exact(&mut header)?;
    let forms: Vec<Option<Form>> = serde_json::from_slice(&header)
        .map_err(|error| Error::failed(format!("a stored value: {error}")))?;
    let mut tensors = TensorReader::new(from, services);
    forms
        .into_iter()
        .map(|form| form.map(|form| read_value(form, &mut tensors)).transpose())
        .collect()
}

fn form(value: &Value) -> Result<Form> {
    Ok(match value {
        Value::Text(text) => Form::Text(text.to_string()),
        Value::Int(value) => Form::Int(value.to_string()),
        Value::Real(value) => Form::Real(value.to_bits()),
        Value::Bool(value) => Form::Bool(*value),
        Value::Tensor(tensor) => Form::Tensor(TensorHeader::of(tensor)),
        Value::File(file) => Form::File(OutputFile::clone(file)),
        Value::List(items) => Form::List(
            items
                .iter()
                .map(|(name, item)| Ok((name.as_ref().map(ToString::to_string), form(item)?)))
                .collect::<Result<_>>()?,
        ),
        Value::Custom(record) => Form::Custom(record.ty.to_string(), named(&record.fields)?),
        Value::Typed(typed) if typed.def().is_storable => {
            let (name, header) = (typed.def().name().to_owned(), typed.header()?);
            match typed.more() {
                [] => Form::Typed(name, header),
                more => Form::Open(name, header, named(more)?),
            }
        }
        Value::Part(_) | Value::Typed(_) => {
            return Err(Error::failed(format!("{} cannot be stored", value.type_name())));
        }
    })
}

fn named(fields: &[(Arc<str>, Value)]) -> Result<Vec<(String, Form)>> {
    fields.iter().map(|(name, field)| Ok((name.to_string(), form(field)?))).collect()
}

fn write_tensors(value: &Value, to: &mut dyn Write) -> Result<()> {
    match value {
        Value::Typed(typed) => {
            typed.tensors().try_for_each(|tensor| write_tensor(&tensor?, to))?;
            typed.more().iter().try_for_each(|(_, field)| write_tensors(field, to))
        }
        Value::Tensor(tensor) => write_tensor(tensor, to),
        Value::List(items) => items.iter().try_for_each(|(_, item)| write_tensors(item, to)),
        Value::Custom(record) => {
            record.fields.iter().try_for_each(|(_, field)| write_tensors(field, to))
        }
        _ => Ok(()),
    }
}

fn read_value(form: Form, tensors: &mut TensorReader<'_>) -> Result<Value> {
    Ok(match form {
        Form::Text(text) => Value::Text(text.into()),
        Form::Int(digits) => Value::Int(
            digits.parse().map_err(|_| Error::failed(format!("`{digits}` is no whole number")))?,
        ),
        Form::Real(bits) => Value::Real(f64::from_bits(bits)),
        Form::Bool(value) => Value::Bool(value),
        Form::Tensor(header) => Value::Tensor(tensors.next(&header)?),
        Form::Typed(name, header) => {
            Value::Typed(type_of(&name, tensors.services)?.restore(header, tensors)?.into())
        }
        Form::Open(name, header, more) => {
            let typed = type_of(&name, tensors.services)?.restore(header, tensors)?;
            Value::Typed(Typed::from(typed).with_more(read_fields(more, tensors)?))
        }
        Form::File(file) => Value::File(Arc::new(file)),
        Form::List(items) => Value::List(
            items
                .into_iter()
                .map(|(name, item)| Ok((name.map(Arc::from), read_value(item, tensors)?)))
                .collect::<Result<_>>()?,
        ),
        Form::Custom(ty, fields) => {
            Value::Custom(Arc::new(Record { ty: ty.into(), fields: read_fields(fields, tensors)? }))
        }
    })
}

fn read_fields(
    fields: Vec<(String, Form)>,
    tensors: &mut TensorReader<'_>,
) -> Result<Vec<(Arc<str>, Value)>> {
    let read = fields.into_iter();
    read.map(|(name, field)| Ok((name.into(), read_value(field, tensors)?))).collect()
}

/// The type of a name, of the table or of the program that embeds the engine.
fn type_of(name: &str, services: &Services) -> Result<&'static TypeDef> {
    let custom = || services.find::<CustomTypes>()?.find(name);
    let found = type_of_name(name).or_else(custom);
    found.ok_or_else(|| Error::failed(format!("a stored value is of an unknown type `{name}`")))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use kino_port::Sigma;

    use super::*;
    use crate::{
        Audio, AudioForm, AudioPacket, AudioPart, Clip, Conditioning, Control, Embeddings, Frames,
        FramesBuilder, Given, GivenEncoding, ImageConditioning, Latent, LatentSpace, Ledger, Mask,
        Patches, Sigmas,
    };

    fn services(budget: u64) -> Services {
        Services::new(Device::Cpu, Ledger::new(budget))
    }

    fn everything(services: &Services) -> Outputs {
        let ramp = |n: usize, shape: &[usize]| {
            Tensor::arange(0f32, n as f32, &Device::Cpu).unwrap().reshape(shape).unwrap()
        };
        let mut frames = FramesBuilder::new(&services.ledger, Some(7.5));
        frames.push(&ramp(2 * 4 * 5 * 3, &[2, 4, 5, 3])).unwrap();
        frames.push(&ramp(4 * 5 * 3, &[1, 4, 5, 3])).unwrap();
        let space = Some(LatentSpace { id: [7; 32], channels: 2, temporal: 4, spatial: 8 });
        let latent = Latent { tensor: ramp(12, &[2, 1, 2, 3]), space };
        let mask =
            |frames: usize| Mask { tensor: (ramp(6 * frames, &[frames, 2, 3]) / 12.0).unwrap() };
        let clip = Clip { name: Some("wide".into()), grid: [1, 1, 2], channels: 3, space: None };
        vec![
            Some(Value::Int(i128::from(u64::MAX))),
            None,
            Some(Value::Real(f64::INFINITY)),
            Some(frames.finish().unwrap().into()),
            Some(Value::List(
                vec![(Some("a".into()), latent.clone().into()), (None, Value::Text("x".into()))]
                    .into(),
            )),
            Some(Sigmas(vec![Sigma(0.1), Sigma(0.0)].into()).into()),
            Some(Value::from(Conditioning {
                positive: Embeddings::of_text(ramp(6, &[2, 3]))
                    .with("pooled", ramp(3, &[3]), None)
                    .and_then(|both| both.with("image", ramp(8, &[2, 4]), Some(ramp(2, &[2]))))
                    .unwrap(),
                negative: Embeddings::of_text(ramp(6, &[2, 3])),
            })),
            Some(Patches { tokens: ramp(12, &[2, 6]), clips: vec![clip], patch: [1, 1, 2] }.into()),
            Some(mask(2).into()),
            Some(ImageConditioning { tensor: ramp(6, &[2, 3]) }.into()),
            Some(Value::from(Control {
                tensor: ramp(30, &[5, 1, 2, 3]),
                references: 0,
                strength: 0.3,
                space: latent.space.clone(),
            })),
            Some(Value::from(Given {
                latent,
                mask: mask(1),
                frames: 3,
                strength: 0.75,
                encoding: GivenEncoding::Whole,
                start: Some(Arc::new(Frames::from_tensor(&ramp(24, &[2, 2, 2, 3]), None).unwrap())),
                end: Some(Arc::new(Frames::from_tensor(&ramp(12, &[1, 2, 2, 3]), None).unwrap())),
            })),
            Some(
                Audio {
                    form: AudioForm::Aac(vec![0x12, 0x10]),
                    rate: 44_100,
                    channels: 2,
                    data: Tensor::new(&[1u8, 2, 3, 4, 5], &Device::Cpu).unwrap(),
                    packets: [2, 3].map(|bytes| AudioPacket { bytes, duration: 1024 }).into(),
                    parts: vec![AudioPart { packets: 2, skip: 1024, ticks: 1000 }],
                }
                .into(),
            ),
            Some(Audio::pcm(vec![0.25, -1.0, 0.5, 1.0], 8000, 2).unwrap().into()),
            Some(Value::Typed(Typed::new(Arc::new(mask(1))).with_more(vec![
                ("note".into(), Value::Text("by hand".into())),
                ("weights".into(), Value::Tensor(ramp(4, &[4]))),
            ]))),
            Some(Value::Custom(Arc::new(Record {
                ty: "example.depth".into(),
                fields: vec![
                    ("near".into(), Value::Real(0.1)),
                    ("depth".into(), Value::Tensor(ramp(6, &[2, 3]))),
                ],
            }))),
        ]
    }

    #[test]
    fn values_come_back_as_they_were() {
        for budget in [u64::MAX, 0] {
            let services = services(budget);
            let values = everything(&services);
            let mut bytes = Vec::new();
            encode(&values, &mut bytes).unwrap();
            let back = decode(&mut &bytes[..], &services).unwrap();
            assert_eq!(format!("{values:?}"), format!("{back:?}"));
            let mut again = Vec::new();
            encode(&back, &mut again).unwrap();
            assert!(bytes == again);
        }
    }

    #[test]
    fn conditioning_keeps_its_names_and_masks() {
        let services = services(u64::MAX);
        let mut bytes = Vec::new();
        encode(&everything(&services), &mut bytes).unwrap();
        let back = decode(&mut &bytes[..], &services).unwrap();
        let found = back.iter().flatten().find_map(Value::get::<Conditioning>);
        let found = found.unwrap();
        let names: Vec<_> = found.positive.iter().map(|embedding| &*embedding.name).collect();
        assert_eq!(names, ["text", "pooled", "image"]);
        let image = found.positive.need("image").unwrap();
        assert_eq!(image.mask.as_ref().unwrap().to_vec1::<f32>().unwrap(), [0.0, 1.0]);
        let error = found.negative.need("pooled").unwrap_err().to_string();
        assert_eq!(error, "expected embeddings `pooled`, found text");
    }

    #[test]
    fn fields_that_no_type_knows_are_kept() {
        let services = services(u64::MAX);
        let mut bytes = Vec::new();
        encode(&everything(&services), &mut bytes).unwrap();
        let back = decode(&mut &bytes[..], &services).unwrap();
        let more = back.iter().flatten().find_map(|value| match value {
            Value::Typed(typed) if !typed.more().is_empty() => Some(typed.more().to_vec()),
            _ => None,
        });
        let [(note, text), (weights, tensor)] = &more.unwrap()[..] else { panic!() };
        assert_eq!((&**note, &**weights), ("note", "weights"));
        assert!(matches!(text, Value::Text(text) if &**text == "by hand"));
        let tensor = tensor.tensor().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(tensor, [0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn frames_past_the_budget_lie_on_disk() {
        let services = services(2 * 4 * 5 * 3 * 4);
        let values = everything(&services);
        let frames = values[3].as_ref().and_then(Value::get::<crate::Frames>).unwrap();
        assert_eq!((frames.resident(), frames.bytes()), (480, 720));
        assert_eq!(frames.whole().unwrap().dims(), [3, 4, 5, 3]);
        assert_eq!(services.ledger.used(), 480);
        drop(values);
        assert_eq!(services.ledger.used(), 0);
    }

    #[test]
    fn cut_or_flipped_bytes_never_panic() {
        let services = services(u64::MAX);
        let mut bytes = Vec::new();
        encode(&everything(&services), &mut bytes).unwrap();
        for cut in 0..bytes.len() {
            assert!(decode(&mut &bytes[..cut], &services).is_err());
        }
        for at in 0..bytes.len() {
            for mask in [0x15, 0x01, 0x80] {
                let mut flipped = bytes.clone();
                flipped[at] ^= mask;
                let _ = decode(&mut &flipped[..], &services);
            }
        }
    }

    /// Every number of the header in turn is one that no size can be, and every word another's.
    #[test]
    fn headers_that_lie_never_panic() {
        let services = services(u64::MAX);
        let mut bytes = Vec::new();
        encode(&everything(&services), &mut bytes).unwrap();
        let length = u64::from_le_bytes(bytes[8..16].try_into().unwrap()) as usize;
        let (header, rest) = (bytes[16..16 + length].to_vec(), bytes[16 + length..].to_vec());
        let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
        let lies = [
            serde_json::json!(0),
            serde_json::json!(1),
            serde_json::json!(-1),
            serde_json::json!(u32::MAX),
            serde_json::json!(u64::MAX),
            serde_json::json!(u64::MAX / 4),
            serde_json::json!(f64::NAN.to_bits()),
            serde_json::json!("f16"),
            serde_json::json!("Mask"),
            serde_json::json!(null),
            serde_json::json!([]),
        ];
        let mut refused = 0;
        for at in 0..leaves(&mut header.clone(), None) {
            for lie in &lies {
                let mut header = header.clone();
                leaves(&mut header, Some((at, lie)));
                let header = serde_json::to_vec(&header).unwrap();
                let mut bytes = MAGIC.to_vec();
                bytes.extend((header.len() as u64).to_le_bytes());
                bytes.extend(header);
                bytes.extend(&rest);
                refused += u32::from(decode(&mut &bytes[..], &services).is_err());
            }
        }
        assert!(refused > 500, "only {refused} lies were refused");
    }

    /// The number of leaves of a document; the one of an index is replaced.
    fn leaves(of: &mut serde_json::Value, put: Option<(usize, &serde_json::Value)>) -> usize {
        let mut count = 0;
        let mut stack = vec![of];
        while let Some(next) = stack.pop() {
            match next {
                serde_json::Value::Array(items) => stack.extend(items.iter_mut()),
                serde_json::Value::Object(fields) => stack.extend(fields.values_mut()),
                leaf => {
                    if let Some((at, lie)) = put
                        && at == count
                    {
                        *leaf = lie.clone();
                        return count;
                    }
                    count += 1;
                }
            }
        }
        count
    }
}
