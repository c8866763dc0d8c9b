//! What is timed: models of random weights, sizes, threads, in the order of importance; how many
//! operations each work takes, by formula; and what each is held to.

use std::path::PathBuf;

/// The size of a work: what it means, its [`Kind`] says.
pub(crate) type Size = &'static [usize];

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Some blocks of Wan 1.3B, texts projected included; size: the grid of tokens.
    Transformer,
    /// The decoder of Wan's autoencoder; size: frames, height, width.
    Decode,
    /// The encoder; size as above.
    Encode,
    /// Some layers of UMT5-XXL; size: tokens.
    Text,
    /// The embedded model from a prompt to a latent; size: frames, height, width.
    Sampling,
    /// The same from process start to files.
    Clip,
}

impl Kind {
    /// How both sides are told of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Transformer => "transformer",
            Self::Decode => "vae_decode",
            Self::Encode => "vae_encode",
            Self::Text => "text",
            Self::Sampling | Self::Clip => "sampling",
        }
    }

    /// Which weights it needs, as the peer's script calls them; none of the embedded model.
    pub(crate) fn weights(self) -> Option<&'static str> {
        match self {
            Self::Transformer => Some("transformer"),
            Self::Decode | Self::Encode => Some("vae"),
            Self::Text => Some("text"),
            Self::Sampling | Self::Clip => None,
        }
    }
}

/// Who computes the same beside us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// diffusers and transformers on torch.
    Torch,
    /// stable-diffusion.cpp on ggml: a whole program, of which a forward is what more steps take.
    StableDiffusionCpp,
}

impl Peer {
    /// How rows call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Torch => "torch",
            Self::StableDiffusionCpp => "stable-diffusion.cpp",
        }
    }

    /// The script that drives it, beside this file.
    pub(crate) fn script(self) -> PathBuf {
        let name = match self {
            Self::Torch => "peer.py",
            Self::StableDiffusionCpp => "sdcpp.py",
        };
        kino_tests::root().join("tests/benches/peer").join(name)
    }

    /// What it takes to measure it once, in times of what the work takes at the machine's peak.
    pub(crate) fn cost(self) -> f64 {
        match self {
            Self::Torch => 2.0,
            // Four forwards at an eighth of the peak.
            Self::StableDiffusionCpp => 32.0,
        }
    }

    /// Rows of the text that differ, which is what has to be computed: a prompt of 128 and zeros up
    /// to 512, or 256 of zeros.
    fn text_rows(self) -> f64 {
        match self {
            Self::Torch => 129.0,
            Self::StableDiffusionCpp => 1.0,
        }
    }
}

/// A model, and in which form and type it is computed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) peer: Peer,
    pub(crate) kind: Kind,
    /// How weights are stored: `f32`, `bf16`, `fp8`, `q8_0`, `q4_k`.
    pub(crate) form: &'static str,
    /// In which type is computed: `f32` or `bf16`.
    pub(crate) compute: &'static str,
    /// Blocks or layers.
    pub(crate) layers: usize,
}

/// One work, at a size, with so many threads.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) name: String,
    pub(crate) size: Vec<usize>,
    pub(crate) threads: usize,
    /// Additions and multiplications of one call; none where that is not counted.
    pub(crate) operations: Option<f64>,
}

/// Works that share what was loaded.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) model: Model,
    pub(crate) works: Vec<Work>,
}

/// Wan 1.3B: width of a token, inner width of a block, width of a text.
const DIM: f64 = 1536.0;
const INNER: f64 = 8960.0;
const TEXT_WIDTH: f64 = 4096.0;

/// Grids of 512, 3,120 and 8,190 tokens.
const GRIDS: [Size; 3] = [&[2, 16, 16], &[2, 30, 52], &[7, 30, 39]];
/// Five frames of 256², one of 480×832.
const FRAMES: [Size; 2] = [&[5, 256, 256], &[1, 480, 832]];
/// What the embedded model makes unless told otherwise.
const CLIP: Size = &[17, 64, 96];
/// Jobs that come before the curves of growth, in a whole run.
pub(crate) const BEFORE_CURVES: usize = 13;
/// Blocks of the whole model.
const WHOLE: usize = 30;

/// All works, in the order of importance; `all` is how many threads the machine has.
pub(crate) fn jobs(quick: bool, all: usize) -> Vec<Job> {
    let model =
        |kind, form, compute, layers| Model { peer: Peer::Torch, kind, form, compute, layers };
    let layers = if quick { 1 } else { 4 };
    let blocks = |form, compute| model(Kind::Transformer, form, compute, layers);
    let vae = |kind, form| model(kind, form, form, 0);
    let text = |form| model(Kind::Text, form, form, layers);
    let embedded = |kind| model(kind, "f32", "f32", 0);
    let (grids, frames, texts): (&[Size], &[Size], &[Size]) = match quick {
        true => (&[GRIDS[0]], &[&[5, 64, 64]], &[&[64]]),
        false => (&GRIDS, &FRAMES, &[&[64], &[512]]),
    };
    // One thread for the first sizes, all threads for all.
    let job = |model: Model, sizes: &[Size], alone: usize| {
        let with_one = if all > 1 { alone.min(sizes.len()) } else { 0 };
        let pairs = sizes.iter().map(|size| (*size, all));
        let pairs = pairs.chain(sizes[..with_one].iter().map(|size| (*size, 1)));
        job_of(model, pairs)
    };
    let mut jobs = vec![
        job(blocks("f32", "f32"), grids, 2),
        job(blocks("bf16", "bf16"), grids, 2),
        job(vae(Kind::Decode, "f32"), frames, 1),
        job(vae(Kind::Encode, "f32"), frames, 1),
        job(embedded(Kind::Sampling), &[CLIP], 1),
        job(embedded(Kind::Clip), &[CLIP], 1),
        job(blocks("fp8", "bf16"), grids, 2),
        job(vae(Kind::Decode, "bf16"), frames, 1),
        job(vae(Kind::Encode, "bf16"), frames, 1),
        job(text("f32"), texts, 2),
        job(text("bf16"), texts, 2),
        job(blocks("q8_0", "bf16"), &grids[..1], 1),
        job(blocks("q4_k", "bf16"), &grids[..1], 1),
    ];
    if quick {
        return jobs;
    }
    let whole = |form, compute| model(Kind::Transformer, form, compute, WHOLE);
    jobs.extend(["bf16", "f32"].map(|form| job(whole(form, form), &grids[..1], 0)));
    let beside = |form| Model { peer: Peer::StableDiffusionCpp, ..whole(form, "bf16") };
    jobs.extend(["q8_0", "q4_k"].map(|form| job(beside(form), &grids[..1], 1)));
    // What takes longest: the largest sizes with one thread.
    let largest = |model, size: Size| job_of(model, [(size, 1)].into_iter());
    if all > 1 {
        let forms = [("bf16", "bf16"), ("f32", "f32"), ("fp8", "bf16")];
        jobs.extend(forms.map(|(form, compute)| largest(blocks(form, compute), GRIDS[2])));
        for form in ["f32", "bf16"] {
            let kinds = [Kind::Decode, Kind::Encode];
            jobs.extend(kinds.map(|kind| largest(vae(kind, form), FRAMES[1])));
        }
    }
    jobs
}

/// Works of a model, by size and threads.
fn job_of(model: Model, pairs: impl Iterator<Item = (Size, usize)>) -> Job {
    let work = |(size, threads): (Size, usize)| {
        let (name, operations) = (name(&model, size), model.operations(size));
        Work { name, size: size.to_vec(), threads, operations }
    };
    Job { works: pairs.map(work).collect(), model }
}

/// What a work is called.
fn name(model: &Model, size: &[usize]) -> String {
    let frames = |size: &[usize]| match size {
        [1, height, width] => format!("1 frame of {height}×{width}"),
        [count, height, width] => format!("{count} frames of {height}×{width}"),
        _ => String::new(),
    };
    match model.kind {
        Kind::Transformer => {
            let tokens: usize = size.iter().product();
            match model.layers {
                WHOLE => format!("Wan 1.3B, {tokens} tokens"),
                1 => format!("Wan 1.3B, 1 block, {tokens} tokens"),
                layers => format!("Wan 1.3B, {layers} blocks, {tokens} tokens"),
            }
        }
        Kind::Decode => format!("Wan VAE decode, {}", frames(size)),
        Kind::Encode => format!("Wan VAE encode, {}", frames(size)),
        Kind::Text => format!("UMT5-XXL, {} layers, {} tokens", model.layers, size[0]),
        Kind::Sampling => format!("embedded model, sampling, {}", frames(size)),
        Kind::Clip => format!("embedded model, process start to file, {}", frames(size)),
    }
}

impl Model {
    /// In which type the row counts: the form of the weights, and the type where it is another.
    pub(crate) fn dtype(&self) -> String {
        match self.form == self.compute {
            true => self.form.to_owned(),
            false => format!("{} in {}", self.form, self.compute),
        }
    }

    /// How far the results of both sides may lie apart: the root of the mean squared difference,
    /// relative to that of the result.
    pub(crate) fn tolerance(&self) -> f64 {
        match (self.kind, self.compute) {
            // Twenty steps, guided.
            (Kind::Sampling | Kind::Clip, _) => 1e-3,
            (_, "f32") => 1e-4,
            // Eight bits of mantissa, rounded at other places.
            _ => 5e-2,
        }
    }

    /// What rows are held to: the ratio to the peer, and the share of the machine's peak.
    pub(crate) fn aims(&self) -> Aims {
        let (ratio, share) = match (self.kind, self.compute) {
            (Kind::Decode | Kind::Encode, "f32") => (0.6, Some(0.75)),
            (Kind::Decode | Kind::Encode, _) => (0.6, Some(0.6)),
            (Kind::Transformer, "f32") => (1.0, Some(0.8)),
            (Kind::Transformer, _) => (1.0, Some(0.6)),
            _ => (1.0, None),
        };
        Aims { ratio, share, memory: 0.6 }
    }

    /// Additions and multiplications of one call; none where that is not counted.
    fn operations(&self, size: &[usize]) -> Option<f64> {
        let layers = self.layers as f64;
        match self.kind {
            Kind::Transformer => {
                let tokens = size.iter().product::<usize>() as f64;
                Some(transformer(layers, tokens, self.peer.text_rows()))
            }
            Kind::Decode => Some(Plane::of(size).decoded()),
            Kind::Encode => Some(Plane::of(size).encoded()),
            Kind::Text => {
                let (n, d, inner) = (size[0] as f64, 4096.0, 10_240.0);
                Some(layers * 2.0 * n * d * (4.0 * d + 3.0 * inner + 2.0 * n))
            }
            Kind::Sampling | Kind::Clip => None,
        }
    }
}

/// What a row is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aims {
    /// Our processor time over the peer's.
    pub(crate) ratio: f64,
    /// Our share of the machine's peak.
    pub(crate) share: Option<f64>,
    /// Our memory beyond the weights over the peer's.
    pub(crate) memory: f64,
}

/// Operations of a transformer of Wan 1.3B's widths on so many tokens, its text of so many rows
/// included.
fn transformer(blocks: f64, tokens: f64, text: f64) -> f64 {
    let own = 4.0 * tokens * DIM * DIM + 2.0 * tokens * tokens * DIM;
    let cross = 2.0 * (tokens + text) * DIM * DIM + 2.0 * tokens * text * DIM;
    let forward = 2.0 * tokens * DIM * INNER;
    let ends = 2.0 * tokens * 64.0 * DIM + text * (TEXT_WIDTH + DIM) * DIM + 7.0 * DIM * DIM;
    2.0 * (blocks * (own + cross + forward) + ends)
}

/// Walks the convolutions of Wan's autoencoder and adds up their operations. A kernel's taps that
/// lie before the first frame are zeros and not counted.
struct Plane {
    frames: usize,
    pixels: f64,
    sum: f64,
}

/// Channels of the levels, the encoder's first to last.
const WIDTHS: [f64; 4] = [96.0, 192.0, 384.0, 384.0];

impl Plane {
    fn of(size: &[usize]) -> Self {
        Self { frames: size[0], pixels: (size[1] * size[2]) as f64, sum: 0.0 }
    }

    /// A kernel over three frames in time, and `area` pixels.
    fn causal(&mut self, area: f64, cin: f64, cout: f64) {
        let taps: usize = (0..self.frames).map(|frame| (frame + 1).min(3)).sum();
        self.sum += 2.0 * taps as f64 * area * cin * cout * self.pixels;
    }

    /// A kernel over pixels alone.
    fn flat(&mut self, area: f64, cin: f64, cout: f64) {
        self.sum += 2.0 * self.frames as f64 * area * cin * cout * self.pixels;
    }

    fn residual(&mut self, cin: f64, cout: f64) {
        self.causal(9.0, cin, cout);
        self.causal(9.0, cout, cout);
        if cin != cout {
            self.flat(1.0, cin, cout);
        }
    }

    fn middle(&mut self, c: f64) {
        self.residual(c, c);
        self.flat(1.0, c, 4.0 * c);
        self.sum += 4.0 * self.frames as f64 * self.pixels * self.pixels * c;
        self.residual(c, c);
    }

    fn decoded(mut self) -> f64 {
        self.frames = 1 + (self.frames - 1) / 4;
        self.pixels /= 64.0;
        self.flat(1.0, 16.0, 16.0);
        self.causal(9.0, 16.0, WIDTHS[3]);
        self.middle(WIDTHS[3]);
        for level in (0..4).rev() {
            let out = WIDTHS[level];
            let cin = if level == 3 { out } else { WIDTHS[level + 1] / 2.0 };
            self.residual(cin, out);
            self.residual(out, out);
            self.residual(out, out);
            if level > 1 && self.frames > 1 {
                // The first frame goes on as it is, and is not seen by the others.
                self.frames -= 1;
                self.causal(1.0, out, 2.0 * out);
                self.frames = 2 * self.frames + 1;
            }
            if level > 0 {
                self.pixels *= 4.0;
                self.flat(9.0, out, out / 2.0);
            }
        }
        self.causal(9.0, WIDTHS[0], 3.0);
        self.sum
    }

    fn encoded(mut self) -> f64 {
        self.causal(9.0, 3.0, WIDTHS[0]);
        let mut cin = WIDTHS[0];
        for (level, out) in WIDTHS.into_iter().enumerate() {
            self.residual(cin, out);
            self.residual(out, out);
            cin = out;
            if level < 3 {
                self.pixels /= 4.0;
                self.flat(9.0, out, out);
            }
            if (1..3).contains(&level) && self.frames > 1 {
                self.frames = (self.frames - 1) / 2;
                // Whole kernels: what lies before them are frames.
                self.flat(3.0, out, out);
                self.frames += 1;
            }
        }
        self.middle(cin);
        self.causal(9.0, cin, 32.0);
        self.flat(1.0, 32.0, 32.0);
        self.sum
    }
}
