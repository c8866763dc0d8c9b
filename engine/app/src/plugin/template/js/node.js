// NAME: nodes for Kinograph, in JavaScript.

import { define } from "./kino.js";
export { node } from "./kino.js"; // what the engine calls

define({
  id: "NAME.gain",
  version: "0.1.0",
  about: "Multiplies every frame by a gain.",
  inputs: { frames: "Frames", gain: { type: "Real", default: 1.5, range: [0, 4] } },
  outputs: { frames: { type: "Frames", like: "frames" } },
  run: ({ frames, gain }) => ({ frames: frames.map((chunk) => chunk.mul(gain).clamp(0, 1)) }),
});
