//! Our side: a process that loads, computes and saves as it is told, by the lines that the peer's
//! script is told as well. Nothing is timed here.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, safetensors};
use kino_kernels::{LinearEpilogue, PackedMatrix, Precision, linear_packed};
use kino_models::families::Families;
use kino_models::families::wan::dit::Dit;
use kino_models::families::wan::vae::Vae;
use kino_models::families::wan::{self, TransformerConfig, VaeConfig};
use kino_models::model::Timesteps;
use kino_models::patch::{Grid, patchify, unpatchify};
use kino_models::text::{T5, TextConfig};
use kino_models::{ModelFolder, Weights};
use kino_session::{Engine, Inputs};
use serde_json::{Value, json};

use crate::clip;

/// What can go wrong is said to whoever drives.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PATCH: (usize, usize, usize) = (1, 2, 2);
const DEVICE: Device = Device::Cpu;

/// What was loaded.
enum Net {
    Transformer(Box<Dit>),
    Decode(Box<Vae>),
    Encode(Box<Vae>),
    Text(Box<T5>),
    /// The whole engine; a folder for its graph.
    Sampling(Box<Engine>, tempfile::TempDir),
}

#[derive(Default)]
struct Side {
    net: Option<Net>,
    input: HashMap<String, Tensor>,
    output: Option<Tensor>,
    product: Option<(Value, Tensor, PackedMatrix)>,
}

/// Answers commands until there are no more.
pub(crate) fn serve() {
    let mut side = Side::default();
    for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
        let answer = serde_json::from_str(&line).map_err(Into::into).and_then(|c| side.obey(&c));
        let answer = answer.unwrap_or_else(|error| json!({ "error": error.to_string() }));
        println!("{answer}");
        std::io::stdout().flush().expect("whoever drives reads it");
    }
}

/// A text of a command.
fn text<'c>(command: &'c Value, name: &str) -> Result<&'c str> {
    command[name].as_str().ok_or_else(|| format!("no {name} in {command}").into())
}

fn dtype(command: &Value) -> Result<DType> {
    match text(command, "compute")? {
        "f32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        other => Err(format!("no type {other}").into()),
    }
}

impl Side {
    fn obey(&mut self, command: &Value) -> Result<Value> {
        match text(command, "do")? {
            "warm" => self.product(&json!({
                "compute": command["compute"], "size": [64, 64, 64], "times": 1
            }))?,
            "load" => {
                let (net, weights) = load(command)?;
                self.net = Some(net);
                return Ok(json!({ "weights": weights }));
            }
            "input" => self.input = safetensors::load(text(command, "file")?, &DEVICE)?,
            "run" => {
                self.output = None;
                let net = self.net.as_ref().ok_or("nothing is loaded")?;
                self.output = Some(run(net, &self.input)?);
            }
            "save" => {
                let output = self.output.as_ref().ok_or("nothing was computed")?;
                let output = output.to_dtype(DType::F32)?.contiguous()?;
                let tensors = HashMap::from([("output", output)]);
                safetensors::save(&tensors, text(command, "file")?)?;
            }
            "product" => self.product(command)?,
            other => return Err(format!("no command {other}").into()),
        }
        Ok(json!({}))
    }

    /// A matrix product, as often as asked.
    fn product(&mut self, command: &Value) -> Result<()> {
        let (size, dtype) = (&command["size"], dtype(command)?);
        let side = |index: usize| size[index].as_u64().unwrap_or(1) as usize;
        let asked = json!([size, command["compute"]]);
        if self.product.as_ref().is_none_or(|(made, ..)| *made != asked) {
            let random =
                |rows, columns| Tensor::rand(-1f32, 1.0, (rows, columns), &DEVICE)?.to_dtype(dtype);
            let weight = random(side(1), side(2))?;
            let packed = PackedMatrix::pack(&weight, Precision::of(dtype))?;
            self.product = Some((asked, random(side(0), side(2))?, packed));
        }
        let Some((_, x, weight)) = &self.product else { return Ok(()) };
        for _ in 0..command["times"].as_u64().unwrap_or(1) {
            linear_packed(x, weight, None, LinearEpilogue::None)?;
        }
        Ok(())
    }
}

/// Loads a model, and says how many bytes its weights have in the form in which they are stored.
fn load(command: &Value) -> Result<(Net, u64)> {
    let (kind, place) = (text(command, "kind")?, PathBuf::from(text(command, "folder")?));
    if kind == "sampling" {
        let own = tempfile::tempdir()?;
        let engine = kino_tests::engine(own.path()).no_cache().keep_results(false).build()?;
        let folder = ModelFolder::directory(&place)?;
        let bytes = |part: &str| -> Result<u64> { Ok(folder.part(part)?.bytes()) };
        // Stored in 16 bits, held in 32.
        let weights = 2 * (bytes("transformer")? + bytes("text_encoder")?);
        return Ok((Net::Sampling(Box::new(engine), own), weights));
    }
    let (folder, dtype) = (ModelFolder::directory(&place)?, dtype(command)?);
    let stored = |path: &Path| std::fs::metadata(path).map(|file| file.len());
    match kind {
        "transformer" => {
            let gguf = place.join("model.gguf");
            let (config, weights, path) = match gguf.exists() {
                true => {
                    let file = Families::default().open_file(&gguf)?;
                    let weights = Weights::new(file.part("transformer")?, dtype, &DEVICE)?;
                    (TransformerConfig::read(&file)?, weights, gguf)
                }
                false => {
                    let path = place.join("transformer/diffusion_pytorch_model.safetensors");
                    let weights = Weights::open(&path, dtype, &DEVICE)?;
                    (TransformerConfig::read(&folder)?, weights, path)
                }
            };
            let dit = Dit::load(&config, &weights)?;
            Ok((Net::Transformer(Box::new(dit)), stored(&path)?))
        }
        "text" => {
            let weights = folder.weights("text_encoder", dtype, &DEVICE)?;
            let umt5 = T5::load(&TextConfig::read(&folder, &wan::PROMPTS)?, &weights)?;
            let path = place.join("text_encoder/model.safetensors");
            Ok((Net::Text(Box::new(umt5)), stored(&path)?))
        }
        _ => {
            let weights = folder.weights("vae", dtype, &DEVICE)?;
            let vae = Box::new(Vae::load(&VaeConfig::read(&folder)?, &weights)?);
            let (net, own) = match kind {
                "vae_decode" => {
                    vae.decoder()?;
                    (Net::Decode(vae), ["decoder", "post_quant_conv"])
                }
                _ => {
                    vae.encoder()?;
                    (Net::Encode(vae), ["encoder", "quant_conv"])
                }
            };
            let files = folder.part("vae")?;
            let stored = files.main_dtype().unwrap_or(DType::F32);
            Ok((net, files.weight_bytes(stored, &own)))
        }
    }
}

/// Computes once.
fn run(net: &Net, input: &HashMap<String, Tensor>) -> Result<Tensor> {
    let given = |name: &str| input.get(name).ok_or(format!("no {name} in the input"));
    let mut go_on = || Ok(());
    Ok(match net {
        Net::Transformer(dit) => {
            let latent = given("latent")?;
            let (_, frames, height, width) = latent.dims4()?;
            let grid = Grid::of_latent((frames, height, width), PATCH)?;
            let patches = patchify(latent, PATCH)?;
            // Projected once a run elsewhere; here it is part of the work, as it is the peer's.
            let context = dit.context(given("text")?)?;
            let times = Timesteps::PerClip(&[417.0]);
            let velocity = dit.velocity(&patches, &[grid], times, &[&context], &mut go_on)?;
            unpatchify(&velocity, grid, PATCH)?
        }
        Net::Decode(vae) => vae.decode(given("latent")?, None, &mut go_on)?,
        Net::Encode(vae) => vae.encode(given("frames")?, None, &mut go_on)?,
        Net::Text(umt5) => umt5.encode(&given("ids")?.to_vec1()?, &mut go_on)?,
        Net::Sampling(engine, own) => {
            let noise = HashMap::from([("noise", given("noise")?.clone())]);
            safetensors::save(&noise, own.path().join(clip::NOISE))?;
            let text = clip::graph(&clip::End::Latent);
            let graph = engine.open_text("sampling.ron", text, own.path())?;
            let run = graph.run(Inputs::new()).out(own.path().join("out")).start()?;
            run.wait()?.tensor("latent")?
        }
    })
}
