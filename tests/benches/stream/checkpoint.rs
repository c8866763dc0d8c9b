//! Writes transformers of Wan's architecture of any size, with random numbers in bf16 or in fp8
//! with scales, by the names of diffusers.

use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::Path;

/// Sizes of a transformer.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) inner: usize,
    pub(crate) layers: usize,
    pub(crate) text: usize,
    pub(crate) freq: usize,
}

/// How matrices are stored; all else is bf16.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Bf16,
    /// E4M3, each matrix with one scale beside it.
    Fp8,
}

/// What a tensor holds.
#[derive(Clone, Copy)]
enum Fill {
    /// Random numbers that keep what passes through as large as it was.
    Matrix,
    Ones,
    Zeros,
    /// The scale of the matrix before it.
    Scale(f32),
}

struct Tensor {
    name: String,
    shape: Vec<usize>,
    dtype: &'static str,
    fill: Fill,
}

impl Tensor {
    fn bytes(&self) -> usize {
        let each = match self.dtype {
            "F8_E4M3" => 1,
            "BF16" => 2,
            _ => 4,
        };
        each * self.shape.iter().product::<usize>()
    }

    /// Numbers of a row.
    fn inner(&self) -> usize {
        self.shape.iter().skip(1).product::<usize>().max(1)
    }
}

/// The tensors of a transformer.
fn tensors(sizes: &Sizes, form: Form) -> Vec<Tensor> {
    let Sizes { heads, head_dim, inner, layers, text, freq } = *sizes;
    let dim = heads * head_dim;
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[usize], dtype, fill| {
        all.push(Tensor { name, shape: shape.to_vec(), dtype, fill });
    };
    let mut linear = |name: &str, from: usize, to: usize| {
        let dtype = if form == Form::Fp8 { "F8_E4M3" } else { "BF16" };
        add(format!("{name}.weight"), &[to, from], dtype, Fill::Matrix);
        if form == Form::Fp8 {
            // Of random bytes without the second bit the root of the mean square is near 0.6.
            let scale = Fill::Scale((0.6 * (from as f32).sqrt()).recip());
            add(format!("{name}.scale_weight"), &[], "F32", scale);
        }
        add(format!("{name}.bias"), &[to], "BF16", Fill::Zeros);
    };
    linear("condition_embedder.time_embedder.linear_1", freq, dim);
    linear("condition_embedder.time_embedder.linear_2", dim, dim);
    linear("condition_embedder.time_proj", dim, 6 * dim);
    linear("condition_embedder.text_embedder.linear_1", text, dim);
    linear("condition_embedder.text_embedder.linear_2", dim, dim);
    linear("proj_out", dim, 64);
    for block in 0..layers {
        for name in ["attn1", "attn2"] {
            for part in ["to_q", "to_k", "to_v", "to_out.0"] {
                linear(&format!("blocks.{block}.{name}.{part}"), dim, dim);
            }
        }
        linear(&format!("blocks.{block}.ffn.net.0.proj"), dim, inner);
        linear(&format!("blocks.{block}.ffn.net.2"), inner, dim);
    }
    let mut beside = |name: String, shape: &[usize], fill| add(name, shape, "BF16", fill);
    for block in 0..layers {
        for name in ["attn1.norm_q", "attn1.norm_k", "attn2.norm_q", "attn2.norm_k", "norm2"] {
            beside(format!("blocks.{block}.{name}.weight"), &[dim], Fill::Ones);
        }
        beside(format!("blocks.{block}.norm2.bias"), &[dim], Fill::Zeros);
        beside(format!("blocks.{block}.scale_shift_table"), &[1, 6, dim], Fill::Zeros);
    }
    beside("scale_shift_table".to_owned(), &[1, 2, dim], Fill::Zeros);
    beside("patch_embedding.weight".to_owned(), &[dim, 16, 1, 2, 2], Fill::Matrix);
    beside("patch_embedding.bias".to_owned(), &[dim], Fill::Zeros);
    all
}

/// Random bytes as numbers of a type: of any sign, and in size 0 to 2 (E4M3), or about
/// 1/√`inner` (bf16).
fn fill_matrix(seed: &mut u64, bytes: &mut [u8], form: Form, inner: usize) {
    // Of bf16 the exponent is the same for all numbers: [1, 2)/√inner.
    let exponent = 127 - (f64::from(inner as u32).log2() / 2.0).round() as u64;
    let (mask, or) = match form {
        Form::Fp8 => (0xbfbf_bfbf_bfbf_bfbf, 0),
        Form::Bf16 => (0x807f_807f_807f_807f, (exponent << 7) * 0x0001_0001_0001_0001),
    };
    for word in bytes.chunks_mut(8) {
        // xorshift64*: Vigna, arXiv:1402.6246.
        *seed ^= *seed >> 12;
        *seed ^= *seed << 25;
        *seed ^= *seed >> 27;
        let random = seed.wrapping_mul(0x2545_F491_4F6C_DD1D) & mask | or;
        word.copy_from_slice(&random.to_le_bytes()[..word.len()]);
    }
}

/// Writes the folder of a model with this transformer alone, `transformer/`; gives the length of
/// the file of weights.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(folder: &Path, sizes: &Sizes, form: Form) -> Result<u64> {
    let folder = folder.join("transformer");
    std::fs::create_dir_all(&folder)?;
    let Sizes { heads, head_dim, inner, layers, text, freq } = *sizes;
    let config = format!(
        r#"{{"_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2],
        "num_attention_heads": {heads}, "attention_head_dim": {head_dim}, "in_channels": 16,
        "out_channels": 16, "text_dim": {text}, "freq_dim": {freq}, "ffn_dim": {inner},
        "num_layers": {layers}, "cross_attn_norm": true, "eps": 1e-6}}"#
    );
    std::fs::write(folder.join("config.json"), config)?;
    let tensors = tensors(sizes, form);
    let (mut at, mut entries) = (0, Vec::new());
    for tensor in &tensors {
        let (begin, end) = (at, at + tensor.bytes());
        let Tensor { name, shape, dtype, .. } = tensor;
        entries.push(format!(
            r#""{name}": {{"dtype": "{dtype}", "shape": {shape:?}, "data_offsets": [{begin}, {end}]}}"#
        ));
        at = end;
    }
    let mut header = format!("{{{}}}", entries.join(", "));
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let file = File::create(folder.join("diffusion_pytorch_model.safetensors"))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let (mut seed, mut buffer) = (0x6b69_6e6f, vec![0; 1 << 20]);
    for tensor in &tensors {
        let mut left = tensor.bytes();
        while left > 0 {
            let piece = &mut buffer[..left.min(1 << 20)];
            match tensor.fill {
                Fill::Matrix if tensor.dtype == "F8_E4M3" => {
                    fill_matrix(&mut seed, piece, Form::Fp8, tensor.inner());
                }
                Fill::Matrix => fill_matrix(&mut seed, piece, Form::Bf16, tensor.inner()),
                Fill::Ones => {
                    piece.chunks_mut(2).for_each(|one| one.copy_from_slice(&[0x80, 0x3f]))
                }
                Fill::Zeros => piece.fill(0),
                Fill::Scale(scale) => piece.copy_from_slice(&scale.to_le_bytes()),
            }
            out.write_all(piece)?;
            left -= piece.len();
        }
    }
    let file = out.into_inner()?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}
