"""Tiny random language models as GGUF files, and what transformers makes of them.

    pip install torch transformers==5.* tokenizers gguf==0.19.0 numpy safetensors jinja2
    python make.py

Writes NAME.gguf for each model, `values.safetensors` (logits) and `expected.json` (tokens of texts,
greedy continuations, chats as `apply_chat_template` writes them). The models are random and answer
nonsense; the templates have what those of published models have.
"""

import json
import math

import numpy
import torch
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, TokenType, quants
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

torch.set_num_threads(1)

CORPUS = """
A red circle moves right on a white background. The camera follows the old fisherman slowly through
the market; lanterns glow in the rain, and it's early evening. She's smiling, they're waiting, I'll go,
we've seen 1234567 stars in 2026. Prompt: a long, concrete description of subject, action, light, style.
Ein kleiner Hund läuft über die Straße. Größe, Übermut, schön. Le garçon élève la tête, déjà là.
Дождь идёт над городом, фонари горят. Το φως πέφτει στη θάλασσα. 夕日の海辺を歩く少女。 一只猫坐在窗台上看雨。
비가 오는 거리. قطة على النافذة. חתול על החלון. नमस्ते दुनिया। สวัสดีชาวโลก
"""

TEXTS = [
    "",
    "a",
    "A red circle moves right, slowly.",
    "  two  spaces   and\ttabs\n\n\nlines \r\n end  ",
    "It's SHE'LL they'Ve don't 'tis we'd",
    "12 345 6789 1234567 3.14159 2026年11月",
    "Größe, Übermut; déjà vu, naïve café e\u0301",
    "一只猫坐在窗台上看雨。夕日の海辺を歩く。",
    "Дождь идёт над городом, Ελληνικά φως",
    "قطة على النافذة חתול नमस्ते दुनिया สวัสดี",
    "emoji 🙂👩‍👩‍👧 and 𝒻ancy \u00a0 space\u3000wide",
    "code: if (x >= 10) { return x**2; } // done...!!!",
    "<|im_start|>user\nhello<|im_end|>\n<|eot_id|>x",
]

LLAMA_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPLIT = LLAMA_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")

# What the chat templates of Qwen3 do: an own message for the system, the place of the last question
# sought from behind, thoughts taken out of answers, an empty thought where thinking is off.
QWEN_TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\nTools:\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thoughts = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thoughts = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thoughts = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thoughts)) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + thoughts.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

# What those of Llama 3 do: defaults, a date that nobody need give, trimmed contents, an error.
LLAMA_TEMPLATE = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = "26 Jul 2024" %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{% set tools = none %}{% endif %}

{#- The message of the system is taken out. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {{- raise_exception("no tools") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# Older ones: blocks on lines of their own, a macro, filters with arguments, whole lines kept.
PLAIN_TEMPLATE = """\
{# Blocks on lines of their own leave nothing behind. #}
{% macro head(role, mark="<|im_start|>") %}{{ mark }}{{ role | default("nobody") | lower }}{% endmacro %}
{% set roles = {"user": "USER", 'system': 'System', "assistant": 'Assistant'} %}
{% for message in messages %}
  {% if loop.first and message['role'] != 'system' %}
{{ head('system') }}
You are helpful, {{ 1 + 2 * 3 - 7 // 2 }} {{ "%d" if false else 'x' * 3 }}.<|im_end|>
  {% endif %}
{{ head(roles[message['role']]) }}
  {{ message['content'] | trim | replace("red", "blue") }}<|im_end|>
{% endfor %}
{% if add_generation_prompt and (messages | last).role in ['user', 'system'] %}
{{ head(roles.assistant, mark='<|im_start|>') }}
{% endif %}
"""

MESSAGES = {
    "two": [
        {"role": "system", "content": "Rewrite the prompt.\nOne paragraph."},
        {"role": "user", "content": "  a red circle, <b>moving</b> 'right' 一只猫 "},
    ],
    "one": [{"role": "user", "content": "a cat"}],
    "four": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a cat"},
        {"role": "assistant", "content": "<think>\nwell\n</think>\n\nA cat sits."},
        {"role": "user", "content": "a dog"},
    ],
}


def tokenizer(split, specials, normalizer=None, ignore_merges=False):
    own = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        own.normalizer = normalizer
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    own.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=390, initial_alphabet=alphabet, show_progress=False)
    own.train_from_iterator([CORPUS], trainer)
    own.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    own.add_tokens([AddedToken(token, special=False, normalized=False) for token in ("<think>", "</think>")])
    return own


def permuted(weight, heads):
    """Rows of queries and keys in the order of llama.cpp: the pairs that are rotated lie together."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(shape)


NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    if name.startswith("model.embed_tokens"):
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    if name == "lm_head.weight":
        return "output.weight"
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[part]}.{kind}"


random = numpy.random.default_rng(11)


def k_blocks(shape, kind):
    """Random blocks of a type that the library does not quantise to, of the size of weights."""
    numbers, size = quants.GGML_QUANT_SIZES[kind]
    data = random.integers(0, 256, (shape[0] * shape[1] // numbers, size), dtype=numpy.uint8)
    places = {Type.Q4_K: ((0, 0.0003), (2, 0.0025)), Type.Q6_K: ((208, 0.00006),)}[kind]
    for at, scale in places:
        scales = random.uniform(0.5 * scale, 1.5 * scale, (len(data), 1)).astype(numpy.float16)
        data[:, at : at + 2] = scales.view(numpy.uint8)
    return data.reshape(shape[0], -1)


values, expected = {}, {}


def make(name, arch, model, own, pre, template, types, keys, bos=None, eos=None):
    config = model.config
    model.eval()
    writer = GGUFWriter(f"{name}.gguf", arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    keys(writer)
    state = {key: value.detach().float() for key, value in model.state_dict().items()}
    for key, tensor in list(state.items()):
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        with torch.no_grad():
            if tensor.ndim == 1:
                spread = 0.1 if key.endswith("norm.weight") else 0.3
                tensor = torch.from_numpy(random.normal(1 if spread == 0.1 else 0, spread, tensor.shape)).float()
            else:
                tensor = torch.from_numpy(random.normal(0, 0.25, tensor.shape)).float()
        kind = types(gguf_name(key), tensor.shape)
        data = tensor.numpy()
        if kind in (Type.Q4_K, Type.Q6_K):
            data = k_blocks(data.shape, kind)
            state[key] = torch.from_numpy(quants.dequantize(data, kind).astype(numpy.float32))
            assert arch != "llama"
        else:
            data = quants.quantize(data, kind)
            state[key] = torch.from_numpy(quants.dequantize(data, kind).astype(numpy.float32))
            if arch == "llama" and "attn_q" in gguf_name(key):
                data = permuted(data, config.num_attention_heads)
            if arch == "llama" and "attn_k" in gguf_name(key):
                data = permuted(data, config.num_key_value_heads)
        writer.add_tensor(gguf_name(key), data, raw_dtype=kind)
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)

    vocabulary = own.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=vocabulary.get)
    added = {token.content: token.special for token in own.get_added_tokens_decoder().values()}
    kinds = [
        TokenType.NORMAL if token not in added else TokenType.CONTROL if added[token] else TokenType.USER_DEFINED
        for token in tokens
    ]
    tokens += [f"[PAD{at}]" for at in range(len(tokens), config.vocab_size)]
    kinds += [TokenType.UNUSED] * (config.vocab_size - len(kinds))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = json.loads(own.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    if bos:
        writer.add_bos_token_id(vocabulary[bos])
        writer.add_add_bos_token(True)
    writer.add_eos_token_id(vocabulary[eos])
    writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    fast = PreTrainedTokenizerFast(tokenizer_object=own, bos_token=bos, eos_token=eos)
    fast.chat_template = template
    chats = {
        case: {
            thinking: fast.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking == "on"
            )
            for thinking in ("on", "off")
        }
        for case, messages in MESSAGES.items()
    }
    ids = [own.encode(text, add_special_tokens=False).ids for text in TEXTS]
    decoded = [own.decode(each, skip_special_tokens=True) for each in ids]
    prompts = [ids[2], ids[7] + ids[8], own.encode(chats["two"]["off"], add_special_tokens=False).ids]
    greedy = []
    for at, prompt in enumerate(prompts):
        all_ids = list(prompt)
        for step in range(12):
            with torch.no_grad():
                logits = model(torch.tensor([all_ids])).logits[0, -1]
            top = torch.topk(logits, 2).values
            assert top[0] - top[1] > 1e-3, f"{name}: prompt {at} is undecided at {step}"
            if step == 0:
                values[f"{name}.{at}"] = logits.numpy().astype(numpy.float32)
            all_ids.append(int(logits.argmax()))
        greedy.append(all_ids[len(prompt) :])
    expected[name] = {"chats": chats, "ids": ids, "decoded": decoded, "prompts": prompts, "greedy": greedy}


def f32(name, shape):
    return Type.F32


def q8(name, shape):
    return Type.Q8_0 if len(shape) == 2 else Type.F32


def f16(name, shape):
    return Type.F16 if len(shape) == 2 else Type.F32


def k_medium(name, shape):
    if len(shape) == 1:
        return Type.F32
    if shape[1] % 256:
        return Type.Q8_0
    return Type.Q6_K if name in ("token_embd.weight",) or "attn_v" in name else Type.Q4_K


LLAMA_SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
QWEN_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

llama_tokens = tokenizer(LLAMA_SPLIT, LLAMA_SPECIALS, ignore_merges=True)
qwen_tokens = tokenizer(QWEN_SPLIT, QWEN_SPECIALS, normalizers.NFC())
COMMON = dict(vocab_size=400, max_position_embeddings=512, rms_norm_eps=1e-5, attention_dropout=0.0)

# Llama 3: frequencies are divided as its own rule says; the file holds the divisors.
BASE, FACTOR, LOW, HIGH, OLD = 10000.0, 8.0, 1.0, 4.0, 64


def llama_keys(writer):
    frequencies = BASE ** (-numpy.arange(0, 16, 2, dtype=numpy.float64) / 16)
    factors = []
    for frequency in frequencies:
        wave = 2 * math.pi / frequency
        if wave < OLD / HIGH:
            factors.append(1.0)
        elif wave > OLD / LOW:
            factors.append(FACTOR)
        else:
            smooth = (OLD / wave - LOW) / (HIGH - LOW)
            factors.append(1 / ((1 - smooth) / FACTOR + smooth))
    writer.add_rope_dimension_count(16)
    writer.add_tensor("rope_freqs.weight", numpy.array(factors, dtype=numpy.float32))


llama = LlamaForCausalLM(
    LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        intermediate_size=48, tie_word_embeddings=False,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": BASE, "factor": FACTOR, "low_freq_factor": LOW,
            "high_freq_factor": HIGH, "original_max_position_embeddings": OLD,
        },
        **COMMON,
    )
)
make("llama", "llama", llama, llama_tokens, "llama-bpe", LLAMA_TEMPLATE, f32, llama_keys,
     bos="<|begin_of_text|>", eos="<|eot_id|>")


def yarn_keys(writer):
    writer.add_rope_scaling_type(gguf_scaling.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(128)


from gguf import RopeScalingType as gguf_scaling  # noqa: E402

qwen3 = Qwen3ForCausalLM(
    Qwen3Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        intermediate_size=64, tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 128,
        },
        **COMMON,
    )
)
make("qwen3", "qwen3", qwen3, qwen_tokens, "qwen2", QWEN_TEMPLATE, q8, yarn_keys, eos="<|im_end|>")

qwen3_k = Qwen3ForCausalLM(
    Qwen3Config(
        hidden_size=256, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
        intermediate_size=64, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **COMMON,
    )
)
make("qwen3_k", "qwen3", qwen3_k, qwen_tokens, "qwen2", QWEN_TEMPLATE, k_medium, lambda writer: None,
     eos="<|im_end|>")


def linear_keys(writer):
    writer.add_rope_scaling_type(gguf_scaling.LINEAR)
    writer.add_rope_scaling_factor(2.0)


qwen2 = Qwen2ForCausalLM(
    Qwen2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1,
        intermediate_size=64, tie_word_embeddings=False,
        rope_parameters={"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0}, **COMMON,
    )
)
make("qwen2", "qwen2", qwen2, qwen_tokens, "qwen2", PLAIN_TEMPLATE, f16, linear_keys, eos="<|im_end|>")

save_file(values, "values.safetensors")
with open("expected.json", "w") as file:
    json.dump({"texts": TEXTS, "messages": MESSAGES, "models": expected}, file, ensure_ascii=False, indent=1)
    file.write("\n")
