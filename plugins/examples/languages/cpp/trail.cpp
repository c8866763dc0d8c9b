// What moves leaves a trail: a node in C++ that goes over samples itself, and looks at the frame before.

#include "kino.hpp"

namespace {

// Each frame is the greater of itself and of the frame before with its trail, faded.
kino::Frames trail(const kino::Cx &cx, kino::Frames frames, double fade) {
  std::vector<float> before;  // the last frame of the chunk before
  return frames.map(cx, [&, fade = float(fade)](const kino::Tensor &chunk) {
    const auto shape = chunk.shape();
    const std::size_t size = std::size_t(shape[1] * shape[2] * shape[3]);
    kino::TensorBuilder<float> made(cx, shape, false);
    const float *from = chunk.data<float>();
    float *to = made.data();
    for (std::int64_t at = 0; at < shape[0]; at++, from += size, to += size) {
      if (before.size() != size) {
        before.assign(from, from + size);
      }
      for (std::size_t i = 0; i < size; i++) before[i] = to[i] = std::max(from[i], before[i] * fade);
    }
    return made.finish();
  });
}

// How much frames differ from the ones before them, each as its mean difference.
std::vector<double> motion(const kino::Cx &cx, kino::Frames frames) {
  std::vector<double> all;
  std::vector<float> before;
  const kino::Value chunks = frames.chunks();
  for (std::size_t index = 0; index < chunks.len(); index++) {
    cx.check_cancel();
    const kino::Tensor chunk = chunks.at(index);
    const auto shape = chunk.shape();
    const std::size_t size = std::size_t(shape[1] * shape[2] * shape[3]);
    const float *frame = chunk.data<float>();
    for (std::int64_t at = 0; at < shape[0]; at++, frame += size) {
      double sum = 0;
      for (std::size_t i = 0; before.size() == size && i < size; i++) sum += std::abs(double(frame[i]) - before[i]);
      all.push_back(size ? sum / double(size) : 0);
      before.assign(frame, frame + size);
    }
  }
  if (all.size() < 2) {
    throw kino::Error("one frame alone does not move", "give `motion.measure` two frames or more");
  }
  return all;
}

}  // namespace

KINO_PLUGIN(kino::node("motion.trail", "1.0.0", "What is bright and moves leaves a trail.", trail)
                .input("frames")
                .input("fade", R"("default": 0.8, "range": [0.0, 1.0], "about": "What is left after a frame.")")
                .output("frames", R"("like": "frames")"),
            kino::node("motion.measure", "1.0.0", "How much each frame differs from the one before it.", motion)
                .input("frames")
                .output("motion"))
