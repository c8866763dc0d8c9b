"""Makes the files of this folder by OpenEXR itself: python3 make_exr.py (needs OpenEXR, numpy)."""

import numpy
import OpenEXR

W, H = 7, 5


def light(dtype):
    """Light that says its place: red x, green y, blue bright in one corner."""
    y, x = numpy.mgrid[0:H, 0:W].astype("f4")
    return numpy.stack([x / 4, y / 8, (x == 6) * (y == 4) * 100.0], axis=-1).astype(dtype)


def write(name, channels, **header):
    header = {"type": OpenEXR.scanlineimage, **header}
    with OpenEXR.File(header, channels) as file:
        file.write(name)


rgb = light("f2")
odd = rgb.copy()
odd[0, 0] = [numpy.nan, numpy.inf, -numpy.inf]
odd[1, 0] = [-0.5, 2.0, 65504.0]
write("half.exr", {"RGB": odd}, compression=OpenEXR.ZIP_COMPRESSION)
for kind in ["RLE", "ZIPS", "PIZ", "NO"]:
    write(f"{kind.lower()}.exr", {"RGB": rgb}, compression=getattr(OpenEXR, f"{kind}_COMPRESSION"))
alpha = numpy.full((H, W), 0.5, "f4")
write("float_alpha.exr", {"RGBA": numpy.dstack([light("f4"), alpha])},
      compression=OpenEXR.ZIP_COMPRESSION)
red = numpy.ascontiguousarray(rgb[..., 0])
write("grey.exr", {"Y": red}, compression=OpenEXR.ZIP_COMPRESSION)
write("depth.exr", {"Z": red}, compression=OpenEXR.ZIP_COMPRESSION)
# ACEScg.
write("ap1.exr", {"RGB": rgb}, compression=OpenEXR.ZIP_COMPRESSION,
      chromaticities=(0.713, 0.293, 0.165, 0.830, 0.128, 0.044, 0.32168, 0.33767))
# Stored is a part of what is shown, and a part that is not.
box = lambda x0, y0, x1, y1: (numpy.array([x0, y0], "i4"), numpy.array([x1, y1], "i4"))
write("window.exr", {"RGB": rgb}, compression=OpenEXR.ZIP_COMPRESSION,
      dataWindow=box(-2, 1, 4, 5), displayWindow=box(0, 0, 9, 3))
