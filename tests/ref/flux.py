"""Reference values of FLUX.1: CLIP's text encoder, the image autoencoder, the transformer (told a guidance and not), and
whole pipelines, text to image and image to image. Random weights, made and run by diffusers.

usage: flux.py TESTS_REF   (python 3.11; torch, diffusers 0.42.1, transformers 5)

T5 and its vocabulary are those of `t5`, read up to 40 tokens. `flux/dev` is the rest of a model; `flux/schnell` is what
another has instead: its scheduler and transformer, the older convention of CLIP's end, CLIP's vocabulary in two files.
`flux/golden.safetensors` and `meta.json` are the values.
"""
import json, os, shutil, sys
import numpy as np, torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxImg2ImgPipeline, FluxPipeline, FluxTransformer2DModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5EncoderModel

ref = sys.argv[1]
out = f"{ref}/flux"
torch.set_grad_enabled(False)
shutil.rmtree(out, ignore_errors=True)
os.makedirs(out)
# What is encoded is the mode of the distribution, no sample of it.
DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mode()
PROMPT = "A red fox runs through deep snow at dawn."
values, meta = {}, {"diffusers": "0.42.1", "prompt": PROMPT}


def randomised(model, seed):
    """Weights of half precision, so that they are small and still exact in f32."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        is_norm = "norm" in name and "linear" not in name
        new = noise * 0.2 + (is_norm and name.endswith("weight")) if p.dim() < 2 else noise * (1.5 / p[0].numel()) ** 0.5
        p.copy_((noise * 0.5 if "embedding.weight" in name else new).half().float())
    return model.eval()


def save(model, folder, name):
    model.save_pretrained(folder)
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items() if v.is_floating_point()}
    save_file(weights, f"{folder}/{name}.safetensors", metadata={"format": "pt"})


# CLIP: a small vocabulary, in files of both kinds.
byte = [chr(c) for c in list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))]
byte += [chr(256 + n) for n in range(256 - len(byte))]
merges = ["r e", "f o", "fo x</w>", "re d</w>", "s n", "o w</w>", "sn ow</w>", "d e", "de e", "dee p</w>", "i n", "a t</w>"]
words = byte + [c + "</w>" for c in byte] + [m.replace(" ", "") for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
vocabulary = {word: index for index, word in enumerate(words)}
clip_tokens = CLIPTokenizer(vocab=vocabulary, merges=[tuple(m.split(" ")) for m in merges], model_max_length=77)
END = vocabulary["<|endoftext|>"]
sizes = dict(vocab_size=len(words), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=77,
             bos_token_id=END - 1, pad_token_id=END)
clip = randomised(CLIPTextModel(CLIPTextConfig(**sizes, hidden_act="quick_gelu", eos_token_id=END)), 1)
older = randomised(CLIPTextModel(CLIPTextConfig(**sizes, hidden_act="gelu", eos_token_id=2)), 1)
TEXTS = [PROMPT, "", "Café 日本 <|endoftext|> it's\tred", "deep snow, " * 40]
for index, text in enumerate(TEXTS):
    ids = clip_tokens(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    values[f"clip.ids.{index}"] = ids[0].int()
    values[f"clip.pooled.{index}"], values[f"clip.older.{index}"] = clip(ids).pooler_output[0], older(ids).pooler_output[0]
# Padding whose number is higher than that of the end: the older convention takes the state there.
ids = torch.tensor([[END - 1, 40, 41, END, 30, 31, 32, 33]])
values["clip.odd_ids"] = ids[0].int()
values["clip.odd"], values["clip.odd_older"] = clip(ids).pooler_output[0], older(ids).pooler_output[0]
meta["texts"] = TEXTS

# The autoencoder: with attention and without, with convolutions of one pixel and without.
def autoencoder(seed, **more):
    config = dict(down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3, block_out_channels=[4, 8, 8], layers_per_block=1,
                  latent_channels=4, norm_num_groups=4, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)
    return randomised(AutoencoderKL(**{**config, **more}), seed)

vae = autoencoder(2)
plain = autoencoder(3, block_out_channels=[2, 4], norm_num_groups=2, down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, layers_per_block=2,
                    shift_factor=None, scaling_factor=0.18215, use_quant_conv=True, use_post_quant_conv=True, mid_block_add_attention=False)
save(plain, f"{out}/plain_vae/vae", "diffusion_pytorch_model")
for name, model, sizes in [("vae", vae, [(12, 20), (20, 8)]), ("plain", plain, [(10, 6)])]:
    for index, (h, w) in enumerate(sizes):
        generator = torch.Generator().manual_seed(10 + index)
        picture = torch.rand(1, 3, h, w, generator=generator) * 2 - 1
        shift, scale = model.config.shift_factor or 0.0, model.config.scaling_factor
        latent = (model.encode(picture).latent_dist.mode() - shift) * scale
        z = torch.randn(latent.shape, generator=generator)
        values[f"{name}.{index}.picture"], values[f"{name}.{index}.latent"] = picture[0].permute(1, 2, 0), latent[0]
        values[f"{name}.{index}.z"], values[f"{name}.{index}.decoded"] = z[0], model.decode(z / scale + shift).sample[0].permute(1, 2, 0)

# The transformer, told a guidance and not.
t5, t5_tokens = T5EncoderModel.from_pretrained(f"{ref}/t5/text_encoder", dtype=torch.float32), AutoTokenizer.from_pretrained(f"{ref}/t5/tokenizer")
t5_tokens.model_max_length = 40

def transformer(seed, guidance, layers):
    return randomised(FluxTransformer2DModel(in_channels=16, num_layers=layers[0], num_single_layers=layers[1], attention_head_dim=8, num_attention_heads=2, joint_attention_dim=24,
                                             pooled_projection_dim=16, guidance_embeds=guidance, axes_dims_rope=[2, 2, 4]), seed)

dev, schnell = transformer(4, True, (1, 2)), transformer(5, False, (1, 1))
generator = torch.Generator().manual_seed(20)
x, rows, pooled = (torch.randn(shape, generator=generator) for shape in [(1, 15, 16), (1, 7, 24), (1, 16)])
ids = FluxPipeline._prepare_latent_image_ids(1, 3, 5, "cpu", torch.float32)
values.update(x=x[0], x_text=rows[0], x_pooled=pooled[0])
for name, model in [("dev", dev), ("schnell", schnell)]:
    for timestep in [1000.0, 437.25]:
        guidance = torch.tensor([3.5]) if name == "dev" else None
        velocity = model(x, rows, pooled, torch.tensor([timestep]) / 1000, ids, torch.zeros(7, 3), guidance).sample
        values[f"{name}.velocity.{timestep:g}"] = velocity[0]

# Whole pipelines.
dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0, base_shift=0.5, max_shift=1.15)
static = FlowMatchEulerDiscreteScheduler(shift=1.0)
parts = dict(text_encoder=clip, tokenizer=clip_tokens, text_encoder_2=t5, tokenizer_2=t5_tokens, vae=vae)


def run(name, kind, model, scheduler, seed, steps, size, guidance=3.5, image=None, **more):
    pipe = kind(**{**parts, **more.pop("parts", {})}, transformer=model, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    h, w = size
    noise = torch.randn(1, 4, h // 4, w // 4, generator=torch.Generator().manual_seed(seed))
    seen = []
    unpacked = lambda latents: FluxPipeline._unpack_latents(latents, h, w, 4)[0]
    keep = lambda p, i, t, k: (seen.append(unpacked(k["latents"])), {})[1]
    common = dict(prompt=PROMPT, height=h, width=w, num_inference_steps=steps, guidance_scale=guidance, max_sequence_length=40, callback_on_step_end=keep, **more)
    if image is None:
        latents = FluxPipeline._pack_latents(noise, 1, 4, h // 4, w // 4)
        frame = pipe(**common, latents=latents, output_type="np").images[0]
    else:
        import diffusers.pipelines.flux.pipeline_flux_img2img as module
        module.randn_tensor = lambda shape, **_: noise
        frame = pipe(**common, image=image[None], output_type="np").images[0]
        values[f"{name}.image"] = image.permute(1, 2, 0)
    values[f"{name}.noise"], values[f"{name}.steps"], values[f"{name}.frame"] = noise[0], torch.stack(seen), torch.from_numpy(frame)
    return dict(name=name, steps=steps, guidance=guidance, height=h, width=w, run=len(seen), **more)


picture = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(30)).repeat_interleave(3, 1).repeat_interleave(3, 2)[:, :24, :32].contiguous()
meta["cases"] = [
    run("dev_text", FluxPipeline, dev, dynamic, 31, 4, (16, 24)),
    run("schnell_text", FluxPipeline, schnell, static, 32, 3, (24, 16), parts=dict(text_encoder=older)),
    run("dev_image", FluxImg2ImgPipeline, dev, dynamic, 33, 5, (24, 32), image=picture, strength=0.75),
]

# A step cache that looks at the first block.
from diffusers import FirstBlockCacheConfig
THRESHOLD, computed, seen_steps = 0.5, [], []
dev.register_forward_pre_hook(lambda *_: seen_steps.append(0))
dev.enable_cache(FirstBlockCacheConfig(threshold=THRESHOLD))
dev.single_transformer_blocks[0].attn.register_forward_pre_hook(lambda *_: computed.append(len(seen_steps)))
meta["cases"].append(run("dev_cached", FluxPipeline, dev, dynamic, 34, 8, (16, 24)))
assert computed[-1] == 8, "the last step"
meta["cases"][-1].update(cache=THRESHOLD, reused=8 - len(computed))
dev.disable_cache()

pipe = FluxPipeline(**parts, transformer=dev, scheduler=dynamic)
pipe.save_pretrained(f"{out}/dev")
save(clip, f"{out}/dev/text_encoder", "model")
save(vae, f"{out}/dev/vae", "diffusion_pytorch_model")
save(dev, f"{out}/dev/transformer", "diffusion_pytorch_model")
for name in ["text_encoder_2", "tokenizer_2"]:
    shutil.rmtree(f"{out}/dev/{name}")
# The other form of the same vocabulary.
os.makedirs(f"{out}/schnell/tokenizer")
json.dump(vocabulary, open(f"{out}/schnell/tokenizer/vocab.json", "w"))
open(f"{out}/schnell/tokenizer/merges.txt", "w").write("#version: 0.2\n" + "\n".join(merges) + "\n")
json.dump(dict(model_max_length=77), open(f"{out}/schnell/tokenizer/tokenizer_config.json", "w"))
os.makedirs(f"{out}/schnell/text_encoder")  # the weights are those of the other
older.config.save_pretrained(f"{out}/schnell/text_encoder")
save(schnell, f"{out}/schnell/transformer", "diffusion_pytorch_model")
static.save_pretrained(f"{out}/schnell/scheduler")

save_file({k: v.float().contiguous() if v.is_floating_point() else v.contiguous() for k, v in values.items()}, f"{out}/golden.safetensors")
json.dump(meta, open(f"{out}/meta.json", "w"), indent=1)
