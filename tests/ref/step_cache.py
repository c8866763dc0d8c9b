"""Latents of `wan_t2v` sampled with step caches: First-Block cache by diffusers' hook, TeaCache by a transcription of
`teacache_forward` of TeaCache4Wan2.1/teacache_generate.py (github.com/ali-vilab/TeaCache, arXiv:2411.19108).

usage: step_cache.py TESTS_REF   (python 3.11; torch, diffusers 0.42.1)

Writes `step_cache/values.safetensors` and `step_cache/cases.json`, which says of each pass whether it was computed (1) or
reused (0), with text and without. Kinograph computes the last step always, TeaCache with `use_ret_steps` as well, which leaves that
to chance; the thresholds of First-Block cache are such that diffusers does, too. `rules` has what the published polynomials
decide of changes that are as large as those of the published models.
"""
import json, os, shutil, sys
import numpy as np, torch
from diffusers import FirstBlockCacheConfig, WanPipeline
from safetensors.torch import save_file

ref = sys.argv[1]
out = f"{ref}/step_cache"
torch.set_grad_enabled(False)
torch.set_num_threads(1)
shutil.rmtree(out, ignore_errors=True)
os.makedirs(out)
g = torch.Generator().manual_seed(5)
PROMPT, NEGATIVE, STEPS = "A red fox runs through deep snow at dawn.", "blurred details", 12
SIZES = dict(small=(1, 4, 4), large=(2, 8, 18))  # latent frames, rows, columns: below and above what is run as one pass
values = {f"noise_{name}": torch.randn(1, 16, *size, generator=g) for name, size in SIZES.items()}
cases = []


def run(pipe, size, steps, guidance=4.0):
    f, h, w = SIZES[size]
    return pipe(prompt=PROMPT, negative_prompt=NEGATIVE, latents=values[f"noise_{size}"].clone(), height=8 * h, width=8 * w, num_frames=4 * (f - 1) + 1,
         num_inference_steps=steps, guidance_scale=guidance, output_type="latent").frames[0]


def pipeline(model="wan_t2v"):
    return WanPipeline.from_pretrained(f"{ref}/{model}/model", torch_dtype=torch.float32)


def hold(name, pipe, size, computed, steps=STEPS, **more):
    values[name] = found = run(pipe, size, steps, more.get("guidance", 4.0))
    passes = [computed[0::2], computed[1::2]] if more.get("guidance", 4.0) > 1 else [computed, []]
    full = run(pipeline(more.get("model", "wan_t2v")), size, steps, more.get("guidance", 4.0))
    case = dict(name=name, size=size, steps=steps, **more, computed=["".join(map(str, one)) for one in passes])
    cases.append(case)
    assert all(one == "" or one.endswith("1") for one in case["computed"]), "the last step"
    print(case, f"{(full - found).abs().max().item():.3f} from the full run")


def first_block(name, threshold, size, guidance=4.0, model="wan_t2v"):
    pipe, computed = pipeline(model), []
    for transformer in [pipe.transformer, pipe.transformer_2]:
        if transformer is None:
            continue
        transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
        whole = transformer.forward

        def forward(*args, whole=whole, **kwargs):
            computed.append(0)
            return whole(*args, **kwargs)

        transformer.blocks[1].attn1.register_forward_pre_hook(lambda *_: computed.__setitem__(-1, 1))
        transformer.forward = forward
    hold(name, pipe, size, computed, kind="first_block", threshold=threshold, guidance=guidance, model=model)


def teacache(name, threshold, size, coefficients, ret_steps, steps=STEPS):
    """`use_ret_steps` looks at the projection of the timestep's embedding, and computes the first five steps."""
    pipe = pipeline()
    model, computed, state = pipe.transformer, [], dict(cnt=0)
    first, cutoff = (5 * 2 if ret_steps else 1 * 2), steps * 2 - 2
    rescale = np.poly1d(coefficients)
    inner = model.condition_embedder.forward

    def embedder(*args, **kwargs):
        temb, projection, *rest = inner(*args, **kwargs)
        state["seen"] = projection if ret_steps else temb
        return temb, projection, *rest

    model.condition_embedder.forward = embedder
    blocks = list(model.blocks)

    class Cached(torch.nn.Module):
        def forward(self, x, *args):
            side, seen = "even" if state["cnt"] % 2 == 0 else "odd", state["seen"]
            if state["cnt"] < first or state["cnt"] >= cutoff:
                compute, state["sum" + side] = True, 0
            else:
                before = state["before" + side]
                state["sum" + side] += rescale(((seen - before).abs().mean() / before.abs().mean()).item())
                compute = not state["sum" + side] < threshold
                if compute:
                    state["sum" + side] = 0
            state["before" + side] = seen.clone()
            state["cnt"] += 1
            computed.append(int(compute))
            if not compute:
                return x + state["residual" + side]
            y = x
            for block in blocks:
                y = block(y, *args)
            state["residual" + side] = y - x
            return y

    model.blocks = torch.nn.ModuleList([Cached()])
    hold(name, pipe, size, computed, steps=steps, kind="teacache", threshold=threshold, model="wan_t2v", coefficients=coefficients, projection=ret_steps, first=first // 2)


first_block("first_block_a", 0.575, "small")
first_block("first_block_b", 0.6, "small")
first_block("first_block_c", 0.57, "large")
first_block("first_block_d", 0.605, "large")
first_block("first_block_e", 0.58, "large", guidance=1.0)
first_block("first_block_pair", 0.6, "large", model="wan22_a14b")
teacache("teacache_a", 2.0, "small", [0.0, 0.0, 0.0, 1.0, 0.0], False)
teacache("teacache_b", 2.4, "large", [0.1, 0.0, 0.2, 0.5, 0.3], False)
teacache("teacache_c", 1.8, "large", [0.0, 0.0, 0.0, 1.0, 0.0], True)

# What the published polynomials decide, by numpy as in `teacache_forward`. Retention steps, but for T2V 1.3B (the README there).
PUBLISHED = dict(
    t2v_1_3b=([2.39676752e+03, -1.31110545e+03, 2.01331979e+02, -8.29855975e+00, 1.37887774e-01], 1, [0.05, 0.08], (0.02, 0.2)),
    t2v_14b=([-3.03318725e+05, 4.90537029e+04, -2.65530556e+03, 5.87365115e+01, -3.15583525e-01], 5, [0.1, 0.2], (0.01, 0.05)),
    i2v_480p=([2.57151496e+05, -3.54229917e+04, 1.40286849e+03, -1.35890334e+01, 1.32517977e-01], 5, [0.2, 0.3], (0.005, 0.06)),
    i2v_720p=([8.10705460e+03, 2.13393892e+03, -3.72934672e+02, 1.66203073e+01, -4.17769401e-02], 5, [0.2, 0.3], (0.005, 0.1)))
rules, random = [], np.random.default_rng(3)
for model, (coefficients, first, thresholds, (low, high)) in PUBLISHED.items():
    for threshold in thresholds:
        changes, total, computed = [round(float(c), 4) for c in random.uniform(low, high, 29)], 0, []
        for step in range(30):
            if step < first or step == 29:
                compute, total = True, 0
            else:
                total += np.poly1d(coefficients)(changes[step - 1])
                compute = not total < threshold
                total = 0 if compute else total
            computed.append(int(compute))
        rules.append(dict(model=model, threshold=threshold, changes=changes, computed="".join(map(str, computed))))
        print(rules[-1]["model"], threshold, rules[-1]["computed"])
save_file({k: v.contiguous() for k, v in values.items()}, f"{out}/values.safetensors")
json.dump(dict(diffusers="0.42.1", prompt=PROMPT, negative=NEGATIVE, cases=cases, rules=rules), open(f"{out}/cases.json", "w"))
