"""The networks of `shapes` beside the autoencoder: sizes, tokenizer, loading."""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import UMT5Config, UMT5EncoderModel

import shapes
from train_vae_cfg import CFG

CHECKPOINT = "dit.pt"
TEXT_LEN = 48
SHIFT = 3.0


def tokenizer():
    """One token a word of English, one a character of Chinese; `</s>` at the end."""
    vocab = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    for word in shapes.vocabulary():
        vocab[word] = len(vocab)
    tok = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    # Lowercase, and every Chinese character a word.
    bert = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=True
    )
    tok.normalizer = normalizers.Sequence([normalizers.NFKC(), bert])
    # Words end where another script begins, which signs have, too. No regular expression is asked
    # for: to compile one takes longer than to check a graph.
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.UnicodeScripts(),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    tok.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return tok


TOK = tokenizer()


def build():
    """An untrained text encoder and transformer."""
    config = UMT5Config(
        vocab_size=TOK.get_vocab_size(),
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_decoder_layers=0,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        is_encoder_decoder=False,
        use_cache=False,
    )
    dit = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=16,
        out_channels=16,
        text_dim=128,
        freq_dim=128,
        ffn_dim=640,
        num_layers=8,
        rope_max_seq_len=256,
    )
    return UMT5EncoderModel(config), dit


def load_vae():
    """The trained autoencoder, frozen."""
    vae = AutoencoderKLWan(**CFG)
    vae.load_state_dict(torch.load("vae.pt", weights_only=False)["m"])
    return vae.eval().requires_grad_(False)


def encode_text(text, ids):
    """Lists of token numbers to [batch, TEXT_LEN, width], zero past each prompt's end."""
    batch, longest = len(ids), max(len(i) for i in ids)
    x = torch.zeros(batch, longest, dtype=torch.long)
    mask = torch.zeros(batch, longest, dtype=torch.long)
    for k, i in enumerate(ids):
        x[k, : len(i)] = torch.tensor(i)
        mask[k, : len(i)] = 1
    hidden = text(input_ids=x, attention_mask=mask).last_hidden_state * mask[..., None]
    return F.pad(hidden, (0, 0, 0, TEXT_LEN - longest))


def per_channel(values):
    """[c] as [1, c, 1, 1, 1]."""
    return values.view(1, -1, 1, 1, 1)


def per_token(timesteps, height, width):
    """A timestep a latent frame, [batch, frames], as one a token."""
    batch, frames = timesteps.shape
    tokens = (height // 16) * (width // 16)
    return timesteps[:, :, None].expand(batch, frames, tokens).reshape(batch, -1)


def ema_models():
    """Text encoder and transformer with averaged weights, and the scale of the latents."""
    checkpoint = torch.load(CHECKPOINT, weights_only=False)
    text, dit = build()
    with torch.no_grad():
        for p, e in zip(list(text.parameters()) + list(dit.parameters()), checkpoint["ema"]):
            p.copy_(e)
    return text.eval(), dit.eval(), checkpoint["mean"], checkpoint["std"]
