"""Draws clips with the trained model: `sample.png`, a row a prompt, every fourth frame."""

import argparse

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler
from PIL import Image

import fastconv  # noqa: F401 - importing it makes the autoencoder fast
from networks import SHIFT, TOK, ema_models, encode_text, load_vae, per_channel, per_token

PROMPTS = [
    "a red circle moves right on a white background",
    "a large blue square moves up on a black background",
    "a small yellow star spins on a navy background",
    "a green triangle moves left on a beige background",
    "a purple ring grows on a white background",
    "a pink ball falls on a gray background",
    "a red circle moves right and a blue square moves up on a white background",
    "一个绿色星形向左移动，黑色背景",
]


@torch.no_grad()
def generate(prompts, size=(64, 96), frames=17, steps=20, cfg=4.0, seed=0, first=None):
    """uint8 clips [batch, frames, height, width, 3]; `first` is a given first frame in -1..1."""
    text, dit, mean, std = ema_models()
    vae, mean, std = load_vae(), per_channel(mean), per_channel(std)
    (height, width), count, batch = size, 1 + (frames - 1) // 4, len(prompts)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 16, count, height // 8, width // 8, generator=generator)
    with_text = encode_text(text, [TOK.encode(p).ids for p in prompts])
    without = encode_text(text, [TOK.encode("").ids] * batch)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT
    )
    scheduler.set_timesteps(steps)
    given, mask = None, torch.ones(batch, 1, count, 1, 1)
    if first is not None:
        given = (vae.encode(first).latent_dist.mean - mean) / std
        mask[:, :, 0] = 0

    def velocity(x, times, context):
        kw = dict(encoder_hidden_states=context, return_dict=False)
        return dit(hidden_states=x, timestep=times, **kw)[0]

    for t in scheduler.timesteps:
        shown = x if given is None else (1 - mask) * given + mask * x
        times = per_token(mask[:, 0, :, 0, 0] * t, height, width)
        guided, plain = velocity(shown, times, with_text), velocity(shown, times, without)
        x = scheduler.step(plain + cfg * (guided - plain), t, x, return_dict=False)[0]
    if given is not None:
        x = torch.cat([given, x[:, :, 1:]], 2)
    video = vae.decode(x * std + mean).sample
    return ((video + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 4, 1).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [np.concatenate(list(clip[::4]), 1) for clip in generate(PROMPTS, seed=args.seed)]
    Image.fromarray(np.concatenate(rows, 0)).save("sample.png")


if __name__ == "__main__":
    main()
