"""The other side of the bench: diffusers and transformers on torch, driven line by line.

    python peer.py serve                     reads a JSON object a line, answers each with one
    python peer.py clip MODEL UPSCALER NOISE OUT THREADS   the whole embedded pipeline, to PNG files

Both sides compute with weights that `make` writes, on inputs that `make_input` writes. Nothing is
timed here: whoever gives the commands does that, for both sides in the same way.
"""

import gc
import json
import math
import os
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
WAN = dict(
    patch_size=[1, 2, 2],
    num_attention_heads=12,
    attention_head_dim=128,
    in_channels=16,
    out_channels=16,
    text_dim=4096,
    freq_dim=256,
    ffn_dim=8960,
    cross_attn_norm=True,
    eps=1e-6,
    qk_norm="rms_norm_across_heads",
)
VAE = dict(
    base_dim=96,
    z_dim=16,
    dim_mult=[1, 2, 4, 4],
    num_res_blocks=2,
    attn_scales=[],
    temperal_downsample=[False, True, True],
    latents_mean=[0.0] * 16,
    latents_std=[1.0] * 16,
)
UMT5 = dict(
    vocab_size=4096,
    d_model=4096,
    d_kv=64,
    d_ff=10240,
    num_heads=64,
    num_decoder_layers=0,
    feed_forward_proj="gated-gelu",
    dropout_rate=0.0,
    is_encoder_decoder=False,
    use_cache=False,
)
PROMPT = "a red circle moves right on a white background"
STEPS, GUIDANCE, SHIFT, TEXT_LEN = 20, 4.0, 3.0, 48


# Weights and inputs.


def empty(kind, layers):
    """A network of published widths without memory for its weights."""
    with torch.device("meta"):
        if kind == "transformer":
            from diffusers import WanTransformer3DModel

            return WanTransformer3DModel(**WAN, num_layers=layers)
        if kind == "vae":
            from diffusers import AutoencoderKLWan

            return AutoencoderKLWan(**VAE)
        from transformers import UMT5Config, UMT5EncoderModel

        return UMT5EncoderModel(UMT5Config(**UMT5, num_layers=layers))


def fill(state):
    """Random numbers of sizes that keep activations near 1, cut out of one long row of them."""
    generator = torch.Generator().manual_seed(7)
    noise, at = torch.randn((1 << 22) + 37, generator=generator), 0
    for name, parameter in state.items():
        shape, count = parameter.shape, parameter.numel()
        pieces, missing = [], count
        while missing:
            take = min(missing, len(noise) - at)
            pieces.append(noise[at : at + take])
            missing, at = missing - take, (at + take) % len(noise)
        x = torch.cat(pieces).view(shape)
        if "norm" in name and name.endswith("weight") or name.endswith("gamma"):
            yield name, 1 + 0.1 * x
        elif name.endswith("bias"):
            yield name, 0.1 * x
        elif name == "shared.weight":
            yield name, x
        elif "relative_attention_bias" in name:
            yield name, 0.5 * x
        elif name.endswith("SelfAttention.q.weight"):  # scores are not divided by √d there
            yield name, x / math.sqrt(shape[-1] * UMT5["d_kv"])
        elif "scale_shift_table" in name:
            yield name, x / math.sqrt(shape[-1])
        else:
            yield name, x / math.sqrt(math.prod(shape[1:]))


def narrow(name, parameter):
    """Whether the narrow forms hold this weight narrowly: the matrices of blocks."""
    return name.startswith("blocks.") and parameter.dim() == 2 and name.endswith(".weight")


# Random blocks of ggml: where a block has its scales, and what makes its numbers as large as 1. Of
# Q4_K numbers are d·s·q − m·t with s, t of 6 bits and q of 4; of Q8_0 they are d·q with q of 8 bits.
SCALES = {"q8_0": {0: 1 / 74}, "q4_k": {0: 1 / 180, 2: 7.5 / 180}}


def blocks_of(shape, form, random):
    """A matrix of random blocks, as bytes; as good as a quantised one, and there is no quantiser
    of Q4_K in Python."""
    import numpy
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    rows, columns = shape
    length, size = GGML_QUANT_SIZES[GGMLQuantizationType[form.upper()]]
    blocks = random.integers(0, 256, (rows * columns // length, size), dtype=numpy.uint8)
    for place, scale in SCALES[form].items():
        of_block = scale / math.sqrt(columns) * random.uniform(0.8, 1.2, len(blocks))
        halves = of_block.astype(numpy.float16).view(numpy.uint8).reshape(-1, 2)
        blocks[:, place : place + 2] = halves
    return blocks.reshape(rows, -1)


def write_gguf(path, shapes, form, rename=lambda name: name):
    """Writes random tensors of these shapes, the matrices of blocks as ggml's blocks."""
    import numpy
    from gguf import GGMLQuantizationType, GGUFWriter

    random = numpy.random.default_rng(7)
    writer = GGUFWriter(path, "wan")
    kinds = {True: GGMLQuantizationType[form.upper()], False: GGMLQuantizationType.F32}
    plain = dict(fill({n: x for n, x in shapes.items() if not narrow(n, x)}))
    for name, tensor in shapes.items():
        if narrow(name, tensor):
            numbers = blocks_of(tensor.shape, form, random)
        else:
            numbers = plain[name].to(torch.bfloat16).float().numpy()
        if numbers.ndim > 4:  # ggml has four dimensions; ComfyUI-GGUF writes beside it what it was
            key = f"comfy.gguf.orig_shape.{rename(name)}"
            writer.add_array(key, [int(size) for size in numbers.shape])
            numbers = numbers.reshape(-1, *numbers.shape[2:])
        writer.add_tensor(rename(name), numbers, raw_dtype=kinds[narrow(name, tensor)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def stood_for(path, shapes):
    """The tensors that a GGUF file stands for."""
    import numpy
    from gguf import GGUFReader, quants

    for tensor in GGUFReader(path).tensors:
        numbers = quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        shape = shapes[tensor.name].shape
        yield tensor.name, torch.from_numpy(numbers).to(torch.bfloat16).reshape(shape)


FILES = {
    "transformer": ("transformer", "diffusion_pytorch_model.safetensors"),
    "vae": ("vae", "diffusion_pytorch_model.safetensors"),
    "text": ("text_encoder", "model.safetensors"),
}


def make(command):
    """Writes a model of random weights in the diffusers layout."""
    kind, form, folder = command["kind"], command["form"], command["folder"]
    part, file = FILES[kind]
    net = empty(kind, command["layers"])
    shapes = {n: p for n, p in net.state_dict().items() if n != "encoder.embed_tokens.weight"}
    dtype = DTYPES.get(form, torch.bfloat16)

    def random():
        return {name: x.to(dtype).contiguous() for name, x in fill(shapes)}

    def write(place, tensors):
        os.makedirs(place, exist_ok=True)
        save_file(tensors, f"{place}/{file}", metadata={"format": "pt"})
        net.config.save_pretrained(place) if kind == "text" else net.save_config(place)

    if form == "fp8":
        fp8 = torch.float8_e4m3fn
        held = {n: x.to(fp8) if narrow(n, x) else x for n, x in random().items()}
        write(f"{folder}/{part}", held)
        write(f"{folder}/peer/{part}", {n: x.to(dtype) for n, x in held.items()})
    elif form.startswith("q"):
        os.makedirs(folder, exist_ok=True)
        write_gguf(f"{folder}/model.gguf", shapes, form)
        write(f"{folder}/peer/{part}", dict(stood_for(f"{folder}/model.gguf", shapes)))
    else:
        write(f"{folder}/{part}", random())


# Rows of a text, and those of them that are a prompt's: a long one.
TEXT_ROWS, PROMPT_ROWS = 512, 128


def make_input(command):
    """Writes an input: `latent` and `text`, or `frames`, or `ids`, or the noise of a clip."""
    generator = torch.Generator().manual_seed(11)
    kind, size = command["kind"], command["size"]

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    if kind == "transformer":
        frames, rows, columns = size
        # As Wan's pipeline gives it: zeros past the prompt, which no mask leaves out.
        text = random(command.get("text_rows", TEXT_ROWS), WAN["text_dim"])
        text[PROMPT_ROWS:] = 0
        tensors = dict(latent=random(16, frames, 2 * rows, 2 * columns), text=text)
    elif kind == "vae_decode":
        frames, height, width = size
        tensors = dict(latent=random(16, 1 + (frames - 1) // 4, height // 8, width // 8))
    elif kind == "vae_encode":
        frames, height, width = size
        small = random(1, 3, frames, height // 8, width // 8)
        wide = F.interpolate(small, size=(frames, height, width), mode="trilinear")[0]
        tensors = dict(frames=wide.clamp(-1, 1).permute(1, 2, 3, 0).contiguous())
    elif kind == "text":
        tensors = dict(ids=torch.randint(0, UMT5["vocab_size"], (size[0],), generator=generator))
        tensors["ids"] = tensors["ids"].to(torch.uint32)
    else:
        frames, height, width = size
        tensors = dict(noise=random(16, 1 + (frames - 1) // 4, height // 8, width // 8))
    save_file(tensors, command["file"])


# Work. Each class holds a loaded network, takes an input, and computes.


def read(module):
    return module.eval().requires_grad_(False)


class Transformer:
    def __init__(self, folder, form, compute):
        from diffusers import WanTransformer3DModel

        dtype = DTYPES[compute]
        plain = form in DTYPES
        self.net = WanTransformer3DModel.from_pretrained(
            folder if plain else f"{folder}/peer", subfolder="transformer", torch_dtype=dtype
        )
        read(self.net)
        if form == "fp8":
            # Only the matrices of blocks, as the file holds them.
            self.net.enable_layerwise_casting(
                storage_dtype=torch.float8_e4m3fn,
                compute_dtype=dtype,
                skip_modules_pattern=["patch_embedding", "condition_embedder", "norm", "proj_out"],
            )
        elif not plain:
            self.quantise(f"{folder}/model.gguf", dtype)
        self.dtype = dtype

    def quantise(self, path, dtype):
        """Layers of blocks as diffusers has them of a GGUF file."""
        import numpy
        from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
        from gguf import GGUFReader

        tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
        for name, layer in list(self.net.named_modules()):
            if not isinstance(layer, torch.nn.Linear) or not name.startswith("blocks."):
                continue
            held = tensors[f"{name}.weight"]
            with torch.device("meta"):
                own = GGUFLinear(layer.in_features, layer.out_features, True, compute_dtype=dtype)
            data = torch.from_numpy(numpy.array(held.data))
            own.weight = GGUFParameter(data, quant_type=held.tensor_type)
            own.bias = layer.bias
            self.net.set_submodule(name, own)

    def input(self, tensors):
        self.latent = tensors["latent"][None].to(self.dtype)
        self.text = tensors["text"][None].to(self.dtype)

    def run(self):
        time = torch.tensor([417.0])
        return self.net(self.latent, time, self.text, return_dict=False)[0][0]


class Vae:
    def __init__(self, folder, compute):
        from diffusers import AutoencoderKLWan

        self.dtype = DTYPES[compute]
        self.net = AutoencoderKLWan.from_pretrained(
            folder, subfolder="vae", torch_dtype=self.dtype
        )
        read(self.net)


class Decode(Vae):
    def input(self, tensors):
        self.latent = tensors["latent"][None].to(self.dtype)

    def run(self):
        return self.net.decode(self.latent, return_dict=False)[0][0].permute(1, 2, 3, 0)


class Encode(Vae):
    def input(self, tensors):
        self.frames = tensors["frames"].permute(3, 0, 1, 2)[None].to(self.dtype).contiguous()

    def run(self):
        return self.net.encode(self.frames, return_dict=False)[0].mode()[0]


class Text:
    def __init__(self, folder, compute):
        from transformers import UMT5EncoderModel

        self.net = UMT5EncoderModel.from_pretrained(
            f"{folder}/text_encoder", dtype=DTYPES[compute]
        )
        read(self.net)

    def input(self, tensors):
        self.ids = tensors["ids"].to(torch.long)[None]

    def run(self):
        mask = torch.ones_like(self.ids)
        return self.net(input_ids=self.ids, attention_mask=mask).last_hidden_state[0]


class Sampling:
    """The embedded model, with nothing of a pipeline around it that takes time of its own."""

    def __init__(self, model):
        from diffusers import UniPCMultistepScheduler, WanTransformer3DModel
        from tokenizers import Tokenizer
        from transformers import UMT5EncoderModel

        self.dit = read(
            WanTransformer3DModel.from_pretrained(
                model, subfolder="transformer", torch_dtype=torch.float32
            )
        )
        self.encoder = read(
            UMT5EncoderModel.from_pretrained(f"{model}/text_encoder", dtype=torch.float32)
        )
        self.tokens = Tokenizer.from_file(f"{model}/tokenizer/tokenizer.json")
        self.scheduler = UniPCMultistepScheduler.from_pretrained(model, subfolder="scheduler")
        self.net = self.dit

    def input(self, tensors):
        self.noise = tensors["noise"][None]

    def text(self, prompt):
        ids = torch.tensor([self.tokens.encode(prompt).ids])
        hidden = self.encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
        hidden = hidden.last_hidden_state
        return F.pad(hidden, (0, 0, 0, TEXT_LEN - hidden.shape[1]))

    def run(self):
        # Both texts in one batch, which costs less than a call for each.
        texts = torch.cat([self.text(PROMPT), self.text("")])
        scheduler, x = self.scheduler, self.noise
        scheduler.set_timesteps(STEPS)
        tokens = x.shape[2] * (x.shape[3] // 2) * (x.shape[4] // 2)
        for t in scheduler.timesteps:
            time = t.expand(2, tokens)
            both = self.dit(torch.cat([x, x]), time, texts, return_dict=False)[0]
            guided, plain = both.chunk(2)
            x = scheduler.step(plain + GUIDANCE * (guided - plain), t, x, return_dict=False)[0]
        return x[0]


class Upscaler(torch.nn.Module):
    """SRVGGNetCompact of Real-ESRGAN: convolutions with PReLU between, shuffled pixels."""

    def __init__(self, path):
        super().__init__()
        state = load_file(path)
        state = {name.split("body.")[-1]: x.float() for name, x in state.items()}
        count = 1 + max(int(name.split(".")[0]) for name in state)
        layers = []
        for index in range(count):
            shape = state[f"{index}.weight"].shape
            layers.append(
                torch.nn.PReLU(shape[0])
                if len(shape) == 1
                else torch.nn.Conv2d(shape[1], shape[0], 3, padding=1)
            )
        self.body = torch.nn.Sequential(*layers)
        self.body.load_state_dict(state)
        self.factor = math.isqrt(self.body[-1].out_channels // 3)
        read(self)

    def forward(self, x):
        shuffled = F.pixel_shuffle(self.body(x), self.factor)
        return shuffled + F.interpolate(x, scale_factor=self.factor, mode="nearest")


def clip(model, upscaler, noise, out):
    """From weights to enlarged frames as files; returns the frames `[f, h, w, 3]` in 0…1."""
    from diffusers import AutoencoderKLWan
    from PIL import Image

    sampling = Sampling(model)
    sampling.input(load_file(noise))
    latent = sampling.run()[None]
    vae = read(
        AutoencoderKLWan.from_pretrained(model, subfolder="vae", torch_dtype=torch.float32)
    )
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    frames = vae.decode(latent * std + mean, return_dict=False)[0][0]
    frames = (frames.permute(1, 0, 2, 3) / 2 + 0.5).clamp(0, 1)
    net = Upscaler(upscaler)
    large = torch.cat([net(frame[None]) for frame in frames]).clamp(0, 1).permute(0, 2, 3, 1)
    os.makedirs(out, exist_ok=True)
    for index, frame in enumerate((large * 255).round().byte().numpy()):
        Image.fromarray(frame).save(f"{out}/{index:04}.png", compress_level=1)
    return large


# Commands.

loaded = {}


def load(command):
    kind, folder, compute = command["kind"], command["folder"], command["compute"]
    make_one = {
        "transformer": lambda: Transformer(folder, command["form"], compute),
        "vae_decode": lambda: Decode(folder, compute),
        "vae_encode": lambda: Encode(folder, compute),
        "text": lambda: Text(folder, compute),
        "sampling": lambda: Sampling(folder),
    }
    loaded["work"] = make_one[kind]()
    gc.collect()
    if kind == "sampling":
        parts = [FILES[part] for part in ("transformer", "text")]
        # Stored in 16 bits, held in 32.
        return dict(weights=2 * sum(os.path.getsize(f"{folder}/{p}/{f}") for p, f in parts))
    part, file = FILES[kind.split("_")[0]]
    quantised = os.path.exists(f"{folder}/model.gguf")
    held = f"{folder}/model.gguf" if quantised else f"{folder}/{part}/{file}"
    return dict(weights=os.path.getsize(held))


def warm(command):
    """Touches what of the libraries every network uses, so that it counts as no one's memory."""
    dtype = DTYPES[command["compute"]]
    x = torch.randn(64, 64, dtype=dtype)
    F.gelu(F.layer_norm(F.linear(x, x), (64,)), approximate="tanh")
    q = x.view(1, 1, 64, 64)
    F.scaled_dot_product_attention(q, q, q)
    F.silu(F.conv3d(x.view(1, 4, 4, 16, 16), torch.randn(4, 4, 3, 3, 3, dtype=dtype)))
    F.conv2d(x.view(1, 4, 32, 32), torch.randn(4, 4, 3, 3, dtype=dtype))


def product(command):
    """A matrix product, as often as asked."""
    size = command["size"]
    if loaded.get("size") != (size, command["compute"]):
        m, n, k = size
        dtype = DTYPES[command["compute"]]
        loaded["product"] = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
        loaded["size"] = (size, command["compute"])
    x, w = loaded["product"]
    for _ in range(command["times"]):
        F.linear(x, w)


def run(_):
    loaded["output"] = None
    loaded["output"] = loaded["work"].run()


def save(command):
    save_file(dict(output=loaded["output"].float().contiguous()), command["file"])


def forked(work, command):
    """In a process of its own, which leaves nothing behind in this one."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            work(command)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("the weights or the input could not be written: see above")


COMMANDS = {
    "make": lambda c: forked(make, c),
    "make_input": lambda c: forked(make_input, c),
    "threads": lambda c: torch.set_num_threads(c["count"]),
    "warm": warm,
    "load": load,
    "input": lambda c: loaded["work"].input(load_file(c["file"])),
    "run": run,
    "save": save,
    "product": product,
    "versions": lambda c: versions(),
}


def versions():
    import diffusers
    import transformers

    modules = (torch, diffusers, transformers)
    return dict(versions=", ".join(f"{m.__name__} {m.__version__}" for m in modules))


@torch.inference_mode()
def serve(commands=COMMANDS):
    """Obeys commands, one a line, until there are no more."""
    # Libraries print on the standard output, which is for answers.
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = commands[command["do"]](command) or {}
        except Exception as error:
            answer = dict(error=f"{type(error).__name__}: {error}")
        print(json.dumps(answer), file=answers, flush=True)


@torch.inference_mode()
def main():
    if sys.argv[1:] == ["serve"]:
        return serve()
    model, upscaler, noise, out, threads = sys.argv[2:7]
    torch.set_num_threads(int(threads))
    frames = clip(model, upscaler, noise, out)
    if len(sys.argv) > 7:
        save_file(dict(output=frames.contiguous()), sys.argv[7])


if __name__ == "__main__":
    main()
