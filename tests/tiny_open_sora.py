"""A random-weight Open-Sora in a folder: made offline in about a second, steps take milliseconds.

All that can be mistaken for something else differs: 35 patches, 6 latent frames and 21 frames; rows and columns; the
latents' 9 rows are no whole patches, and the width of 58 pixels no whole latent cells.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.tiny_latte import _byte_tokenizer, _give_every_weight_a_scale, _text_encoder

FRAMES = 21  # a whole chunk of the autoencoder and a part of one
LATENT_FRAMES = 6
HEIGHT, WIDTH = 36, 58  # asked for; 14 columns of 4 pixels are made
LATENT_ROWS, LATENT_COLUMNS = 9, 14
PATCHES = 35
NUM_LAYERS = 2
HIDDEN = 24
MAX_TOKENS = 120

TRANSFORMER = {
    "caption_channels": 32,
    "model_max_length": MAX_TOKENS,
    "depth": NUM_LAYERS,
    "hidden_size": HIDDEN,
    "num_heads": 3,
    "input_sq_size": 64,
}
LEVELS = 3  # 4 x 4 pixels a latent cell
VAE = {
    "spatial": {
        "latent_channels": 4,
        "block_out_channels": [8] * LEVELS,
        "down_block_types": ["DownEncoderBlock2D"] * LEVELS,
        "up_block_types": ["UpDecoderBlock2D"] * LEVELS,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": 64,
    },
    "temporal": {"filters": 8, "blocks": 1, "groups": 4},
}
SCALE, SHIFT = (3.85, 2.32, 2.33, 3.06), (-0.10, 0.34, 0.27, 0.98)


def make_tiny_open_sora(**video):
    """Return the random-weight pipeline; the weights are the same on every call."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    from lemica_backend.models.open_sora import OpenSoraPipeline, VideoSettings

    defaults = {"num_frames": FRAMES, "height": HEIGHT, "width": WIDTH, "clean_caption": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return OpenSoraPipeline.assemble(
            _transformer(), _vae(), _text_encoder(), _byte_tokenizer(), VideoSettings(**defaults | video)
        )


def build_tiny_open_sora(folder: Path, **video) -> None:
    """Save it into ``folder``."""
    make_tiny_open_sora(**video).save_pretrained(folder)


def _transformer():
    from lemica_backend.models.open_sora.transformer import STDiT3

    transformer = STDiT3(**TRANSFORMER)
    _give_every_weight_a_scale(transformer)
    return transformer


def _vae():
    import torch

    from lemica_backend.models.open_sora.vae import OpenSoraVAE

    vae = OpenSoraVAE(**VAE)
    for buffer, values in ((vae.scale, SCALE), (vae.shift, SHIFT)):
        buffer.copy_(torch.tensor(values)[None, :, None, None, None])
    return vae
