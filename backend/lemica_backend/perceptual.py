"""LPIPS, the perceptual distance of two videos (Zhang et al. 2018; AlexNet, v0.1), where its weights are."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

Frames = NDArray[np.uint8]

WEIGHTS_NAME = "lpips-alexnet-v0.1.safetensors"
NUM_LAYERS = 5
MIN_SIDE = 64

_STRIDES_AND_PADDINGS = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
_LAYERS_AFTER_A_POOL = (1, 2)
_FRAMES_AT_ONCE = 16
_MEAN = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
_STD = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)


class LpipsWeightsError(RuntimeError):
    """The LPIPS weights cannot be had; the message says why and what to do."""


def weights_path() -> Path:
    """Return where the weights are kept: ``$LEMICA_CACHE``, else ``~/.cache/lemica``."""
    folder = os.environ.get("LEMICA_CACHE") or Path.home() / ".cache" / "lemica"
    return Path(folder) / WEIGHTS_NAME


@torch.inference_mode()
def lpips(frames_a: Frames, frames_b: Frames, weights_file: Path) -> float:
    """Return the mean over frames of the LPIPS distance.

    The network was trained and calibrated on patches of 64 x 64 pixels, and its last layers see almost nothing
    of a smaller image. Frames whose shorter side is below `MIN_SIDE` are therefore enlarged (bilinear) until
    it is that long; all others are taken as they are.

    Parameters
    ----------
    frames_a, frames_b : ndarray of uint8, shape (frames, height, width, 3)
    weights_file : Path
        See `weights_path`.

    Raises
    ------
    LpipsWeightsError
        If that is no file of LPIPS weights.
    """
    weights = _weights(weights_file)
    distances = [
        _distances(
            weights,
            _to_network(frames_a[start : start + _FRAMES_AT_ONCE]),
            _to_network(frames_b[start : start + _FRAMES_AT_ONCE]),
        )
        for start in range(0, len(frames_a), _FRAMES_AT_ONCE)
    ]
    return float(torch.cat(distances).mean())


def _distances(weights: dict[str, Tensor], images_a: Tensor, images_b: Tensor) -> Tensor:
    """Return the distance of each pair: images (N, 3, H, W) as `_to_network` makes them, result (N,)."""
    total = torch.zeros(len(images_a))
    pairs = zip(_features(weights, images_a), _features(weights, images_b), strict=True)
    for layer, (a, b) in enumerate(pairs):
        difference = (_unit_length(a) - _unit_length(b)).square()
        total += (difference * weights[f"head{layer}.weight"]).sum(dim=1).mean(dim=(1, 2))
    return total


def _features(weights: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """Return the outputs of AlexNet's five convolutions, each after its ReLU."""
    features = []
    for layer, (stride, padding) in enumerate(_STRIDES_AND_PADDINGS):
        if layer in _LAYERS_AFTER_A_POOL:
            images = F.max_pool2d(images, kernel_size=3, stride=2)
        images = F.conv2d(images, weights[f"conv{layer}.weight"], weights[f"conv{layer}.bias"], stride, padding)
        images = images.relu()
        features.append(images)
    return features


def _unit_length(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _to_network(frames: Frames) -> Tensor:
    """Turn uint8 (N, H, W, 3) into normalised float32 (N, 3, H, W), large enough for the network."""
    images = torch.from_numpy(frames.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    shorter = min(images.shape[2:])
    if shorter < MIN_SIDE:
        height, width = (round(side * MIN_SIDE / shorter) for side in images.shape[2:])
        images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
    return (images - _MEAN) / _STD


@cache
def _weights(path: Path) -> dict[str, Tensor]:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise LpipsWeightsError(f"{path} is damaged ({error}). Delete it; it will be made anew.") from error
    expected = {f"{kind}{layer}.weight" for kind in ("conv", "head") for layer in range(NUM_LAYERS)}
    if not expected <= weights.keys():
        raise LpipsWeightsError(f"{path} is not a file of LPIPS weights. Delete it; it will be made anew.")
    return weights
