//! What leads a model: embeddings of a prompt and of a negative prompt.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_port::PortType;

use crate::stored::{TensorHeader, TensorReader};
use crate::types::{Field, Fields, TensorFact, Tensors, ValueType};
use crate::{Error, Result};

/// What leads a model: the embeddings of a prompt, and those of a negative prompt.
#[derive(Clone, Debug, Default)]
pub struct Conditioning {
    /// Of the prompt.
    pub positive: Embeddings,
    /// Of the negative prompt.
    pub negative: Embeddings,
}

impl Conditioning {
    /// Embeddings of two texts alone, each `[rows, dim]`.
    pub fn of_text(positive: Tensor, negative: Tensor) -> Self {
        Conditioning {
            positive: Embeddings::of_text(positive),
            negative: Embeddings::of_text(negative),
        }
    }

    /// The embeddings of both with every tensor replaced.
    ///
    /// # Errors
    /// When `replace` fails.
    pub fn map(&self, replace: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Conditioning {
            positive: self.positive.map(&replace)?,
            negative: self.negative.map(&replace)?,
        })
    }
}

/// The embeddings of one prompt by name: `text`, `pooled`, `image`, and whatever else a family of
/// models reads. Their order is the one in which they were added.
#[derive(Clone, Debug, Default)]
pub struct Embeddings(Vec<Embedding>);

/// One tensor among embeddings.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// What it is called among the embeddings of its prompt.
    pub name: Arc<str>,
    /// The embeddings: `[rows, dim]` of a sequence, `[dim]` of a pooled one.
    pub tensor: Tensor,
    /// `[rows]`, 1 where a row counts and 0 where it is padding; without one, all rows count.
    pub mask: Option<Tensor>,
}

impl Embeddings {
    /// The name of the sequence that a text encoder gives.
    pub const TEXT: &str = "text";

    /// The embeddings of a text alone, `[rows, dim]`.
    pub fn of_text(tensor: Tensor) -> Self {
        Embeddings(vec![Embedding { name: Self::TEXT.into(), tensor, mask: None }])
    }

    /// With one more tensor, in place of the one of its name.
    ///
    /// # Errors
    /// When the mask is not `[rows]` of the tensor.
    pub fn with(mut self, name: &str, tensor: Tensor, mask: Option<Tensor>) -> Result<Self> {
        if let Some(mask) = &mask
            && (tensor.rank() < 2 || mask.dims() != &tensor.dims()[..1])
        {
            return Err(Error::failed(format!(
                "the mask of the embeddings `{name}` {:?} is [rows], found {:?}",
                tensor.dims(),
                mask.dims()
            )));
        }
        self.0.retain(|embedding| &*embedding.name != name);
        self.0.push(Embedding { name: name.into(), tensor, mask });
        Ok(self)
    }

    /// The embedding of a name, where there is one.
    pub fn get(&self, name: &str) -> Option<&Embedding> {
        self.0.iter().find(|embedding| &*embedding.name == name)
    }

    /// The embedding of a name.
    ///
    /// # Errors
    /// When there is none of it.
    pub fn need(&self, name: &str) -> Result<&Embedding> {
        self.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.0.iter().map(|embedding| &*embedding.name).collect();
            let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Error::failed(format!("expected embeddings `{name}`, found {found}"))
        })
    }

    /// The sequence that a text encoder gave, `[rows, dim]`.
    ///
    /// # Errors
    /// When there is none.
    pub fn text(&self) -> Result<&Tensor> {
        Ok(&self.need(Self::TEXT)?.tensor)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Embedding> {
        self.0.iter()
    }

    /// All tensors, those of the masks too.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.0.iter().flat_map(|embedding| [&embedding.tensor].into_iter().chain(&embedding.mask))
    }

    fn map(&self, replace: &impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let one = |embedding: &Embedding| {
            Ok(Embedding {
                name: Arc::clone(&embedding.name),
                tensor: replace(&embedding.tensor)?,
                mask: embedding.mask.as_ref().map(replace).transpose()?,
            })
        };
        Ok(Embeddings(self.0.iter().map(one).collect::<Result<_>>()?))
    }
}

/// What is known of conditioning: the shape of each tensor of the prompt, by its name. Those of the
/// negative prompt have the same names and widths.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditioningFact {
    /// Name and shape of each.
    pub embeddings: Vec<(String, Vec<usize>)>,
    /// Rows of the text up to those past its end, which are equal, or more than those; none where
    /// that is not known. It is the larger one of the prompt's and the negative one's.
    pub distinct_rows: Option<usize>,
}

impl ConditioningFact {
    /// Embeddings of a text alone: `[rows, dim]`, rows of padding included.
    pub fn of_text(rows: usize, dim: usize) -> Self {
        let embeddings = vec![(Embeddings::TEXT.to_owned(), vec![rows, dim])];
        ConditioningFact { embeddings, distinct_rows: None }
    }

    /// The shape of the embeddings of a name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let found = self.embeddings.iter().find(|(other, _)| other == name);
        found.map(|(_, shape)| shape.as_slice())
    }

    /// Rows and width of the text's embeddings.
    pub fn text(&self) -> Option<(usize, usize)> {
        match *self.shape(Embeddings::TEXT)? {
            [rows, dim] => Some((rows, dim)),
            _ => None,
        }
    }
}

/// Name, tensor and mask of each of the embeddings of one prompt.
type EmbeddingHeaders = Vec<(String, TensorHeader, Option<TensorHeader>)>;

impl Embeddings {
    fn header(&self) -> EmbeddingHeaders {
        let header = |embedding: &Embedding| {
            let mask = embedding.mask.as_ref().map(TensorHeader::of);
            (embedding.name.to_string(), TensorHeader::of(&embedding.tensor), mask)
        };
        self.0.iter().map(header).collect()
    }

    fn restore(headers: EmbeddingHeaders, tensors: &mut TensorReader<'_>) -> Result<Self> {
        headers.into_iter().try_fold(Embeddings::default(), |read, (name, tensor, mask)| {
            let tensor = tensors.next(&tensor)?;
            let mask = mask.map(|mask| tensors.next(&mask)).transpose()?;
            read.with(&name, tensor, mask)
        })
    }
}

impl Embeddings {
    /// As plugins see them: the text's sequence is `tensor`, its mask `mask`; the others go by their
    /// names, as tensors, or as records where they have masks.
    fn as_field(&self) -> Field {
        const NAME: &str = "Embeddings";
        let mut fields = Vec::new();
        for Embedding { name, tensor, mask } in &self.0 {
            let mut parts = vec![("tensor".into(), Field::Tensor(tensor.clone()))];
            parts.extend(mask.iter().map(|mask| ("mask".into(), Field::Tensor(mask.clone()))));
            if &**name == Self::TEXT {
                fields.splice(0..0, parts);
            } else if mask.is_some() {
                fields.push((Arc::clone(name), Field::Record(NAME, parts)));
            } else {
                fields.push((Arc::clone(name), Field::Tensor(tensor.clone())));
            }
        }
        Field::Record(NAME, fields)
    }

    fn of_field(fields: &dyn Fields, name: &str) -> Result<Self> {
        let given = fields.embeddings(name)?;
        given.into_iter().try_fold(Embeddings::default(), |made, (name, tensor, mask)| {
            if made.get(&name).is_some() {
                return Err(Error::failed(format!(
                    "the embeddings `{name}` are given twice: the text's are the field `tensor`"
                )));
            }
            made.with(&name, tensor, mask)
        })
    }
}

impl ValueType for Conditioning {
    const PORT: PortType = PortType::Conditioning;
    type Fact = ConditioningFact;
    type Header = (EmbeddingHeaders, EmbeddingHeaders);

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn fact(&self) -> ConditioningFact {
        let known =
            |embedding: &Embedding| (embedding.name.to_string(), embedding.tensor.dims().to_vec());
        let embeddings = self.positive.0.iter().map(known).collect();
        ConditioningFact { embeddings, distinct_rows: None }
    }

    fn shape(&self) -> Option<Vec<usize>> {
        Some(self.positive.text().ok()?.dims().to_vec())
    }

    fn tensor(&self) -> Result<Tensor> {
        self.positive.text().cloned()
    }

    fn from_tensor(tensor: &Tensor) -> Result<Self> {
        Ok(Conditioning::of_text(tensor.clone(), tensor.zeros_like()?))
    }

    fn fact_of_tensor(tensor: &TensorFact) -> Option<ConditioningFact> {
        match *tensor.shape.as_slice() {
            [rows, dim] => Some(ConditioningFact::of_text(rows, dim)),
            _ => None,
        }
    }

    fn bytes_of_fact(fact: &ConditioningFact) -> u64 {
        let bytes = |(_, shape): &(String, Vec<usize>)| {
            TensorFact { shape: shape.clone(), dtype: DType::F32 }.bytes()
        };
        // Those of the prompt and those of the negative one.
        2 * fact.embeddings.iter().map(bytes).sum::<u64>()
    }

    fn tensor_of_fact(fact: &ConditioningFact) -> Option<TensorFact> {
        let shape = fact.shape(Embeddings::TEXT)?.to_vec();
        Some(TensorFact { shape, dtype: DType::F32 })
    }

    fn field(&self, name: &str) -> Result<Option<Field>> {
        Ok(match name {
            "positive" => Some(self.positive.as_field()),
            "negative" => Some(self.negative.as_field()),
            _ => None,
        })
    }

    fn from_fields(fields: &dyn Fields) -> Result<Self> {
        Ok(Conditioning {
            positive: Embeddings::of_field(fields, "positive")?,
            negative: Embeddings::of_field(fields, "negative")?,
        })
    }

    fn to_device(&self, device: &Device) -> Result<Option<Self>> {
        self.map(|tensor| Ok(tensor.to_device(device)?)).map(Some)
    }

    fn header(&self) -> Self::Header {
        (self.positive.header(), self.negative.header())
    }

    fn tensors(&self) -> Tensors<'_> {
        let all = self.positive.tensors().chain(self.negative.tensors());
        Box::new(all.map(|tensor| Ok(tensor.clone())))
    }

    fn restore((positive, negative): Self::Header, tensors: &mut TensorReader<'_>) -> Result<Self> {
        Ok(Conditioning {
            positive: Embeddings::restore(positive, tensors)?,
            negative: Embeddings::restore(negative, tensors)?,
        })
    }
}
