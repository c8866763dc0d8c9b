"""Looks in Python: a guider, and a node with state."""

import array

from kino import Frames, Instance, Int, KinoError, Node, Real, Tensor, guider, node

LEVELS = 4096


@guider("looks.fading", version="1.0.0")
def fading(
    step,
    with_text,
    without_text,
    scale: Real(range=(1.0, 20.0), about="Guidance of the first step; 1 is none.") = 6.0,
    power: Real(range=(0.1, 8.0), about="How fast it fades: 1 is evenly.") = 1.0,
):
    """Guides less and less: `scale` at the first step, next to nothing at the last."""
    left = (1.0 - step.index / step.count) ** power
    return without_text + (with_text - without_text) * (1.0 + (scale - 1.0) * left)


@node("looks.film", version="1.0.0", like="frames", outputs={"frames": Frames})
class Film:
    """Gives frames the curve of film: a long toe, a straight middle, a soft shoulder.

    The curve is a table, computed once and kept. Frames are looked up in it by an operation: a loop over
    samples in Python would take 50 times as long.
    """

    def __init__(self):
        curve = [at / (LEVELS - 1) for at in range(LEVELS)]
        # A logistic curve around the middle, scaled so that it keeps 0 and 1.
        s = [1.0 / (1.0 + 2.718281828459045 ** (-6.0 * (x - 0.5))) for x in curve]
        self.table = array.array("f", [(y - s[0]) / (s[-1] - s[0]) for y in s]).tobytes()

    @classmethod
    def restore(cls, saved):
        """Takes the table of an older build; what is none is computed anew."""
        if len(saved) != 4 * LEVELS:
            raise KinoError("saved by another build")
        film = cls.__new__(cls)
        film.table = saved
        return film

    def save(self):
        return self.table

    def run(
        self,
        frames: Frames,
        amount: Real(range=(0.0, 1.0), about="0 leaves frames as they are.") = 0.5,
        steps: Int(range=(2, LEVELS), about="How many levels are left.") = LEVELS,
    ):
        table = Tensor.of(self.table, [LEVELS])

        def expose(chunk):
            level = (chunk.clamp(0.0, 1.0) * (steps - 1) + 0.5).op("floor")
            index = (level * ((LEVELS - 1) / (steps - 1)) + 0.5).cast("u32").reshape(-1)
            toned = table.op("index_select", index, dim=0).reshape(*chunk.shape)
            return chunk * (1.0 - amount) + toned * amount

        return frames.map(expose)
