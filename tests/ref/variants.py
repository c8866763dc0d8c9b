"""Tiny random checkpoints of every family of Wan with other sizes than the published ones: layer counts, widths, heads,
patches, autoencoders of other levels, strides and forms, image encoders, boundaries. Made and run by diffusers.

usage: variants.py FOLDER NAME…   (python 3.11; torch, diffusers 0.42.1, transformers 5, no torchvision: it rounds pictures otherwise than Pillow)

A NAME is KIND-SEED, with KIND among t2v, ti2v, a14b, i2v, flf2v, a14b_i2v, vace, vae, text; KIND-FROM..TO makes many. Each
becomes a folder with `model`, `case.json` and `golden.safetensors`. `tests/suite/variants.rs` holds all that lie in
`tests/ref/variants`, and those of the folder that KINO_TEST_VARIANTS names.
"""
import json, os, random, shutil, sys
import numpy as np, torch
from PIL import Image
from diffusers import (AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline,
                       WanTransformer3DModel, WanVACEPipeline, WanVACETransformer3DModel)
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection, UMT5Config, UMT5EncoderModel

torch.set_grad_enabled(False)


def randomised(model, seed):
    """Weights that halves hold exactly, of a size that keeps activations near 1."""
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        norm = name.endswith("gamma") or "norm" in name and name.endswith("weight")
        scale = 1.0 if p.dim() < 2 or "table" in name or "pos_embed" in name else (1.6 / p[0].numel()) ** 0.5
        p.copy_((1 + 0.3 * torch.randn_like(p) if norm else torch.randn_like(p) * (0.2 if p.dim() < 2 else scale)).half().float())
    return model.eval()


def autoencoder(r, residual=None, patched=True):
    residual = r.random() < 0.4 if residual is None else residual
    levels = r.choice([2, 3, 3, 4])
    down = [r.random() < 0.6 for _ in range(levels - 1)]
    while sum(down) > 2:  # diffusers encodes four frames at a time, whatever the config says
        down[down.index(True)] = False
    patch = r.choice([None, 1, 2, 4] if residual else [None, None, 2]) if patched else None
    z = r.choice([3, 5, 8, 16])
    # The shortcuts of the residual form average or repeat whole channels.
    base = r.choice([4, 8]) if residual else r.choice([3, 4, 6, 7])
    mult = [1] + sorted(r.choice([1, 2, 4]) if residual else r.choice([1, 2, 3, 4]) for _ in range(levels - 1))
    if residual:
        mult[-1] = mult[-2]
    wide = r.choice([None, base * 2 if residual else base + 2])
    config = dict(base_dim=base, decoder_base_dim=wide, z_dim=z, dim_mult=mult, num_res_blocks=r.choice([1, 2, 3]),
                  attn_scales=r.choice([[], [0.5]]) if residual else [], temperal_downsample=down, is_residual=residual, patch_size=patch,
                  in_channels=3 * (patch or 1) ** 2, out_channels=3 * (patch or 1) ** 2, latents_mean=[round(r.gauss(0, 0.5), 3) for _ in range(z)],
                  latents_std=[round(r.uniform(0.6, 2.5), 3) for _ in range(z)], scale_factor_temporal=2 ** sum(down), scale_factor_spatial=(patch or 1) * 2 ** (levels - 1))
    return randomised(AutoencoderKLWan(**config), r.randrange(1 << 30))


def transformer(r, vae, text_dim, **more):
    heads, head = r.choice([1, 2, 3]), r.choice([6, 8, 10, 12, 14, 22])
    z = vae.config.z_dim
    config = dict(patch_size=(1, 2, 2), num_attention_heads=heads, attention_head_dim=head, in_channels=z, out_channels=z, text_dim=text_dim, freq_dim=r.choice([8, 20, 64]),
                  ffn_dim=r.choice([17, 24, 50]), num_layers=r.choice([1, 2, 3, 4]), cross_attn_norm=r.random() < 0.8, eps=r.choice([1e-6, 1e-5]), rope_max_seq_len=64)
    kind = WanVACETransformer3DModel if "vace_layers" in more else WanTransformer3DModel
    more = {key: value(config) if callable(value) else value for key, value in more.items()}
    return randomised(kind(**{**config, **more}), r.randrange(1 << 30))


def clip(r):
    size, patch = r.choice([(28, 7), (24, 8), (20, 4)])
    config = CLIPVisionConfig(hidden_size=r.choice([16, 24]), intermediate_size=r.choice([20, 36]), num_hidden_layers=r.choice([2, 3, 4]), num_attention_heads=r.choice([1, 2, 4]),
                              image_size=size, patch_size=patch, projection_dim=8, hidden_act=r.choice(["gelu", "quick_gelu"]), layer_norm_eps=r.choice([1e-5, 1e-6]))
    processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size}, resample=r.choice([2, 3]),
                                   image_mean=[0.4, 0.5, 0.45], image_std=[0.3, 0.25, 0.28])
    return randomised(CLIPVisionModelWithProjection(config), r.randrange(1 << 30)), processor


def scheduler(r):
    shift = r.choice([1.0, 3.0, 5.0, 7.5])
    if r.random() < 0.3:
        return FlowMatchEulerDiscreteScheduler(shift=shift)
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, num_train_timesteps=1000,
                                   solver_order=r.choice([1, 2]), solver_type="bh2")


def bytes_of(image):
    return torch.from_numpy(np.array(image))


def picture(r, width, height):
    g = np.random.default_rng(r.randrange(1 << 30))
    small = Image.fromarray(g.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return small.resize((width, height), Image.BICUBIC)


def vae_values(vae, values, frames, size, r):
    """What it makes of frames, normalised, and of a latent."""
    g = torch.Generator().manual_seed(r.randrange(1 << 30))
    video = (torch.rand(1, 3, frames, *size, generator=g) * 255).byte()
    latent = vae.encode(video.float() / 255 * 2 - 1).latent_dist.mode()
    mean, std = (torch.tensor(x).view(1, -1, 1, 1, 1) for x in (vae.config.latents_mean, vae.config.latents_std))
    z = torch.randn(latent.shape, generator=g)
    values.update(video_u8=video[0].permute(1, 2, 3, 0), latent=((latent - mean) / std)[0], z=z[0], decoded=vae.decode(z * std + mean).sample[0].permute(1, 2, 3, 0) / 2 + 0.5)


def text(folder, name, r):
    """A text encoder alone, with the tokenizer of `wan_t2v`."""
    tokenizer = f"{os.path.dirname(os.path.abspath(__file__))}/wan_t2v/model/tokenizer"
    heads, width = r.choice([(2, 6), (3, 8), (4, 5), (1, 16)])
    config = UMT5Config(vocab_size=len(AutoTokenizer.from_pretrained(tokenizer)), d_model=r.choice([12, 24, 40]), d_kv=width, d_ff=r.choice([20, 36]), num_layers=r.choice([1, 2, 3]),
                        num_heads=heads, relative_attention_num_buckets=r.choice([8, 16, 32]), relative_attention_max_distance=r.choice([20, 64, 128]), layer_norm_epsilon=r.choice([1e-6, 1e-5]))
    encoder = randomised(UMT5EncoderModel(config), r.randrange(1 << 30))
    pipe = WanPipeline(tokenizer=AutoTokenizer.from_pretrained(tokenizer), text_encoder=encoder, vae=None, scheduler=scheduler(r))
    prompt = r.choice(["A red fox runs through deep snow at dawn.", "色调艳丽, a train leaves the station; people wave &amp; neon signs reflect in puddles. " * 3, "x"])
    values = dict(embeds=pipe._get_t5_prompt_embeds(prompt, max_sequence_length=512, device="cpu")[0])
    out = f"{folder}/{name}"
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(f"{out}/model/scheduler")
    pipe.scheduler.save_pretrained(f"{out}/model/scheduler")
    encoder.save_pretrained(f"{out}/model/text_encoder")
    shutil.copytree(tokenizer, f"{out}/model/tokenizer")
    json.dump(dict(_class_name="WanPipeline", text_encoder=["transformers", "UMT5EncoderModel"], tokenizer=["transformers", "T5TokenizerFast"]), open(f"{out}/model/model_index.json", "w"))
    save_file({k: v.contiguous() for k, v in values.items()}, f"{out}/golden.safetensors")
    json.dump(dict(name=name, kind="text", prompt=prompt), open(f"{out}/case.json", "w"), indent=1)


def make(folder, name):
    kind, seed = name.rsplit("-", 1)
    r = random.Random(name)
    if kind == "text":
        return text(folder, name, r)
    values, case = {}, dict(name=name, kind=kind)
    vae = autoencoder(r, True if kind == "ti2v" else None, kind != "vace")
    config = vae.config
    frames = 4 * r.choice([1, 2]) + 1  # diffusers encodes four frames at a time
    text_dim, rows = r.choice([12, 20, 40]), 512 if kind in ("i2v", "flf2v") else r.choice([3, 7, 16])
    parts = dict(vae=vae, scheduler=scheduler(r), tokenizer=None, text_encoder=None)
    free = kind in ("t2v", "a14b")
    patch = r.choice([(1, 2, 2), (1, 1, 1), (1, 2, 1), (1, 1, 2), (1, 4, 2)]) if free else (1, 2, 2)
    z = config.z_dim
    more, low = dict(patch_size=patch), None
    if kind in ("i2v", "flf2v", "a14b_i2v"):
        more["in_channels"] = 2 * z + config.scale_factor_temporal
    if kind in ("i2v", "flf2v"):
        encoder, processor = clip(r)
        parts.update(image_encoder=encoder, image_processor=processor)
        more.update(image_dim=encoder.config.hidden_size, added_kv_proj_dim=lambda c: c["num_attention_heads"] * c["attention_head_dim"])
        if kind == "flf2v":
            more["pos_embed_seq_len"] = 2 * ((encoder.config.image_size // encoder.config.patch_size) ** 2 + 1)
    if kind == "vace":
        more.update(vace_layers=lambda c: sorted({0, *r.sample(range(c["num_layers"]), r.randint(0, c["num_layers"] - 1))}), vace_in_channels=2 * z + config.scale_factor_spatial ** 2)
    if kind.startswith("a14b"):
        parts.update(transformer_2=transformer(r, vae, text_dim, **more), boundary_ratio=r.choice([0.3, 0.62, 0.875, 0.9]))
        low = r.choice([None, 1.7])
    if kind != "vae":
        parts["transformer"] = transformer(r, vae, text_dim, **more)
    if kind == "ti2v":
        parts["expand_timesteps"] = True
    step = [max(16, config.scale_factor_spatial * side) for side in patch[1:]]  # diffusers wants multiples of 16
    step = [np.lcm(16, side) for side in step]
    size = tuple(int(side) * (2 if side < 32 else 1) for side in step)
    case.update(frames=frames, height=size[0], width=size[1])
    vae_values(vae, values, frames, size, r)
    out = f"{folder}/{name}"
    shutil.rmtree(out, ignore_errors=True)
    if kind == "vae":
        pipe = None
        vae.save_pretrained(f"{out}/model/vae")
        json.dump(dict(_class_name="WanPipeline", vae=["diffusers", "AutoencoderKLWan"]), open(f"{out}/model/model_index.json", "w"))
        os.makedirs(f"{out}/model/scheduler"); parts["scheduler"].save_pretrained(f"{out}/model/scheduler")
    else:
        cls = dict(vace=WanVACEPipeline, t2v=WanPipeline, a14b=WanPipeline).get(kind, WanImageToVideoPipeline)
        if kind == "ti2v" and r.random() < 0.5:
            cls = WanPipeline
        if cls is WanImageToVideoPipeline:
            parts.setdefault("image_encoder", None); parts.setdefault("image_processor", None)
        pipe = cls(**parts)
        sample(pipe, kind, case, values, r, size, frames, text_dim, rows, low)
        pipe.save_pretrained(f"{out}/model", safe_serialization=True)
    for part, file in [("transformer", "diffusion_pytorch_model"), ("transformer_2", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("image_encoder", "model")]:
        model = vae if part == "vae" else getattr(pipe, part, None)
        if model is not None:
            save_file({k: v.half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()}, f"{out}/model/{part}/{file}.safetensors", metadata={"format": "pt"})
    save_file({k: v.contiguous() for k, v in values.items()}, f"{out}/golden.safetensors")
    json.dump(case, open(f"{out}/case.json", "w"), indent=1)


def sample(pipe, kind, case, values, r, size, frames, text_dim, rows, low):
    h, w = size
    config = pipe.vae.config
    g = torch.Generator().manual_seed(r.randrange(1 << 30))
    text = torch.randn(1, rows, text_dim, generator=g)
    text[:, 5:] = 0
    values["text"] = text[0, :5] if rows == 512 else text[0]
    steps, guidance = r.choice([2, 3, 4]), r.choice([1.0, 2.5])
    kw = dict(prompt_embeds=text, negative_prompt_embeds=torch.zeros_like(text), height=h, width=w, num_frames=frames, num_inference_steps=steps, guidance_scale=guidance, output_type="latent")
    case.update(rows=rows, steps=steps, guidance=guidance)
    if low is not None and guidance > 1:  # diffusers guides neither expert where the first is not guided
        kw["guidance_scale_2"] = case["guidance_low"] = low
    pictures = []
    if isinstance(pipe, WanImageToVideoPipeline):
        names = ["first", "last"] if kind == "flf2v" else ["first"]
        for name in names:
            large = picture(r, w + r.choice([0, 9]), h + r.choice([0, 14]))
            pictures.append(large)
            values[f"{name}_u8"] = bytes_of(large.resize((w, h), Image.LANCZOS))[None]
            if pipe.image_encoder is not None:
                values[f"seen_{name}_u8"] = bytes_of(large)[None]
        kw.update(zip(["image", "last_image"], pictures))
        if pipe.image_encoder is not None:
            values["image_embeds"] = pipe.encode_image(pictures, "cpu").reshape(-1, pipe.image_encoder.config.hidden_size)
    references = 0
    if kind == "vace":
        references = r.choice([0, 1, 2])
        film = [picture(r, w, h) for _ in range(frames)]
        masks = [Image.fromarray((np.array(picture(r, w, h))[..., 0] > 120).astype(np.uint8) * 255) for _ in range(frames)]
        shown = [picture(r, r.choice([19, 40]), r.choice([23, 37])) for _ in range(references)]
        values.update({f"shown_{i}_u8": bytes_of(p)[None] for i, p in enumerate(shown)})
        case.update(references=references, strength=r.choice([1.0, 0.6]), video=r.random() < 0.7)
        kw.update(conditioning_scale=case["strength"], reference_images=shown or None)
        if case["video"]:
            values.update(film_u8=torch.stack([bytes_of(f) for f in film]), mask=torch.stack([bytes_of(m) for m in masks]).float() / 255)
            kw.update(video=film, mask=masks)
    z, s = config.z_dim, config.scale_factor_spatial
    start = torch.randn(1, z, (frames - 1) // config.scale_factor_temporal + 1 + references, h // s, w // s, generator=g)
    seen = []
    latents = pipe(latents=start.clone(), callback_on_step_end=lambda p, i, t, k: (seen.append(k["latents"].clone()), {})[1], **kw).frames
    latents = latents[:, :, references:]
    values.update(latents_init=start[0], latents_steps=torch.cat(seen))
    mean, std = (torch.tensor(x).view(1, -1, 1, 1, 1) for x in (config.latents_mean, config.latents_std))
    video = pipe.vae.decode(latents * std + mean).sample[0]
    values["frames_u8"] = ((video + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0)


for name in sys.argv[2:]:
    kind, seeds = name.rsplit("-", 1)
    first, last = (seeds.split("..") * 2)[:2]
    for seed in range(int(first), int(last) + 1):
        try:
            make(sys.argv[1], f"{kind}-{seed}")
            print(f"{kind}-{seed}")
        except Exception as error:
            shutil.rmtree(f"{sys.argv[1]}/{kind}-{seed}", ignore_errors=True)
            if os.environ.get("TRACE"):
                raise
            print(f"{kind}-{seed}: diffusers itself: {type(error).__name__}: {error}"[:300])
