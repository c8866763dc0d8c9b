"""Reference values of the solvers `dpm++` and `lcm`, by diffusers itself.

    pip install diffusers==0.42.1 torch numpy safetensors
    python make.py

Writes `cases.json` (the config of each case's scheduler and its number of steps) and
`solvers.safetensors`: for each case the levels, the timesteps and the sample before the first and
after every step. The model is 0.7·sin(3x) + `noise` of the step; `fresh` is what LCM adds.
"""

import json

import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchLCMScheduler, UniPCMultistepScheduler
from safetensors.torch import save_file

SHAPE = (1, 2, 1, 3, 4)
MOST = 20

generator = torch.Generator().manual_seed(11)
start = torch.randn(SHAPE, generator=generator)
noise = 0.3 * torch.randn((MOST, *SHAPE), generator=generator)
fresh = [torch.randn(SHAPE, generator=torch.Generator().manual_seed(100 + k)) for k in range(MOST)]

tensors = {"noise": noise, "fresh": torch.stack(fresh)}
cases = []


def run(name, scheduler, steps):
    scheduler.set_timesteps(steps)
    lcm = isinstance(scheduler, FlowMatchLCMScheduler)
    x, xs = start, [start]
    for k, timestep in enumerate(scheduler.timesteps):
        velocity = 0.7 * torch.sin(3 * x) + noise[k]
        more = {"generator": torch.Generator().manual_seed(100 + k)} if lcm else {}
        x = scheduler.step(velocity, timestep, x, return_dict=False, **more)[0]
        xs.append(x)
    assert torch.isfinite(torch.stack(xs)).all(), name
    tensors[f"{name}.sigmas"] = scheduler.sigmas.to(torch.float32)
    tensors[f"{name}.timesteps"] = scheduler.timesteps.to(torch.float32)
    tensors[f"{name}.x"] = torch.stack(xs)
    # JSON has no infinity, and `lambda_min_clipped` is one.
    config = {k: v for k, v in scheduler.config.items() if k[0] != "_" and k != "lambda_min_clipped"}
    config = {"_class_name": type(scheduler).__name__, **config}
    cases.append({"name": name, "steps": steps, "config": config})


def dpm(shift, **options):
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
    return DPMSolverMultistepScheduler(**flow, **options)


for steps in (1, 2, 3, 8, 20):
    for shift in (1.0, 3.0, 5.0):
        run(f"dpm.shift{shift:g}.n{steps}", dpm(shift), steps)
        run(f"lcm.shift{shift:g}.n{steps}", FlowMatchLCMScheduler(shift=shift), steps)
for steps in (4, 20):
    run(f"dpm_heun.n{steps}", dpm(3.0, solver_type="heun"), steps)
    run(f"dpm_o1.n{steps}", dpm(3.0, solver_order=1), steps)
    run(f"dpm_o3.n{steps}", dpm(3.0, solver_order=3), steps)
    run(f"dpm_o3_free.n{steps}", dpm(3.0, solver_order=3, lower_order_final=False), steps)
# What a pipeline does whose scheduler is exchanged: the config of Wan's UniPC, read by DPM-Solver++.
unipc = UniPCMultistepScheduler(
    use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0, solver_type="bh2"
)
run("dpm_of_unipc.n6", DPMSolverMultistepScheduler.from_config(unipc.config), 6)

save_file(tensors, "solvers.safetensors")
with open("cases.json", "w") as file:
    lines = ",\n".join(json.dumps(case) for case in cases)
    file.write(f"[\n{lines}\n]\n")
