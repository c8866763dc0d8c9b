"""Nodes for Kinograph in Python: functions and classes with an attribute.

A thin layer over `wit_world`, which componentize-py makes of kino-plugin.wit. Both may be used
side by side: `value` of a Tensor, Frames or Record is the handle that `wit_world` knows.

What is imported is imported when the component is built, at the top of a module: a component sees
no files. Large tensors are computed with by operations (`a * b`, `a.op("conv2d", w, padding=1)`),
which the engine runs where they lie; a loop over their elements in Python is about 50 times slower.
"""

import array
import gc
import inspect
import json
import sys
import traceback

from componentize_py_types import Err
from wit_world.imports import host
from wit_world.imports.types import Error, Failure_Cancelled, Failure_Failed

__all__ = [
    "Any", "Audio", "Bool", "Cancelled", "Conditioning", "Control", "Dit", "Frames", "Given",
    "ImageConditioning", "ImageEncoder", "Instance", "Int", "KinoError", "Latent", "List", "Mask",
    "Node", "Patches", "Path", "Port", "Real", "Record", "Sigmas", "Step", "Tensor", "Text",
    "TextEncoder", "Vae", "check_cancel", "guider", "has", "log", "node", "port_type", "progress",
    "read_file", "wants",
]


class KinoError(Exception):
    """An error for the user: what is wrong, and what can be done about it."""

    def __init__(self, message, hint="", code=""):
        super().__init__(message)
        self.message, self.hint, self.code = message, hint, code


class Cancelled(Exception):
    """The run was cancelled."""


def check_cancel():
    """Ends the node if the run was cancelled; to be called some times a second."""
    if host.cancelled():
        raise Cancelled


def progress(step, of):
    """Reports that `step` of `of` pieces of work are done."""
    host.progress(step, of)


def wants(output):
    """Whether anybody reads an output, by its index."""
    return host.wants(output)


def has(name):
    """Whether the host has something: `op.NAME`, `call.NAME`, `type.NAME`, `dtype.NAME`."""
    return host.has(name)


def log(message, level="info", target="plugin"):
    """Says something in the engine's log; `print` does so, too."""
    host.log(1 + ["error", "warn", "info", "debug", "trace"].index(level), target, str(message))


def read_file(path):
    """The bytes of a file that the user granted; its path is relative to the graph."""
    value = host.read_file(path)
    return value.read(0, value.size())


# Values

_CODES = {"u8": "B", "u32": "I", "i16": "h", "i32": "i", "i64": "q", "f32": "f", "f64": "d"}


class Tensor:
    """A tensor, or a record with a field `tensor`; it lies with the engine, and never changes."""

    def __init__(self, value):
        self.value = value

    @staticmethod
    def of(elements, shape=None, dtype="f32"):
        """A tensor of bytes (row-major, little-endian), an array, or nested lists of numbers."""
        if not isinstance(elements, (bytes, bytearray, memoryview, array.array)):
            flat, found = _flat(elements)
            shape = found if shape is None else shape
            elements = array.array(_code(dtype), flat)
        if shape is None:
            raise KinoError("Tensor.of takes the shape of bytes and arrays", "Tensor.of(x, [2, 3])")
        elements = bytes(elements) if isinstance(elements, (bytes, bytearray)) else elements.tobytes()
        return Tensor(host.new_tensor(dtype, list(shape), elements))

    @property
    def shape(self):
        return self.value.dims()

    @property
    def dtype(self):
        return self.value.dtype()

    @property
    def device(self):
        return self.value.device()

    def op(self, name, *others, **attributes):
        """An operation (OPERATIONS.md) on this tensor and others."""
        values = [self.value, *(_tensor(other, self).value for other in others)]
        return Tensor(host.op(name, values, json.dumps(attributes)))

    def bytes(self):
        """Its elements in row-major order, little-endian."""
        return self.value.read(0, self.value.size())

    def array(self):
        """Its elements as an array of numbers."""
        return array.array(_code(self.dtype), self.bytes())

    def tolist(self):
        """Its elements as nested lists, or a number where it has no dimension."""
        items, shape = self.array().tolist(), self.shape
        for size in reversed(shape[1:]):
            count = len(items) // size if size else 0
            items = [items[at * size:(at + 1) * size] for at in range(count)]
        return items if shape else items[0]

    def __add__(self, other):
        return self._join("add", other, lambda n: {"mul": 1.0, "add": n})

    def __sub__(self, other):
        return self._join("sub", other, lambda n: {"mul": 1.0, "add": -n})

    def __mul__(self, other):
        return self._join("mul", other, lambda n: {"mul": n, "add": 0.0})

    def __truediv__(self, other):
        return self.op("div", other)

    def __matmul__(self, other):
        return self.op("matmul", other)

    def __pow__(self, other):
        return self.op("pow", other)

    def __neg__(self):
        return self.op("neg")

    def __rsub__(self, other):
        return self.op("neg") + other

    def __rtruediv__(self, other):
        return _tensor(other, self).op("div", self)

    __radd__, __rmul__ = __add__, __mul__

    def _join(self, name, other, affine):
        if isinstance(other, (int, float)) and self.dtype in ("f32", "f64", "f16", "bf16"):
            return self.op("affine", **affine(float(other)))
        return self.op(name, other)

    def clamp(self, low=None, high=None):
        return self.op("clamp", min=low, max=high)

    def reshape(self, *shape):
        return self.op("reshape", shape=list(shape))

    def sum(self, *dims, keep=False):
        return self.op("sum", keep=keep, **({"dims": list(dims)} if dims else {}))

    def mean(self, *dims, keep=False):
        return self.op("mean", keep=keep, **({"dims": list(dims)} if dims else {}))

    def cast(self, dtype):
        return self.op("cast", dtype=dtype)

    def item(self):
        """The number of a tensor of one element."""
        [number] = self.array()
        return number


def _code(dtype):
    if dtype not in _CODES:
        raise KinoError(f"Python reads no elements of {dtype}", 'x.cast("f32") first')
    return _CODES[dtype]


def _flat(nested):
    if not isinstance(nested, (list, tuple)):
        return [nested], []
    flat, inner = [], []
    for item in nested:
        more, inner = _flat(item)
        flat.extend(more)
    return flat, [len(nested), *inner]


def _tensor(other, like):
    if isinstance(other, (int, float)):
        dtype = like.dtype
        made = Tensor.of([other], [1], dtype if dtype in _CODES else "f32")
        return made if dtype in _CODES else made.cast(dtype)
    return other if isinstance(other, Tensor) else Tensor(other)


class Frames:
    """Frames of a video, `[n, height, width, 3]` of f32 in 0…1, in chunks."""

    def __init__(self, value):
        self.value = value

    @staticmethod
    def of(chunks, fps=None):
        """Frames of tensors."""
        builder = host.FramesBuilder.new(fps)
        for chunk in chunks:
            builder.push(chunk.value)
        return Frames(host.FramesBuilder.finish(builder))

    @property
    def fps(self):
        """Frames a second; None where that is not known."""
        rate = self.value.field("fps")
        return None if rate is None else rate.as_f64()

    def chunks(self):
        """Tensors `[n, height, width, 3]`, one after another."""
        chunks = self.value.field("chunks")
        for index in range(chunks.len()):
            yield Tensor(chunks.item(index)[1])

    def map(self, change):
        """Frames of what a function makes of each chunk; reports progress, ends when cancelled."""
        builder = host.FramesBuilder.new(self.fps)
        chunks = self.value.field("chunks")
        count = chunks.len()
        for index in range(count):
            check_cancel()
            builder.push(change(Tensor(chunks.item(index)[1])).value)
            progress(index + 1, count)
        return Frames(host.FramesBuilder.finish(builder))


class Record:
    """A value with named fields: of a standard type, or of a plugin's own."""

    def __init__(self, value):
        self.value = value

    @staticmethod
    def of(type_name, **fields):
        """A record; fields that are None are left out."""
        made = [(name, _value(field)) for name, field in fields.items() if field is not None]
        return Record(host.new_record(type_name, made))

    @property
    def type_name(self):
        return self.value.type_name()

    def __getitem__(self, name):
        found = self.get(name)
        if found is None:
            raise KinoError(f"`{self.type_name}` has no field `{name}`: it has {', '.join(self)}")
        return found

    def get(self, name):
        """A field; None where there is none."""
        found = self.value.field(name)
        return None if found is None else _any(found)

    def __iter__(self):
        return (self.value.item(index)[0] for index in range(self.value.len()))


def _any(value):
    """A value as Python has it, by its kind."""
    kind = value.kind()
    if kind == "text":
        return value.as_text()
    if kind == "bool":
        return value.as_bool()
    if kind == "int":
        return _int(value)
    if kind == "real":
        return value.as_f64()
    if kind == "bytes":
        return value.read(0, value.size())
    if kind == "list":
        return [_any(value.item(index)[1]) for index in range(value.len())]
    if kind == "tensor":
        return Tensor(value)
    if kind == "record":
        return Frames(value) if value.type_name() == "Frames" else Record(value)
    return value


def _int(value):
    low, high = value.as_wide()
    return (high << 64) + low


def _value(made):
    """What Python has as a value."""
    if isinstance(made, (Tensor, Frames, Record)):
        return made.value
    if isinstance(made, bool):
        return host.new_bool(made)
    if isinstance(made, int):
        return host.new_wide(made & 0xFFFF_FFFF_FFFF_FFFF, made >> 64)
    if isinstance(made, float):
        return host.new_f64(made)
    if isinstance(made, str):
        return host.new_text(made)
    if isinstance(made, (bytes, bytearray)):
        return host.new_bytes(bytes(made))
    if isinstance(made, (list, tuple)):
        return host.new_list([("", _value(item)) for item in made])
    if isinstance(made, dict):
        return host.new_list([(name, _value(item)) for name, item in made.items()])
    if isinstance(made, host.Value):
        return made
    raise KinoError(f"a node gives numbers, texts, lists, Tensor, Frames, Record; found {made!r}")


# Ports

class Port:
    """The type of an input or output, with the keys of DESCRIPTOR.md (`range`, `choices`, …)."""

    def __init__(self, type, convert=None, **keys):
        self.type, self.convert, self.keys = type, convert or _any, keys

    def __call__(self, **keys):
        """The same type with more keys: `Real(range=(0.0, 1.0))`."""
        return Port(self.type, self.convert, **{**self.keys, **keys})

    def describe(self, name, **more):
        return {"name": name, "type": self.type, **self.keys, **more}

    def read(self, value):
        if value is None:
            return None
        if self.keys.get("arity") in ("list", "optional_list"):
            return [self.convert(value.item(index)[1]) for index in range(value.len())]
        return self.convert(value)


Text = Port("Text", lambda value: value.as_text())
Path = Port("Path", lambda value: value.as_text())
Int = Port("Int", _int)
Real = Port("Real", lambda value: value.as_f64())
Bool = Port("Bool", lambda value: value.as_bool())
Mask, Latent, ImageConditioning = (
    Port(name, Tensor) for name in ("Mask", "Latent", "ImageConditioning")
)
Any, Audio, Conditioning, Control, Dit, Given, ImageEncoder, Patches, Sigmas, TextEncoder, Vae = (
    Port(name)
    for name in (
        "Any", "Audio", "Conditioning", "Control", "Dit", "Given", "ImageEncoder", "Patches",
        "Sigmas", "TextEncoder", "Vae",
    )
)
_PLAIN = {
    str: Text, int: Int, float: Real, bool: Bool,
    Tensor: Port("Tensor", Tensor), Frames: Port("Frames", Frames),
}


def List(of):
    """The type of a value that is a list of values of a type."""
    of = _port(of, "List")
    return Port(f"List({of.type})")


def _port(annotation, what):
    if isinstance(annotation, str):
        return Port(annotation)
    port = annotation if isinstance(annotation, Port) else _PLAIN.get(annotation)
    if port is None:
        raise TypeError(f"{what} needs a type, such as Frames or Real(range=(0.0, 1.0))")
    return port


# Nodes

_NODES, _TYPES = {}, []


def _add(defined):
    """Adds a node. What there is by then is left out of garbage collection from here on: it is frozen
    into the component, and whoever looks through it in a fresh instance copies its memory."""
    _NODES[defined.id] = defined
    gc.collect()
    gc.freeze()


class Step:
    """A step of a sampling run: `index` of `count`, and its noise level."""

    def __init__(self, index, count, sigma):
        self.index, self.count, self.sigma = index, count, sigma


class _Def:
    def __init__(self, made, id, version, outputs, flags):
        self.made, self.id, self.is_class = made, id, inspect.isclass(made)
        function = made.run if self.is_class else made
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
        self.inputs, ports = [], []
        for parameter in parameters[1:] if self.is_class else parameters:
            name = parameter.name
            if flags.get("guider") and name in ("step", "with_text", "without_text"):
                continue
            port = _port(parameter.annotation, f"`{name}` of `{id}`")
            default = parameter.default
            if default is None:
                port = port(arity={"list": "optional_list"}.get(port.keys.get("arity"), "optional"))
            elif default is not inspect.Parameter.empty:
                port = port(default=default)
            self.inputs.append(port)
            ports.append(port.describe(name))
        self.guider = flags.get("guider", False)
        if self.guider:
            guided = {"step": Int, "of": Int, "sigma": Real}
            self.inputs = [*guided.values(), _PLAIN[Tensor], _PLAIN[Tensor], *self.inputs]
        self.descriptor = {
            "id": id, "version": version, "about": inspect.getdoc(made) or "",
            "inputs": ports, "outputs": outputs, "state": self.is_class and not self.guider, **flags,
        }


def _outputs(function, outputs, like):
    if outputs is None:
        port = _port(inspect.signature(function, eval_str=True).return_annotation, "what it returns")
        outputs = {port.type.lower(): port}
    more = {"like": like} if like else {}
    return [_port(port, name).describe(name, **more) for name, port in outputs.items()]


def node(id, version, outputs=None, like=None, **flags):
    """Makes a node of a function, or of a class with `run`, and with `save` if it has state.

    Parameters are inputs: `frames: Frames, gain: Real(range=(0.0, 4.0)) = 1.5`; None as the default
    makes one optional. What is returned is the output, or `outputs={"a": Frames, "b": Real}` and a
    tuple. `like="frames"` says that outputs have the size and rate of that input, `same_size=["a", "b"]`
    and `same_count=["a", "b"]` that inputs must agree in size or number of frames. An instance of a
    class is made by `Class()`, or by `Class.restore(saved)` with what `save` of an older build gave.
    """

    def wrap(made):
        function = made.run if inspect.isclass(made) else made
        _add(_Def(made, id, version, _outputs(function, outputs, like), flags))
        return made

    return wrap


def guider(id, version):
    """Makes a guider of a function or a class with `run`: `(step, with_text, without_text, …)` to
    the velocity to follow. Further parameters are its inputs, a class is made for every run."""

    def wrap(made):
        port = Port("Guider").describe("guider")
        _add(_Def(made, id, version, [port], {"guider": True}))
        return made

    return wrap


def port_type(name, about="", **fields):
    """A type of the plugin's own, by its fields; it is made by `Record.of(name, …)`."""
    described = [_port(port, field).describe(field) for field, port in fields.items()]
    _TYPES.append({"name": name, "about": about, "fields": described})
    return Port(name)


# What the engine calls

def _failed(message, hint="", code=""):
    return Err(Failure_Failed(Error(message, hint, code)))


def _guarded(function, *arguments):
    """Ends as a failure whatever is raised. Failures of host functions pass as they are."""
    try:
        return function(*arguments)
    except Err:
        raise
    except Cancelled:
        raise Err(Failure_Cancelled()) from None
    except KinoError as error:
        raise _failed(error.message, error.hint, error.code) from None
    except Exception as error:
        print(traceback.format_exc(), file=sys.stderr)
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.endswith("kino.py")] or frames
        where = f"{own[-1].filename.rpartition('/')[2]}, line {own[-1].lineno}, in {own[-1].name}"
        said = str(error)
        what = type(error).__name__ + (f": {said}" if said else "")
        raise _failed(f"{what} ({where})", "this is a bug of the plugin, or an input that it does "
                      "not expect; the log has the whole traceback") from None


class Node:
    """What componentize-py looks for: the nodes of the plugin."""

    def describe(self):
        nodes = [each.descriptor for each in _NODES.values()]
        return json.dumps({"nodes": nodes, "types": _TYPES})


class Instance:
    """What componentize-py looks for: an instance of a node."""

    @classmethod
    def open(cls, node, saved):
        return _guarded(cls._open, node, saved)

    @classmethod
    def _open(cls, node, saved):
        self = cls()
        self.node = _NODES.get(node)
        if self.node is None:
            raise KinoError(f"this build has no node `{node}`")
        made = self.node.made
        if not self.node.is_class:
            self.own = None
        elif saved is not None and hasattr(made, "restore"):
            self.own = made.restore(saved)
        else:
            self.own = made()
        return self

    def run(self, inputs):
        return _guarded(self._run, inputs)

    def _run(self, inputs):
        node = self.node
        values = [port.read(value) for port, value in zip(node.inputs, inputs)]
        if node.guider:
            values = [Step(*values[:3]), *values[3:]]
        given = self.own.run(*values) if node.is_class else node.made(*values)
        outputs = node.descriptor["outputs"]
        given = given if len(outputs) > 1 else (given,)
        if not isinstance(given, tuple) or len(given) != len(outputs):
            names = ", ".join(output["name"] for output in outputs)
            raise KinoError(f"`{node.id}` gives a tuple of {names}, found {given!r}")
        return [None if one is None else _value(one) for one in given]

    def save(self):
        return _guarded(lambda: self.own.save() if hasattr(self.own, "save") else None)
