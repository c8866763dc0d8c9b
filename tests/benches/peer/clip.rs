//! The embedded model as a graph: what `kino run text_to_video` does, with noise that is given.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sides::{Result, Spent, run_whole, with_threads};

/// The file of noise beside the graph.
pub(crate) const NOISE: &str = "noise.safetensors";

/// Where the graph ends. A sink runs whether it is an output or not, so that each end has its own
/// nodes.
pub(crate) enum End {
    /// A latent, in memory.
    Latent,
    /// An enlarged video, as a file.
    Video,
    /// Its frames, as a file of tensors.
    Frames,
}

const TO_FRAMES: &str = r#"
    "frames": (op: "vae.decode", in: {"vae": "model.vae", "latent": "latent"}),
    "large": (op: "upscale", in: {"frames": "frames"}, with: {"factor": 4, "model": "video-x4"}),"#;
const VIDEO: &str = r#"
    "file": (op: "video.write", in: {"frames": "large"}, with: {"path": "clip.mp4", "fps": 8}),"#;
const FRAMES: &str = r#"
    "file": (op: "tensor.write", in: {"tensors": {"output": "large"}},
        with: {"path": "frames.safetensors"}),"#;

/// The nodes of `graphs/text_to_video.ron` up to an end, but for the noise.
pub(crate) fn graph(end: &End) -> String {
    let (frames, file, output) = match end {
        End::Latent => ("", "", "latent"),
        End::Video => (TO_FRAMES, VIDEO, "file"),
        End::Frames => (TO_FRAMES, FRAMES, "file"),
    };
    format!(
        r#"Graph(version: 1, nodes: {{
    "model": (op: "model.load", with: {{"source": "embedded:shapes"}}),
    "text": (op: "text.encode", in: {{"encoder": "model.text_encoder"}},
        with: {{"prompt": "a red circle moves right on a white background"}}),
    "noise": (op: "tensor.read", with: {{"path": "{NOISE}"}}),
    "patches": (op: "patchify", in: {{"latents": "noise", "dit": "model.dit"}}),
    "sample": (op: "dit.sample", in: {{"dit": "model.dit", "patches": "patches", "text": "text"}},
        with: {{"steps": 20, "guidance": 4.0, "scheduler": "unipc"}}),
    "latent": (op: "unpatchify", in: {{"patches": "sample.patches"}}),{frames}{file}
}}, outputs: {{"{output}": "{output}"}})
"#
    )
}

/// Both sides' programs on one folder with [`NOISE`] in it.
pub(crate) struct Clips<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) python: &'a Path,
    pub(crate) script: &'a Path,
    pub(crate) threads: usize,
}

impl Clips<'_> {
    /// Our program: a video, or where `compared` its frames as a file of tensors.
    pub(crate) fn ours(&self, compared: bool) -> Result<(Spent, PathBuf)> {
        let path = self.folder.join("clip.ron");
        let text = graph(if compared { &End::Frames } else { &End::Video });
        std::fs::write(&path, text).map_err(|error| error.to_string())?;
        let out = self.folder.join("ours");
        let mut command = Command::new(program()?);
        command.args(["run", "--quiet", "--no-cache", "--overwrite", "--out"]).arg(&out).arg(&path);
        for name in ["KINO_CACHE", "KINO_DATA", "KINO_CONFIG"] {
            command.env(name, self.folder.join("user"));
        }
        let spent = run_whole(with_threads(&mut command, self.threads))?;
        Ok((spent, out.join("frames.safetensors")))
    }

    /// The peer's: images, and where `compared` its frames as a file of tensors.
    pub(crate) fn peer(&self, compared: bool) -> Result<(Spent, PathBuf)> {
        let shapes = kino_tests::root().join("nodes/shapes");
        let frames = self.folder.join("peer.safetensors");
        let mut command = Command::new(self.python);
        command.arg(self.script).arg("clip").arg(shapes.join("model"));
        command.arg(shapes.join("upscale/video-x4.safetensors")).arg(self.folder.join(NOISE));
        command.arg(self.folder.join("peer")).arg(self.threads.to_string());
        if compared {
            command.arg(&frames);
        }
        Ok((run_whole(with_threads(&mut command, self.threads))?, frames))
    }
}

/// The command, built beside this program.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let kino = own.ancestors().nth(2).unwrap_or(Path::new(".")).join("kino");
    match kino.is_file() {
        true => Ok(kino),
        false => Err(format!("{} is not built: `cargo build --release` first", kino.display())),
    }
}
