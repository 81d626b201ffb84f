"""How far a video is from a reference: LPIPS, SSIM and PSNR, each the mean over the frames.

Knows nothing about prompts, budgets or servers. Videos are uint8 arrays of shape (frames, height, width, 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from demo.lpips_weights import ensure_weights
from lemica_backend import perceptual

Frames = NDArray[np.uint8]

PSNR_CAP_DB = 100.0


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

    Small frames are enlarged first, see `lemica_backend.perceptual.lpips`.

    Raises
    ------
    LpipsWeightsError
        If the weights are neither in the cache nor can be downloaded.
    """
    _check_pair(frames_a, frames_b)
    return perceptual.lpips(frames_a, frames_b, ensure_weights())


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
