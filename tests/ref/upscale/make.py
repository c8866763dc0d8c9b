"""Reference values of networks that enlarge frames, by spandrel itself, with tiny random weights.

    pip install spandrel==0.4.2 torch numpy safetensors
    python make.py

Writes a weight file for each network (`NAME.safetensors`, float16), `values.safetensors` with `NAME.input`
[1, h, w, 3] and `NAME.output` [1, h', w', 3], computed in float64 and not cut off at 0…1, and `layouts.json`: for
`rrdb_x4` the names under which each of the ESRGAN family's layouts holds the same weights, all loaded by spandrel.

`video_x4.safetensors` beside them holds the values of the embedded network (see nodes/shapes/upscale/README.md):
computed in float64 from its weights, as `values.safetensors` are; ncnn, in float32, differs by at most 1.8e-6.
"""
import importlib, json, re

import torch
from safetensors.torch import save_file
from spandrel import ModelLoader
from spandrel.architectures.Compact import Compact
from spandrel.architectures.SPAN import SPAN

rrdb_module = importlib.import_module("spandrel.architectures.ESRGAN.__arch.RRDB")
# Dense blocks that grow by 6 channels, not 32: smaller files.
whole = rrdb_module.B.RRDB


def grown_by_six(*args, **options):
    return whole(*args, **{**options, "gc": 6})


rrdb_module.B.RRDB = grown_by_six
ESRGAN = rrdb_module.RRDBNet

values, layouts = {}, {}


def rounded(model):
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float16).to(torch.float32)
    return model


def keep(name, model, size, state=None):
    model = model.eval()
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(len(values)))
    y = model.double()(x.double())
    model.float()
    state = model.state_dict() if state is None else state
    state = {key: value.detach().clone().contiguous().half() for key, value in state.items()}
    save_file(state, f"{name}.safetensors", metadata={"format": "pt"})
    values[f"{name}.input"] = x.permute(0, 2, 3, 1).contiguous()
    values[f"{name}.output"] = y.detach().permute(0, 2, 3, 1).contiguous().float()
    return x, y


def to_layout(state, layout, blocks, doublings):
    """Names of the first ESRGAN as those of its successors."""
    renamed = {}
    for key, value in state.items():
        kind = key.rsplit(".", 1)[1]
        dense = re.fullmatch(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.\w+", key)
        up = re.fullmatch(r"model\.(\d+)\.\w+", key)
        if dense:
            block, rdb, conv = dense.groups()
            name = f"RRDB_trunk.{block}.RDB{rdb}.conv{conv}" if layout == "trunk" else f"body.{block}.rdb{rdb}.conv{conv}"
        elif key.startswith(f"model.1.sub.{blocks}."):
            name = "trunk_conv" if layout == "trunk" else "conv_body"
        elif up.group(1) == "0":
            name = "conv_first"
        elif int(up.group(1)) == 3 * doublings + 2:
            name = "HRconv" if layout == "trunk" else "conv_hr"
        elif int(up.group(1)) == 3 * doublings + 4:
            name = "conv_last"
        else:
            name = ("upconv" if layout == "trunk" else "conv_up") + str(int(up.group(1)) // 3)
        renamed[f"{name}.{kind}"] = (key, value)
    return renamed


torch.manual_seed(5)
rrdb = rounded(ESRGAN(num_filters=8, num_blocks=2, scale=4))
x, y = keep("rrdb_x4", rrdb, (9, 13))
for layout in ("sequence", "trunk", "body"):
    state = rrdb.state_dict()
    pairs = {key: (key, value) for key, value in state.items()}
    if layout != "sequence":
        pairs = to_layout(state, layout, 2, 2)
    loaded = ModelLoader().load_from_state_dict({key: value.clone() for key, (_, value) in pairs.items()})
    assert loaded.scale == 4 and torch.allclose(loaded.model.eval().double()(x.double()), y, atol=1e-12), layout
    layouts[layout] = {key: old for key, (old, _) in pairs.items()}

for name, scale, shuffle, size in (("rrdb_x2", 4, 2, (7, 10)), ("rrdb_x1", 4, 4, (9, 11)), ("rrdb_x8", 8, None, (3, 4))):
    channels = 3 * shuffle * shuffle if shuffle else 3
    model = rounded(ESRGAN(in_nc=channels, num_filters=6, num_blocks=1, scale=scale, shuffle_factor=shuffle))
    x, y = keep(name, model, size)
    loaded = ModelLoader().load_from_state_dict({key: value.clone() for key, value in model.state_dict().items()})
    assert loaded.scale == scale // (shuffle or 1), name
    assert torch.allclose(loaded.model.eval().double()(x.double()), y, atol=1e-12), name

compact = Compact(num_feat=12, num_conv=3, upscale=2)
for index in range(1, 8, 2):
    compact.body[index].weight.data.uniform_(-0.5, 0.5)
keep("srvgg_x2", rounded(compact), (10, 7))

for name, scale, norm, size in (("span_x2", 2, True, (11, 8)), ("span_x4", 4, False, (6, 9))):
    span = rounded(SPAN(num_in_ch=3, num_out_ch=3, feature_channels=6, upscale=scale, norm=norm))
    span.eval()
    # Attention is 0 where a block gives little, as with colours in 0…1: give it more.
    for block in (span.block_1, span.block_2, span.block_3, span.block_4, span.block_5, span.block_6):
        for conv in (block.c1_r, block.c2_r, block.c3_r):
            conv.sk.weight.data.mul_(0.3 if norm else 3)
    rounded(span)
    x, y = keep(name, span, size)
    state = {key: value.clone() for key, value in span.state_dict().items()}
    loaded = ModelLoader().load_from_state_dict(state)
    assert loaded.scale == scale, name
    assert torch.allclose(loaded.model.eval().double()(x.double()), y, atol=1e-9), name

save_file(values, "values.safetensors")
with open("layouts.json", "w") as file:
    json.dump(layouts, file, indent=1)
for key, value in values.items():
    print(key, tuple(value.shape), f"{value.min():.3f} … {value.max():.3f}")
