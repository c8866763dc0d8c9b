"""Writes the trained model in the diffusers layout, and reference values computed from it.

The weights are float16 safetensors. The reference values are what diffusers' own pipelines give in
float32 with the widened weights: for each case its noise, text embeddings, latents after every step
and frames; for clips with given frames also what was given.
"""

import argparse
import json
import os

import diffusers
import numpy as np
import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

import shapes
from networks import SHIFT, TEXT_LEN, TOK, ema_models, per_channel, per_token
from train_vae_cfg import CFG

STEPS, GUIDANCE = 20, 4.0


def case(name, prompt, size, frames, seed, **more):
    """A clip to compute: `size` is height and width."""
    about = dict(name=name, prompt=prompt, height=size[0], width=size[1], frames=frames, seed=seed)
    return {**about, **more}


def scene(shape, color, motion, background):
    """A scene with one object, whose frames are given to the model."""
    place = dict(travel=0.45, phase=0, cross=0.2, off=0, turns=0.4)
    thing = dict(shape=shape, color=color, size="medium", motion=motion, **place)
    return dict(background=background, objects=[thing])


CASES = [
    case("t2v_wide", "a red circle moves right on a white background", (64, 96), 17, 1),
    case("t2v_tall", "a small yellow star spins on a navy background", (96, 64), 17, 2),
    case("t2v_long", "a large blue square moves up on a black background", (64, 64), 33, 3),
    case(
        "t2v_two",
        "a green circle moves left and a purple square moves down on a beige background",
        (64, 96),
        17,
        4,
    ),
    case("t2v_zh", "一个橙色三角形向左移动，灰色背景", (64, 64), 9, 5),
    case("image", "a pink ring rests on a white background", (80, 80), 1, 6),
    case(
        "i2v",
        "a cyan triangle moves down on a gray background",
        (64, 96),
        17,
        7,
        image="i2v_input.png",
    ),
]

# start: the first 1+4a frames as they are. end: the last 4b frames.
GIVEN = [
    (
        case(
            "extend_forward",
            "a red square moves right on a white background",
            (64, 96),
            33,
            8,
            start=17,
            end=0,
        ),
        scene("square", "red", "right", "white"),
    ),
    (
        case(
            "extend_backward",
            "a yellow circle moves up on a navy background",
            (64, 64),
            33,
            9,
            start=0,
            end=16,
        ),
        scene("circle", "yellow", "up", "navy"),
    ),
    (
        case(
            "join",
            "a green star moves left on a beige background",
            (64, 96),
            33,
            10,
            start=9,
            end=8,
        ),
        scene("star", "green", "left", "beige"),
    ),
]


def save_model(folder):
    """Writes the averaged weights as a `WanPipeline` with a timestep per token."""
    text, dit, mean, std = ema_models()
    statistics = dict(
        latents_mean=[round(v, 6) for v in mean.tolist()],
        latents_std=[round(v, 6) for v in std.tolist()],
    )
    vae = AutoencoderKLWan(**{**CFG, **statistics})
    vae.load_state_dict(torch.load("vae.pt", weights_only=False)["m"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=TOK,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=TEXT_LEN,
    )
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=SHIFT,
        num_train_timesteps=1000,
    )
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text.half(),
        vae=vae.half(),
        scheduler=scheduler,
        transformer=dit.half(),
        transformer_2=None,
        expand_timesteps=True,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


class Reference:
    """The saved model in float32 and the folder of its reference values."""

    def __init__(self, model, folder):
        self.folder, self.meta = folder, []
        self.pipe = WanPipeline.from_pretrained(model, torch_dtype=torch.float32)
        self.i2v = WanImageToVideoPipeline(
            tokenizer=self.pipe.tokenizer,
            text_encoder=self.pipe.text_encoder,
            vae=self.pipe.vae,
            scheduler=self.pipe.scheduler,
            transformer=self.pipe.transformer,
            image_encoder=None,
            image_processor=None,
            expand_timesteps=True,
        )
        config = self.pipe.vae.config
        self.mean = per_channel(torch.tensor(config.latents_mean))
        self.std = per_channel(torch.tensor(config.latents_std))

    def noise(self, case):
        """[1, 16, latent frames, height/8, width/8]"""
        generator = torch.Generator().manual_seed(case["seed"])
        frames = 1 + (case["frames"] - 1) // 4
        size = (1, 16, frames, case["height"] // 8, case["width"] // 8)
        return torch.randn(*size, generator=generator)

    def text(self, prompt):
        """Embeddings of the prompt and of the empty one."""
        return self.pipe.encode_prompt(prompt, "", True, 1, max_sequence_length=TEXT_LEN)

    def decoded(self, latents):
        """uint8 frames, [frames, height, width, 3]."""
        frames = self.pipe.vae.decode(latents * self.std + self.mean).sample[0]
        frames = ((frames + 1) * 127.5).round().clamp(0, 255).byte()
        return frames.permute(1, 2, 3, 0).contiguous()

    def encoded(self, frames):
        """Normalised latents of uint8 frames."""
        x = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        return (self.pipe.vae.encode(x).latent_dist.mean - self.mean) / self.std

    def save(self, case, tensors, steps, latents):
        """Writes one case, a sheet of every fourth frame, and a line of `meta.json`."""
        frames, name = self.decoded(latents), case["name"]
        run = dict(latents_steps=torch.stack(steps).contiguous(), latents=latents.contiguous())
        tensors = {**tensors, **run, "frames_u8": frames}
        save_file(tensors, f"{self.folder}/{name}.safetensors")
        sheet = list(frames.numpy()[::4] if case["frames"] > 1 else frames.numpy())
        Image.fromarray(np.concatenate(sheet, 1)).save(f"{self.folder}/{name}.png")
        settings = dict(steps=STEPS, guidance=GUIDANCE, scheduler="unipc", shift=SHIFT)
        self.meta.append({**case, **settings, "negative": ""})

    def run_pipeline(self, case):
        """A case that diffusers has a pipeline for."""
        noise, steps = self.noise(case), []

        def after_step(_pipe, _index, _timestep, kwargs):
            steps.append(kwargs["latents"].clone())
            return {}

        settings = dict(
            prompt=case["prompt"],
            negative_prompt="",
            height=case["height"],
            width=case["width"],
            num_frames=case["frames"],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            latents=noise.clone(),
            max_sequence_length=TEXT_LEN,
            output_type="latent",
            callback_on_step_end=after_step,
        )
        if "image" in case:
            path = f"{self.folder}/{case['image']}"
            first = scene("triangle", "cyan", "down", "gray")
            drawn = shapes.render(first, case["height"], case["width"], 17)[0]
            Image.fromarray(drawn).save(path)
            latents = self.i2v(image=Image.open(path), **settings).frames
        else:
            latents = self.pipe(**settings).frames
        text = self.text(case["prompt"])[0].contiguous()
        self.save(case, dict(noise=noise, text=text), steps, latents)

    def known(self, case, clip):
        """What is given of a clip: latents, a mask (0 = given), and the frames themselves.

        Frames at the end have no history for the causal encoder: their first one is put before them
        once, all are encoded, and the first latent is dropped.
        """
        known = torch.zeros_like(self.noise(case))
        mask, frames = torch.ones(known.shape[2]), {}
        if case["start"]:
            x = clip[: case["start"]]
            z = self.encoded(x)
            known[:, :, : z.shape[2]] = z
            mask[: z.shape[2]] = 0
            frames["start_u8"] = torch.from_numpy(x.copy())
        if case["end"]:
            x = clip[-case["end"] :]
            z = self.encoded(np.concatenate([x[:1], x]))[:, :, 1:]
            known[:, :, -z.shape[2] :] = z
            mask[-z.shape[2] :] = 0
            frames["end_u8"] = torch.from_numpy(x.copy())
        return known, mask, frames

    def run_given(self, case, drawn):
        """A clip with given frames: no diffusers pipeline does these, so the loop stands here."""
        clip = shapes.render(drawn, case["height"], case["width"], case["frames"])
        known, mask, frames = self.known(case, clip)
        noise, steps = self.noise(case), []
        x, free = noise.clone(), mask.view(1, 1, -1, 1, 1)
        with_text, without = self.text(case["prompt"])
        scheduler = UniPCMultistepScheduler.from_config(self.pipe.scheduler.config)
        scheduler.set_timesteps(STEPS)
        for t in scheduler.timesteps:
            kwargs = dict(
                hidden_states=(1 - free) * known + free * x,
                timestep=per_token((mask * t)[None], case["height"], case["width"]),
                return_dict=False,
            )
            guided, plain = (
                self.pipe.transformer(encoder_hidden_states=text, **kwargs)[0]
                for text in (with_text, without)
            )
            velocity = plain + GUIDANCE * (guided - plain)
            x = scheduler.step(velocity, t, x, return_dict=False)[0]
            steps.append(x.clone())
        latents = (1 - free) * known + free * x
        given = dict(noise=noise, known=known, mask=mask, text=with_text.contiguous(), **frames)
        self.save(case, given, steps, latents)

    def save_meta(self):
        about = dict(diffusers=diffusers.__version__)
        about.update(dtype="float32 (weights widened from float16)", cases=self.meta)
        with open(f"{self.folder}/meta.json", "w") as file:
            json.dump(about, file, indent=1, ensure_ascii=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="folder for the model; read: vae.pt and dit.pt")
    parser.add_argument("reference", help="folder for the reference values")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.makedirs(args.model, exist_ok=True)
    os.makedirs(args.reference, exist_ok=True)
    save_model(args.model)
    torch.set_grad_enabled(False)
    reference = Reference(args.model, args.reference)
    for about in CASES:
        reference.run_pipeline(about)
    for about, drawn in GIVEN:
        reference.run_given(about, drawn)
    reference.save_meta()


if __name__ == "__main__":
    main()
