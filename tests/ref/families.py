"""Reference values of families of Wan that have no tiny checkpoint of their own elsewhere: two experts (Wan 2.2 A14B,
text to video and image to video), first and last frame (Wan 2.1 FLF2V), and a control with reference pictures (Wan 2.1
VACE). Random weights, made and run by diffusers.

usage: families.py TESTS_REF [NAME…]   (python 3.11; torch, diffusers 0.42.1, transformers 5); all, or those of a name

Text encoder, tokenizer and autoencoder are those of `wan_t2v`, the image encoder that of `wan_i2v`. Each folder has
`model` (what differs from those, and copies) and `golden.safetensors` with `meta.json`.
"""
import json, os, shutil, sys
import numpy as np, torch
from PIL import Image
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
from diffusers import WanVACEPipeline, WanVACETransformer3DModel
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionModelWithProjection, UMT5EncoderModel

ref, names = sys.argv[1], sys.argv[2:]
wanted = lambda name: not names or name in names
torch.set_grad_enabled(False)
t2v, i2v = f"{ref}/wan_t2v/model", f"{ref}/wan_i2v/model"
load = dict(torch_dtype=torch.float32)
text, tok = UMT5EncoderModel.from_pretrained(f"{t2v}/text_encoder", **load), AutoTokenizer.from_pretrained(f"{t2v}/tokenizer")
vae = AutoencoderKLWan.from_pretrained(f"{t2v}/vae", **load)
clip, processor = CLIPVisionModelWithProjection.from_pretrained(f"{i2v}/image_encoder", **load), CLIPImageProcessor.from_pretrained(f"{i2v}/image_processor")
PROMPT, NEGATIVE = "A red fox runs through deep snow at dawn.", "blurred details"


def transformer(seed, kind=WanTransformer3DModel, **more):
    """Weights of half precision, so that they are small and still exact in f32."""
    torch.manual_seed(seed)
    config = dict(patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
                  text_dim=40, freq_dim=32, ffn_dim=40, num_layers=2, cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6, rope_max_seq_len=32)
    model = kind(**{**config, **more})
    for name, p in model.named_parameters():
        scale = 1.0 if p.dim() < 2 or "table" in name or "pos_embed" in name else (2.0 / p[0].numel()) ** 0.5
        p.copy_((torch.randn_like(p) * 0.3 * scale + ("norm" in name and name.endswith("weight"))) if p.dim() < 2 else torch.randn_like(p) * scale)
        p.copy_(p.half().float())
    return model.eval()


def save(name, pipe, cases, values):
    folder = f"{ref}/{name}"
    shutil.rmtree(folder, ignore_errors=True)
    pipe.save_pretrained(f"{folder}/model", safe_serialization=True)
    for part in ["transformer", "transformer_2"]:
        model = getattr(pipe, part, None)
        if model is not None:
            weights = {k: v.half().contiguous() for k, v in model.state_dict().items()}
            save_file(weights, f"{folder}/model/{part}/diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    # The parts that are the same elsewhere, byte by byte.
    for part in ["text_encoder", "tokenizer", "vae"]:
        shutil.rmtree(f"{folder}/model/{part}"); shutil.copytree(f"{t2v}/{part}", f"{folder}/model/{part}")
    for part in ["image_encoder", "image_processor"]:
        if os.path.isdir(f"{folder}/model/{part}"):
            shutil.rmtree(f"{folder}/model/{part}"); shutil.copytree(f"{i2v}/{part}", f"{folder}/model/{part}")
    save_file({k: v.contiguous() for k, v in values.items()}, f"{folder}/golden.safetensors")
    json.dump(dict(diffusers="0.42.1", prompt=PROMPT, negative=NEGATIVE, cases=cases), open(f"{folder}/meta.json", "w"), indent=1)


def run(pipe, name, values, seed, steps, guidance, low=None, frames=9, size=(32, 48), frames_made=None, **images):
    h, w = size
    start = torch.randn(1, 16, 1 + (frames - 1) // 4, h // 8, w // 8, generator=torch.Generator().manual_seed(seed))
    seen = []
    kw = dict(prompt=PROMPT, negative_prompt=NEGATIVE, height=h, width=w, num_frames=frames_made or frames, num_inference_steps=steps, guidance_scale=guidance,
              latents=start.clone(), output_type="latent", callback_on_step_end=lambda p, i, t, k: (seen.append(k["latents"].clone()), {})[1], **images)
    if low is not None:
        kw["guidance_scale_2"] = low
    latents = pipe(**kw).frames
    if frames_made:
        latents = latents[:, :, (frames - frames_made) // 4:]  # the pictures before the clip are dropped
    values[f"{name}.latents_init"], values[f"{name}.latents_steps"] = start[0], torch.cat(seen)
    values[f"{name}.timesteps"] = pipe.scheduler.timesteps.float()
    mean, std = (torch.tensor(x).view(1, -1, 1, 1, 1) for x in (vae.config.latents_mean, vae.config.latents_std))
    video = vae.decode(latents * std + mean).sample[0]
    values[f"{name}.frames_u8"] = ((video + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0)
    return dict(name=name, steps=steps, guidance=guidance, guidance_low=low, shift=pipe.scheduler.config.flow_shift, frames=frames, height=h, width=w, timesteps=[int(t) for t in pipe.scheduler.timesteps])


def scheduler(shift):
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, num_train_timesteps=1000)


def pictures():
    """Two pictures of the clip's size, so that nothing is resized."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 56), torch.linspace(0, 1, 56), indexing="ij")
    make = lambda a, b: Image.fromarray((torch.stack([a, b, (a + b) / 2], -1) * 255).round().byte().numpy())
    return make(x, y), make(1 - y, x * y)


# Two experts: text to video, and image to video by channels without an image encoder.
if wanted("wan22_a14b"):
    pipe = WanPipeline(tokenizer=tok, text_encoder=text, vae=vae, scheduler=scheduler(3.0), transformer=transformer(1), transformer_2=transformer(2), boundary_ratio=0.875)
    values, cases = {}, []
    cases.append(run(pipe, "a", values, 11, 6, 4.0, 3.0))
    cases.append(run(pipe, "b", values, 12, 4, 3.5))
    save("wan22_a14b", pipe, cases, values)

first, last = pictures()

if wanted("wan22_a14b_i2v"):
    more = dict(in_channels=36)
    pipe = WanImageToVideoPipeline(tokenizer=tok, text_encoder=text, vae=vae, scheduler=scheduler(5.0), image_encoder=None, image_processor=None,
                                   transformer=transformer(3, **more), transformer_2=transformer(4, **more), boundary_ratio=0.9)
    values, cases = {}, []
    values["first_u8"] = torch.from_numpy(np.array(first))[None]
    cases.append(run(pipe, "a", values, 13, 6, 3.5, 2.5, size=(56 // 16 * 16, 48), image=first.resize((48, 48))))
    values["first_u8"] = torch.from_numpy(np.array(first.resize((48, 48))))[None]
    save("wan22_a14b_i2v", pipe, cases, values)

# First and last frame.
if wanted("wan_flf2v"):
    pipe = WanImageToVideoPipeline(tokenizer=tok, text_encoder=text, vae=vae, scheduler=scheduler(16.0), image_encoder=clip, image_processor=processor,
                                   transformer=transformer(5, in_channels=36, image_dim=48, added_kv_proj_dim=24, pos_embed_seq_len=34))
    values, cases = {}, []
    for name, picture in [("first", first), ("last", last)]:
        # The image encoder sees the pictures as they are, the autoencoder at the size of the clip.
        values[f"seen_{name}_u8"] = torch.from_numpy(np.array(picture))[None]
        values[f"{name}_u8"] = torch.from_numpy(np.array(picture.resize((64, 64), Image.LANCZOS)))[None]
    values["image_embeds"] = pipe.encode_image([first, last], "cpu").reshape(-1, 48)
    values["large_u8"] = torch.from_numpy(np.array(last.resize((83, 71), Image.LANCZOS)))
    values["large_pixels"] = processor(last.resize((83, 71), Image.LANCZOS), return_tensors="pt").pixel_values[0]
    cases.append(run(pipe, "a", values, 14, 4, 4.0, size=(64, 64), image=first, last_image=last))
    save("wan_flf2v", pipe, cases, values)

# The residual autoencoder of Wan 2.2 at other widths: three levels, pixels folded by 4, wider blocks in the decoder.
if wanted("wan22_vae"):
    torch.manual_seed(6)
    residual = AutoencoderKLWan(base_dim=3, decoder_base_dim=4, z_dim=5, dim_mult=[1, 2, 2], num_res_blocks=2, attn_scales=[], temperal_downsample=[True, True],
                                latents_mean=[0.1, -0.2, 0.3, 0.0, 0.5], latents_std=[1.5, 0.5, 2.0, 1.0, 0.8], is_residual=True, in_channels=48, out_channels=48,
                                patch_size=4, scale_factor_temporal=4, scale_factor_spatial=16).eval()
    for name, p in residual.named_parameters():
        new = 1 + 0.3 * torch.randn_like(p) if name.endswith("gamma") else torch.randn_like(p) * (0.1 if p.dim() < 2 else (1.5 / p[0].numel()) ** 0.5)
        p.copy_(new.half().float())
    folder = f"{ref}/wan22_vae"
    shutil.rmtree(folder, ignore_errors=True)
    residual.save_pretrained(f"{folder}/model/vae")
    video = torch.rand(1, 3, 9, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latent = residual.encode(video).latent_dist
    z = torch.randn(latent.mean.shape, generator=torch.Generator().manual_seed(2))
    save_file(dict(video=video[0].contiguous(), mean=latent.mean[0].contiguous(), logvar=latent.parameters.chunk(2, 1)[1][0].contiguous(), z=z[0].contiguous(), dec=residual.decode(z).sample[0].contiguous()), f"{folder}/golden.safetensors")

# A control: a clip, a mask and reference pictures of other shapes than the clip, read by blocks beside the main ones.
if wanted("wan_vace"):
    def vace(pipe, name, values, seed, steps, guidance, scale=1.0, frames=9, size=(32, 48), **control):
        case = run(pipe, name, values, seed, steps, guidance, frames=frames + 4 * len(control.get("reference_images") or []), size=size, frames_made=frames,
                   conditioning_scale=scale, **control)
        video, mask, references = pipe.preprocess_conditions(control.get("video"), control.get("mask"), control.get("reference_images"), 1, *size, frames, torch.float32, "cpu")
        latents = pipe.prepare_video_latents(video, mask, references, None, "cpu")
        values[f"{name}.control"] = torch.cat([latents, pipe.prepare_masks(mask, references)], 1)[0]
        return dict(case, frames=frames, strength=scale, references=len(control.get("reference_images") or []))

    pipe = WanVACEPipeline(tokenizer=tok, text_encoder=text, vae=vae, scheduler=scheduler(3.0),
                           transformer=transformer(7, WanVACETransformer3DModel, num_layers=3, vace_layers=[0, 2], vace_in_channels=96))
    noise = torch.Generator().manual_seed(70)
    clip_u8 = (torch.rand(9, 4, 6, 3, generator=noise).repeat_interleave(8, 1).repeat_interleave(8, 2) * 255).byte()
    mask_u8 = torch.zeros(9, 32, 48, dtype=torch.uint8)
    for f in range(9):
        mask_u8[f, 5:20, 3 * f:3 * f + 17] = 255
        mask_u8[f, 20:23, 3 * f:3 * f + 17] = 140
        mask_u8[f, 23:26, 3 * f:3 * f + 17] = 100
    film, masks = [Image.fromarray(f.numpy()) for f in clip_u8], [Image.fromarray(m.numpy()) for m in mask_u8]
    # Pillow 13 resizes the height first where that is cheaper, older ones never do: these sizes give one picture both ways.
    wide, tall = first.resize((40, 24), Image.LANCZOS), last.resize((30, 61), Image.LANCZOS)
    values = dict(clip_u8=clip_u8, mask=mask_u8.float() / 255, wide_u8=torch.from_numpy(np.array(wide))[None], tall_u8=torch.from_numpy(np.array(tall))[None])
    cases = [vace(pipe, "a", values, 71, 4, 4.0, reference_images=[wide, tall]),
             vace(pipe, "b", values, 72, 3, 1.0, 0.7, video=film, mask=masks),
             vace(pipe, "c", values, 73, 3, 3.0, video=film, reference_images=[tall])]
    # The transformer alone, with a control as in training, at a part of it, and at none.
    x, control, rows = (torch.randn(1, c, 3, 4, 6, generator=noise) for c in (16, 96, 1))
    rows = torch.randn(1, 7, 40, generator=noise)
    values.update(x=x[0], x_control=control[0], x_text=rows[0])
    for name, scale in [("whole", 1.0), ("part", 0.35), ("none", 0.0)]:
        values[f"x_{name}"] = pipe.transformer(x, torch.tensor([417]), rows, control_hidden_states=control, control_hidden_states_scale=torch.full((2,), scale)).sample[0]
    save("wan_vace", pipe, cases, values)
