//! Values as bytes, for the cache on disk: `KINOVAL2`, the length of a JSON header, the header,
//! then all tensor data in the header's order.

use std::io::{Read, Write};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_port::Sigma;
use serde::{Deserialize, Serialize};

use crate::{
    Clip, Conditioning, Embedding, Embeddings, Error, FileOut, FramesBuilder, Latent, Outputs,
    Patches, Record, Result, Services, Sigmas, Space, Value,
};

const MAGIC: &[u8; 8] = b"KINOVAL2";
/// No header of values that the engine writes comes near this.
const LONGEST_HEADER: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Shape {
    dtype: String,
    shape: Vec<usize>,
}

/// The name of an embedding, its tensor, its mask.
type EmbeddingForm = (String, Shape, Option<Shape>);

#[derive(Serialize, Deserialize)]
enum Form {
    Text(String),
    /// In decimal: JSON numbers end at 64 bits.
    Int(String),
    /// The bits, so that nothing is rounded.
    Real(u64),
    Bool(bool),
    Conditioning(Vec<EmbeddingForm>, Vec<EmbeddingForm>),
    Latent(Shape, Option<Space>),
    Patches(Shape, Vec<Clip>, [usize; 3]),
    Sigmas(Vec<u64>),
    Frames {
        chunks: Vec<usize>,
        height: usize,
        width: usize,
        fps: Option<u64>,
    },
    Tensor(Shape),
    File(FileOut),
    List(Vec<(Option<String>, Form)>),
    Custom(String, Vec<(String, Form)>),
}

/// Whether a value can be kept on disk; parts of models and guiders cannot.
pub fn is_storable(value: &Value) -> bool {
    match value {
        Value::Part(_) | Value::Guider(_) => false,
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
    forms
        .into_iter()
        .map(|form| form.map(|form| read_value(form, from, services)).transpose())
        .collect()
}

fn shape(tensor: &Tensor) -> Shape {
    Shape { dtype: tensor.dtype().as_str().to_owned(), shape: tensor.dims().to_vec() }
}

fn form(value: &Value) -> Result<Form> {
    Ok(match value {
        Value::Text(text) => Form::Text(text.to_string()),
        Value::Int(value) => Form::Int(value.to_string()),
        Value::Real(value) => Form::Real(value.to_bits()),
        Value::Bool(value) => Form::Bool(*value),
        Value::Conditioning(both) => {
            Form::Conditioning(embedding_forms(&both.positive), embedding_forms(&both.negative))
        }
        Value::Latent(latent) => Form::Latent(shape(&latent.tensor), latent.space.clone()),
        Value::Patches(patches) => {
            Form::Patches(shape(&patches.tokens), patches.clips.clone(), patches.patch)
        }
        Value::Sigmas(sigmas) => {
            Form::Sigmas(sigmas.0.iter().map(|sigma| sigma.0.to_bits()).collect())
        }
        Value::Frames(frames) => Form::Frames {
            chunks: (0..frames.chunk_count()).map(|index| frames.chunk_len(index)).collect(),
            height: frames.height(),
            width: frames.width(),
            fps: frames.fps().map(f64::to_bits),
        },
        Value::Tensor(tensor) => Form::Tensor(shape(tensor)),
        Value::File(file) => Form::File(FileOut::clone(file)),
        Value::List(items) => Form::List(
            items
                .iter()
                .map(|(name, item)| Ok((name.as_ref().map(ToString::to_string), form(item)?)))
                .collect::<Result<_>>()?,
        ),
        Value::Custom(record) => Form::Custom(
            record.ty.to_string(),
            record
                .fields
                .iter()
                .map(|(name, field)| Ok((name.to_string(), form(field)?)))
                .collect::<Result<_>>()?,
        ),
        Value::Part(_) | Value::Guider(_) => {
            return Err(Error::failed(format!("{} cannot be stored", value.kind())));
        }
    })
}

fn embedding_forms(embeddings: &Embeddings) -> Vec<EmbeddingForm> {
    let form = |embedding: &Embedding| {
        let mask = embedding.mask.as_ref().map(shape);
        (embedding.name.to_string(), shape(&embedding.tensor), mask)
    };
    embeddings.iter().map(form).collect()
}

fn write_tensor(tensor: &Tensor, to: &mut dyn Write) -> Result<()> {
    let mut bytes = Vec::with_capacity(tensor.elem_count() * tensor.dtype().size_in_bytes());
    tensor.to_device(&Device::Cpu)?.write_bytes(&mut bytes)?;
    Ok(to.write_all(&bytes)?)
}

fn write_tensors(value: &Value, to: &mut dyn Write) -> Result<()> {
    match value {
        Value::Conditioning(both) => {
            let mut tensors = both.positive.tensors().chain(both.negative.tensors());
            tensors.try_for_each(|tensor| write_tensor(tensor, to))
        }
        Value::Latent(latent) => write_tensor(&latent.tensor, to),
        Value::Patches(patches) => write_tensor(&patches.tokens, to),
        Value::Frames(frames) => frames.chunks().try_for_each(|chunk| write_tensor(&chunk?, to)),
        Value::Tensor(tensor) => write_tensor(tensor, to),
        Value::List(items) => items.iter().try_for_each(|(_, item)| write_tensors(item, to)),
        Value::Custom(record) => {
            record.fields.iter().try_for_each(|(_, field)| write_tensors(field, to))
        }
        _ => Ok(()),
    }
}

fn read_tensor(form: &Shape, from: &mut dyn Read, device: &Device) -> Result<Tensor> {
    let dtype: DType = form
        .dtype
        .parse()
        .map_err(|_| Error::failed(format!("unknown element type `{}`", form.dtype)))?;
    let elements = form.shape.iter().try_fold(dtype.size_in_bytes(), |n, dim| n.checked_mul(*dim));
    let length =
        elements.ok_or_else(|| Error::failed(format!("impossible shape {:?}", form.shape)))?;
    let mut bytes = Vec::new();
    from.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(Error::failed("a stored value ends early"));
    }
    Ok(Tensor::from_raw_buffer(&bytes, dtype, &form.shape, device)?)
}

fn read_embeddings(
    forms: Vec<EmbeddingForm>,
    from: &mut dyn Read,
    device: &Device,
) -> Result<Embeddings> {
    let mut embeddings = Embeddings::default();
    for (name, tensor, mask) in forms {
        let tensor = read_tensor(&tensor, from, device)?;
        let mask = mask.map(|mask| read_tensor(&mask, from, device)).transpose()?;
        embeddings = embeddings.with(&name, tensor, mask)?;
    }
    Ok(embeddings)
}

fn read_value(form: Form, from: &mut dyn Read, services: &Services) -> Result<Value> {
    let device = &services.device;
    Ok(match form {
        Form::Text(text) => Value::Text(text.into()),
        Form::Int(digits) => Value::Int(
            digits.parse().map_err(|_| Error::failed(format!("`{digits}` is no whole number")))?,
        ),
        Form::Real(bits) => Value::Real(f64::from_bits(bits)),
        Form::Bool(value) => Value::Bool(value),
        Form::Conditioning(positive, negative) => Value::Conditioning(Arc::new(Conditioning {
            positive: read_embeddings(positive, from, device)?,
            negative: read_embeddings(negative, from, device)?,
        })),
        Form::Latent(shape, space) => {
            Value::Latent(Arc::new(Latent { tensor: read_tensor(&shape, from, device)?, space }))
        }
        Form::Patches(shape, clips, patch) => Value::Patches(Arc::new(Patches {
            tokens: read_tensor(&shape, from, device)?,
            clips,
            patch,
        })),
        Form::Sigmas(bits) => Value::Sigmas(Sigmas(
            bits.into_iter().map(|bits| Sigma(f64::from_bits(bits))).collect(),
        )),
        Form::Frames { chunks, height, width, fps } => {
            let mut frames = FramesBuilder::new(&services.ledger, fps.map(f64::from_bits));
            for n in chunks {
                let shape = Shape { dtype: "f32".into(), shape: vec![n, height, width, 3] };
                frames.push(&read_tensor(&shape, from, &Device::Cpu)?)?;
            }
            Value::Frames(Arc::new(frames.finish()?))
        }
        Form::Tensor(shape) => Value::Tensor(read_tensor(&shape, from, device)?),
        Form::File(file) => Value::File(Arc::new(file)),
        Form::List(items) => Value::List(
            items
                .into_iter()
                .map(|(name, item)| Ok((name.map(Arc::from), read_value(item, from, services)?)))
                .collect::<Result<_>>()?,
        ),
        Form::Custom(ty, fields) => Value::Custom(Arc::new(Record {
            ty: ty.into(),
            fields: fields
                .into_iter()
                .map(|(name, field)| Ok((name.into(), read_value(field, from, services)?)))
                .collect::<Result<_>>()?,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;

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
        let space = Some(Space { id: [7; 32], channels: 2, temporal: 4, spatial: 8 });
        let latent = Value::Latent(Arc::new(Latent { tensor: ramp(12, &[2, 1, 2, 3]), space }));
        vec![
            Some(Value::Int(i128::from(u64::MAX))),
            None,
            Some(Value::Real(f64::INFINITY)),
            Some(Value::Frames(Arc::new(frames.finish().unwrap()))),
            Some(Value::List(
                vec![(Some("a".into()), latent), (None, Value::Text("x".into()))].into(),
            )),
            Some(Value::Sigmas(Sigmas(vec![Sigma(0.1), Sigma(0.0)].into()))),
            Some(Value::Conditioning(Arc::new(Conditioning {
                positive: Embeddings::of_text(ramp(6, &[2, 3]))
                    .with("pooled", ramp(3, &[3]), None)
                    .and_then(|both| both.with("image", ramp(8, &[2, 4]), Some(ramp(2, &[2]))))
                    .unwrap(),
                negative: Embeddings::of_text(ramp(6, &[2, 3])),
            }))),
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
        let found = back.into_iter().flatten().find_map(|value| match value {
            Value::Conditioning(conditioning) => Some(conditioning),
            _ => None,
        });
        let found = found.unwrap();
        let names: Vec<_> = found.positive.iter().map(|embedding| &*embedding.name).collect();
        assert_eq!(names, ["text", "pooled", "image"]);
        let image = found.positive.need("image").unwrap();
        assert_eq!(image.mask.as_ref().unwrap().to_vec1::<f32>().unwrap(), [0.0, 1.0]);
        let error = found.negative.need("pooled").unwrap_err().to_string();
        assert_eq!(error, "expected embeddings `pooled`, found text");
    }

    #[test]
    fn frames_past_the_budget_lie_on_disk() {
        let services = services(2 * 4 * 5 * 3 * 4);
        let values = everything(&services);
        let Some(Value::Frames(frames)) = &values[3] else { panic!() };
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
        for at in 0..bytes.len().min(1500) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x15;
            let _ = decode(&mut &flipped[..], &services);
        }
    }
}
