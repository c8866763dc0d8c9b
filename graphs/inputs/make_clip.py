"""Draws the clips and pictures that the graphs of this folder's parent change, extend and join.

clip.png: a red disc moves right. begins.png: a blue disc comes down on the left and begins to move
right. ends.png: it arrives on the right and goes down. turns.png: a green disc arrives on the left,
goes back below, and begins to move left again.

    pip install numpy pillow
    python make_clip.py
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

here = Path(__file__).parent
sys.path.insert(0, str(here / "../../nodes/shapes/recipe"))
import shapes  # noqa: E402

HEIGHT, WIDTH = 64, 96


def way(motion, size="medium", cross=0.0):
    """Where a disc is in 17 frames of a motion that the model knows: (x, y, radius)."""
    disc = {
        "size": size, "motion": motion, "travel": 0.42, "phase": 0.0, "cross": cross, "off": 0.0,
        "turns": 0.4,
    }
    return [shapes.place(disc, t, 0.0, True, HEIGHT, WIDTH) for t in np.linspace(0, 1, 17)]


def draw(color, background, places):
    """A frame for each place."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32) + 0.5
    frames = []
    for cx, cy, r in places:
        outline = shapes.sdf("circle", x - (WIDTH / 2 + cx), y - (HEIGHT / 2 + cy), r)
        alpha = np.clip(0.5 - outline, 0, 1)[..., None]
        rgb = shapes.BACKGROUNDS[background][0] * (1 - alpha) + shapes.COLORS[color][0] * alpha
        frames.append(Image.fromarray(np.clip(rgb + 0.5, 0, 255).astype(np.uint8)))
    return frames


def save(name, frames):
    """A file of these frames, 8 a second."""
    first, *rest = frames
    if rest:
        first.save(here / name, save_all=True, append_images=rest, duration=125, loop=0)
    else:
        first.save(here / name)


save("clip.png", draw("red", "white", way("right", size="small", cross=-0.8)))
moves = way("right")
(x, y, r), (end, _, _) = moves[0], moves[-1]
save("begins.png", draw("blue", "white", [(x, y - 1.5 * k, r) for k in range(12, 0, -1)] + moves[:5]))
save("ends.png", draw("blue", "white", moves[-4:] + [(end, y + 1.5 * k, r) for k in range(1, 14)]))
back = way("left")
# Below, from where a disc that moved left arrives to where one begins to.
below = [
    (back[16][0] + (back[0][0] - back[16][0]) * k / 13, y + 14 * np.sin(np.pi * k / 13), r)
    for k in range(1, 13)
]
save("turns.png", draw("green", "beige", back[13:] + below + back[:5]))
