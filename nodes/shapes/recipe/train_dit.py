"""Trains the text encoder (UMT5) and the transformer (Wan) of `shapes` together.

Rectified flow in the latent space of `vae.pt`. Conditioning as in Wan 2.2 TI2V: every token has its
own timestep, and latent frames that are given stand clean at timestep 0. `cache` encodes clips and
images into `latentsPART.pt`, `train` learns from all of these and writes `dit.pt` (continuing from
it where there is one).
"""

import argparse
import glob
import math
import os
import random
import time

import numpy as np
import torch
import torch.nn.functional as F

import fastconv
import shapes
from muon import AMX, Muon
from networks import (
    CHECKPOINT,
    SHIFT,
    TOK,
    build,
    encode_text,
    load_vae,
    per_channel,
    per_token,
)

# ((height, width), frames, share of the clips).
BUCKETS = [
    ((64, 64), 17, 6),
    ((64, 96), 17, 5),
    ((96, 64), 17, 4),
    ((64, 64), 33, 3),
    ((64, 96), 9, 2),
    ((80, 80), 17, 2),
    ((64, 64), 9, 2),
]
# Single images: the cheapest way to learn what a shape looks like.
IMAGES = [((64, 96), 1, 2), ((64, 64), 1, 1), ((96, 64), 1, 1)]
IMAGE_SHARE, GIVEN_SHARE = 0.4, 0.3  # of the batches; of the clips

_sdpa = F.scaled_dot_product_attention


def sdpa(query, key, value, **kw):
    """Attention in float32 even where the rest is bfloat16.

    torch's bfloat16 backward on CPU is ten times slower.
    """
    with torch.autocast("cpu", enabled=False):
        return _sdpa(query.float(), key.float(), value.float(), **kw).to(query.dtype)


# ---- cache: clips as latents ----------------------------------------------------------------


def scenes(rng, clips, images):
    """Random scenes with three captions each, by bucket."""
    buckets, still, per = BUCKETS + IMAGES, len(BUCKETS), {}
    for k in range(clips + images):
        part = range(still) if k < clips else range(still, len(buckets))
        i = rng.choices(part, [buckets[j][2] for j in part])[0]
        scene = shapes.sample_scene(rng)
        per.setdefault(i, []).append((scene, [shapes.caption(scene, rng) for _ in range(3)]))
    return buckets, per


@torch.no_grad()
def cache(args):
    """Draws and encodes clips and single images; writes `latentsPART.pt`."""
    vae, start = load_vae(), time.time()
    buckets, per = scenes(random.Random(1234 + args.part), args.clips, args.images)
    data = []
    for i, items in per.items():
        (height, width), frames, _ = buckets[i]
        latents, captions = [], []
        for j in range(0, len(items), 8):
            videos = [shapes.render(s, height, width, frames) for s, _ in items[j : j + 8]]
            x = torch.stack([torch.from_numpy(v).permute(3, 0, 1, 2) for v in videos])
            latents.append(fastconv.encode(vae, x.float() / 127.5 - 1)[0].half())
            captions += [c for _, c in items[j : j + 8]]
        data.append(dict(bucket=buckets[i], latents=torch.cat(latents), captions=captions))
        print(buckets[i], len(captions), f"{time.time() - start:.0f}s", flush=True)
    torch.save(data, f"latents{args.part}.pt")


# ---- train ----------------------------------------------------------------------------------


def statistics(parts):
    """Mean and standard deviation of each latent channel, from every seventh value."""
    each = [
        d["latents"].float().permute(1, 0, 2, 3, 4).flatten(1)[:, ::7] for p in parts for d in p
    ]
    values = torch.cat(each, 1)
    return values.mean(1), values.std(1)


def normalised(parts, mean, std):
    """Latents and token numbers by bucket."""
    groups = {}
    for data in (d for part in parts for d in part):
        group = groups.setdefault(data["bucket"], dict(latents=[], ids=[]))
        group["latents"].append((data["latents"].float() - per_channel(mean)) / per_channel(std))
        group["ids"] += [[TOK.encode(c).ids for c in captions] for captions in data["captions"]]
    for group in groups.values():
        group["latents"] = torch.cat(group["latents"])
    return groups


def given_frames(rng, batch, frames):
    """Which latent frames are given: start, end, both, a run of either, or scattered ones."""
    clean = torch.zeros(batch, frames, dtype=torch.bool)
    if frames == 1:
        return clean
    for k in range(batch):
        r = rng.random()
        if r > GIVEN_SHARE:
            continue
        r /= GIVEN_SHARE
        if r < 0.45:
            clean[k, 0] = True
        elif r < 0.60:
            clean[k, -1] = True
        elif r < 0.73:
            clean[k, 0] = clean[k, -1] = True
        elif r < 0.86:
            clean[k, : rng.randrange(1, frames)] = True
        elif r < 0.93:
            clean[k, rng.randrange(1, frames) :] = True
        else:
            clean[k] = torch.rand(frames) < 0.4
        if clean[k].all():
            clean[k, rng.randrange(frames)] = False
    return clean


class Batches:
    """Draws batches: a bucket by its weight, clips of it, one of their captions or none."""

    def __init__(self, groups):
        self.groups, self.keys, self.empty = groups, list(groups), TOK.encode("").ids
        self.weights = [
            len(groups[k]["ids"]) * (k[0][0] * k[0][1] * (1 + (k[1] - 1) // 4)) ** -0.5
            for k in self.keys
        ]

    def draw(self, rng):
        images = rng.random() < IMAGE_SHARE
        part = [i for i, k in enumerate(self.keys) if (k[1] == 1) == images]
        key = self.keys[rng.choices(part, [self.weights[i] for i in part])[0]]
        group, ((height, width), frames, _) = self.groups[key], key
        tokens = (height // 16) * (width // 16) * (1 + (frames - 1) // 4)
        batch = max(8, min(96 if images else 48, 4000 // tokens))
        index = [rng.randrange(len(group["ids"])) for _ in range(batch)]
        latents = group["latents"][index]
        ids = [self.empty if rng.random() < 0.1 else rng.choice(group["ids"][i]) for i in index]
        return images, latents, ids, height, width


def flow_loss(text, dit, x0, ids, clean, size, bf16):
    """Squared error of the velocity on the frames that are not given."""
    batch, channels, frames, rows, columns = x0.shape
    u = torch.rand(batch)
    sigma = (SHIFT * u / (1 + (SHIFT - 1) * u))[:, None] * (~clean)  # [batch, frames]
    noise = torch.randn_like(x0)
    level = sigma.view(batch, 1, frames, 1, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        velocity = dit(
            hidden_states=(1 - level) * x0 + level * noise,
            timestep=per_token(sigma * 1000, *size),
            encoder_hidden_states=encode_text(text, ids),
            return_dict=False,
        )[0]
    free = (~clean).float().view(batch, 1, frames, 1, 1)
    squared = ((velocity.float() - (noise - x0)) ** 2) * free
    return squared.sum() / (free.sum() * channels * rows * columns)


def optimisers(text, dit, params, rate):
    """Muon for the matrices of layers, AdamW for embeddings, biases, norms and the ends."""
    matrices = [
        p
        for module in (text, dit.blocks)
        for name, p in module.named_parameters()
        if p.ndim == 2 and "shared" not in name and "bias" not in name
    ]
    chosen = {id(p) for p in matrices}
    rest = [p for p in params if id(p) not in chosen]
    return Muon(matrices), torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.99), weight_decay=0.01)


def report(step, history, rate, pace):
    """One line on the latest hundred steps."""
    clips = np.mean([loss for images, loss in history[-100:] if not images])
    stills = np.mean([loss for images, loss in history[-100:] if images])
    print(
        f"step {step} loss: clips {clips:.4f} images {stills:.4f} lr {rate:.1e} {pace:.2f}s/step",
        flush=True,
    )


def train(args):
    """Trains for `args.minutes` and saves; an average of the weights is kept beside them."""
    parts = [torch.load(p, weights_only=False) for p in sorted(glob.glob("latents*.pt"))]
    checkpoint = torch.load(CHECKPOINT, weights_only=False) if os.path.exists(CHECKPOINT) else None
    # A model keeps its scale.
    mean, std = (checkpoint["mean"], checkpoint["std"]) if checkpoint else statistics(parts)
    batches = Batches(normalised(parts, mean, std))
    torch.manual_seed(0)
    text, dit = build()
    params = list(text.parameters()) + list(dit.parameters())
    sizes = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (text, dit)]
    clips = sum(len(g["ids"]) for g in batches.groups.values())
    print(f"params text {sizes[0]:.2f}M dit {sizes[1]:.2f}M clips {clips}")
    muon, adam = optimisers(text, dit, params, args.rate)
    average = [p.detach().clone() for p in params]
    step = warm = 0
    spent = 0.0
    if checkpoint:
        text.load_state_dict(checkpoint["text"])
        dit.load_state_dict(checkpoint["dit"])
        average, step, spent = checkpoint["ema"], checkpoint["step"], checkpoint["spent"]
        if "muon" in checkpoint:
            adam.load_state_dict(checkpoint["opt"])
            muon.buffers = checkpoint["muon"]
        else:
            warm = step
    rng, start, first_step, history = random.Random(step + 7), time.time(), step, []
    F.scaled_dot_product_attention = sdpa
    for block in dit.blocks:
        block.compile(dynamic=True)

    def save():
        state = dict(text=text.state_dict(), dit=dit.state_dict(), opt=adam.state_dict())
        state.update(muon=muon.buffers, ema=average, mean=mean, std=std, step=step)
        torch.save(dict(state, spent=spent + time.time() - start), f"{CHECKPOINT}.tmp")
        os.replace(f"{CHECKPOINT}.tmp", CHECKPOINT)

    while time.time() - start < args.minutes * 60:
        done = min(1.0, (spent + time.time() - start) / (args.total_minutes * 60))
        cosine = 0.5 * (1 + math.cos(math.pi * done)) * 0.98 + 0.02
        rate = args.rate * min(1, (step - warm + 1) / 200) * cosine
        for group in adam.param_groups:
            group["lr"] = rate
        images, x0, ids, height, width = batches.draw(rng)
        clean = given_frames(rng, len(ids), x0.shape[2])
        loss = flow_loss(text, dit, x0, ids, clean, (height, width), args.bf16)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        adam.step()
        muon.step(rate)
        step += 1
        history.append((images, loss.item()))
        keep = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_mul_(average, keep)
            torch._foreach_add_(average, [p.detach() for p in params], alpha=1 - keep)
        if step % 100 == 0:
            report(step, history, rate, (time.time() - start) / (step - first_step))
        if step % 300 == 0:
            save()
    save()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("cache", help="encode clips and images into latentsPART.pt")
    command.add_argument("clips", type=int, help="number of clips")
    command.add_argument("images", type=int, help="number of single images")
    command.add_argument("--part", type=int, default=0, help="which file, and its seed (default 0)")
    command.set_defaults(run=cache)
    command = commands.add_parser("train", help="train on all latents*.pt; writes dit.pt")
    command.add_argument("minutes", type=float, help="how long this call trains")
    command.add_argument(
        "--total-minutes", type=float, required=True, help="length of the whole schedule"
    )
    command.add_argument("--rate", type=float, default=1.2e-3, help="learning rate (1.2e-3)")
    command.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        default=AMX,
        help="mixed precision; worth it on CPUs with AMX (default: where there is AMX)",
    )
    command.set_defaults(run=train)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.run(args)


if __name__ == "__main__":
    main()
