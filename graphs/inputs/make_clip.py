"""Draws clip.png, the clip that the graphs of this folder's parent change: a red disc moves right.

    pip install numpy pillow
    python make_clip.py
"""

import sys
from pathlib import Path

from PIL import Image

here = Path(__file__).parent
sys.path.insert(0, str(here / "../../nodes/shapes/recipe"))
import shapes  # noqa: E402

disc = {
    "shape": "circle", "color": "red", "size": "small", "motion": "right",
    "travel": 0.42, "phase": 0.0, "cross": -0.8, "off": 0.0, "turns": 0.4,
}
frames = shapes.render({"objects": [disc], "background": "white"}, 64, 96, 17)
first, *rest = [Image.fromarray(frame) for frame in frames]
first.save(here / "clip.png", save_all=True, append_images=rest, duration=125, loop=0)
