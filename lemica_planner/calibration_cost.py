"""What a calibration cost, and what measuring every edge would have cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lemica_planner.graph import ErrorGraph
from lemica_planner.operator_graph import OperatorGraph

__all__ = ["CalibrationCost", "calibration_cost", "naive_forwards"]


@dataclass(frozen=True)
class CalibrationCost:
    """Forwards are those of one row: with guidance, two rows of the block stack.

    Attributes
    ----------
    samples : int
    forwards : int
        What was spent, trajectories and whole paths of the refinement included.
    refinement : int
        The part of it that ran whole paths.
    naive : int
        What the naive replay of the same edges, one operator each, would have cost on the same samples.
    segments : int
        Edges by operator and history, over all samples.
    measured : int
        How many of these were measured; the others are estimates.
    every_segment : int
        What measuring all of them would have cost.
    check : mapping
        How far off the estimates of segments were that no path took; empty if nothing was estimated.
    """

    samples: int
    forwards: int
    refinement: int
    naive: int
    segments: int
    measured: int
    every_segment: int
    check: Mapping[str, Any]


def naive_forwards(num_steps: int, max_span: int) -> int:
    """Return the forwards of one sample when every edge up to `max_span` is replayed: docs/planner.md, cost.

    Examples
    --------
    >>> naive_forwards(50, 10)
    8990
    """
    return num_steps + sum((num_steps - end) * (min(end, max_span) - 1) for end in range(2, num_steps))


def calibration_cost(graph: ErrorGraph | OperatorGraph) -> CalibrationCost | None:
    """Return what a graph's calibration cost, None if the graph does not say how it was made."""
    stated = graph.provenance.calibration if graph.provenance else {}
    needed = ("samples", "max_span") if isinstance(graph, ErrorGraph) else ("samples", "max_span", "forwards")
    if not all(isinstance(stated.get(key), int) for key in needed):
        return None
    samples, steps = stated["samples"], graph.num_steps
    naive = samples * naive_forwards(steps, stated["max_span"])
    if isinstance(graph, ErrorGraph):  # every edge was measured
        edges = samples * int(np.triu(np.isfinite(graph.weights), 2).sum())
        return CalibrationCost(samples, naive, 0, naive, edges, edges, naive, {})
    refinement = stated.get("refine_forwards", 0)
    suffixes = sum(steps - segment.end for segment in graph.candidates.segments)
    return CalibrationCost(
        samples=samples,
        forwards=stated["forwards"] + refinement,
        refinement=refinement,
        naive=naive,
        segments=graph.measured.size,
        measured=int(graph.measured.sum()),
        every_segment=samples * (steps + suffixes),
        check=stated.get("check", {}),
    )
