"""Reference values of frames between frames, by the networks of vsrife itself, with few channels and random weights.

    pip download --no-deps vsrife==5.7.0 && unzip vsrife-*.whl     # VapourSynth is not needed
    pip install torch numpy safetensors
    python make.py FOLDER_OF_VSRIFE

Writes `VERSION.safetensors` (weights in float16, under Practical-RIFE's names) and `values.safetensors`: `first`,
`second` [1, 64, 128, 3] (moved against each other), and `VERSION.T` [1, 64, 128, 3] for moments T, in float64.
"""
import importlib, sys, types

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

package = types.ModuleType("vsrife")
package.__path__ = [sys.argv[1]]
sys.modules["vsrife"] = package


def warp(image, flow, divisor, grid):
    """vsrife.warplayer.warp, which computes in float32, in the type that it is given."""
    flow = torch.cat([flow[:, 0:1] / divisor[0], flow[:, 1:2] / divisor[1]], 1)
    place = (grid + flow).permute(0, 2, 3, 1)
    return F.grid_sample(image, place, mode="bilinear", padding_mode="border", align_corners=True)


H, W = 64, 128
generator = torch.Generator().manual_seed(3)
picture = F.interpolate(torch.rand(1, 3, 10, 20, generator=generator), size=(H + 8, W + 8), mode="bicubic").clamp(0, 1)
first, second = picture[:, :, 4:-4, 4:-4], picture[:, :, 2:-6, 7:-1]
values = {name: x.permute(0, 2, 3, 1).contiguous() for name, x in (("first", first), ("second", second))}
divisor = torch.tensor([(W - 1.0) / 2, (H - 1.0) / 2], dtype=torch.float64)
across = torch.linspace(-1, 1, W, dtype=torch.float64).view(1, 1, 1, W).expand(-1, -1, H, -1)
down = torch.linspace(-1, 1, H, dtype=torch.float64).view(1, 1, H, 1).expand(-1, -1, -1, W)
grid = torch.cat([across, down], 1)

for version, channels in (("v4_25", (12, 10, 8, 8, 6)), ("v4_22", (12, 10, 8, 6)), ("v4_15", (10, 8, 8, 6))):
    module = importlib.import_module(f"vsrife.IFNet_HDv3_{version}")
    module.warp = warp
    torch.manual_seed(7)
    net = module.IFNet()
    for index, c in enumerate(channels):
        read = getattr(net, f"block{index}").conv0[0][0].in_channels
        block = module.IFBlock(read, c=c)
        # Flow of some pixels, and slopes that are not 1.
        block.lastconv[0].weight.data.mul_(2)
        for conv in block.convblock:
            conv.beta.data.uniform_(0.5, 1.5)
        setattr(net, f"block{index}", block)
    for parameter in net.parameters():
        parameter.data = parameter.data.half().float()
    save_file({key: value.half().contiguous() for key, value in net.state_dict().items()}, f"{version}.safetensors")
    net = net.double().eval()
    a, b = first.double(), second.double()
    for moment in (0.5, 0.25):
        at = torch.full((1, 1, H, W), moment, dtype=torch.float64)
        with torch.no_grad():
            made = net(a, b, at, divisor, grid, net.encode(a), net.encode(b))
        values[f"{version}.{moment}"] = made.permute(0, 2, 3, 1).contiguous().float()
        print(version, moment, f"{made.min():.3f} … {made.max():.3f}", "from the mean", (made - (a + b) / 2).abs().mean().item())
save_file(values, "values.safetensors")
