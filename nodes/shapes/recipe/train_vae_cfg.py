"""The sizes of the video autoencoder: what training, export and every reader of `vae.pt` share.

The statistics of the latents are not known before training; `export.py` writes the true ones.
"""

CFG = dict(
    base_dim=16,
    z_dim=16,
    dim_mult=[1, 2, 4, 4],
    num_res_blocks=1,
    attn_scales=[],
    temperal_downsample=[False, True, True],  # diffusers' spelling
    latents_mean=[0.0] * 16,
    latents_std=[1.0] * 16,
)
