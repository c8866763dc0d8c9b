"""Matrices of eight-bit whole numbers, rotated (ConvRot, arXiv:2512.03673) and not, as ComfyUI's own
library quantises them, and the numbers that they stand for.

    pip install comfy-kitchen==0.2.40 torch numpy safetensors
    python make.py

Writes `int8.safetensors`: of each layer `weight`, `weight_scale` and `comfy_quant`, as ComfyUI writes
them into its files, and `values.safetensors`: each layer's `weight` by the library in f32.
"""

import json

import torch
from comfy_kitchen.tensor import TensorWiseINT8Layout
from safetensors.torch import save_file

generator = torch.Generator().manual_seed(3)
stored, values = {}, {}

# Rows, columns, a scale a row or one for all, numbers that are rotated together.
CASES = {
    "rotated": (6, 512, True, 256),
    "small": (5, 192, True, 64),
    "rows": (7, 100, True, None),
    "whole": (4, 96, False, None),
}
for name, (rows, columns, per_row, group) in CASES.items():
    weight = torch.randn((rows, columns), generator=generator) * 0.2
    weight[:, 3] *= 20  # what rotation is for
    options = {"convrot": True, "convrot_groupsize": group} if group else {}
    data, params = TensorWiseINT8Layout.quantize(weight, per_channel=per_row, **options)
    config = {"format": "int8_tensorwise", **options}
    stored[f"{name}.weight"] = data.contiguous()
    stored[f"{name}.weight_scale"] = params.scale.to(torch.float32).contiguous()
    stored[f"{name}.comfy_quant"] = torch.tensor(list(json.dumps(config).encode()), dtype=torch.uint8)
    values[f"{name}.weight"] = TensorWiseINT8Layout.dequantize(data, params).contiguous()
    print(name, data.shape, params.scale.shape, (values[f"{name}.weight"] - weight).abs().max())

# A scale's place may be said inside `params`, as older writers do.
nested = {"format": "int8_tensorwise", "params": {"convrot": True, "convrot_groupsize": 256}}
for part in ("weight", "weight_scale"):
    stored[f"nested.{part}"] = stored[f"rotated.{part}"].clone()
stored["nested.comfy_quant"] = torch.tensor(list(json.dumps(nested).encode()), dtype=torch.uint8)
values["nested.weight"] = values["rotated.weight"].clone()

save_file(stored, "int8.safetensors")
save_file(values, "values.safetensors")
