"""Another side of the bench: stable-diffusion.cpp on ggml, driven line by line as `peer.py` is.

    python sdcpp.py serve

It is a whole program: it takes a prompt and gives a video, and a forward of its transformer is what
more steps take. The model has no text encoder, for which it puts 256 rows of zeros, and its tiny
autoencoder has random weights. What it computed is seen in its previews alone: three sums of the 16
channels of a latent, in eight bits. `shown` makes the same of our velocity.
"""

import math
import os
import sys

import numpy
import torch
from safetensors.numpy import load_file, save_file

import peer

# The noise level of the first step, which is time 417; and the seed of its noise.
SIGMA, SEED = 0.417, 42
TEXT_ROWS = 256
BLOCKS = 30

# What diffusers calls the weights, and Wan's authors, whose names stable-diffusion.cpp reads.
NAMES = [
    ("condition_embedder.time_embedder.linear_1.", "time_embedding.0."),
    ("condition_embedder.time_embedder.linear_2.", "time_embedding.2."),
    ("condition_embedder.time_proj.", "time_projection.1."),
    ("condition_embedder.text_embedder.linear_1.", "text_embedding.0."),
    ("condition_embedder.text_embedder.linear_2.", "text_embedding.2."),
    ("proj_out.", "head.head."),
    (".attn1.", ".self_attn."),
    (".attn2.", ".cross_attn."),
    (".to_q.", ".q."),
    (".to_k.", ".k."),
    (".to_v.", ".v."),
    (".to_out.0.", ".o."),
    (".ffn.net.0.proj.", ".ffn.0."),
    (".ffn.net.2.", ".ffn.2."),
    (".norm2.", ".norm3."),
    (".scale_shift_table", ".modulation"),
]

# How its previews make red, green and blue of a latent's channels (`latent-preview.h` there).
TO_RGB = numpy.array(
    [
        [0.015123, -0.148418, 0.479828],
        [0.003652, -0.010680, -0.037142],
        [0.212264, 0.063033, 0.016779],
        [0.232999, 0.406476, 0.220125],
        [-0.051864, -0.082384, -0.069396],
        [0.085005, -0.161492, 0.010689],
        [-0.245369, -0.506846, -0.117010],
        [-0.151145, 0.017721, 0.007207],
        [-0.293239, -0.207936, -0.421135],
        [-0.187721, 0.050783, 0.177649],
        [-0.013067, 0.265964, 0.166578],
        [0.028327, 0.109329, 0.108642],
        [-0.205343, 0.043991, 0.148914],
        [0.014307, -0.048647, -0.007219],
        [0.217150, 0.053074, 0.319923],
        [0.155357, 0.083156, 0.064780],
    ]
)
RGB_BIAS = numpy.array([-0.270270, -0.234976, -0.456853])


def original(name):
    if name == "scale_shift_table":
        return "head.modulation"
    for diffusers, authors in NAMES:
        name = name.replace(diffusers, authors)
    return name


def tiny_autoencoder():
    """The weights of a TAEHV of Wan 2.1, which costs little: shapes by name."""
    shapes = {}

    def conv(name, cin, cout, side=3, bias=True):
        shapes[f"{name}.weight"] = (cout, cin, side, side)
        if bias:
            shapes[f"{name}.bias"] = (cout,)

    def memory(part, first, width):
        for index in range(first, first + 3):
            for layer, cin in ((0, 2 * width), (2, width), (4, width)):
                conv(f"{part}.{index}.conv.{layer}", cin, width)

    conv("decoder.1", 16, 256)
    levels = [(256, 128, 1), (128, 64, 2), (64, 64, 2)]
    for first, (width, out, stride) in zip((3, 9, 15), levels):
        memory("decoder", first, width)
        conv(f"decoder.{first + 4}.conv", width, stride * width, 1, False)
        conv(f"decoder.{first + 5}", width, out, 3, False)
    conv("decoder.22", 64, 3)
    conv("encoder.0", 3, 64)
    for first, stride in ((2, 2), (7, 2), (12, 1)):
        conv(f"encoder.{first}.conv", stride * 64, 64, 1, False)
        conv(f"encoder.{first + 1}", 64, 64, 3, False)
        memory("encoder", first + 2, 64)
    conv("encoder.17", 64, 16)
    return shapes


def make(command):
    """Writes a whole transformer as GGUF, and a tiny autoencoder."""
    folder = command["folder"]
    os.makedirs(folder, exist_ok=True)
    shapes = peer.empty("transformer", BLOCKS).state_dict()
    peer.write_gguf(f"{folder}/model.gguf", shapes, command["form"], original)
    random = numpy.random.default_rng(7)
    tensors = {
        name: (random.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))).astype("float32")
        for name, shape in tiny_autoencoder().items()
    }
    save_file(tensors, f"{folder}/tae.safetensors")


def philox(count, seed):
    """`count` normal numbers as its `PhiloxRNG` draws them first: Philox 4x32 of ten rounds
    (Salmon et al. 2011), then Box and Muller."""
    low = numpy.uint64(0xFFFFFFFF)
    counter = [numpy.zeros(count, numpy.uint64) for _ in range(4)]
    counter[2] = numpy.arange(count, dtype=numpy.uint64)
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a = counter[0] * numpy.uint64(0xD2511F53)
        b = counter[2] * numpy.uint64(0xCD9E8D57)
        high = [a >> numpy.uint64(32), b >> numpy.uint64(32)]
        first, second = (numpy.uint64(part) for part in key)
        counter = [high[1] ^ counter[1] ^ first, b & low, high[0] ^ counter[3] ^ second, a & low]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    u = counter[0] * 2.0**-32 + 2.0**-33
    v = (counter[1] * 2.0**-32 + 2.0**-33) * 2 * math.pi
    return (numpy.sqrt(-2 * numpy.log(u)) * numpy.sin(v)).astype(numpy.float32)


def latent_of(size):
    """What it begins with at a grid of tokens: `[16, frames, height, width]`."""
    frames, rows, columns = size
    shape = (16, frames, 2 * rows, 2 * columns)
    return numpy.float32(SIGMA) * philox(math.prod(shape), SEED).reshape(shape)


def make_input(command):
    text = numpy.zeros((TEXT_ROWS, peer.WAN["text_dim"]), numpy.float32)
    save_file(dict(latent=latent_of(command["size"]), text=text), command["file"])


def picture(latent):
    """`[16, frames, height, width]` as it shows it: `[frames, height, width, 3]` of 0 to 255."""
    rgb = numpy.einsum("cfhw,cr->fhwr", latent, TO_RGB) + RGB_BIAS
    return numpy.floor(numpy.clip(rgb * 0.5 + 0.5, 0, 1) * 255).astype(numpy.float32)


def most_memory():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


class Program:
    threads, program = 1, None

    def load(self, command):
        from stable_diffusion_cpp import StableDiffusion

        folder = command["folder"]
        model, autoencoder = paths = [f"{folder}/model.gguf", f"{folder}/tae.safetensors"]
        self.program = StableDiffusion(
            diffusion_model_path=model,
            taesd_path=autoencoder,
            n_threads=self.threads,
            diffusion_flash_attn=True,  # its way of the least time and memory
            verbose=False,
        )
        return dict(weights=sum(os.path.getsize(path) for path in paths))

    def set_threads(self, command):
        # They are settled when a model is loaded.
        self.threads = command["count"]

    def input(self, command):
        self.latent = load_file(command["file"])["latent"]

    def run(self, command):
        """A video of so many steps; says the most memory until the last of them ended, behind
        which there is only the autoencoder."""
        steps = command["steps"]
        sigmas = [SIGMA * (1 - step / steps) for step in range(steps)] + [0.0]
        _, frames, height, width = self.latent.shape
        seen = {}

        def preview(step, pictures, _):
            if step == 1:
                self.first = numpy.stack([numpy.asarray(one.convert("RGB")) for one in pictures])

        def progress(step, _steps, _seconds):
            if step == steps:
                seen["peak"] = most_memory()

        self.program.generate_video(
            prompt="",
            width=8 * width,
            height=8 * height,
            video_frames=4 * (frames - 1) + 1,
            cfg_scale=1.0,
            sample_method="euler",
            sample_steps=steps,
            sigmas=", ".join(map(str, sigmas)),
            seed=SEED,
            preview_method="proj",
            preview_callback=preview,
            progress_callback=progress,
        )
        return seen

    def change(self, pictures):
        """What a step changed in the picture of the noise."""
        return dict(output=pictures.astype(numpy.float32) - picture(self.latent))

    def save(self, command):
        save_file(self.change(self.first), command["file"])

    def shown(self, command):
        velocity = load_file(command["file"])["output"].reshape(self.latent.shape)
        pictures = picture(self.latent - numpy.float32(SIGMA) * velocity)
        save_file(self.change(pictures), command["file"])


def warm(_):
    import stable_diffusion_cpp  # noqa: F401


def commands(program):
    return {
        "make": lambda command: peer.forked(make, command),
        "make_input": make_input,
        "threads": program.set_threads,
        "warm": warm,
        "load": program.load,
        "input": program.input,
        "run": program.run,
        "save": program.save,
        "shown": program.shown,
    }


if __name__ == "__main__":
    peer.serve(commands(Program()))
