"""What diffusers computes of transformers of Wan that stand alone in files, one a published variety, by the names of Wan's
authors. Weights are made by formula from their sorted names, so that only names, shapes and results are kept.

usage: single_files.py FOLDER (python 3.11; torch, diffusers 0.42.1). Heads are 128 wide, as in every published one: what a
file does not say.
"""
import json, math, os, sys
import numpy as np, torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from safetensors.torch import save_file

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


def make(channels, out=16, image=False, num_layers=2, **more):
    if image:
        more.update(image_dim=IMAGE, added_kv_proj_dim=DIM)
    kind = WanVACETransformer3DModel if "vace_layers" in more else WanTransformer3DModel
    model = kind(patch_size=(1, 2, 2), num_attention_heads=1, attention_head_dim=128, in_channels=channels, out_channels=out,
                 text_dim=TEXT, freq_dim=FREQ, ffn_dim=INNER, num_layers=num_layers, **more).eval()
    own = {authors(name): value for name, value in model.state_dict().items()}
    assert len(own) == len(model.state_dict())
    for seed, name in enumerate(sorted(own)):
        own[name].copy_(numbers(own[name].shape, seed))
    given = dict(hidden_states=6 * numbers((1, channels, 1, 4, 4), 1000), encoder_hidden_states=numbers((1, 512, TEXT), 1001),
                 timestep=torch.full((1, 4) if channels == 48 else (1,), 417.0))
    if image:
        given["encoder_hidden_states_image"] = numbers((2, 3, IMAGE) if "pos_embed_seq_len" in more else (1, 5, IMAGE), 1002)
    if "vace_layers" in more:
        given["control_hidden_states"] = 6 * numbers((1, 96, 1, 4, 4), 1003)
    velocity = model(**given, return_dict=False)[0]
    return {name: list(own[name].shape) for name in sorted(own)}, velocity[0]


folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
weights, results = {}, {}
for name, variety in VARIETIES.items():
    weights[name], results[name] = make(**variety)
    print(name, len(weights[name]), results[name].abs().max())
with open(f"{folder}/weights.json", "w") as file:
    json.dump(weights, file, indent=0)
save_file({name: value.contiguous() for name, value in results.items()}, f"{folder}/golden.safetensors")
