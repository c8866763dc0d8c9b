"""Matrices of eight-bit whole numbers, rotated (ConvRot, arXiv:2512.03673) and not, as ComfyUI's own
library quantises them, the numbers that they stand for, and the products by activations that it
rounds to eight bits, too (W8A8).

    pip install comfy-kitchen==0.2.40 torch numpy safetensors
    python make.py

Writes `int8.safetensors`: of each layer `weight`, `weight_scale` and `comfy_quant`, as ComfyUI writes
them into its files, and `values.safetensors`: each layer's `weight` by the library in f32, activations
`x` and their product `w8a8`.
"""

import json

import comfy_kitchen
import torch
from comfy_kitchen.backends.eager.quantization import _build_hadamard, _rotate_activation
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



def activations(columns, group):
    """Rows of different sizes, one of zeros and one with a number far beyond the others, none of whose
    numbers lies in the middle between two that it may be rounded to: there the last bit of a sum
    would decide."""
    while True:
        x = torch.randn((5, columns), generator=generator) * torch.tensor([[1.0], [0.0], [30.0], [1e-3], [0.3]])
        x[4, 7] = 9
        seen = _rotate_activation(x, _build_hadamard(group), group) if group else x
        steps = (127 * seen.double() / seen.double().abs().amax(1, keepdim=True).clamp(min=1e-30)).abs()
        if ((steps % 1) - 0.5).abs().min() > 1e-4:
            return x


# Sums of whole numbers, times the scale of the row of activations and that of the row of the weight.
for name, (rows, columns, per_row, group) in CASES.items():
    x = activations(columns, group)
    weight, scale = stored[f"{name}.weight"], stored[f"{name}.weight_scale"]
    rotated = {"convrot": True, "convrot_groupsize": group} if group else {}
    values[f"{name}.x"] = x
    values[f"{name}.w8a8"] = comfy_kitchen.int8_linear(x, weight, scale, out_dtype=torch.float32, **rotated)
    off = values[f"{name}.w8a8"] - x @ values[f"{name}.weight"].T
    print(name, "off by", (off.norm() / (x @ values[f"{name}.weight"].T).norm()).item())

# A scale's place may be said inside `params`, as older writers do.
nested = {"format": "int8_tensorwise", "params": {"convrot": True, "convrot_groupsize": 256}}
for part in ("weight", "weight_scale"):
    stored[f"nested.{part}"] = stored[f"rotated.{part}"].clone()
stored["nested.comfy_quant"] = torch.tensor(list(json.dumps(nested).encode()), dtype=torch.uint8)
for part in ("weight", "x", "w8a8"):
    values[f"nested.{part}"] = values[f"rotated.{part}"].clone()

save_file(stored, "int8.safetensors")
save_file(values, "values.safetensors")
