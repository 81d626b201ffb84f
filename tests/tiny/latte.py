"""Random-weight Latte pipelines: with the image autoencoder, and with the one that looks along the frames."""

from diffusers import AutoencoderKLTemporalDecoder

from tests.tiny.family import Tiny
from tests.tiny_latte import FRAMES, SIZE, make_tiny_latte

_LEVELS = 3  # 4 x 4 pixels a latent cell
_SIZE = {"height": SIZE, "width": SIZE, "video_length": FRAMES}  # the weights' own, which model.json leaves out


def temporal_decoder():
    vae = AutoencoderKLTemporalDecoder(
        latent_channels=4,
        block_out_channels=(32,) * _LEVELS,
        down_block_types=("DownEncoderBlock2D",) * _LEVELS,
        layers_per_block=1,
        sample_size=SIZE,
    )
    return vae.eval()


TINY = Tiny("latte", "plain", make_tiny_latte, {}, {}, _SIZE | {"clean_caption": False})
TEMPORAL = Tiny(
    "latte",
    "temporal",
    lambda: make_tiny_latte(temporal_decoder),
    {},
    {"clean_caption": True},
    _SIZE | {"clean_caption": True},
)
