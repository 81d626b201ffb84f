"""How far a video is from a reference: LPIPS, SSIM and PSNR, each the mean over the frames.

Knows nothing about prompts, budgets or servers. Videos are uint8 arrays of shape (frames, height, width, 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from skimage.metrics import structural_similarity

from demo.lpips_weights import NUM_LAYERS, LpipsWeightsError, ensure_weights

Frames = NDArray[np.uint8]

PSNR_CAP_DB = 100.0
MIN_LPIPS_SIDE = 64

_STRIDES_AND_PADDINGS = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
_LAYERS_AFTER_A_POOL = (1, 2)
_FRAMES_AT_ONCE = 16
_MEAN = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
_STD = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)


@dataclass(frozen=True)
class Quality:
    """What a video keeps of its reference.

    Attributes
    ----------
    lpips : float
        Perceptual distance, 0 for identical videos; lower is better.
    ssim : float
        Structural similarity, 1 for identical videos; higher is better.
    psnr : float
        Peak signal-to-noise ratio in dB, `PSNR_CAP_DB` for identical videos; higher is better.
    """

    lpips: float
    ssim: float
    psnr: float


def compare(frames: Frames, reference: Frames) -> Quality:
    """Measure `frames` against `reference` with every metric."""
    return Quality(lpips(frames, reference), ssim(frames, reference), psnr(frames, reference))


def psnr(frames_a: Frames, frames_b: Frames) -> float:
    """Return the mean over frames of the peak signal-to-noise ratio, in dB.

    Identical frames have an infinite ratio, which no mean survives: each frame counts at most `PSNR_CAP_DB`,
    as in the evaluations that the caching papers publish.

    Examples
    --------
    >>> black = np.zeros((1, 8, 8, 3), np.uint8)
    >>> psnr(black, black)
    100.0
    >>> round(psnr(black, black + np.uint8(1)), 2)
    48.13
    """
    _check_pair(frames_a, frames_b)
    difference = frames_a.astype(np.float64) - frames_b.astype(np.float64)
    squared_error = np.maximum((difference**2).mean(axis=(1, 2, 3)), 1e-12)
    return float(np.minimum(10 * np.log10(255**2 / squared_error), PSNR_CAP_DB).mean())


def ssim(frames_a: Frames, frames_b: Frames) -> float:
    """Return the mean over frames of the structural similarity (Wang et al. 2004: Gaussian window, sigma 1.5)."""
    _check_pair(frames_a, frames_b)
    if min(frames_a.shape[1:3]) < 11:
        raise ValueError(f"SSIM looks through windows of 11 x 11 pixels; got frames of {frames_a.shape[1:3]}.")
    return float(np.mean([_ssim_of_frame(a, b) for a, b in zip(frames_a, frames_b, strict=True)]))


def lpips(frames_a: Frames, frames_b: Frames) -> float:
    """Return the mean over frames of the LPIPS distance (AlexNet, v0.1).

    The network was trained and calibrated on patches of 64 x 64 pixels, and its last layers see almost nothing
    of a smaller image. Frames whose shorter side is below `MIN_LPIPS_SIDE` are therefore enlarged (bilinear) until
    it is that long; all others are taken as they are.

    Raises
    ------
    LpipsWeightsError
        If the weights are neither in the cache nor can be downloaded.
    """
    _check_pair(frames_a, frames_b)
    distances = [
        _lpips_of_batch(
            _to_network(frames_a[start : start + _FRAMES_AT_ONCE]),
            _to_network(frames_b[start : start + _FRAMES_AT_ONCE]),
        )
        for start in range(0, len(frames_a), _FRAMES_AT_ONCE)
    ]
    return float(torch.cat(distances).mean())


def _check_pair(frames_a: Frames, frames_b: Frames) -> None:
    if frames_a.shape != frames_b.shape:
        raise ValueError(f"Videos of one shape can be compared; got {frames_a.shape} and {frames_b.shape}.")
    for frames in (frames_a, frames_b):
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ValueError(
                f"A video is uint8 of shape (frames, height, width, 3); got {frames.dtype} of shape {frames.shape}."
            )


def _ssim_of_frame(frame_a: Frames, frame_b: Frames) -> float:
    value = structural_similarity(  # type: ignore[no-untyped-call]
        frame_a, frame_b, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return cast(float, value)


@torch.no_grad()
def _lpips_of_batch(images_a: torch.Tensor, images_b: torch.Tensor) -> torch.Tensor:
    """Return the distance of each pair: images (N, 3, H, W) as `_to_network` makes them, result (N,)."""
    weights = _weights()
    total = torch.zeros(len(images_a))
    for layer, (a, b) in enumerate(zip(_features(images_a), _features(images_b), strict=True)):
        difference = (_unit_length(a) - _unit_length(b)).square()
        total += (difference * weights[f"head{layer}.weight"]).sum(dim=1).mean(dim=(1, 2))
    return total


def _features(images: torch.Tensor) -> list[torch.Tensor]:
    """Return the outputs of AlexNet's five convolutions, each after its ReLU."""
    weights, features = _weights(), []
    for layer, (stride, padding) in enumerate(_STRIDES_AND_PADDINGS):
        if layer in _LAYERS_AFTER_A_POOL:
            images = F.max_pool2d(images, kernel_size=3, stride=2)
        images = F.conv2d(images, weights[f"conv{layer}.weight"], weights[f"conv{layer}.bias"], stride, padding)
        images = images.relu()
        features.append(images)
    return features


def _unit_length(features: torch.Tensor) -> torch.Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _to_network(frames: Frames) -> torch.Tensor:
    """Turn uint8 (N, H, W, 3) into normalised float32 (N, 3, H, W), large enough for the network."""
    images = torch.from_numpy(frames.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    shorter = min(images.shape[2:])
    if shorter < MIN_LPIPS_SIDE:
        height, width = (round(side * MIN_LPIPS_SIDE / shorter) for side in images.shape[2:])
        images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
    return (images - _MEAN) / _STD


@cache
def _weights() -> dict[str, torch.Tensor]:
    path = ensure_weights()
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise LpipsWeightsError(f"{path} is damaged ({error}). Delete it; it will be made anew.") from error
    expected = {f"{kind}{layer}.weight" for kind in ("conv", "head") for layer in range(NUM_LAYERS)}
    if not expected <= weights.keys():
        raise LpipsWeightsError(f"{path} is not a file of LPIPS weights. Delete it; it will be made anew.")
    return weights
