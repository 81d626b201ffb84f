"""Calibrate as the paper does, on draws from one pool of samples, each measurement once.

The pool's journal is keyed by sample and segment, so draws that share samples share measurements, and an interrupted
calibration goes on. Finished graphs are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.models import OpenModel, open_paper_replayer
from demo.measure import read_prompts
from lemica_planner import CalibrationError, PlanEntry, Sample
from lemica_planner.graph_file import load_graph
from lemica_planner.lazy import calibrate_lazily
from lemica_planner.measuring import Runner
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.plan import default_names
from lemica_planner.switches import feasible_range
from lemica_planner.terminal import progress_bar

if TYPE_CHECKING:
    from benchmarks.paper.kept_workers import KeptWorkers

__all__ = ["Calibrations", "are_disjoint", "draw_samples", "read_pool"]


class Calibrations:
    """Graphs by the paper's operator (residual), metric (latents L1) and weight (mean), measured lazily.

    Parameters
    ----------
    folder : Path
        Of the journals and graphs; made if it is not there.
    span_share : float
        Longest edge as a share of the steps, so that schedules of any length may skip alike.
    workers : int
        Ray workers, which hold the trajectories of all samples of a setting; 0 for this process.
    eager : bool
        Whether the workers run the block stack in torch; see `benchmarks.models.open_folder`.
    """

    def __init__(self, folder: Path, span_share: float, workers: int = 0, *, eager: bool = False) -> None:
        self._folder, self._span_share, self._workers, self._eager = folder, span_share, workers, eager
        self._kept: dict[str, KeptWorkers] = {}  # of the last setting

    def max_span(self, num_steps: int) -> int:
        """Return the longest edge at `num_steps` steps."""
        return max(2, round(self._span_share * num_steps))

    def budgets(self, num_steps: int) -> dict[int, str]:
        """Return the named budgets at `num_steps` steps, ascending: about a fifth, a third and a half of them."""
        names = default_names(num_steps, feasible_range(num_steps, self.max_span(num_steps)))
        return {budget: name for name, budget in sorted(names.items(), key=lambda item: item[1])}

    def entries(self, opened: OpenModel, samples: Sequence[Sample]) -> dict[str, PlanEntry]:
        """Return the minimax plan that is calibrated on `samples`, by the name of the budget."""
        entries = self.graph(opened, samples).entries()
        steps = opened.num_steps
        names = default_names(steps, feasible_range(steps, self.max_span(steps)))
        return {name: entries[budget] for name, budget in names.items()}

    def graph(self, opened: OpenModel, samples: Sequence[Sample]) -> OperatorGraph:
        """Return the graph of `samples`: the one that is kept, or a new one."""
        path = self._graph_path(opened, samples)
        if path.exists():
            known = load_graph(path)
            assert isinstance(known, OperatorGraph)
            return known
        journal = self._folder / "journals" / f"{_file_name(opened)}-{opened.key}.jsonl"
        for each in (path, journal):
            each.parent.mkdir(parents=True, exist_ok=True)
        with progress_bar("forward") as progress:
            graph = calibrate_lazily(
                opened.replayer(),
                samples,
                max_span=self.max_span(opened.num_steps),
                budgets=list(self.budgets(opened.num_steps)),
                journal=journal,
                checks=0,
                progress=progress,
                runner=self._runner(opened, samples),
            )
        graph.save(path)
        return graph

    def _graph_path(self, opened: OpenModel, samples: Sequence[Sample]) -> Path:
        asked = [opened.key, self.max_span(opened.num_steps), list(map(list, samples))]
        digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
        return self._folder / "graphs" / f"{_file_name(opened)}-n{len(samples)}-{digest}.npz"

    def _runner(self, opened: OpenModel, samples: Sequence[Sample]) -> Runner | None:
        if not self._workers:
            return None
        from benchmarks.paper.kept_workers import KeptWorkers  # noqa: PLC0415 - only who asks for workers needs Ray

        if opened.key not in self._kept:
            while self._kept:
                self._kept.popitem()[1].end()
            folder = opened.folder.resolve()
            defaults = (opened.num_steps, opened.guidance_scale)
            factory = partial(open_paper_replayer, folder, *defaults, eager=self._eager)
            self._kept[opened.key] = KeptWorkers(factory, samples, workers=self._workers)
        self._kept[opened.key].deal(samples)
        return self._kept[opened.key]


def read_pool(path: Path, seeds: int = 1) -> tuple[Sample, ...]:
    """Return every prompt of a file with its own noise, and that again with other noise, `seeds` times in all."""
    prompts = read_prompts(path) * seeds
    return tuple(Sample(prompt, number) for number, prompt in enumerate(prompts))


def draw_samples(pool: Sequence[Sample], size: int, count: int) -> list[tuple[Sample, ...]]:
    """Draw `size` samples, `count` times.

    Draw k begins with every `count`-th sample of the pool from the k-th on, and goes on with the others in a random
    order (seed k). So draws are disjoint as long as the pool has room, and a draw holds the smaller ones of its number.
    The whole pool is drawn once.

    Raises
    ------
    CalibrationError
        If the pool is smaller than a draw.
    """
    if not 1 <= size <= len(pool):
        raise CalibrationError(f"cannot draw {size} of a pool of {len(pool)} samples; add prompts or --pool-seeds")
    if size == len(pool):
        return [tuple(pool)]
    return [_ordered(pool, number, count)[:size] for number in range(count)]


def are_disjoint(draws: Sequence[Sequence[Sample]]) -> bool:
    """Return whether no two draws share a sample."""
    return len({sample for draw in draws for sample in draw}) == sum(map(len, draws))


def _file_name(opened: OpenModel) -> str:
    return opened.name.strip("/").replace("/", "-")


def _ordered(pool: Sequence[Sample], number: int, count: int) -> tuple[Sample, ...]:
    own = tuple(pool[number::count])
    others = [sample for sample in pool if sample not in own]
    picks = np.random.default_rng(number).permutation(len(others))
    return (*own, *(others[at] for at in picks))
