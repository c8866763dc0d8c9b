"""A transformer of LTX-Video as single files by the names of its authors, in few bits: GGUF (Q8_0, Q4_0), and fp8 with a scale a
matrix (ComfyUI) and a scale a row; and the velocity that diffusers gives of the numbers that each of them stands for.

usage: ltx_files.py TESTS_REF   (python 3.11; torch, diffusers 0.42.1, gguf 0.19)

The folder `ltx_files` has the files and `values.safetensors`. Blocks are made and widened by the library of ggml, fp8 by torch.
"""
import json, os, shutil, sys
import torch
from diffusers import LTXVideoTransformer3DModel
from gguf import GGMLQuantizationType as Type, GGUFWriter, quants
from safetensors.torch import save_file

out = f"{sys.argv[1]}/ltx_files"
torch.set_grad_enabled(False)
shutil.rmtree(out, ignore_errors=True)
os.makedirs(out)
torch.manual_seed(3)
HEADS = 2
model = LTXVideoTransformer3DModel(in_channels=8, out_channels=8, num_attention_heads=HEADS, attention_head_dim=16, cross_attention_dim=32, num_layers=1, caption_channels=32).eval()
for name, p in model.named_parameters():
    norm = "norm" in name and name.endswith("weight")
    new = 1 + 0.3 * torch.randn_like(p) if norm else torch.randn_like(p) * (0.2 if p.dim() < 2 or "table" in name else (1.6 / p[0].numel()) ** 0.5)
    p.copy_(new.half().float())
weights = {k: v.clone() for k, v in model.state_dict().items()}
g = torch.Generator().manual_seed(4)
frames, height, width = 2, 2, 3
x, text = torch.randn(8, frames, height, width, generator=g), torch.randn(7, 32, generator=g)
values = dict(x=x, text=text)
WORDS = dict(proj_in="patchify_proj", time_embed="adaln_single", norm_q="q_norm", norm_k="k_norm")
original = lambda name: ".".join(WORDS.get(word, word) for word in name.split("."))
config = json.dumps({"transformer": {"num_attention_heads": HEADS}})
is_narrow = lambda name, weight: name.startswith("transformer_blocks.") and name.endswith(".weight") and weight.dim() == 2


def velocity(name, wide):
    """At timestep 1000, where one step of Euler goes all the way."""
    model.load_state_dict(wide)
    tokens = x.flatten(1).T[None]
    given = model(tokens, text[None], torch.tensor([1000.0]), None, frames, height, width, (8 / 25, 32, 32), return_dict=False)[0][0]
    values[name] = given.T.reshape(8, frames, height, width).contiguous()


def gguf(name, kind):
    writer, wide = GGUFWriter(f"{out}/{name}.gguf", "ltxv"), {}
    writer.add_string("config", config)
    for own, weight in weights.items():
        if is_narrow(own, weight):
            data = quants.quantize(weight.numpy(), kind)
            writer.add_tensor(original(own), data, raw_dtype=kind)
            wide[own] = torch.from_numpy(quants.dequantize(data, kind).copy())
        else:
            writer.add_tensor(original(own), weight.half().numpy())
            wide[own] = weight
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
    velocity(name, wide)


def fp8(name, suffix, scales, mark):
    tensors, wide = {}, {}
    for own, weight in weights.items():
        key = "model.diffusion_model." + original(own)
        if is_narrow(own, weight):
            scale = scales(weight)
            tensors[key] = (weight / scale).to(torch.float8_e4m3fn)
            tensors[key.removesuffix("weight") + suffix] = scale
            wide[own] = tensors[key].float() * scale
        else:
            tensors[key], wide[own] = weight.half(), weight
    if mark:
        tensors["model.diffusion_model.scaled_fp8"] = torch.zeros(2).to(torch.float8_e4m3fn)
    save_file(tensors, f"{out}/{name}.safetensors", metadata={"config": config})
    velocity(name, wide)


velocity("plain", weights)
gguf("q8_0", Type.Q8_0)
gguf("q4_0", Type.Q4_0)
fp8("fp8", "scale_weight", lambda w: w.abs().max() / 448, True)
fp8("fp8_rows", "weight_scale", lambda w: w.abs().amax(1, keepdim=True) / 448, False)
save_file({k: v.contiguous() for k, v in values.items()}, f"{out}/values.safetensors")
