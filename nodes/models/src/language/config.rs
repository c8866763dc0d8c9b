//! The sizes of a language model, as the metadata of its file say them.

use super::rope::Rope;
use crate::checkpoint::{FileMetadata, LARGEST_SIZE, PartFiles};
use crate::error::{Error, Result};

/// Layers of a model at most.
const MOST_LAYERS: usize = 1024;

/// The networks that are read, and models that have them.
const KNOWN: &str = "llama, qwen2, qwen3: Llama, Mistral, SmolLM, Qwen2.5, Qwen3";

/// What differs between the networks that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama, and what has its form (Mistral, SmolLM, TinyLlama).
    Llama,
    /// Qwen2 and Qwen2.5: queries, keys and values have a bias.
    Qwen2,
    /// Qwen3: queries and keys are normalised head by head.
    Qwen3,
}

impl Architecture {
    /// What `general.architecture` calls them.
    const NAMES: [(&str, Architecture); 3] =
        [("llama", Self::Llama), ("qwen2", Self::Qwen2), ("qwen3", Self::Qwen3)];

    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Llama => "Llama",
            Self::Qwen2 => "Qwen2",
            Self::Qwen3 => "Qwen3",
        }
    }
}

/// Sizes of a language model.
#[derive(Debug, Clone)]
pub struct LanguageConfig {
    /// What `general.architecture` says.
    pub name: &'static str,
    /// What that means.
    pub architecture: Architecture,
    /// Width of a token.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; each serves `heads / kv_heads` of queries.
    pub kv_heads: usize,
    /// Width of a head.
    pub head: usize,
    /// Width inside the feed-forward.
    pub inner: usize,
    /// Tokens that it knows.
    pub vocabulary: usize,
    /// ε of the norms.
    pub eps: f64,
    /// Tokens that it was made to read, those that it writes included.
    pub context: usize,
    /// How positions are told.
    pub rope: Rope,
    /// Whether the table of tokens is the output's matrix, too.
    pub tied: bool,
}

impl LanguageConfig {
    /// Whether a key of the metadata is one of those that are read here.
    pub(super) fn keeps(key: &str) -> bool {
        key == "general.architecture"
            || Architecture::NAMES
                .iter()
                .any(|(name, _)| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The sizes that a file says.
    ///
    /// # Errors
    /// When it is of another architecture, or a size is missing or makes no sense.
    pub(super) fn read(metadata: &FileMetadata, files: &PartFiles) -> Result<Self> {
        let (name, architecture) = architecture(metadata)?;
        let key = |of: &str| format!("{name}.{of}");
        let unsupported = |what: String| Error::Unsupported { file: metadata.file().into(), what };
        let checked = |of: &str, size: usize| match size {
            1..=LARGEST_SIZE => Ok(size),
            _ => Err(metadata.wrong(&key(of), &format!("is {size}, which no model has"))),
        };
        let size = |of: &str| match metadata.size(&key(of))? {
            Some(size) => checked(of, size),
            None => Err(metadata.wrong(&key(of), "is missing")),
        };
        let or = |of: &str, otherwise: usize| {
            metadata.size(&key(of))?.map_or(Ok(otherwise), |size| checked(of, size))
        };
        if metadata.size(&key("expert_count"))?.is_some_and(|experts| experts > 0) {
            return Err(unsupported("a language model of experts (`expert_count`)".to_owned()));
        }
        let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
        let kv_heads = or("attention.head_count_kv", heads)?;
        if !heads.is_multiple_of(kv_heads) {
            let reason = format!("is {kv_heads}, which does not divide the {heads} heads");
            return Err(metadata.wrong(&key("attention.head_count_kv"), &reason));
        }
        let head = or("attention.key_length", (width / heads).max(1))?;
        if !head.is_multiple_of(2) || or("attention.value_length", head)? != head {
            return Err(metadata.wrong(
                &key("attention.value_length"),
                "and `attention.key_length` are no even width that both share",
            ));
        }
        let layers = size("block_count")?;
        if layers > MOST_LAYERS {
            return Err(metadata.wrong(&key("block_count"), "is more than any model has"));
        }
        let eps = metadata.real(&key("attention.layer_norm_rms_epsilon"))?.unwrap_or(1e-5);
        let table = files.shape("token_embd.weight").map(<[usize]>::to_vec);
        let vocabulary = table.and_then(|shape| shape.first().copied());
        let vocabulary = vocabulary.filter(|count| *count < u32::MAX as usize).unwrap_or(1);
        Ok(Self {
            name,
            architecture,
            width,
            layers,
            heads,
            kv_heads,
            head,
            inner: size("feed_forward_length")?,
            vocabulary,
            eps,
            context: or("context_length", 4096)?,
            rope: Rope::read(metadata, name, head, architecture == Architecture::Llama)?,
            tied: files.shape("output.weight").is_none(),
        })
    }

    /// Bytes that keys and values of so many tokens take.
    pub fn cache_bytes(&self, tokens: usize) -> u64 {
        let numbers = [2, self.layers, self.kv_heads, self.head, tokens, 4];
        numbers.into_iter().fold(1u64, |bytes, size| bytes.saturating_mul(size as u64))
    }
}

/// Which network a file holds.
fn architecture(metadata: &FileMetadata) -> Result<(&'static str, Architecture)> {
    let Some(own) = metadata.text("general.architecture")? else {
        let reason = format!("is missing: a language model says what it is; known are {KNOWN}");
        return Err(metadata.wrong("general.architecture", &reason));
    };
    let known = Architecture::NAMES.into_iter().find(|(name, _)| *name == own);
    known.ok_or_else(|| {
        let own = kino_port::escape_line(own);
        let what = format!("a language model of the architecture `{own}` (known are {KNOWN})");
        Error::Unsupported { file: metadata.file().to_owned(), what }
    })
}
