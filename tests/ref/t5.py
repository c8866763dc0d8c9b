"""Reference values of T5 (v1.1) as LTX-Video and FLUX read it: prompts filled with padding tokens, which the encoder sees
or a mask hides; and of a vocabulary of SentencePiece without a `tokenizer.json`. Random weights, run by transformers.

usage: t5.py TESTS_REF   (python 3.11; torch, transformers 5, sentencepiece 0.2)

`t5/text_encoder` is the encoder, `t5/tokenizer/spiece.model` a vocabulary that SentencePiece trained on the words below.
"""
import io, json, os, shutil, sys
import sentencepiece, torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, T5Config, T5EncoderModel, T5Tokenizer

torch.set_grad_enabled(False)
out = f"{sys.argv[1]}/t5"
shutil.rmtree(out, ignore_errors=True)
os.makedirs(f"{out}/tokenizer")

CORPUS = ["a red fox runs through deep snow at dawn", "the train leaves the station while people wave", "neon signs reflect in puddles after rain",
          "waves break over black rocks, slow motion, film grain", "a child draws a circle on wet sand", "Dawn over a quiet harbour: gulls & boats"]
PROMPTS = ["A red fox runs through deep snow at dawn.", "", "waves   break;\n over  black rocks <i>", "été 東京 neon", "deep snow at dawn " * 40]
trained = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=trained, vocab_size=120, model_type="unigram", normalization_rule_name="identity",
                                         pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=1.0, hard_vocab_limit=False, num_threads=1)
open(f"{out}/tokenizer/spiece.model", "wb").write(trained.getvalue())
json.dump(dict(tokenizer_class="T5Tokenizer", model_max_length=128, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", extra_ids=4,
               additional_special_tokens=[f"<extra_id_{i}>" for i in range(4)]), open(f"{out}/tokenizer/tokenizer_config.json", "w"))
tokenizer = AutoTokenizer.from_pretrained(f"{out}/tokenizer")
# What SentencePiece itself makes of a text, where it differs from transformers in nothing but spaces.
pieces = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
for text in PROMPTS[:2]:
    assert pieces.encode(text) + [1] == tokenizer(text).input_ids, (text, pieces.encode(text), tokenizer(text).input_ids)

torch.manual_seed(5)
config = T5Config(vocab_size=len(tokenizer) + 12, d_model=24, d_kv=10, d_ff=36, num_layers=3, num_heads=3, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
encoder = T5EncoderModel(config).eval()
for name, p in encoder.named_parameters():
    new = 1 + 0.3 * torch.randn_like(p) if "layer_norm" in name else torch.randn_like(p) * (1.0 if "relative" in name or "shared" in name else p[0].numel() ** -0.5)
    p.copy_(new.half().float())
encoder.save_pretrained(f"{out}/text_encoder")
save_file({"shared.weight" if k.endswith("embed_tokens.weight") else k: v.half().contiguous() for k, v in encoder.state_dict().items() if k != "shared.weight"},
          f"{out}/text_encoder/model.safetensors", metadata={"format": "pt"})

values = {}
for index, text in enumerate(PROMPTS):
    long = tokenizer(text, padding="max_length", max_length=32, truncation=True, return_tensors="pt")
    values[f"ids.{index}"] = long.input_ids[0].int()
    values[f"mask.{index}"] = long.attention_mask[0].float()
    values[f"padded.{index}"] = encoder(long.input_ids)[0][0]  # LTX-Video, FLUX: the encoder sees the padding
    values[f"masked.{index}"] = encoder(long.input_ids, attention_mask=long.attention_mask)[0][0]
save_file({k: v.contiguous() for k, v in values.items()}, f"{out}/golden.safetensors")
json.dump(dict(prompts=PROMPTS), open(f"{out}/meta.json", "w"), indent=1)
