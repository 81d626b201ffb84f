"""Whether a server's memory grows: samples over a run, and what the last half of them says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np

_LEAST_NOISE = 0.01  # of the memory itself: allocators keep or return pages as they like
FEWEST = 8


@dataclass(frozen=True)
class Growth:
    """What samples of memory say; all in MiB.

    Attributes
    ----------
    first_mib : float
        The first sample.
    third_quarter_mib, last_quarter_mib : float
        Medians of the two halves of the run's last half.
    noise_mib : float
        What eight in ten samples of the last half spread over, about the line through the two medians; at least 1 %
        of the memory. The others are left out, as a worker that was just killed takes no memory at all.
    samples : int
    """

    first_mib: float
    third_quarter_mib: float
    last_quarter_mib: float
    noise_mib: float
    samples: int

    @property
    def growth_mib(self) -> float:
        """How much the last quarter has over the one before it."""
        return self.last_quarter_mib - self.third_quarter_mib

    @property
    def is_noise(self) -> bool:
        """Whether the growth is within the noise."""
        return self.growth_mib <= self.noise_mib


def growth(samples_bytes: Sequence[int]) -> Growth:
    """Return what evenly spaced samples say.

    Raises
    ------
    ValueError
        If there are fewer than 8.
    """
    if len(samples_bytes) < FEWEST:
        raise ValueError(f"{len(samples_bytes)} samples of memory; at least {FEWEST} are needed: let the run be longer")
    mib = np.asarray(samples_bytes, dtype=float) / 2**20
    half = len(mib) // 2
    third, last = (float(np.median(quarter)) for quarter in np.array_split(mib[half:], 2))
    line = (last - third) * np.arange(len(mib) - half) / ((len(mib) - half) / 2)
    low, high = np.quantile(mib[half:] - line, (0.1, 0.9))
    noise = max(float(high - low), _LEAST_NOISE * third)
    return Growth(float(mib[0]), third, last, noise, len(mib))


@asynccontextmanager
async def sampled(measure: Callable[[], int], every_s: float) -> AsyncIterator[list[int]]:
    """Sample in the background; the list grows while the body runs."""
    samples: list[int] = []

    async def sample() -> None:
        while True:
            started = time.monotonic()
            samples.append(await asyncio.to_thread(measure))
            await asyncio.sleep(max(0.0, every_s - (time.monotonic() - started)))

    task = asyncio.create_task(sample())
    try:
        yield samples
    finally:
        task.cancel()
