"""Nodes of the tests in Python: what goes wrong in them, and what they try in vain."""

import encodings.idna  # looked up by name when a host's name is resolved
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request

from kino import (
    Any, Frames, Instance, Int, KinoError, Node, Real, Tensor, Text, check_cancel, guider, node,
    read_file,
)
from wit_world.imports import host


@node("python.gain", version="1.0.0", like="frames")
def gain(frames: Frames, gain: Real(range=(0.0, 4.0)) = 1.5) -> Frames:
    """Multiplies every frame by a gain."""
    return frames.map(lambda chunk: (chunk * gain).clamp(0.0, 1.0))


@node("python.gain_by_loop", version="1.0.0", like="frames")
def gain_by_loop(frames: Frames, gain: Real(range=(0.0, 4.0)) = 1.5) -> Frames:
    """The same by a loop over samples, to measure what that costs."""

    def brighten(chunk):
        samples = chunk.array()
        for at, sample in enumerate(samples):
            samples[at] = min(sample * gain, 1.0)
        return Tensor.of(samples, chunk.shape)

    return frames.map(brighten)


@node("python.join", version="1.0.0")
def join(text: Text = "a") -> Text:
    """A text, to measure what a call costs."""
    return text + text


@node("python.join_state", version="1.0.0", outputs={"text": Text})
class JoinState:
    """The same with state: one instance for all runs of a node."""

    def run(self, text: Text = "a"):
        return text + text


@node("python.echo", version="1.0.0")
def echo(value: Any) -> Any:
    """Gives what it gets."""
    return value


@node("python.ints", version="1.0.0", outputs={"least": Int, "greatest": Int})
def ints():
    """Whole numbers at the ends of 128 bits."""
    return -(2**127), 2**127 - 1


@node("python.count", version="1.0.0", outputs={"runs": Int, "restored": Int})
class Count:
    """How often this instance ran, and the builds before it."""

    def __init__(self, restored=0):
        self.runs, self.restored = 0, restored

    @classmethod
    def restore(cls, saved):
        return cls(int(saved.decode()))

    def run(self, of: Any):
        self.runs += 1
        return self.runs, self.restored

    def save(self):
        return str(self.runs + self.restored).encode()


@guider("python.half", version="1.0.0")
def half(step, with_text, without_text, scale: Real = 1.0):
    """Half of each velocity."""
    return (with_text + without_text) * (0.5 * scale)


# What goes wrong


@node("python.host_error", version="1.0.0", outputs={"text": Text})
def host_error(which: Text(choices=["op", "file", "kind"]) = "op"):
    """An error of the host, which nobody handles."""
    if which == "op":
        return Tensor.of([1.0, 2.0]).op("sqare")
    if which == "file":
        return read_file("secrets.txt")
    return host.new_text("seven").as_f64()


@node("python.own_error", version="1.0.0", outputs={"text": Text})
def own_error():
    """An error of the plugin's own, which it does not expect."""
    frames = {}
    return frames["missing"]  # the line that errors name


@node("python.refuse", version="1.0.0", outputs={"text": Text})
def refuse():
    """An error for the user."""
    raise KinoError("the table has no row", "add one", "not-found")


@node("python.no_output", version="1.0.0", outputs={"a": Text, "b": Text})
def no_output():
    """Another number of outputs than promised."""
    return "a"


# What is tried in vain


def file():
    with open("/etc/passwd") as opened:
        return opened.read()


def write():
    with open("/tmp/escaped", "w") as opened:
        opened.write("out")


def loop():
    while True:
        pass


def recursion(depth=0):
    sys.setrecursionlimit(10**9)
    return recursion(depth + 1) + 1


def thread():
    started = threading.Thread(target=print)
    started.start()


def memory():
    kept = []
    while True:
        kept.append(bytearray(16 << 20))


def tensors():
    kept = []
    while True:
        kept.append(host.TensorBuilder.new("f32", [16 << 20]))


def dropped():
    for at in range(70_000):
        host.new_s64(at)
    return "all were given back"


def outputs():
    return host.new_list([("", host.new_s64(1))])


ABUSES = {
    "file": file,
    "write": write,
    "folder": lambda: str(os.listdir("/")),
    "environment": lambda: str(dict(os.environ)),
    "arguments": lambda: str(sys.argv[1:]),
    "stdin": lambda: sys.stdin.read(),
    "socket": lambda: socket.create_connection(("127.0.0.1", 80)),
    "dns": lambda: socket.getaddrinfo("example.org", 80),
    "http": lambda: urllib.request.urlopen("http://example.org"),
    "process": lambda: subprocess.run(["ls"], check=True),
    "system": lambda: os.system("ls"),
    "thread": thread,
    "exit": lambda: os._exit(3),
    "sys_exit": lambda: sys.exit(3),
    "loop": loop,
    "sleep": lambda: time.sleep(1e6),
    "recursion": recursion,
    "memory": memory,
    "tensors": tensors,
    "handles": lambda: len([host.new_s64(at) for at in range(70_000)]),
    "dropped": dropped,
    "clock": lambda: time.strftime("%Y-%m-%d", time.gmtime()),
    "random": lambda: f"{random.random()} {os.urandom(4).hex()}",
}


@node("python.abuse", version="1.0.0", outputs={"text": Text})
def abuse(what: Text(choices=list(ABUSES))):
    """What a plugin may not do, or does in vain."""
    return str(ABUSES[what]())


@node("python.cancelled", version="1.0.0", outputs={"text": Text})
def cancelled():
    """Works until it is cancelled."""
    while True:
        check_cancel()
