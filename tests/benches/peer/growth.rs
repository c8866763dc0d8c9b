//! How our cost grows: with tokens, frames, layers and threads, each as a curve beside its law.

use std::path::Path;

use serde_json::{Value, json};

use crate::chart::{Curve, Law};
use crate::sides::{Result, Side, Spent};

/// What makes weights and inputs.
pub(crate) struct Growth<'a> {
    pub(crate) python: &'a Path,
    pub(crate) script: &'a Path,
    pub(crate) threads: usize,
    pub(crate) quick: bool,
}

/// The curves, by name.
pub(crate) const NAMES: [&str; 4] = ["tokens", "frames", "layers", "threads"];

impl Growth<'_> {
    /// Measures a curve of [`NAMES`].
    pub(crate) fn curve(&self, name: &str) -> Result<Curve> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let folder = folder.path();
        match name {
            "tokens" => self.tokens(folder),
            "frames" => self.frames(folder),
            "layers" => self.layers(folder),
            _ => self.of_threads(folder),
        }
    }

    /// Has the peer write weights and inputs, one file a size.
    fn make(
        &self,
        folder: &Path,
        [kind, weights, form]: [&str; 3],
        layers: usize,
        sizes: &[Vec<usize>],
    ) -> Result<()> {
        let mut peer = Side::peer(self.python, self.script, self.threads)?;
        peer.ask(&json!({
            "do": "make", "kind": weights, "form": form, "layers": layers, "folder": folder
        }))?;
        for (index, size) in sizes.iter().enumerate() {
            // A short text, so that what is computed of it alone counts for little.
            peer.ask(&json!({
                "do": "make_input", "kind": kind, "size": size, "text_rows": 64,
                "file": folder.join(format!("{index}.safetensors"))
            }))?;
        }
        Ok(())
    }

    /// Our side with these weights loaded.
    fn load(&self, folder: &Path, [kind, form]: [&str; 2], threads: usize) -> Result<Side> {
        let mut ours = Side::ours(threads)?;
        ours.load(&json!({
            "do": "load", "kind": kind, "form": form, "compute": form, "folder": folder
        }))?;
        Ok(ours)
    }

    /// The least that some calls take: three, or as many as begin within some seconds.
    fn least(&self, ours: &mut Side, folder: &Path, index: usize) -> Result<Spent> {
        let file = folder.join(format!("{index}.safetensors"));
        ours.ask(&json!({ "do": "input", "file": file }))?;
        let run = json!({ "do": "run" });
        let begun = std::time::Instant::now();
        let mut least = ours.timed(&run)?;
        for _ in 0..2 {
            if begun.elapsed().as_secs() < 4 {
                least = least.least(ours.timed(&run)?);
            }
        }
        Ok(least)
    }

    fn tokens(&self, folder: &Path) -> Result<Curve> {
        let mut grids = vec![vec![2, 16, 16], vec![1, 30, 52], vec![2, 30, 52]];
        if !self.quick {
            grids.extend([4, 8, 14, 21].map(|frames| vec![frames, 30, 52]));
        }
        let kind = "transformer";
        self.make(folder, [kind, kind, "bf16"], 1, &grids)?;
        let mut ours = self.load(folder, [kind, "bf16"], self.threads)?;
        let point = |(index, grid): (usize, &Vec<usize>)| {
            let spent = self.least(&mut ours, folder, index)?;
            Ok((grid.iter().product::<usize>() as f64, spent.cpu))
        };
        let points = grids.iter().enumerate().map(point).collect::<Result<Vec<_>>>()?;
        Ok(Curve {
            title: "One block of Wan 1.3B in bf16 against tokens".to_owned(),
            across: "tokens",
            up: "processor seconds",
            law: Law::fit([1, 2], &points),
            points,
        })
    }

    fn frames(&self, folder: &Path) -> Result<Curve> {
        let counts: &[usize] = if self.quick { &[1, 5, 9] } else { &[5, 9, 17, 33, 65] };
        let sizes: Vec<Vec<usize>> = counts.iter().map(|count| vec![*count, 64, 64]).collect();
        self.make(folder, ["vae_decode", "vae", "f32"], 0, &sizes)?;
        let mut ours = self.load(folder, ["vae_decode", "f32"], self.threads)?;
        let point = |(index, count): (usize, &usize)| {
            Ok((*count as f64, self.least(&mut ours, folder, index)?.cpu))
        };
        let points = counts.iter().enumerate().map(point).collect::<Result<Vec<_>>>()?;
        Ok(Curve {
            title: "Decoding frames of 64×64 by Wan's autoencoder".to_owned(),
            across: "frames",
            up: "processor seconds",
            law: Law::fit([0, 1], &points),
            points,
        })
    }

    fn layers(&self, folder: &Path) -> Result<Curve> {
        let counts: &[usize] = if self.quick { &[1, 2] } else { &[1, 2, 4, 8] };
        let (kind, most) = ("transformer", counts[counts.len() - 1]);
        self.make(folder, [kind, kind, "f32"], most, &[vec![2, 16, 16]])?;
        let path = folder.join("transformer/config.json");
        let mut points = Vec::new();
        for count in counts {
            // The same file of weights, of which fewer layers are read.
            let config = std::fs::read(&path).map_err(|error| error.to_string())?;
            let config = serde_json::from_slice::<Value>(&config);
            let mut config = config.map_err(|error| error.to_string())?;
            config["num_layers"] = json!(count);
            std::fs::write(&path, config.to_string()).map_err(|error| error.to_string())?;
            let mut ours = self.load(folder, [kind, "f32"], self.threads)?;
            points.push((*count as f64, self.least(&mut ours, folder, 0)?.cpu));
        }
        Ok(Curve {
            title: "Blocks of Wan 1.3B in f32, 512 tokens".to_owned(),
            across: "blocks",
            up: "processor seconds",
            law: Law::fit([0, 1], &points),
            points,
        })
    }

    fn of_threads(&self, folder: &Path) -> Result<Curve> {
        let kind = "transformer";
        let grid = if self.quick { vec![2, 16, 16] } else { vec![2, 30, 52] };
        self.make(folder, [kind, kind, "f32"], 1, &[grid])?;
        let powers = (0..).map(|power| 1 << power).take_while(|count| *count < self.threads);
        let mut points = Vec::new();
        for count in powers.chain([self.threads]) {
            let mut ours = self.load(folder, [kind, "f32"], count)?;
            points.push((count as f64, self.least(&mut ours, folder, 0)?.wall));
        }
        // What one thread takes, shared by all.
        let alone = points.first().map_or(0.0, |(_, wall)| *wall);
        Ok(Curve {
            title: "One block of Wan 1.3B in f32 against threads".to_owned(),
            across: "threads",
            up: "seconds on the clock",
            law: Law { powers: [-1, 0], factors: [alone, 0.0] },
            points,
        })
    }
}
