//! Autoencoders of other forms than the published ones: names and sizes follow the config.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use kino_models::families::wan::VaeConfig;
use kino_models::families::wan::vae::{self, Vae};
use kino_models::{ModelFolder, Result};

/// Two levels, one of them halving time; attention at full size; a wider decoder.
const CONFIG: &str = r#"{
    "_class_name": "AutoencoderKLWan", "base_dim": 4, "decoder_base_dim": 6, "z_dim": 2,
    "dim_mult": [1, 3], "num_res_blocks": 1, "attn_scales": [1.0],
    "temperal_downsample": [true], "latents_mean": [0.5, -1.0], "latents_std": [2.0, 0.5]
}"#;

/// What `AutoencoderKLWan` of diffusers names its layers for that config, with their channels.
const RESIDUAL: [(&str, usize, usize); 8] = [
    ("encoder.down_blocks.0", 4, 4),
    ("encoder.down_blocks.3", 4, 12),
    ("encoder.mid_block.resnets.0", 12, 12),
    ("encoder.mid_block.resnets.1", 12, 12),
    ("decoder.mid_block.resnets.0", 18, 18),
    ("decoder.mid_block.resnets.1", 18, 18),
    ("decoder.up_blocks.0.resnets.0", 18, 18),
    ("decoder.up_blocks.1.resnets.0", 9, 6),
];
const MORE_RESIDUAL: [(&str, usize, usize); 2] =
    [("decoder.up_blocks.0.resnets.1", 18, 18), ("decoder.up_blocks.1.resnets.1", 6, 6)];
const ATTENTION: [(&str, usize); 3] = [
    ("encoder.down_blocks.1", 4),
    ("encoder.mid_block.attentions.0", 12),
    ("decoder.mid_block.attentions.0", 18),
];
const CONVS: [(&str, usize, usize, &[usize]); 10] = [
    ("encoder.conv_in", 3, 4, &[3, 3, 3]),
    ("encoder.down_blocks.2.resample.1", 4, 4, &[3, 3]),
    ("encoder.down_blocks.2.time_conv", 4, 4, &[3, 1, 1]),
    ("encoder.conv_out", 12, 4, &[3, 3, 3]),
    ("quant_conv", 4, 4, &[1, 1, 1]),
    ("post_quant_conv", 2, 2, &[1, 1, 1]),
    ("decoder.conv_in", 2, 18, &[3, 3, 3]),
    ("decoder.up_blocks.0.upsamplers.0.resample.1", 18, 9, &[3, 3]),
    ("decoder.up_blocks.0.upsamplers.0.time_conv", 18, 36, &[3, 1, 1]),
    ("decoder.conv_out", 6, 3, &[3, 3, 3]),
];

/// Weights of a checkpoint under construction.
struct Checkpoint {
    weights: HashMap<String, Tensor>,
    state: u32,
}

impl Checkpoint {
    fn new() -> Self {
        let mut made = Self { weights: HashMap::new(), state: 7 };
        for (name, cin, cout) in RESIDUAL.into_iter().chain(MORE_RESIDUAL) {
            made.gamma(&format!("{name}.norm1"), &[cin, 1, 1, 1]);
            made.gamma(&format!("{name}.norm2"), &[cout, 1, 1, 1]);
            made.conv(&format!("{name}.conv1"), cin, cout, &[3, 3, 3]);
            made.conv(&format!("{name}.conv2"), cout, cout, &[3, 3, 3]);
            if cin != cout {
                made.conv(&format!("{name}.conv_shortcut"), cin, cout, &[1, 1, 1]);
            }
        }
        for (name, c) in ATTENTION {
            made.gamma(&format!("{name}.norm"), &[c, 1, 1]);
            made.conv(&format!("{name}.to_qkv"), c, 3 * c, &[1, 1]);
            made.conv(&format!("{name}.proj"), c, c, &[1, 1]);
        }
        for (name, cin, cout, kernel) in CONVS {
            made.conv(name, cin, cout, kernel);
        }
        made.gamma("encoder.norm_out", &[12, 1, 1, 1]);
        made.gamma("decoder.norm_out", &[6, 1, 1, 1]);
        made
    }

    fn random(&mut self, shape: &[usize], size: f32) -> Tensor {
        let mut next = || {
            self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((self.state >> 8) as f32 / 8_388_608.0 - 1.0) * size
        };
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    fn gamma(&mut self, name: &str, shape: &[usize]) {
        let gamma = self.random(shape, 1.0);
        self.weights.insert(format!("{name}.gamma"), gamma);
    }

    fn conv(&mut self, name: &str, cin: usize, cout: usize, kernel: &[usize]) {
        let size = 1.0 / ((cin * kernel.iter().product::<usize>()) as f32).sqrt();
        let weight = self.random(&[&[cout, cin], kernel].concat(), size);
        let bias = self.random(&[cout], 0.1);
        self.weights.insert(format!("{name}.weight"), weight);
        self.weights.insert(format!("{name}.bias"), bias);
    }

    fn write(&self, folder: &Path) -> Result<Vae> {
        let part = folder.join("vae");
        std::fs::create_dir_all(&part).unwrap();
        std::fs::write(part.join("config.json"), CONFIG).unwrap();
        let file = part.join("diffusion_pytorch_model.safetensors");
        candle_core::safetensors::save(&self.weights, file).unwrap();
        let folder = ModelFolder::directory(folder).unwrap();
        let config = VaeConfig::read(&folder)?;
        Vae::load(&config, &folder.weights("vae", DType::F32, &Device::Cpu)?)
    }
}

#[test]
fn another_form_is_read_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let vae = Checkpoint::new().write(folder.path()).unwrap();
    assert_eq!(vae::latent_shape(vae.config(), 7, 6, 10).unwrap(), [2, 4, 3, 5]);
    let frames = Checkpoint::new().random(&[7, 6, 10, 3], 1.0);
    let latent = vae.encode(&frames, None, &mut || Ok(())).unwrap();
    assert_eq!(latent.dims(), [2, 4, 3, 5]);
    let decoded = vae.decode(&latent, None, &mut || Ok(())).unwrap();
    assert_eq!(decoded.dims(), [7, 6, 10, 3]);
    let energy = decoded.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(energy.is_finite() && energy > 0.0);
    let peak = vae::encode_peak(vae.config(), (7, [6, 10]), None, DType::F32);
    let mut encoder = vae.encoder().unwrap();
    for index in 0..3 {
        let chunk = frames.narrow(0, 0, encoder.next_frames()).unwrap();
        encoder.push(&chunk, &mut || Ok(())).unwrap();
        assert!(index < 2 || encoder.cache_bytes() == peak.cache);
    }
}

#[test]
fn a_missing_weight_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::new();
    checkpoint.weights.remove("decoder.up_blocks.1.resnets.1.conv2.bias");
    let vae = checkpoint.write(folder.path()).unwrap();
    let error = vae.decoder().unwrap_err().to_string();
    assert!(error.contains("`decoder.up_blocks.1.resnets.1.conv2.bias`"), "{error}");
    assert!(vae.encoder().is_ok(), "the encoder does not need it");
}

#[test]
fn a_residual_form_whose_levels_do_not_divide_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("vae")).unwrap();
    let config = CONFIG.replace("\"z_dim\": 2", "\"z_dim\": 2, \"is_residual\": true");
    std::fs::write(folder.path().join("vae/config.json"), config).unwrap();
    let error = VaeConfig::read(&ModelFolder::directory(folder.path()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("groups of a residual autoencoder"), "{error}");
}
