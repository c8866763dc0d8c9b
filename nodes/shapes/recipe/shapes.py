"""Synthetic moving-shape clips with captions: the training set of the tiny `shapes` video model.

A scene is one or two shapes on a plain background, each with a colour, a size and a motion.
`render` draws it with signed distance fields (anti-aliased); `caption` words it in English or
Chinese. Run alone, it draws eight scenes, `preview.png`, and prints their captions.
"""

import math
import random

import numpy as np

COLORS = {  # name: (rgb, zh)
    "red": ((222, 45, 38), "红色"),
    "green": ((49, 163, 84), "绿色"),
    "blue": ((44, 105, 214), "蓝色"),
    "yellow": ((250, 204, 21), "黄色"),
    "purple": ((140, 70, 190), "紫色"),
    "orange": ((249, 115, 22), "橙色"),
    "cyan": ((34, 200, 220), "青色"),
    "pink": ((244, 114, 182), "粉色"),
}
BACKGROUNDS = {
    "black": ((14, 14, 18), "黑色"),
    "white": ((242, 242, 240), "白色"),
    "gray": ((120, 122, 126), "灰色"),
    "navy": ((22, 32, 74), "深蓝色"),
    "beige": ((224, 208, 176), "米色"),
}
SHAPES = {"circle": "圆形", "square": "方形", "triangle": "三角形", "star": "星形", "ring": "圆环"}
SHAPE_WORDS = {
    "circle": ["circle", "ball", "disc", "dot"],
    "square": ["square", "box", "block"],
    "triangle": ["triangle"],
    "star": ["star"],
    "ring": ["ring", "hoop"],
}
SIZES = {"small": (0.13, "小"), "medium": (0.19, ""), "large": (0.26, "大")}
SIZE_WORDS = {
    "small": ["small", "little", "tiny"],
    "medium": [""],
    "large": ["large", "big", "huge"],
}
MOTIONS = {  # name: (dx, dy) per clip, zh, english phrases
    "right": (
        (1, 0),
        "向右移动",
        [
            "moves right",
            "moves to the right",
            "slides right",
            "drifts right",
            "flies to the right",
            "moving right",
            "moving to the right",
        ],
    ),
    "left": (
        (-1, 0),
        "向左移动",
        [
            "moves left",
            "moves to the left",
            "slides left",
            "drifts left",
            "flies to the left",
            "moving left",
            "moving to the left",
        ],
    ),
    "up": (
        (0, -1),
        "向上移动",
        ["moves up", "rises", "floats up", "moves upward", "moving up", "rising"],
    ),
    "down": (
        (0, 1),
        "向下移动",
        ["moves down", "falls", "sinks", "moves downward", "moving down", "falling"],
    ),
    "still": ((0, 0), "静止不动", ["stays still", "stands still", "does not move", "rests"]),
    "spin": ((0, 0), "旋转", ["spins", "rotates", "turns around", "spinning", "rotating"]),
    "grow": ((0, 0), "变大", ["grows", "gets bigger", "grows larger", "growing"]),
    "shrink": ((0, 0), "变小", ["shrinks", "gets smaller", "shrinking"]),
    "orbit": ((0, 0), "绕圈", ["moves in a circle", "circles around", "orbits"]),
}


def sample_scene(rng):
    """A random scene: one object, or two in three scenes of ten."""
    n = 2 if rng.random() < 0.3 else 1
    colors = rng.sample(list(COLORS), n)
    objects = []
    for i in range(n):
        shape = rng.choice(list(SHAPES))
        motion = rng.choice(list(MOTIONS))
        if motion == "spin" and shape in ("circle", "ring"):
            shape = rng.choice(["square", "triangle", "star"])
        size = (
            rng.choice(["small", "medium", "medium", "large"])
            if n == 1
            else rng.choice(["small", "small", "medium"])
        )
        if motion in ("grow", "shrink"):
            size = "medium"
        objects.append(
            dict(
                shape=shape,
                color=colors[i],
                size=size,
                motion=motion,
                travel=rng.uniform(0.38, 0.5),
                phase=rng.uniform(0, 2 * math.pi),
                cross=rng.uniform(-1, 1),
                off=rng.uniform(-1, 1),
                turns=rng.choice([-1, 1]) * rng.uniform(0.3, 0.5),
            )
        )
    return dict(objects=objects, background=rng.choice(list(BACKGROUNDS)))


def caption(scene, rng):
    """One of the ways to word a scene; one in five is Chinese."""
    zh = rng.random() < 0.2
    parts = []
    for o in scene["objects"]:
        if zh:
            size = SIZES[o["size"]][1]
            noun = SHAPES[o["shape"]]
            parts.append(f"一个{size}{COLORS[o['color']][1]}{noun}{MOTIONS[o['motion']][1]}")
        else:
            size = rng.choice(SIZE_WORDS[o["size"]])
            noun = rng.choice(SHAPE_WORDS[o["shape"]])
            phrase = rng.choice(MOTIONS[o["motion"]][2])
            words = [w for w in ("a", size, o["color"], noun, phrase) if w]
            if words[1][0] in "aeiou":
                words[0] = "an"
            parts.append(" ".join(words))
    bg = scene["background"]
    if zh:
        text = "，".join(parts)
        return text + (f"，{BACKGROUNDS[bg][1]}背景" if rng.random() < 0.8 else "")
    text = " and ".join(parts)
    if rng.random() < 0.8:
        text += rng.choice(
            [
                " on a {} background",
                " over a {} background",
                " against a {} background",
                ", {} background",
            ]
        ).format(bg)
    if rng.random() < 0.1:
        text = rng.choice(["a video of ", "an animation of ", ""]) + text
    return text


def vocabulary():
    """Every English word and Chinese character that captions use."""
    words = set("a an and on over against background video animation of the to ,".split())
    words.update(COLORS, BACKGROUNDS)
    for choices in list(SHAPE_WORDS.values()) + list(SIZE_WORDS.values()):
        words.update(w for w in choices if w)
    for _, _, phrases in MOTIONS.values():
        words.update(w for phrase in phrases for w in phrase.split())
    chars = set("一个背景，")
    named = list(COLORS.values()) + list(BACKGROUNDS.values()) + list(SIZES.values())
    for zh in [zh for _, zh in named] + list(SHAPES.values()):
        chars.update(zh)
    for _, zh, _ in MOTIONS.values():
        chars.update(zh)
    return sorted(words) + sorted(chars)


def sdf(shape, x, y, r):
    """Signed distance of points from the outline of a shape of radius `r`; negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - r
    if shape == "ring":
        return np.abs(np.hypot(x, y) - r * 0.78) - r * 0.22
    if shape == "square":
        s = r * 0.86
        return np.maximum(np.abs(x), np.abs(y)) - s
    if shape == "triangle":
        k = math.sqrt(3.0)
        y = y + r * 0.15
        d1 = y - r * 0.62
        d2 = (k * x - y) / 2 - r * 0.5
        d3 = (-k * x - y) / 2 - r * 0.5
        return np.maximum(np.maximum(d1, d2), d3)
    # five-pointed star
    a = np.arctan2(x, -y)
    rad = np.hypot(x, y)
    seg = 2 * math.pi / 5
    t = np.abs((a + seg / 2) % seg - seg / 2)
    inner = 0.42
    px, py = rad * np.sin(t), rad * np.cos(t)
    bx, by = inner * r * 1.1 * math.sin(seg / 2), inner * r * 1.1 * math.cos(seg / 2)
    ax, ay = 0.0, r * 1.1
    nx, ny = (ay - by), (bx - ax)
    norm = math.hypot(nx, ny)
    return ((px - ax) * nx + (py - ay) * ny) / norm


def place(o, t, lane, alone, height, width):
    """Centre, relative to the middle of the frame, and radius of an object at time `t` in 0..1."""
    unit = min(height, width)
    r = SIZES[o["size"]][0] * unit
    if o["motion"] == "grow":
        r = unit * (0.10 + 0.17 * t)
    if o["motion"] == "shrink":
        r = unit * (0.27 - 0.17 * t)
    span_x, span_y = width / 2 - r - 1, height / 2 - r - 1
    dx, dy = MOTIONS[o["motion"]][0]
    travel = (t - 0.5) * 2 * o["travel"] / 0.5
    if dx:
        cx = dx * travel * span_x + o["off"] * 0.02 * width
        cy = lane * height + o["cross"] * (0.22 if alone else 0.08) * height
    elif dy:
        cy = dy * travel * span_y + o["off"] * 0.02 * height
        cx = lane * width + o["cross"] * (0.22 if alone else 0.08) * width
    elif o["motion"] == "orbit":
        angle = o["phase"] + 2 * math.pi * t * (1 if o["turns"] > 0 else -1)
        cx = lane * width * 0.9 + 0.2 * unit * math.cos(angle) * (1 if alone else 0.7)
        cy = 0.2 * unit * math.sin(angle)
    else:
        cx = lane * width + o["cross"] * (0.2 if alone else 0.05) * width
        cy = o["off"] * 0.2 * height
    return float(np.clip(cx, -span_x, span_x)), float(np.clip(cy, -span_y, span_y)), r


def render(scene, height, width, frames):
    """Draws a scene: uint8 [frames, height, width, 3]. An image is the middle of the clip."""
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    out = np.empty((frames, height, width, 3), np.float32)
    out[:] = np.array(BACKGROUNDS[scene["background"]][0], np.float32)
    times = np.array([0.5]) if frames == 1 else np.linspace(0, 1, frames)
    alone = len(scene["objects"]) == 1
    for i, o in enumerate(scene["objects"]):
        color = np.array(COLORS[o["color"]][0], np.float32)
        lane = 0.0 if alone else (-0.25 if i == 0 else 0.25)
        for f, t in enumerate(times):
            cx, cy, r = place(o, t, lane, alone, height, width)
            x, y = xx - (width / 2 + cx), yy - (height / 2 + cy)
            if o["motion"] == "spin":
                angle = 4 * math.pi * o["turns"] * t
                c, s = math.cos(angle), math.sin(angle)
                x, y = c * x + s * y, -s * x + c * y
            alpha = np.clip(0.5 - sdf(o["shape"], x, y, r), 0, 1)[..., None]
            out[f] = out[f] * (1 - alpha) + color * alpha
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def main():
    from PIL import Image

    rng, rows = random.Random(1), []
    for _ in range(8):
        scene = sample_scene(rng)
        print(caption(scene, rng))
        rows.append(np.concatenate(list(render(scene, 64, 96, 17)[::4]), 1))
    Image.fromarray(np.concatenate(rows, 0)).save("preview.png")
    print("words:", len(vocabulary()))


if __name__ == "__main__":
    main()
