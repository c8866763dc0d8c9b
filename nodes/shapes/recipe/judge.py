"""Judges on pixels whether a clip shows its prompt: colour, shape, motion and background.

`judge` compares a clip with the scene that its prompt words, for scenes with one object. Run alone,
it measures its own error on 200 true clips.
"""

import math
import random

import numpy as np

import shapes

# Area of a shape of radius 1: for matching outlines, and for telling rotations.
AREA = {"circle": math.pi, "ring": math.pi * (1 - 0.56**2), "square": 4 * 0.86**2}
AREA.update(triangle=1.35, star=1.15)
TURN_AREA = {"circle": math.pi, "ring": 2.1, "square": 2.96, "triangle": 1.35, "star": 1.15}
# The angle after which a shape looks the same.
SYMMETRY = {"square": math.pi / 2, "triangle": 2 * math.pi / 3, "star": 2 * math.pi / 5}


def nearest(color, table):
    """The name in `table` whose colour is nearest."""
    names = list(table)
    return names[int(np.argmin([((np.array(table[n][0]) - color) ** 2).sum() for n in names]))]


def template(shape, mask, angle, r):
    """The shape drawn over the centre of `mask`."""
    yy, xx = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]]
    ys, xs = yy - yy[mask].mean(), xx - xx[mask].mean()
    c, s = math.cos(angle), math.sin(angle)
    return shapes.sdf(shape, c * xs + s * ys, -s * xs + c * ys, r) < 0


def overlap(shape, mask):
    """The best intersection over union of the shape with `mask`, over sizes and angles."""
    top, round_ = 0, shape in ("circle", "ring")
    angles = [0] if round_ else np.linspace(0, 2 * math.pi, 24, endpoint=False)
    for r in np.sqrt(mask.sum() / AREA[shape]) * np.array([0.9, 1, 1.1]):
        for angle in angles:
            t = template(shape, mask, angle, r)
            top = max(top, (t & mask).sum() / max(1, (t | mask).sum()))
    return top


def turned(shape, before, after):
    """Whether the shape has another angle in `after` than in `before`."""
    r = np.sqrt(before.sum() / TURN_AREA[shape])
    angles = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    first, second = (
        max(angles, key=lambda angle: (template(shape, mask, angle, r) & mask).sum())
        for mask in (before, after)
    )
    period = SYMMETRY.get(shape, 1e9)
    difference = abs(second - first) % period
    return min(difference, period - difference) > 0.12


def shows_motion(o, masks, unit):
    """Whether the object's masks, [frames, height, width], move as the scene says."""
    frames, height, width = masks.shape
    yy, xx = np.mgrid[0:height, 0:width]
    cx, cy = (np.array([axis[m].mean() for m in masks]) for axis in (xx, yy))
    r = np.sqrt(masks.reshape(frames, -1).sum(1) / math.pi)
    dx, dy, grow = (cx[-1] - cx[0]) / width, (cy[-1] - cy[0]) / height, r[-1] / r[0]
    path = np.hypot(np.diff(cx), np.diff(cy)).sum() / unit
    tests = {
        "right": lambda: dx > 0.15 and abs(dy) < 0.1,
        "left": lambda: dx < -0.15 and abs(dy) < 0.1,
        "up": lambda: dy < -0.15 and abs(dx) < 0.1,
        "down": lambda: dy > 0.15 and abs(dx) < 0.1,
        "still": lambda: max(abs(dx), abs(dy)) < 0.07 and path < 0.25 and 0.85 < grow < 1.18,
        "spin": lambda: max(abs(dx), abs(dy)) < 0.1
        and 0.7 < grow < 1.4
        and any(
            turned(o["shape"], masks[0], masks[i])
            for i in (frames // 4, frames // 2, 3 * frames // 4)
        ),
        "grow": lambda: grow > 1.3 and abs(dx) < 0.1,
        "shrink": lambda: grow < 0.77 and abs(dx) < 0.1,
        "orbit": lambda: path > 0.5 and abs(dx) < 0.15 and abs(dy) < 0.15,
    }
    return tests[o["motion"]]()


def judge(frames, scene):
    """uint8 [frames, height, width, 3] and a scene to a dict of four booleans."""
    o, (count, height, width, _) = scene["objects"][0], frames.shape
    border = np.concatenate([frames[:, 0].reshape(-1, 3), frames[:, -1].reshape(-1, 3)])
    background = np.median(border, 0)
    out = dict(background=nearest(background, shapes.BACKGROUNDS) == scene["background"])
    masks = np.sqrt(((frames.astype(float) - background) ** 2).sum(-1)) > 60
    if (masks.reshape(count, -1).sum(1) < 12).any():
        return {**out, "color": False, "shape": False, "motion": False}
    out["color"] = nearest(np.median(frames[masks], 0), shapes.COLORS) == o["color"]
    picked = [masks[i] for i in (0, count // 2, count - 1)]
    score = {shape: sum(overlap(shape, mask) for mask in picked) for shape in shapes.SHAPES}
    out["shape"] = max(score, key=score.get) == o["shape"]
    out["motion"] = shows_motion(o, masks, min(height, width))
    return out


def main():
    rng, tally, clips = random.Random(3), {}, 0
    while clips < 200:
        scene = shapes.sample_scene(rng)
        if len(scene["objects"]) > 1:
            continue
        clips += 1
        for key, right in judge(shapes.render(scene, 64, 96, 17), scene).items():
            tally[key] = tally.get(key, 0) + right
    print({key: right / clips for key, right in tally.items()})


if __name__ == "__main__":
    main()
