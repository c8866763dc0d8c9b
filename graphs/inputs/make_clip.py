"""Draws the clips that the graphs of this folder's parent change, extend and join.

clip.png: a red disc moves right. second.png: below where it ends, it moves left.

    pip install numpy pillow
    python make_clip.py
"""

import sys
from pathlib import Path

from PIL import Image

here = Path(__file__).parent
sys.path.insert(0, str(here / "../../nodes/shapes/recipe"))
import shapes  # noqa: E402


def draw(name, motion, cross):
    """A clip of 17 frames at 8 a second."""
    disc = {
        "shape": "circle", "color": "red", "size": "small", "motion": motion,
        "travel": 0.42, "phase": 0.0, "cross": cross, "off": 0.0, "turns": 0.4,
    }
    frames = shapes.render({"objects": [disc], "background": "white"}, 64, 96, 17)
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(here / name, save_all=True, append_images=rest, duration=125, loop=0)


draw("clip.png", "right", -0.8)
draw("second.png", "left", 0.8)
