"""Shows what the autoencoder keeps: originals above reconstructions, every fourth frame, `viz.png`.

Prints the mean error of each frame, of 255.
"""

import argparse
import random

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from PIL import Image

import fastconv  # noqa: F401 - importing it makes the autoencoder fast
import shapes
from train_vae_cfg import CFG


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=5, help="how many clips (default 5)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    vae = AutoencoderKLWan(**CFG)
    checkpoint = torch.load("vae.pt", weights_only=False)
    vae.load_state_dict(checkpoint["m"])
    print("step", checkpoint["step"])
    rng, rows = random.Random(5), []
    for _ in range(args.clips):
        clip = shapes.render(shapes.sample_scene(rng), 64, 96, 17)
        x = torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        y = vae.decode(vae.encode(x).latent_dist.mean).sample
        y = ((y[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).numpy()
        rows += [np.concatenate(list(video[::4]), 1) for video in (clip, y)]
        print(np.abs(clip.astype(int) - y).mean(axis=(1, 2, 3)).round(1))
    Image.fromarray(np.concatenate(rows, 0)).save("viz.png")


if __name__ == "__main__":
    main()
