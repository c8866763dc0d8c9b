"""Levels that depend on the number of tokens, by diffusers itself.

    pip install diffusers==0.42.1 torch numpy
    python shifts.py

Writes `shifts.json`: for each case the config of its scheduler, steps, tokens, whether a pipeline
gave the levels 1 to 1/steps (as those of FLUX and LTX-Video do), levels and timesteps.
"""

import json

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

cases = []


def run(steps, tokens, by_steps, **options):
    scheduler = FlowMatchEulerDiscreteScheduler(**options)
    config = scheduler.config
    mu = calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    sigmas = np.linspace(1.0, 1 / steps, steps) if by_steps else None
    scheduler.set_timesteps(None if by_steps else steps, sigmas=sigmas, mu=mu)
    cases.append(
        {
            "config": {"_class_name": type(scheduler).__name__, **options},
            "steps": steps,
            "tokens": tokens,
            "by_steps": by_steps,
            "sigmas": scheduler.sigmas.tolist(),
            "timesteps": scheduler.timesteps.tolist(),
        }
    )


dev = {"use_dynamic_shifting": True, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15}
ltx = {
    "use_dynamic_shifting": True,
    "shift_terminal": 0.1,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
}
for steps in (1, 4, 28):
    for tokens in (6, 1024, 4096, 9000):
        run(steps, tokens, True, **dev)
        run(steps, tokens, True, **dev, time_shift_type="linear")
        run(steps, tokens, False, **dev)
        if steps > 1:  # a single level of 1 cannot be stretched: diffusers divides 0 by 0
            run(steps, tokens, True, **ltx)
            run(steps, tokens, False, **ltx)
    run(steps, 100, True, shift=1.0)
    run(steps, 100, True, shift=3.0)
run(4, 100, True, shift=3.0, shift_terminal=0.2)
run(4, 100, False, shift=3.0, shift_terminal=0.2)

with open("shifts.json", "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
