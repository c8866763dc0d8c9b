// Nodes of the tests in JavaScript: what goes wrong in them, and what they try in vain.

import { KinoError, Tensor, checkCancel, define, host, readFile } from "./kino.js";
export { node } from "./kino.js";

const version = "1.0.0";
const frames = { type: "Frames", like: "frames" };
const gain = { type: "Real", default: 1.5, range: [0, 4] };

define({
  id: "js.gain",
  version,
  about: "Multiplies every frame by a gain.",
  inputs: { frames: "Frames", gain },
  outputs: { frames },
  run: (given) => ({ frames: given.frames.map((chunk) => chunk.mul(given.gain).clamp(0, 1)) }),
});

define({
  id: "js.gain_by_loop",
  version,
  about: "The same by a loop over samples, to measure what that costs.",
  inputs: { frames: "Frames", gain },
  outputs: { frames },
  run: (given) => ({
    frames: given.frames.map((chunk) => {
      const samples = chunk.array();
      for (let at = 0; at < samples.length; at += 1) samples[at] = Math.min(samples[at] * given.gain, 1);
      return Tensor.of(samples, chunk.shape);
    }),
  }),
});

define({
  id: "js.join",
  version,
  about: "A text, to measure what a call costs.",
  inputs: { text: { type: "Text", default: "a" } },
  outputs: { text: "Text" },
  run: ({ text }) => ({ text: text + text }),
});

define({
  id: "js.join_state",
  version,
  about: "The same with state: one instance for all runs of a node.",
  inputs: { text: { type: "Text", default: "a" } },
  outputs: { text: "Text" },
  open: () => ({}),
  run: ({ text }) => ({ text: text + text }),
});

define({
  id: "js.echo",
  version,
  about: "Gives what it gets.",
  inputs: { value: "Any" },
  outputs: { any: "Any" },
  run: ({ value }) => ({ any: value }),
});

define({
  id: "js.ints",
  version,
  about: "Whole numbers that are exact in JavaScript.",
  outputs: { least: "Int", greatest: "Int" },
  run: () => ({ least: Number.MIN_SAFE_INTEGER, greatest: Number.MAX_SAFE_INTEGER }),
});

define({
  id: "js.count",
  version,
  about: "How often this instance ran, and the builds before it.",
  inputs: { of: "Any" },
  outputs: { runs: "Int", restored: "Int" },
  open: (saved) => ({ runs: 0, restored: saved ? Number(String.fromCharCode(...saved)) : 0 }),
  run(_, state) {
    state.runs += 1;
    return { runs: state.runs, restored: state.restored };
  },
  save: (state) => Uint8Array.from(String(state.runs + state.restored), (c) => c.charCodeAt(0)),
});

define({
  id: "js.half",
  version,
  about: "Half of each velocity.",
  inputs: { scale: { type: "Real", default: 1 } },
  guider: true,
  run: (given) => given.with_text.add(given.without_text).mul(0.5 * given.scale),
});

// What goes wrong

define({
  id: "js.host_error",
  version,
  about: "An error of the host, which nobody handles.",
  inputs: { which: { type: "Text", default: "op", choices: ["op", "file", "kind"] } },
  outputs: { text: "Text" },
  run({ which }) {
    if (which === "op") return Tensor.of([1, 2], [2]).op("sqare");
    if (which === "file") return readFile("secrets.txt");
    return host.newText("seven").asF64();
  },
});

define({
  id: "js.own_error",
  version,
  about: "An error of the plugin's own, which it does not expect.",
  outputs: { text: "Text" },
  run() {
    const frames = undefined;
    return frames.missing; // the line that errors name
  },
});

define({
  id: "js.refuse",
  version,
  about: "An error for the user.",
  outputs: { text: "Text" },
  run() {
    throw new KinoError("the table has no row", "add one", "not-found");
  },
});

// What is tried in vain

function recursion(depth) {
  return recursion(depth + 1) + 1;
}

const ABUSES = {
  file: () => import("node:fs"),
  http: () => fetch("http://example.org"),
  process: () => process.env,
  exit: () => quit(3),
  loop() {
    for (;;);
  },
  recursion: () => recursion(0),
  memory() {
    const kept = [];
    for (;;) kept.push(new Uint8Array(16 << 20));
  },
  tensors() {
    const kept = [];
    for (;;) kept.push(host.TensorBuilder.new("f32", [16 << 20]));
  },
  handles() {
    for (let at = 0; at < 70000; at += 1) Tensor.of([1], [1]);
  },
  dropped() {
    for (let at = 0; at < 70000; at += 1) host.newBool(true)[Symbol.dispose]();
    return "all were given back";
  },
  clock: () => new Date().toISOString().slice(0, 10),
  random: () => String(Math.random()),
};

define({
  id: "js.abuse",
  version,
  about: "What a plugin may not do, or does in vain.",
  inputs: { what: { type: "Text", choices: Object.keys(ABUSES) } },
  outputs: { text: "Text" },
  run: ({ what }) => ({ text: String(ABUSES[what]()) }),
});

define({
  id: "js.cancelled",
  version,
  about: "Works until it is cancelled.",
  outputs: { text: "Text" },
  run() {
    for (;;) checkCancel();
  },
});
