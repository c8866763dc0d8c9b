"""Trains the video autoencoder (`AutoencoderKLWan`, 2.1 form) on moving shapes; writes `vae.pt`.

Stage 1 trains on single images, stage 2 on clips at a gentler rate. The last eighth of the whole
time runs in float32, all before in bfloat16. A run continues from `vae.pt` where there is one, so
that long training can be cut into several calls with the same `--total-minutes`.
"""

import argparse
import math
import os
import random
import time

import numpy as np
import torch
from diffusers import AutoencoderKLWan

import fastconv
import shapes
from muon import Muon
from train_vae_cfg import CFG

CHECKPOINT = "vae.pt"
IMAGE_RATE, CLIP_RATE = 1e-3, 4e-4  # above 4e-4 the clip stage is unsettled
IMAGE_WARMUP, CLIP_WARMUP = 50, 200  # steps
# Height, width, frames, clips in a batch.
IMAGE_BATCHES = [(48, 48, 1, 16), (64, 48, 1, 12)]
CLIP_BATCHES = [
    (48, 48, 5, 10),
    (48, 48, 9, 6),
    (48, 48, 17, 4),
    (32, 48, 9, 8),
    (48, 64, 9, 5),
    (64, 64, 1, 16),
    (64, 64, 17, 3),
]


def clip(rng, height, width, frames):
    """A random clip, [3, frames, height, width] in -1..1."""
    video = shapes.render(shapes.sample_scene(rng), height, width, frames)
    return torch.from_numpy(video).permute(3, 0, 1, 2).float() / 127.5 - 1


def inflate(vae):
    """Starts every 3-D kernel as a 2-D one and time convolutions as the identity.

    Past taps are zero, so that a clip starts out coded frame by frame. Kaiming initialisation:
    with torch's default the autoencoder stays grey.
    """
    for name, module in vae.named_modules():
        if not isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            continue
        torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        torch.nn.init.zeros_(module.bias)
        if isinstance(module, torch.nn.Conv3d):
            flatten(name, module.weight)


@torch.no_grad()
def flatten(name, weight):
    """Silences the past taps of one 3-D kernel, [out, in, time, height, width]."""
    taps = weight.shape[2]
    if name.endswith("time_conv"):
        weight.zero_()
        channels = weight.shape[1]
        for out in range(weight.shape[0]):
            weight[out, out % channels, -1] = 1.0
    elif taps > 1:
        weight[:, :, :-1] = 0
        weight[:, :, -1] *= taps**0.5


def optimisers(vae):
    """Muon for convolution kernels of some size, AdamW for the rest."""
    kernels = [
        p
        for name, p in vae.named_parameters()
        if p.ndim >= 4 and "gamma" not in name and min(p.shape[0], p[0].numel()) >= 16
    ]
    chosen = {id(p) for p in kernels}
    rest = [p for p in vae.parameters() if id(p) not in chosen]
    adam = torch.optim.AdamW(rest, lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.99))
    return Muon(kernels, decay=1e-3), adam


def loss_of(x, y, mean, logvar, seconds):
    """Squared error first, absolute and gradient terms later; shapes weigh more than background."""
    error = y - x
    away = (x - x[..., :1, :1]).abs().amax(1, keepdim=True) > 0.1  # not the background
    near = torch.nn.functional.max_pool3d(away.float(), (1, 3, 3), 1, (0, 1, 1))
    # Shapes and their edges are a tenth of the picture and most of what matters.
    weight = 0.5 + 4 * near
    gradient = (error[..., 1:] - error[..., :-1]).abs().mean()
    gradient = gradient + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    kl = 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).mean()
    sharp = (weight * error.abs()).mean() + 0.3 * gradient
    loss = 2.5 * (weight * error.pow(2)).mean() + min(1.0, seconds / 900) * sharp + 1e-5 * kl
    return loss, error, kl


def train(args):
    """Trains for `args.minutes` and saves."""
    torch.manual_seed(0)
    rng = random.Random(int(time.time()))
    vae = AutoencoderKLWan(**CFG)
    print("params", sum(p.numel() for p in vae.parameters()))
    image_seconds, total = args.image_minutes * 60, args.total_minutes * 60
    step = spent = 0
    clips_since = None
    if os.path.exists(CHECKPOINT):
        checkpoint = torch.load(CHECKPOINT, weights_only=False)
        vae.load_state_dict(checkpoint["m"])
        step, spent = checkpoint["step"], checkpoint["spent"]
    else:
        inflate(vae)
        with torch.no_grad():
            vae.quant_conv.bias[CFG["z_dim"] :] = -6.0  # start with little latent noise
    muon, adam = optimisers(vae)
    start, first_step, history = time.time(), step, []

    def save():
        now = spent + time.time() - start
        torch.save(dict(m=vae.state_dict(), step=step, spent=now), CHECKPOINT)

    while time.time() - start < args.minutes * 60:
        now = spent + time.time() - start
        images = now < image_seconds
        if not images and clips_since is None:
            # The time taps wake up: forget the moments, warm up again.
            adam.state.clear()
            muon.buffers.clear()
            clips_since = step
        top, warmup = (IMAGE_RATE, IMAGE_WARMUP) if images else (CLIP_RATE, CLIP_WARMUP)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1, now / total))) * 0.98 + 0.02
        rate = top * min(1, (step - (clips_since or 0) + 1) / warmup) * cosine
        for group in adam.param_groups:
            group["lr"] = rate
        height, width, frames, batch = rng.choice(IMAGE_BATCHES if images else CLIP_BATCHES)
        x = torch.stack([clip(rng, height, width, frames) for _ in range(batch)])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=now < total * 7 / 8):
            mean, logvar = fastconv.encode(vae, x)
            latent = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
            y = fastconv.decode(vae, latent)
        loss, error, kl = loss_of(x, y.float(), mean.float(), logvar.float(), now)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        adam.step()
        muon.step(rate)
        history.append((error.detach().abs().mean().item(), kl.item()))
        step += 1
        if step % 100 == 0:
            mean_error, mean_kl = np.array(history[-100:]).mean(0)
            pace = (time.time() - start) / (step - first_step)
            print(
                f"step {step} mean abs error {mean_error:.4f} kl {mean_kl:.2f}"
                f" lr {rate:.1e} {pace:.2f}s/step",
                flush=True,
            )
        if step % 500 == 0:
            save()
    save()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("minutes", type=float, help="how long this call trains")
    parser.add_argument(
        "--total-minutes", type=float, default=45, help="length of the whole schedule (default 45)"
    )
    parser.add_argument(
        "--image-minutes", type=float, default=6, help="how much of it is for images (default 6)"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
