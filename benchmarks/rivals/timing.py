"""Wall clock of denoising, as a ratio to full runs just before and after.

Text encoding and the noise are in it, decoding is not: it is the same for all. Every round takes the rivals in another
order, a few at a time between two full runs, so that a slow minute of the machine hits both sides of a ratio.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from statistics import median

import torch
from tqdm import tqdm

from benchmarks.rivals.recut import run_bare
from benchmarks.rivals.rival import Denoise, OpenLatte, Rival, Start, run_full, start
from benchmarks.rivals.rows import Store, TimeRow
from benchmarks.rivals.stock import run_pipeline
from lemica_backend.config import ModelConfig

BETWEEN_FULL_RUNS = 6


def loops() -> Iterator[Rival]:
    """Yield the full run by the two other loops, to show that the loops themselves cost the same."""
    yield Rival("full", "LattePipeline", "every step", run_pipeline)
    yield Rival("full", "re-cut", "every step", run_bare)


def time_all(
    model: OpenLatte,
    config: ModelConfig,
    rivals: Sequence[Rival],
    prompts: Sequence[tuple[str, int]],
    store: Store,
    *,
    rounds: int,
) -> None:
    """Add to `store` every timed run that is not in it yet."""
    weights = model.info.weights_hash
    known = {(row.method, row.setting, row.prompt, row.round) for row in store.times(rivals, weights)}
    with tqdm(total=len(rivals) * len(prompts) * rounds, initial=len(known), desc="timing") as bar:
        for turn in range(rounds):
            for prompt, seed in prompts:
                left = [rival for rival in rivals if (rival.method, rival.setting, prompt, turn) not in known]
                random.Random(turn).shuffle(left)  # noqa: S311 - an order, not a secret
                for row in _time_round(start(model, config, prompt, seed), left, turn):
                    store.add(row)
                    bar.update()


def _time_round(begin: Start, rivals: Sequence[Rival], turn: int) -> Iterator[TimeRow]:
    before = _seconds(begin, run_full) if rivals else 0.0
    for at in range(0, len(rivals), BETWEEN_FULL_RUNS):
        some = rivals[at : at + BETWEEN_FULL_RUNS]
        times = [_seconds(begin, rival.denoise) for rival in some]
        after = _seconds(begin, run_full)
        for rival, seconds in zip(some, times, strict=True):
            yield _row(begin, rival, turn, 2 * seconds / (before + after))
        before = after


def _seconds(begin: Start, denoise: Denoise) -> float:
    _wait(begin)
    started = time.perf_counter()
    denoise(begin)
    _wait(begin)
    return time.perf_counter() - started


def _wait(begin: Start) -> None:
    if begin.model.net.device.type == "cuda":
        torch.cuda.synchronize()


def _row(begin: Start, rival: Rival, turn: int, ratio: float) -> TimeRow:
    return TimeRow(
        method=rival.method,
        setting=rival.setting,
        recipe=rival.digest,
        weights=begin.model.info.weights_hash,
        prompt=begin.planned.prompt,
        seed=begin.planned.seed,
        round=turn,
        ratio=ratio,
    )


def median_ratios(rows: Sequence[TimeRow]) -> dict[tuple[str, str], float]:
    """Return the median over prompts and rounds, by method and setting."""
    ratios: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        ratios.setdefault((row.method, row.setting), []).append(row.ratio)
    return {key: median(values) for key, values in ratios.items()}
