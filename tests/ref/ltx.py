"""Reference values of LTX-Video: a whole tiny model of the form of 0.9.0 (text to video, image to video), one of the form
of 0.9.5 (timesteps and noise in the decoder), and autoencoders of the forms between. Random weights, run by diffusers.

usage: ltx.py TESTS_REF   (python 3.11; torch, diffusers 0.42.1, transformers 5)

The text encoder's vocabulary is that of `t5`. Weights are halves, exact in f32. Noise that decoders draw is that of
Kinograph (Philox, Box and Muller), so that it can be compared.
"""
import json, math, os, shutil, sys
import numpy as np, torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXConditionPipeline, LTXImageToVideoPipeline, LTXPipeline, LTXVideoTransformer3DModel
from safetensors.torch import save_file
from transformers import AutoTokenizer, T5Config, T5EncoderModel

ref = sys.argv[1]
torch.set_grad_enabled(False)
PROMPT, NEGATIVE = "A red fox runs through deep snow at dawn.", "waves"


def randomised(model, seed, gain=1.0):
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        norm = "norm" in name and name.endswith("weight")
        scale = gain * (1.0 if p.dim() < 2 or "table" in name else (1.6 / p[0].numel()) ** 0.5)
        if "timestep_scale_multiplier" in name:
            continue
        new = 1 + 0.3 * torch.randn_like(p) if norm else torch.randn_like(p) * (0.2 if p.dim() < 2 or "per_channel" in name or "table" in name else scale)
        p.copy_(new.half().float())
    if hasattr(model, "latents_mean"):
        model.latents_mean.copy_((torch.randn_like(model.latents_mean) * 0.3).half().float())
        model.latents_std.copy_((torch.rand_like(model.latents_std) + 0.6).half().float())
    return model.eval()


def philox(first, count, seed):
    """Normal numbers `first`… of a seed: Philox 4x32-10, then Box and Muller, as nodes/models/src/noise.rs."""
    m32 = np.uint64(0xFFFFFFFF)
    index = np.arange(first, first + count, dtype=np.uint64)
    c = [index & m32, index >> np.uint64(32), np.zeros(count, np.uint64), np.zeros(count, np.uint64)]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for round in range(10):
        if round:
            key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(key[0]), b & m32, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(key[1]), a & m32]
    bits = lambda top, bottom: ((top << np.uint64(32) | bottom) >> np.uint64(11)).astype(np.float64)
    u, v = (bits(c[0], c[1]) + 1) / 2**53, bits(c[2], c[3]) / 2**53
    return torch.from_numpy((np.sqrt(-2 * np.log(u)) * np.cos(2 * math.pi * v)).astype(np.float32))


def noise(seed, index, shape):
    return philox((1 << 52) + (index << 40), math.prod(shape), seed).reshape(tuple(shape))


def halves(model, folder, part, file="diffusion_pytorch_model"):
    # Means of tens of thousands of numbers are not needed in more.
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, f"{folder}/{part}/{file}.safetensors", metadata={"format": "pt"})


def vae_values(vae, values, name, frames, size, seed, noised=None):
    g = torch.Generator().manual_seed(seed)
    u8 = (torch.rand(1, 3, frames, *size, generator=g) * 255).byte()
    latent = vae.encode(u8.float() / 255 * 2 - 1).latent_dist.mode()
    mean, std = vae.latents_mean.view(1, -1, 1, 1, 1), vae.latents_std.view(1, -1, 1, 1, 1)
    z = torch.randn(latent.shape, generator=g)
    raw = z * std + mean
    timestep = None
    if noised:
        level, scale, seed = noised
        raw = (1 - scale) * raw + scale * noise(seed, 0, z.shape[1:])[None]
        timestep = torch.tensor([level])
        drawn = iter(range(1, 1000))
        randn, torch.randn = torch.randn, lambda shape, **_: noise(seed, next(drawn), shape)
    values.update({f"{name}.video_u8": u8[0].permute(1, 2, 3, 0), f"{name}.latent": ((latent - mean) / std)[0], f"{name}.z": z[0],
                   f"{name}.decoded": (vae.decode(raw, timestep).sample[0].permute(1, 2, 3, 0).clamp(-1, 1) / 2 + 0.5)})
    if noised:
        torch.randn = randn
    return dict(name=name, frames=frames, height=size[0], width=size[1], noise=noised)


def text_encoder(seed):
    tokenizer = AutoTokenizer.from_pretrained(f"{ref}/t5/tokenizer")
    encoder = T5EncoderModel(T5Config(vocab_size=len(tokenizer) + 4, d_model=20, d_kv=6, d_ff=24, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu", tie_word_embeddings=False))
    return tokenizer, randomised(encoder, seed)


def save(name, pipe, cls, values, case):
    folder = f"{ref}/ltx/{name}"
    shutil.rmtree(folder, ignore_errors=True)
    pipe.save_pretrained(f"{folder}/model", safe_serialization=True)
    shutil.rmtree(f"{folder}/model/tokenizer")
    halves(pipe.transformer, f"{folder}/model", "transformer"); halves(pipe.vae, f"{folder}/model", "vae")
    state = {"shared.weight" if k.endswith("embed_tokens.weight") else k: v for k, v in pipe.text_encoder.state_dict().items() if k != "shared.weight"}
    save_file({k: v.half().contiguous() for k, v in state.items()}, f"{folder}/model/text_encoder/model.safetensors", metadata={"format": "pt"})
    shutil.copytree(f"{ref}/t5/tokenizer", f"{folder}/model/tokenizer")
    config = json.load(open(f"{ref}/t5/tokenizer/tokenizer_config.json"))
    json.dump(dict(config, model_max_length=case["rows"]), open(f"{folder}/model/tokenizer/tokenizer_config.json", "w"))
    save_file({k: v.contiguous() for k, v in values.items()}, f"{folder}/golden.safetensors")
    json.dump(case, open(f"{folder}/case.json", "w"), indent=1)


def sample(pipe, name, values, frames, size, steps, guidance, fps, seed, given=None):
    """Latents after each step, from noise that is kept."""
    h, w = size
    vae, (temporal, spatial) = pipe.vae, (pipe.vae_temporal_compression_ratio, pipe.vae_spatial_compression_ratio)
    shape = (1, vae.config.latent_channels, (frames - 1) // temporal + 1, h // spatial, w // spatial)
    start = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    mean, std = vae.latents_mean.view(1, -1, 1, 1, 1), vae.latents_std.view(1, -1, 1, 1, 1)
    seen, kw = [], {}
    first = start.clone()
    if given is not None:
        latent = vae.encode(given[None, :, None].float() / 255 * 2 - 1).latent_dist.mode()
        first[:, :, :1] = (latent - mean) / std
        kw["image"] = None
        values[f"{name}.first_u8"] = given.permute(1, 2, 0)[None]
    def keep(p, i, t, k):
        packed = k["latents"]
        seen.append(pipe._unpack_latents(packed, *shape[2:])[0].clone())
        return {}
    if isinstance(pipe, LTXConditionPipeline):
        # It draws its own noise: the same.
        import diffusers.pipelines.ltx.pipeline_ltx_condition as module
        drawn, module.randn_tensor = module.randn_tensor, lambda s, **_: start.clone()
        kw.update(image_cond_noise_scale=0.0)
    else:
        kw["latents"] = pipe._pack_latents(first)
    pipe(prompt=PROMPT, negative_prompt=NEGATIVE, height=h, width=w, num_frames=frames, frame_rate=fps, num_inference_steps=steps, guidance_scale=guidance, output_type="latent",
         max_sequence_length=32, callback_on_step_end=keep, **kw)
    if isinstance(pipe, LTXConditionPipeline):
        module.randn_tensor = drawn
    values[f"{name}.latents_init"], values[f"{name}.latents_steps"] = start[0], torch.stack(seen)
    values[f"{name}.timesteps"] = pipe.scheduler.timesteps.float()
    return dict(name=name, frames=frames, height=h, width=w, steps=steps, guidance=guidance, fps=fps, given=given is not None)


def transformer(seed, channels, caption, **more):
    config = dict(in_channels=channels, out_channels=channels, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16, num_layers=2, caption_channels=caption)
    return randomised(LTXVideoTransformer3DModel(**{**config, **more}), seed)


# The form of 0.9.0: strided convolutions, a decoder that sees frames to come, levels shifted by the number of tokens.
tokenizer, encoder = text_encoder(1)
vae = randomised(AutoencoderKLLTXVideo(latent_channels=6, block_out_channels=(2, 3, 4), decoder_block_out_channels=(2, 3, 4), down_block_types=("LTXVideoDownBlock3D",) * 3,
                                       layers_per_block=(1, 2, 1, 1), decoder_layers_per_block=(1, 1, 2, 1), spatio_temporal_scaling=(True, True, False),
                                       decoder_spatio_temporal_scaling=(True, True, False), decoder_inject_noise=(False,) * 4, upsample_residual=(False,) * 3, upsample_factor=(1,) * 3,
                                       patch_size=2, scaling_factor=1.0), 2)
scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=8, max_image_seq_len=64, shift_terminal=0.1)
parts = dict(scheduler=scheduler, vae=vae, text_encoder=encoder, tokenizer=tokenizer, transformer=transformer(3, 6, 20))
pipe, values = LTXPipeline(**parts), {}
# Prompts are read to so many tokens.
tokenizer.model_max_length = 32
case = dict(prompt=PROMPT, negative=NEGATIVE, rows=32, samples=[sample(pipe, "a", values, 9, (32, 64), 3, 3.0, 25, 11), sample(pipe, "b", values, 5, (64, 32), 2, 1.0, 12, 12)])
image = (torch.rand(3, 4, 8, generator=torch.Generator().manual_seed(4)).repeat_interleave(8, 1).repeat_interleave(8, 2) * 255).byte()
case["samples"].append(sample(LTXImageToVideoPipeline(**parts), "i2v", values, 9, (32, 64), 3, 2.5, 25, 13, given=image))
case["vae"] = [vae_values(vae, values, "v1", 1, (16, 24), 21), vae_values(vae, values, "v2", 5, (16, 8), 22), vae_values(vae, values, "v3", 13, (8, 8), 23)]
# The transformer alone: a timestep for each token, a text with a mask.
g = torch.Generator().manual_seed(5)
x, rows, mask = torch.randn(1, 12, 6, generator=g), torch.randn(1, 7, 20, generator=g), torch.tensor([[1, 1, 1, 1, 0, 1, 0]])
times = torch.tensor([0.0, 417.3, 417.3, 900.0] * 3)[None]
scale = (4 / 25, 8, 8)
values.update(x=x[0], x_text=rows[0], x_mask=mask[0].float(), x_times=times[0])
values["x_velocity"] = parts["transformer"](x, rows, times, mask, 3, 2, 2, scale)[0][0]
save("v090", pipe, LTXPipeline, values, case)

# The form of 0.9.5: folded downsampling, a decoder with timesteps that doubles around its input, other positions and levels.
tokenizer, encoder = text_encoder(6)
vae = randomised(AutoencoderKLLTXVideo(latent_channels=5, block_out_channels=(2, 4, 4, 8), decoder_block_out_channels=(4, 8), down_block_types=("LTXVideo095DownBlock3D",) * 3,
                                       downsample_type=("spatial", "temporal", "spatiotemporal"), layers_per_block=(1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1),
                                       spatio_temporal_scaling=(True,) * 3, decoder_spatio_temporal_scaling=(True, True), decoder_inject_noise=(False,) * 3,
                                       upsample_residual=(False, True), upsample_factor=(2, 2), timestep_conditioning=True, patch_size=2, encoder_causal=True, decoder_causal=False,
                                       spatial_compression_ratio=8, temporal_compression_ratio=4), 7)
parts = dict(scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae, text_encoder=encoder, tokenizer=tokenizer, transformer=transformer(8, 5, 20, num_attention_heads=1, attention_head_dim=12, cross_attention_dim=12, num_layers=1))
tokenizer.model_max_length = 32
pipe, values = LTXConditionPipeline(**parts), {}
case = dict(prompt=PROMPT, negative=NEGATIVE, rows=32, samples=[sample(pipe, "a", values, 9, (32, 32), 4, 3.0, 30, 31)])
case["vae"] = [vae_values(vae, values, "v1", 1, (16, 8), 24, (0.05, 0.025, 7)), vae_values(vae, values, "v2", 9, (8, 24), 25, (0.3, 0.5, 8))]
save("v095", pipe, LTXConditionPipeline, values, case)

# That of 0.9.1: strided downsampling, and a decoder that adds noise in its layers; and one that sees no frames to come.
for name, causal in [("vae091", False), ("vae_causal", True)]:
    timed = not causal
    vae = randomised(AutoencoderKLLTXVideo(latent_channels=4, block_out_channels=(2, 3), decoder_block_out_channels=(4, 8) if timed else (2, 3), down_block_types=("LTXVideoDownBlock3D",) * 2,
                                           layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1), spatio_temporal_scaling=(True, True), decoder_spatio_temporal_scaling=(True, True),
                                           decoder_inject_noise=(timed, timed, False), upsample_residual=(False, timed), upsample_factor=(2, 2) if timed else (1, 1),
                                           timestep_conditioning=timed, patch_size=2, decoder_causal=causal), 9)
    folder, values = f"{ref}/ltx/{name}", {}
    case = dict(vae=[vae_values(vae, values, "v1", 5, (16, 8), 26, (0.1, 0.2, 9) if timed else None)])
    shutil.rmtree(folder, ignore_errors=True)
    vae.save_pretrained(f"{folder}/model/vae"); halves(vae, f"{folder}/model", "vae")
    os.makedirs(f"{folder}/model/scheduler"); FlowMatchEulerDiscreteScheduler().save_pretrained(f"{folder}/model/scheduler")
    json.dump(dict(_class_name="LTXPipeline", vae=["diffusers", "AutoencoderKLLTXVideo"]), open(f"{folder}/model/model_index.json", "w"))
    save_file({k: v.contiguous() for k, v in values.items()}, f"{folder}/golden.safetensors")
    json.dump(case, open(f"{folder}/case.json", "w"), indent=1)
