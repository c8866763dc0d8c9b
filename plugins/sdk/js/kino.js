// Nodes for Kinograph in JavaScript: plain objects with a function.
//
// A thin layer over `kino:plugin/host`, for both tools that make components of JavaScript:
// componentize-qjs (QuickJS, small) and componentize-js (StarlingMonkey). `value` of a Tensor, Frames
// or Rec is the handle that the host knows.
//
// Large tensors are computed with by operations (`a.mul(b)`, `a.op("conv2d", [w], { padding: 1 })`),
// which the engine runs where they lie; a loop over their elements here is about 50 times slower.
// Handles are given back when a call ends, and after each chunk of `frames.map`: `tidy` does so earlier.

import * as imported from "kino:plugin/host@2.0.0";

export const host = imported.default ?? imported;

/** An error for the user: what is wrong, and what can be done about it. */
export class KinoError extends Error {
  constructor(message, hint = "", code = "") {
    super(message);
    Object.assign(this, { hint, code });
  }
}

/** Ends a node that was cancelled. */
class Cancelled extends Error {}

// QuickJS has 64-bit numbers as Number (exact to 2^53), StarlingMonkey as BigInt.
const wide = typeof globalThis.wit === "undefined" ? BigInt : Number;

// The handles that were made since a call, or the innermost `tidy`, began.
let made = [];

function track(value) {
  made.push(value);
  return value;
}

function release(values, kept) {
  for (const value of values) {
    if (!kept.includes(value)) value[Symbol.dispose]();
  }
}

/** Gives back every handle that a function made, but for those of what it returns. */
export function tidy(compute) {
  const before = made;
  made = [];
  let kept = [];
  try {
    const result = compute();
    kept = [result].flat().map((each) => each?.value).filter((value) => value !== undefined);
    return result;
  } finally {
    release(made, kept);
    before.push(...made.filter((value) => kept.includes(value)));
    made = before;
  }
}

/** Ends the node if the run was cancelled; to be called some times a second. */
export function checkCancel() {
  if (host.cancelled()) throw new Cancelled();
}

/** Reports that `step` of `of` pieces of work are done. */
export const progress = (step, of) => host.progress(step, of);

/** Whether the host has something: `op.NAME`, `call.NAME`, `type.NAME`, `dtype.NAME`. */
export const has = (name) => host.has(name);

/** The bytes of a file that the user granted; its path is relative to the graph. */
export const readFile = (path) => bytes(track(host.readFile(path)));

function bytes(value) {
  const read = value.read(wide(0), Number(value.size()));
  return read instanceof Uint8Array ? read : new Uint8Array(read);
}

const ARRAYS = {
  u8: Uint8Array, u32: Uint32Array, i16: Int16Array, i32: Int32Array, i64: BigInt64Array,
  f32: Float32Array, f64: Float64Array,
};

function arrayOf(dtype) {
  if (!(dtype in ARRAYS)) {
    throw new KinoError(`JavaScript reads no elements of ${dtype}`, 'x.op("cast", [], { dtype: "f32" }) first');
  }
  return ARRAYS[dtype];
}

/** A tensor, or a record with a field `tensor`; it lies with the engine, and never changes. */
export class Tensor {
  constructor(value) {
    this.value = value;
  }

  /** A tensor of numbers or of a typed array, in row-major order. */
  static of(elements, shape, dtype = "f32") {
    const array = ArrayBuffer.isView(elements) ? elements : arrayOf(dtype).from(elements);
    const raw = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    return new Tensor(track(host.newTensor(dtype, shape.map(wide), raw)));
  }

  get shape() {
    return Array.from(this.value.dims(), Number);
  }

  get dtype() {
    return this.value.dtype();
  }

  /** An operation (OPERATIONS.md) on this tensor and others. */
  op(name, others = [], attributes = {}) {
    const values = [this, ...others].map((each) => each.value);
    return new Tensor(track(host.op(name, values, JSON.stringify(attributes))));
  }

  /** Its elements as a typed array. */
  array() {
    const read = bytes(this.value);
    return new (arrayOf(this.dtype))(read.buffer, read.byteOffset, read.byteLength / arrayOf(this.dtype).BYTES_PER_ELEMENT);
  }

  /** The number of a tensor of one element. */
  item() {
    return this.array()[0];
  }

  join(name, other) {
    return this.op(name, [typeof other === "number" ? Tensor.of([other], [1], this.dtype) : other]);
  }

  mul(other) {
    return typeof other === "number" ? this.op("affine", [], { mul: other, add: 0 }) : this.join("mul", other);
  }

  add(other) {
    return typeof other === "number" ? this.op("affine", [], { mul: 1, add: other }) : this.join("add", other);
  }

  sub(other) {
    return typeof other === "number" ? this.add(-other) : this.join("sub", other);
  }

  div(other) {
    return this.join("div", other);
  }

  matmul(other) {
    return this.join("matmul", other);
  }

  clamp(min = null, max = null) {
    return this.op("clamp", [], { min, max });
  }

  reshape(...shape) {
    return this.op("reshape", [], { shape });
  }

  sum(dims, keep = false) {
    return this.op("sum", [], dims ? { dims, keep } : { keep });
  }

  mean(dims, keep = false) {
    return this.op("mean", [], dims ? { dims, keep } : { keep });
  }
}

/** Frames of a video, `[n, height, width, 3]` of f32 in 0…1, in chunks. */
export class Frames {
  constructor(value) {
    this.value = value;
  }

  /** Frames a second; undefined where that is not known. */
  get fps() {
    const rate = this.value.field("fps");
    return rate ? track(rate).asF64() : undefined;
  }

  /** Tensors `[n, height, width, 3]`, one after another. */
  *chunks() {
    const chunks = track(this.value.field("chunks"));
    for (let at = 0, count = chunks.len(); at < count; at += 1) yield new Tensor(track(chunks.item(at)[1]));
  }

  /** Frames of what a function makes of each chunk; reports progress, ends when cancelled. */
  map(change) {
    const builder = host.FramesBuilder.new(this.fps);
    const chunks = track(this.value.field("chunks"));
    const count = chunks.len();
    for (let at = 0; at < count; at += 1) {
      checkCancel();
      tidy(() => {
        builder.push(change(new Tensor(track(chunks.item(at)[1]))).value);
      });
      progress(at + 1, count);
    }
    return new Frames(track(host.FramesBuilder.finish(builder)));
  }
}

/** A value with named fields: of a standard type, or of a plugin's own. */
export class Rec {
  constructor(value) {
    this.value = value;
  }

  /** A record of a type; fields that are undefined or null are left out. */
  static of(typeName, fields) {
    const given = Object.entries(fields).filter(([, field]) => field !== undefined && field !== null);
    const values = given.map(([name, field]) => [name, toValue(field)]);
    return new Rec(track(host.newRecord(typeName, values)));
  }

  /** A field; undefined where there is none. */
  get(name) {
    const found = this.value.field(name);
    return found ? fromKind(track(found)) : undefined;
  }
}

function int(value) {
  const number = value.asS64();
  const asNumber = Number(number);
  return Number.isSafeInteger(asNumber) ? asNumber : number;
}

/** A value as JavaScript has it, by its kind. */
function fromKind(value) {
  const read = {
    text: () => value.asText(),
    bool: () => value.asBool(),
    int: () => int(value),
    real: () => value.asF64(),
    bytes: () => bytes(value),
    list: () => items(value).map(fromKind),
    tensor: () => new Tensor(value),
    record: () => (value.typeName() === "Frames" ? new Frames(value) : new Rec(value)),
  }[value.kind()];
  return read ? read() : value;
}

const items = (value) => Array.from({ length: value.len() }, (_, at) => track(value.item(at)[1]));

const TENSORS = ["Tensor", "Mask", "Latent", "ImageConditioning"];

/** An input as JavaScript has it, by its port. */
function fromPort(port, value) {
  if (value === undefined || value === null) return undefined;
  if (port.arity?.includes("list")) return items(value).map((each) => fromPort({ type: port.type }, each));
  if (port.type === "Real") return value.asF64();
  return TENSORS.includes(port.type) ? new Tensor(value) : fromKind(value);
}

/** What JavaScript has as a value; numbers are real unless the port says Int. */
function toValue(given, type = "Real") {
  if (given?.value !== undefined) return given.value;
  if (typeof given === "string") return track(host.newText(given));
  if (typeof given === "boolean") return track(host.newBool(given));
  if (typeof given === "bigint") return track(host.newS64(wide(given)));
  if (typeof given === "number") {
    return track(type === "Int" ? host.newS64(wide(Math.trunc(given))) : host.newF64(given));
  }
  if (given instanceof Uint8Array) return track(host.newBytes(given));
  if (Array.isArray(given)) return track(host.newList(given.map((each) => ["", toValue(each, type)])));
  if (given && typeof given.typeName === "function") return given;
  throw new KinoError(`a node gives numbers, texts, lists, Tensor, Frames, Rec; found ${typeof given}`);
}

const nodes = new Map();
const types = [];

const ports = (written) =>
  Object.entries(written).map(([name, port]) => ({ name, ...(typeof port === "string" ? { type: port } : port) }));

/**
 * Defines a node: `id`, `version`, `about`, `inputs` and `outputs` (names to types, or to the keys of
 * DESCRIPTOR.md), and `run(inputs, state)`, which gives the outputs by their names. A node with state
 * has `open(saved)`, which makes it, and may have `save(state)`, which gives bytes. Other keys stand in
 * the descriptor as they are (`heavy`, `guider`, …).
 */
export function define({ run, open, save, inputs = {}, outputs = {}, ...rest }) {
  const described = { state: Boolean(open) && !rest.guider, ...rest, inputs: ports(inputs), outputs: ports(outputs) };
  let given = described.inputs;
  if (rest.guider) {
    const guided = { step: "Int", of: "Int", sigma: "Real", with_text: "Tensor", without_text: "Tensor" };
    described.outputs = [{ name: "guider", type: "Guider" }];
    given = [...ports(guided), ...given];
  }
  nodes.set(rest.id, { described, given, run, open, save });
}

/** Defines a type of the plugin's own by its fields; it is made by `Rec.of(name, …)`. */
export function defineType(name, fields, about = "") {
  types.push({ name, about, fields: ports(fields) });
}

/** Ends as a failure whatever is thrown. Failures of host functions pass as they are. */
function guarded(compute) {
  const outer = made;
  made = [];
  let kept = [];
  try {
    const result = compute();
    kept = Array.isArray(result) ? result : [];
    return result;
  } catch (thrown) {
    const failure = thrown?.payload ?? thrown;
    if (failure?.tag === "failed" || failure?.tag === "cancelled") throw failure;
    if (thrown instanceof Cancelled) throw { tag: "cancelled" };
    const fail = (message, hint = "", code = "") => ({ tag: "failed", val: { message, hint, code } });
    if (thrown instanceof KinoError) throw fail(thrown.message, thrown.hint, thrown.code);
    const stack = String(thrown?.stack ?? "");
    const own = stack.split("\n").filter((line) => /:\d+/.test(line) && !line.includes("kino.js"));
    const where = own.length ? ` (${own[0].trim()})` : "";
    host.log(1, "javascript", `${thrown}\n${stack}`);
    throw fail(
      `${thrown}${where}`,
      "this is a bug of the plugin, or an input that it does not expect; the log has the whole stack",
    );
  } finally {
    release(made, kept);
    made = outer;
  }
}

class Instance {
  static open(id, saved) {
    return guarded(() => {
      const instance = new Instance();
      instance.node = nodes.get(id);
      if (!instance.node) throw new KinoError(`this build has no node \`${id}\``);
      instance.state = instance.node.open?.(saved ?? undefined);
      return instance;
    });
  }

  run(values) {
    return guarded(() => {
      const { described, given, run } = this.node;
      values.forEach((value) => value && track(value));
      const inputs = Object.fromEntries(given.map((port, at) => [port.name, fromPort(port, values[at])]));
      const outputs = run(inputs, this.state);
      if (described.guider) return [toValue(outputs)];
      return described.outputs.map(({ name, type }) => {
        const output = outputs?.[name];
        return output === undefined || output === null ? undefined : toValue(output, type);
      });
    });
  }

  save() {
    return guarded(() => this.node.save?.(this.state));
  }
}

/** What the engine calls. */
export const node = {
  describe: () => JSON.stringify({ nodes: [...nodes.values()].map((each) => each.described), types }),
  Instance,
};
