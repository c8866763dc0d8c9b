"""Nodes of 2.0 in Python, without the layer: built against the world of then. Never change it."""

import json

from componentize_py_types import Err
from wit_world.imports import host
from wit_world.imports.types import Error, Failure_Failed


def port(name, type, **more):
    return {"name": name, "type": type, **more}


FRAMES, TEXT = port("frames", "Frames"), port("text", "Text")
NODES = {
    "old.gain": ([FRAMES, port("gain", "Real", default=1.5)], port("frames", "Frames", like="frames")),
    "old.join": ([TEXT], TEXT),
    "old.echo": ([port("value", "Any")], port("value", "Any")),
    "old.count": ([port("of", "Any")], port("restored", "Int")),
    "old.refuse": ([], TEXT),
}


class Node:
    def describe(self):
        return json.dumps({
            "nodes": [
                {"id": id, "version": "2.0", "state": id == "old.count", "inputs": inputs, "outputs": [output]}
                for id, (inputs, output) in NODES.items()
            ]
        })


def gain(frames, gain):
    chunks, fps = frames.field("chunks"), frames.field("fps")
    builder = host.FramesBuilder.new(None if fps is None else fps.as_f64())
    for index in range(chunks.len()):
        _, chunk = chunks.item(index)
        brighter = host.op("affine", [chunk], json.dumps({"mul": gain.as_f64(), "add": 0.0}))
        builder.push(host.op("clamp", [brighter], '{"min": 0.0, "max": 1.0}'))
    return host.FramesBuilder.finish(builder)


class Instance:
    @classmethod
    def open(cls, node, saved):
        self = cls()
        self.node, self.restored = node, int(saved.decode()) if saved else 0
        self.runs = self.restored
        return self

    def run(self, inputs):
        self.runs += 1
        if self.node == "old.gain":
            return [gain(*inputs)]
        if self.node == "old.join":
            text = inputs[0].as_text()
            return [host.new_text(text + text)]
        if self.node == "old.echo":
            return [inputs[0]]
        if self.node == "old.count":
            return [host.new_s64(self.restored)]
        raise Err(Failure_Failed(Error("the table has no row", "add one", "not-found")))

    def save(self):
        return str(self.runs).encode()
