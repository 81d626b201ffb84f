"""How far a video is from the one that it should be: the measures that plans can keep small."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lemica_backend.errors import ModelLoadError
from lemica_backend.models import VideoModel

__all__ = ["METRICS", "Difference", "final_difference", "latents_difference"]

Difference = Callable[[Tensor, Tensor], float]


def _mean_absolute(one: Tensor, other: Tensor) -> float:
    return (one.float() - other.float()).abs().mean().item()


def _root_mean_square(one: Tensor, other: Tensor) -> float:
    return (one.float() - other.float()).square().mean().sqrt().item()


METRICS = ("latents_l1", "latents_l2", "frames_l2")


def latents_difference(metric: str) -> Difference:
    """Return the measure for latents on their way: the metric itself, or for frames the root mean square.

    Raises
    ------
    ModelLoadError
        If there is no such metric.
    """
    if metric not in METRICS:
        raise ModelLoadError(f"metric is {metric!r}; known metrics are {', '.join(METRICS)}")
    return _mean_absolute if metric == "latents_l1" else _root_mean_square


def final_difference(metric: str, model: VideoModel) -> Difference:
    """Return the measure for final latents.

    ``latents_l1`` is the mean absolute difference (arXiv 2511.00090, equation 4), ``latents_l2`` the root mean square,
    and ``frames_l2`` the root mean square of the decoded frames, white being 1: ``PSNR = -20 log10(frames_l2)``.
    """
    if metric != "frames_l2":
        return latents_difference(metric)

    def compare(one: Tensor, other: Tensor) -> float:
        frames = (torch.from_numpy(model.decode(latents)).float() / 255 for latents in (one, other))
        return _root_mean_square(*frames)

    return compare
