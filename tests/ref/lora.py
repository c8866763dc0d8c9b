"""Files of adapters in each naming that programs write, and what diffusers makes of them: velocities of the transformer of
`wan_t2v` with one or two beside it, and latents of `wan22_a14b` with one an expert. Random numbers, read by diffusers.

usage: lora.py TESTS_REF   (python 3.11; torch, diffusers 0.42.1, peft)

The folder `lora` has the files and `values.safetensors`. Velocities are those of `x` at timestep 1000 with `text`. What diffusers
makes of alpha is asked of PEFT's formula as well: W + strength·alpha/rank·B·A, and `.diff` and `.diff_b` are added whole.
"""
import os, shutil, sys
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

ref = sys.argv[1]
out = f"{ref}/lora"
torch.set_grad_enabled(False)
torch.set_num_threads(1)
shutil.rmtree(out, ignore_errors=True)
os.makedirs(out)
t2v = f"{ref}/wan_t2v/model"
load = dict(torch_dtype=torch.float32)
g = torch.Generator().manual_seed(11)
ATTENTION = dict(q="to_q", k="to_k", v="to_v", o="to_out.0")
FEED = {"ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2"}


def half(*shape, scale=0.15):
    """Numbers that halves hold exactly."""
    return (torch.randn(*shape, generator=g) * scale).half()


def layers(model):
    """The linear layers of the blocks: by the name of the authors of Wan, and by diffusers'."""
    for i in range(model.config.num_layers):
        for ours, theirs in [("self_attn", "attn1"), ("cross_attn", "attn2")]:
            for o, c in ATTENTION.items():
                yield f"blocks.{i}.{ours}.{o}", f"blocks.{i}.{theirs}.{c}"
        for o, c in FEED.items():
            yield f"blocks.{i}.{o}", f"blocks.{i}.{c}"


def transformer(path, part="transformer"):
    return WanTransformer3DModel.from_pretrained(f"{path}/{part}", **load).eval()


def pipeline():
    return WanPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=transformer(t2v), scheduler=UniPCMultistepScheduler())


values = dict(x=torch.randn(16, 2, 6, 4, generator=g), text=torch.randn(7, 40, generator=g))


def velocity(model):
    return model(values["x"][None], torch.tensor([1000.0]), values["text"][None], return_dict=False)[0][0]


def pair(weight, rank):
    """The halves of a layer's adapter, and what they change of its weight."""
    down, up = half(rank, weight.shape[1]), half(weight.shape[0], rank)
    return down, up, up.float() @ down.float()


def checked(name, strength, changes, found):
    """The same with the changes in the weights."""
    model = transformer(t2v)
    state = model.state_dict()
    for key, change in changes.items():
        state[key] += strength * change
    expected = velocity(model)
    off, moved = (found - expected).abs().max().item(), (found - values["base"]).abs().max().item()
    print(f"{name} at {strength}: diffusers and merged weights {off:.1e} apart, moved by {moved:.1e}")
    assert off < 2e-5 and moved > 1e-2


def hold(name, changes, strengths=(1.0,)):
    """Reads a file with diffusers and keeps the velocities."""
    pipe = pipeline()
    pipe.load_lora_weights(f"{out}/{name}.safetensors", adapter_name="own")
    for strength in strengths:
        pipe.set_adapters(["own"], [strength])
        values[f"{name}_{strength}"] = velocity(pipe.transformer)
        checked(name, strength, changes, values[f"{name}_{strength}"])


base = transformer(t2v)
values["base"] = velocity(base)
weights = base.state_dict()

# As diffusers' and PEFT's trainers save them: alpha in the header; with a bias of the second half; with ranks and alphas of
# some layers, divided by the root of the rank.
PATTERNS = dict(rank_pattern={"to_q": 4}, alpha_pattern={"to_k": 1, "ffn.net.2": 5}, use_rslora=True)
for name, more in [("peft", {}), ("peft_bias", dict(lora_bias=True)), ("peft_patterns", PATTERNS)]:
    model = transformer(t2v)
    names, bias = [c for _, c in layers(model)], "lora_bias" in more
    model.add_adapter(LoraConfig(r=2, lora_alpha=3, target_modules=names, **more), adapter_name="own")
    changes = {}
    for c in names:
        layer = model.get_submodule(c)
        layer.lora_A["own"].weight.copy_(half(*layer.lora_A["own"].weight.shape))
        layer.lora_B["own"].weight.copy_(half(*layer.lora_B["own"].weight.shape))
        rank, ends = layer.lora_A["own"].weight.shape[0], lambda *ends: more is PATTERNS and c.endswith(ends)
        alpha = 1 if ends("to_k") else 5 if ends("ffn.net.2") else 3
        scale = alpha / rank**0.5 if more is PATTERNS else alpha / rank
        changes[f"{c}.weight"] = layer.lora_B["own"].weight @ layer.lora_A["own"].weight * scale
        if bias:
            layer.lora_B["own"].bias.copy_(half(*layer.lora_B["own"].bias.shape))
            changes[f"{c}.bias"] = layer.lora_B["own"].bias * scale
    state = {k: v.half() for k, v in get_peft_model_state_dict(model, adapter_name="own").items()}
    WanPipeline.save_lora_weights(out, state, weight_name=f"{name}.safetensors", transformer_lora_adapter_metadata=model.peft_config["own"].to_dict())
    hold(name, changes, (1.0, -0.5))

# kohya's (musubi-tuner): underscores, an alpha for each layer. diffusers multiplies halves by alpha/rank and rounds, unless
# that is a power of two.
state, changes = {}, {}
for ours, theirs in layers(base):
    down, up, change = pair(weights[f"{theirs}.weight"], 3)
    key = "lora_unet_" + ours.replace(".", "_")
    state.update({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(0.75).half()})
    changes[f"{theirs}.weight"] = change * 0.25
save_file(state, f"{out}/kohya.safetensors")
hold("kohya", changes, (1.0, 0.6))

# The original names, without an alpha, layers outside the blocks too, of several ranks.
state, changes = {}, {}
outside = [("head.head", "proj_out"), ("time_projection.1", "condition_embedder.time_proj")]
outside += [(f"{kind}_embedding.{a}", f"condition_embedder.{kind}_embedder.linear_{b}") for kind in ("text", "time") for a, b in ((0, 1), (2, 2))]
for index, (ours, theirs) in enumerate([*layers(base), *outside]):
    down, up, change = pair(weights[f"{theirs}.weight"], 1 + index % 3)
    state.update({f"diffusion_model.{ours}.lora_A.weight": down, f"diffusion_model.{ours}.lora_B.weight": up})
    changes[f"{theirs}.weight"] = change
save_file(state, f"{out}/original.safetensors")
hold("original", changes, (1.0, -1.25))

# LightX2V's LoRAs of four steps: down and up with an alpha in the blocks, biases (`.diff_b`), the head's whole difference
# (`.diff`), and differences of norms, which diffusers leaves out and which are 0.
state, changes = {}, {}
for ours, theirs in layers(base):
    down, up, change = pair(weights[f"{theirs}.weight"], 2)
    bias = half(up.shape[0])
    state.update({f"diffusion_model.{ours}.lora_down.weight": down, f"diffusion_model.{ours}.lora_up.weight": up,
                  f"diffusion_model.{ours}.alpha": torch.tensor(1.0).half(), f"diffusion_model.{ours}.diff_b": bias})
    changes.update({f"{theirs}.weight": change * 0.5, f"{theirs}.bias": bias.float()})
down, up, change = pair(weights["condition_embedder.time_proj.weight"], 2)
bias, head, head_bias = half(up.shape[0]), half(*weights["proj_out.weight"].shape, scale=0.02), half(*weights["proj_out.bias"].shape)
key = "diffusion_model.time_projection.1"
state.update({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.diff_b": bias,
              "diffusion_model.head.head.diff": head, "diffusion_model.head.head.diff_b": head_bias})
changes.update({"condition_embedder.time_proj.weight": change, "condition_embedder.time_proj.bias": bias.float(),
                "proj_out.weight": head.float(), "proj_out.bias": head_bias.float()})
for i in range(base.config.num_layers):
    for norm in ["self_attn.norm_q", "self_attn.norm_k", "cross_attn.norm_q", "cross_attn.norm_k", "norm3"]:
        state[f"diffusion_model.blocks.{i}.{norm}.diff"] = torch.zeros(64).half()
    state[f"diffusion_model.blocks.{i}.norm3.diff_b"] = torch.zeros(64).half()
save_file(state, f"{out}/lightx2v.safetensors")
hold("lightx2v", changes, (1.0, 0.75))

# Two beside one another.
pipe = pipeline()
pipe.load_lora_weights(f"{out}/kohya.safetensors", adapter_name="kohya")
pipe.load_lora_weights(f"{out}/original.safetensors", adapter_name="original")
pipe.set_adapters(["kohya", "original"], [0.75, -0.5])
values["kohya_original"] = velocity(pipe.transformer)

# One an expert of a pair.
a14b = f"{ref}/wan22_a14b/model"
pipe = WanPipeline.from_pretrained(a14b, **load)
for part in ["high_noise", "low_noise"]:
    model, state = pipe.transformer if part == "high_noise" else pipe.transformer_2, {}
    for ours, theirs in layers(model):
        down, up, _ = pair(model.state_dict()[f"{theirs}.weight"], 2)
        state.update({f"diffusion_model.{ours}.lora_down.weight": down, f"diffusion_model.{ours}.lora_up.weight": up,
                      f"diffusion_model.{ours}.alpha": torch.tensor(2.0).half()})
    save_file(state, f"{out}/{part}.safetensors")
    pipe.load_lora_weights(f"{out}/{part}.safetensors", adapter_name=part, load_into_transformer_2=part == "low_noise")
values["pair_noise"] = torch.randn(1, 16, 2, 4, 4, generator=g)
run = pipe(prompt="A red fox runs through deep snow at dawn.", negative_prompt="blurred details", latents=values["pair_noise"].clone(), height=32, width=32,
           num_frames=5, num_inference_steps=4, guidance_scale=3.0, output_type="latent")
values["pair"] = run.frames
pipe.unload_lora_weights()
save_file({k: v.contiguous() for k, v in values.items()}, f"{out}/values.safetensors")
