"""A GGUF file with a tensor of every type that is read, and the numbers that they stand for, by the
public library itself.

    pip install gguf==0.19.0 numpy safetensors
    python make.py

Writes `types.gguf` and `values.safetensors`. Blocks of the types that the library does not quantise
to are random bytes with finite scales: every bit of a block counts. Of the matrix of Q8_0 there is
the product by activations that are rounded to eight bits, too (W8A8).
"""

import numpy
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, quants
from safetensors.numpy import save_file

SHAPE = (3, 512)
random = numpy.random.default_rng(7)

# Where the halves lie in a block that is made of random bytes.
HALVES = {Type.Q2_K: (80, 82), Type.Q3_K: (108,), Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,)}

writer = GGUFWriter("types.gguf", "pig")
writer.add_name("every type")
writer.add_array("tokenizer.ggml.tokens", ["▁a", "</s>", ""])
writer.add_array("tokenizer.ggml.scores", [0.5, -1.0, 2.0])
writer.add_array("lists", [[1, 2], [3, 4]])
writer.add_bool("yes", True)
writer.add_uint64("large", 1 << 60)
values = {}


def add(name, data, kind):
    writer.add_tensor(name, data, raw_dtype=kind)
    values[name] = numpy.ascontiguousarray(quants.dequantize(data, kind).astype(numpy.float32))


def blocks(kind):
    length, size = quants.GGML_QUANT_SIZES[kind]
    data = random.integers(0, 256, (SHAPE[0] * SHAPE[1] // length, size), dtype=numpy.uint8)
    for at in HALVES[kind]:
        scales = random.uniform(-0.02, 0.02, (len(data), 1)).astype(numpy.float16)
        data[:, at : at + 2] = scales.view(numpy.uint8)
    return data.reshape(SHAPE[0], -1)


numbers = random.normal(0, 0.3, SHAPE).astype(numpy.float32)
for kind in (Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0):
    add(f"{kind.name.lower()}.weight", quants.quantize(numbers, kind), kind)
for kind in HALVES:
    add(f"{kind.name.lower()}.weight", blocks(kind), kind)

# As ComfyUI-GGUF's tools write what has more than four dimensions: with five, or in another shape
# and with its own beside it.
five = random.normal(0, 0.3, (2, 3, 1, 2, 2)).astype(numpy.float32)
add("five.weight", five, Type.F32)
flat = random.normal(0, 0.3, (2, 32)).astype(numpy.float32)
add("flat.weight", quants.quantize(flat, Type.Q8_0), Type.Q8_0)
writer.add_array("comfy.gguf.orig_shape.flat.weight", [2, 8, 1, 2, 2])
values["flat.weight"] = values["flat.weight"].reshape(2, 8, 1, 2, 2)

# Activations: a row of zeros, one of blocks that differ in size, none of whose numbers lies in the
# middle between two that it may be rounded to.
x = random.normal(0, 1, (4, SHAPE[1])).astype(numpy.float32)
x[1] = 0
x[2] *= numpy.repeat(10.0 ** numpy.arange(-8, 8), 32)
largest = numpy.abs(x.reshape(4, -1, 32)).max(2, keepdims=True)
steps = x.reshape(4, -1, 32) * (127 / numpy.maximum(largest, numpy.float32(1e-30)))
assert numpy.abs(numpy.abs(steps) % 1 - 0.5).min() > 1e-5
# Sums of whole numbers of each block, times the scales of both blocks: [row, block] by [row, block].
weight = quants.quantize(numbers, Type.Q8_0).reshape(SHAPE[0], -1, 34)
of_weight = weight[..., :2].copy().view(numpy.float16)[..., 0].astype(numpy.float64)
sums = numpy.einsum("rbi,cbi->rcb", numpy.rint(steps).astype(numpy.int32), weight[..., 2:].view(numpy.int8).astype(numpy.int32))
product = numpy.einsum("rcb,rb,cb->rc", sums.astype(numpy.float64), largest[..., 0] / 127.0, of_weight)
exact = x.astype(numpy.float64) @ values["q8_0.weight"].T.astype(numpy.float64)
print("off by", numpy.linalg.norm(product - exact, axis=1) / numpy.maximum(numpy.linalg.norm(exact, axis=1), 1e-30))
values["q8_0.x"], values["q8_0.w8a8"] = x, product.astype(numpy.float32)

writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
save_file(values, "values.safetensors")
