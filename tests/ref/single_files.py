"""What diffusers and transformers compute of parts of Wan that stand alone in files: transformers, one a published variety, and
the autoencoder of 2.2 by the names of Wan's authors; CLIP's image encoders by those of transformers. Weights are made by
formula from their sorted names, so that only names, shapes and results are kept.

usage: single_files.py FOLDER (python 3.11; torch, diffusers 0.42.1, transformers 5.24.0). What a file does not say is as published:
a transformer's heads are 128 wide, those of an image encoder follow from its width, and so do means and deviations of latents
from their channels.
"""
import json, math, os, sys
import numpy as np, torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

torch.set_grad_enabled(False)
DIM, TEXT, FREQ, INNER, IMAGE = 128, 40, 64, 96, 48

# What diffusers' `scripts/convert_wan_to_diffusers.py` makes of the authors' names.
OUTER = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "condition_embedder.image_embedder.pos_embed": "img_emb.emb_pos",
    "scale_shift_table": "head.modulation", "proj_out": "head.head",
}
INNER_NAMES = {
    "scale_shift_table": "modulation", "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2", "norm2": "norm3",
    "attn1.to_q": "self_attn.q", "attn1.to_k": "self_attn.k", "attn1.to_v": "self_attn.v", "attn1.to_out.0": "self_attn.o",
    "attn1.norm_q": "self_attn.norm_q", "attn1.norm_k": "self_attn.norm_k",
    "attn2.to_q": "cross_attn.q", "attn2.to_k": "cross_attn.k", "attn2.to_v": "cross_attn.v", "attn2.to_out.0": "cross_attn.o",
    "attn2.norm_q": "cross_attn.norm_q", "attn2.norm_k": "cross_attn.norm_k",
    "attn2.add_k_proj": "cross_attn.k_img", "attn2.add_v_proj": "cross_attn.v_img", "attn2.norm_added_k": "cross_attn.norm_k_img",
    "proj_in": "before_proj", "proj_out": "after_proj",
}
VARIETIES = {
    "t2v": dict(channels=16),
    "i2v": dict(channels=36, image=True),
    "flf2v": dict(channels=36, image=True, pos_embed_seq_len=6),
    "i2v_2_2": dict(channels=36),
    "ti2v": dict(channels=48, out=48),
    "vace": dict(channels=16, num_layers=4, vace_layers=[0, 2], vace_in_channels=96),
}


def authors(name):
    layer, dot, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        layer, dot, kind = name, "", ""
    parts = layer.split(".")
    if parts[0] in ("blocks", "vace_blocks"):
        inner = ".".join(parts[2:])
        layer = ".".join(parts[:2] + [INNER_NAMES[inner]])
    else:
        layer = OUTER.get(layer, layer)
    return layer + dot + kind


def numbers(shape, seed):
    i = np.arange(math.prod(shape), dtype=np.float64)
    wave = (i * 7919 + seed * 104_729) * 0.618_034
    wave = (wave - np.floor(wave)).astype(np.float32) - np.float32(0.5)
    return torch.from_numpy((wave * np.float32(0.3)).reshape(shape))


def fill(model, rename):
    """Gives a model its weights; names in files and their shapes."""
    own = {rename(name): value for name, value in model.state_dict().items()}
    assert len(own) == len(model.state_dict())
    for seed, name in enumerate(sorted(own)):
        own[name].copy_(numbers(own[name].shape, seed))
    return {name: list(own[name].shape) for name in sorted(own)}


def make(channels, out=16, image=False, num_layers=2, **more):
    if image:
        more.update(image_dim=IMAGE, added_kv_proj_dim=DIM)
    kind = WanVACETransformer3DModel if "vace_layers" in more else WanTransformer3DModel
    model = kind(patch_size=(1, 2, 2), num_attention_heads=1, attention_head_dim=128, in_channels=channels, out_channels=out,
                 text_dim=TEXT, freq_dim=FREQ, ffn_dim=INNER, num_layers=num_layers, **more).eval()
    shapes = fill(model, authors)
    given = dict(hidden_states=6 * numbers((1, channels, 1, 4, 4), 1000), encoder_hidden_states=numbers((1, 512, TEXT), 1001),
                 timestep=torch.full((1, 4) if channels == 48 else (1,), 417.0))
    if image:
        given["encoder_hidden_states_image"] = numbers((2, 3, IMAGE) if "pos_embed_seq_len" in more else (1, 5, IMAGE), 1002)
    if "vace_layers" in more:
        given["control_hidden_states"] = 6 * numbers((1, 96, 1, 4, 4), 1003)
    velocity = model(**given, return_dict=False)[0]
    return shapes, velocity[0]


# The autoencoder of 2.2, smaller: what diffusers' conversion makes of names, from right to left, and the statistics of latents
# of `wan/modules/vae2_2.py`.
RESNET = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6", "conv_shortcut": "shortcut"}
ENDS = {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2", "quant_conv": "conv1", "post_quant_conv": "conv2"}
VAE = dict(base_dim=4, decoder_base_dim=8, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
           temperal_downsample=[False, True, True], is_residual=True, in_channels=12, out_channels=12, patch_size=2,
           scale_factor_spatial=16)
MEAN = [-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
        -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
        -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667]
STD = [0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
       0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
       0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744]
# CLIP's image encoders, smaller within: width, heads and activation are those of ViT-L (OpenAI's) and ViT-H (OpenCLIP's).
CLIP = {"clip_vision_l": (1024, 16, "quick_gelu"), "clip_vision_h": (1280, 16, "gelu")}


def authors_of_vae(name):
    *path, kind = name.split(".")
    match path:
        case [*side, end] if end in ENDS:
            path = [*side, ENDS[end]]
        case [side, "mid_block", "attentions", "0", *inner]:
            path = [side, "middle.1", *inner]
        case [side, "mid_block", "resnets", index, inner]:
            path = [side, f"middle.{2 * int(index)}", RESNET[inner]]
        case [side, ("down_blocks" | "up_blocks") as block, level, *inner]:
            samples = block.replace("_blocks", "samples")
            match inner:
                case ["resnets", index, inner]:
                    inner = [index, RESNET[inner]]
                case ["downsampler" | "upsampler", *inner]:
                    inner = ["2" if block == "down_blocks" else "3", *inner]
            path = [side, samples, level, samples, *inner]
    return ".".join([*path, kind])


def picture(*shape):
    """Bytes of frames."""
    return (np.arange(math.prod(shape), dtype=np.int64) * 7919 % 256).astype(np.uint8).reshape(shape)


def thinned(values, step):
    """Every so-manyth number, in the order in which Kinograph has them."""
    return values.flatten()[::step].clone()


def autoencoder():
    vae = AutoencoderKLWan(latents_mean=MEAN, latents_std=STD, **VAE).eval()
    shapes = fill(vae, authors_of_vae)
    mean, std = (torch.tensor(values).view(1, 48, 1, 1, 1) for values in (MEAN, STD))
    frames = torch.from_numpy(picture(5, 32, 64, 3)).float() / 127.5 - 1
    latent = (vae.encode(frames.permute(3, 0, 1, 2)[None]).latent_dist.mean - mean) / std
    decoded = vae.decode(numbers((1, 48, 2, 1, 2), 1001) * 6 * std + mean).sample.clamp(-1, 1)
    return shapes, latent[0], thinned(decoded[0].permute(1, 2, 3, 0), 7)


def image_encoder(width, heads, activation):
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=width, intermediate_size=48, num_hidden_layers=2, num_attention_heads=heads, image_size=28, patch_size=14,
        hidden_act=activation, projection_dim=8)).eval()
    shapes = fill(model, lambda name: name)
    prepare = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=28)
    pixels = prepare(Image.fromarray(picture(40, 52, 3)), return_tensors="pt").pixel_values
    states = model(pixels, output_hidden_states=True).hidden_states[-2]
    return shapes, thinned(states, 7)


def save(name, shapes, values):
    with open(f"{folder}/{name}.json", "w") as file:
        json.dump(shapes, file, indent=0)
    values = {name: value.contiguous() for name, value in values.items()}
    save_file(values, f"{folder}/{'golden' if name == 'weights' else name}.safetensors")
    print(name, {name: (list(value.shape), value.abs().max().item()) for name, value in values.items()})


folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
made = {name: make(**variety) for name, variety in VARIETIES.items()}
save("weights", {name: shapes for name, (shapes, _) in made.items()}, {name: value for name, (_, value) in made.items()})
shapes, latent, decoded = autoencoder()
made = {name: image_encoder(*sizes) for name, sizes in CLIP.items()}
save("parts", {"wan2.2_vae": shapes, **{name: shapes for name, (shapes, _) in made.items()}},
     {"latent": latent, "decoded": decoded, **{name: states for name, (_, states) in made.items()}})
