// NAME: nodes for Kinograph, in C++.

#include "kino.hpp"

static kino::Frames gain(const kino::Cx &cx, kino::Frames frames, double gain) {
  return frames.map_each(cx, [gain = float(gain)](float x) { return std::min(x * gain, 1.0f); });
}

KINO_PLUGIN(kino::node("NAME.gain", "0.1.0", "Multiplies every frame by a gain.", gain)
                .input("frames")
                .input("gain", R"("default": 1.5, "range": [0.0, 4.0])")
                .output("frames", R"("like": "frames")"))
