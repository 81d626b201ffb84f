"""The four models at their published sizes, and tiny ones of the same shape that a CPU runs in seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    LattePipeline,
    LatteTransformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)

from benchmarks.real_sizes.filling import META, RandomStates, byte_tokenizer, made
from lemica_backend.config import Size
from lemica_backend.models import VideoModel
from lemica_backend.models.cogvideox import CogVideoXModel
from lemica_backend.models.latte import LatteModel
from lemica_backend.models.open_sora import OpenSoraPipeline, VideoSettings
from lemica_backend.models.open_sora.model import OpenSoraModel
from lemica_backend.models.open_sora.transformer import STDiT3
from lemica_backend.models.open_sora.vae import OpenSoraVAE
from lemica_backend.models.wan import WanModel

__all__ = ["CASES", "Case", "Place"]

_T5_WIDTH = 4096  # of T5-XXL and UMT5-XXL
_TINY_WIDTH = 32
_UNKNOWN = "random"  # in place of a hash of the weights
_LEVELS = 3


class Place(NamedTuple):
    """Where a model is made, in what precision, and whether it is a tiny one."""

    dtype: torch.dtype
    device: str
    is_tiny: bool

    def states(self) -> RandomStates:
        """Return what stands in for the text encoder."""
        return RandomStates(_TINY_WIDTH if self.is_tiny else _T5_WIDTH, self.dtype, self.device)

    def made(self, kind: Any, real: Mapping[str, Any], tiny: Mapping[str, Any], *, is_float32: bool = False) -> Any:
        """Return a module with its real or its tiny configuration."""
        sizes = {**real, **tiny} if self.is_tiny else real
        return made(lambda: kind(**sizes), torch.float32 if is_float32 else self.dtype, self.device)

    def adapted(self, adapter: Any, pipeline: Any, size: Size | None = None) -> VideoModel:
        """Return the pipeline in its family's adapter."""
        with torch.device(META) if self.device == META else nullcontext():
            model = adapter.around(pipeline, dtype=self.dtype, device=self.device, size=size, weights_hash=_UNKNOWN)
        return cast(VideoModel, model)


class Case(NamedTuple):
    """A model with the parameters that the paper, or its authors, sample it with.

    Attributes
    ----------
    make : callable
    steps : int
        T.
    guidance_scale : float
    budgets : tuple of int
        B.
    """

    make: Callable[[Place], VideoModel]
    steps: int
    guidance_scale: float
    budgets: tuple[int, ...]


def _latte(place: Place) -> VideoModel:
    real = {
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 28,
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "cross_attention_dim": 1152,
        "caption_channels": _T5_WIDTH,
        "sample_size": 64,
        "video_length": 16,
        "patch_size": 2,
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
    }
    tiny = {
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "cross_attention_dim": 24,
        "caption_channels": _TINY_WIDTH,
        "sample_size": 8,
    }
    pipeline = LattePipeline(
        tokenizer=byte_tokenizer(120),
        text_encoder=place.states(),
        vae=place.made(AutoencoderKL, _image_vae((128, 256, 512, 512), 2), _image_vae((32,) * _LEVELS, 1)),
        transformer=place.made(LatteTransformer3DModel, real, tiny),
        scheduler=DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=False),
    )
    return place.adapted(LatteModel, pipeline)


def _image_vae(channels: tuple[int, ...], layers: int) -> dict[str, Any]:
    return {
        "block_out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "layers_per_block": layers,
        "latent_channels": 4,
    }


def _open_sora(place: Place) -> VideoModel:
    tiny = {
        "caption_channels": _TINY_WIDTH,
        "model_max_length": 120,
        "depth": 2,
        "hidden_size": 24,
        "num_heads": 3,
        "input_sq_size": 64,
    }
    spatial = _image_vae((32,) * _LEVELS, 1) | {"sample_size": 64}
    small = {
        "spatial": {name: list(each) if isinstance(each, tuple) else each for name, each in spatial.items()},
        "temporal": {"filters": 8, "blocks": 1, "groups": 4},
    }
    settings = VideoSettings(num_frames=17, height=32, width=48) if place.is_tiny else VideoSettings()
    pipeline = OpenSoraPipeline.assemble(
        place.made(STDiT3, {}, tiny),
        place.made(OpenSoraVAE, {}, small),
        place.states(),
        byte_tokenizer(300),
        settings,
    )
    return place.adapted(OpenSoraModel, pipeline)


def _cogvideox(place: Place) -> VideoModel:
    tiny = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 16,
        "text_embed_dim": _TINY_WIDTH,
        "num_layers": 2,
        "sample_width": 6,
        "sample_height": 4,
        "sample_frames": 9,
    }
    small = {"block_out_channels": (4,) * 4, "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 2}
    pipeline = CogVideoXPipeline(
        tokenizer=byte_tokenizer(226),
        text_encoder=place.states(),
        vae=place.made(AutoencoderKLCogVideoX, _COGVIDEOX_VAE, small),
        transformer=place.made(CogVideoXTransformer3DModel, {}, tiny),
        scheduler=CogVideoXDDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing"),
    )
    return place.adapted(CogVideoXModel, pipeline)


_COGVIDEOX_VAE = {
    "down_block_types": ("CogVideoXDownBlock3D",) * 4,
    "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    "block_out_channels": (128, 256, 256, 512),
    "latent_channels": 16,
    "layers_per_block": 3,
}


def _wan(place: Place) -> VideoModel:
    real = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30}
    tiny = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "text_dim": _TINY_WIDTH,
        "freq_dim": 32,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 64,
    }
    small = {"base_dim": 3, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    pipeline = WanPipeline(
        tokenizer=byte_tokenizer(512),
        text_encoder=place.states(),
        vae=place.made(AutoencoderKLWan, {}, small, is_float32=True),
        transformer=place.made(WanTransformer3DModel, real, tiny),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )
    size = Size(height=32, width=48, num_frames=5) if place.is_tiny else Size(height=480, width=832, num_frames=81)
    return place.adapted(WanModel, pipeline, size)


CASES: Mapping[str, Case] = {
    # B of Open-Sora: the paper's; of Wan: its authors' published plans; of the others: nearest to the paper's speed-ups
    "latte": Case(_latte, 50, 7.5, (29, 17)),
    "open_sora": Case(_open_sora, 30, 7.0, (19, 12, 10, 9, 7)),
    "cogvideox-2b": Case(_cogvideox, 50, 6.0, (29, 19)),
    "wan2.1-1.3b": Case(_wan, 50, 5.0, (25, 20, 17)),
}
