"""NAME: nodes for Kinograph, in Python."""

from kino import Frames, Instance, Node, Real, node  # the engine calls Instance and Node


@node("NAME.gain", version="0.1.0", like="frames")
def gain(frames: Frames, gain: Real(range=(0.0, 4.0)) = 1.5) -> Frames:
    """Multiplies every frame by a gain."""
    return frames.map(lambda chunk: (chunk * gain).clamp(0.0, 1.0))
