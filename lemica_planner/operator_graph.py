"""An error graph whose edges choose among reuse operators and know the edge before them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemica_planner.atomic import atomic_write
from lemica_planner.candidates import Candidates
from lemica_planner.errors import InvalidGraphError, PlannerError
from lemica_planner.graph import ErrorGraph
from lemica_planner.history_solver import solve_with_history
from lemica_planner.plan_entry import PlanEntry
from lemica_planner.provenance import Provenance, Sample
from lemica_planner.replayer import OperatorFacts
from lemica_planner.risk import risk_measure

__all__ = ["OperatorGraph"]

_FILE_VERSION = 3


@dataclass(frozen=True, eq=False)
class OperatorGraph:
    """What `lemica_planner.lazy.calibrate_lazily` found.

    Attributes
    ----------
    candidates : Candidates
        The segments, N in number, and where they stand.
    sample_errors : ndarray of float64, shape (samples, N)
        Measured, or estimated.
    measured : ndarray of bool, shape (samples, N)
        Which are measured.
    risk : str
        How errors become weights; see `lemica_planner.risk.risk_measure`.
    provenance : Provenance
    samples : tuple of Sample
    refined : mapping of int to PlanEntry
        By budget, paths that replace the minimax path because their true outcome is better.
    """

    candidates: Candidates
    sample_errors: NDArray[np.float64]
    measured: NDArray[np.bool_]
    risk: str
    provenance: Provenance
    samples: tuple[Sample, ...]
    refined: Mapping[int, PlanEntry] = field(default_factory=dict)

    @property
    def num_steps(self) -> int:
        """Number of denoising steps T."""
        return self.candidates.num_steps

    @property
    def max_span(self) -> int:
        """Longest edge."""
        return self.candidates.max_span

    def weights(self) -> NDArray[np.float64]:
        """Return the weight of every segment, shape (N,)."""
        return risk_measure(self.risk, self.sample_errors)

    def entries(self) -> dict[int, PlanEntry]:
        """Return the minimax path of every feasible budget, with its operators, or the refined one."""
        weights = self.weights()
        paths = solve_with_history(self.candidates.weights(weights))
        return {budget: self.entry(steps, weights) for budget, steps in paths.items()} | dict(self.refined)

    def to_error_graph(self) -> ErrorGraph:
        """Return the plain graph in which every edge has its best operator and history: a lower bound of each edge."""
        weights = self.candidates.weights(self.weights()).min(axis=0)
        return ErrorGraph(weights, provenance=self.provenance, samples=self.samples)

    def weights_of(self, picks: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the weight of every edge by its gap, by some samples alone; `picks` may repeat.

        Shape (L + 1, T, T), as `lemica_planner.candidates.Candidates.weights`.
        """
        return self.candidates.weights(risk_measure(self.risk, self.sample_errors[picks]))

    def entry(self, steps: Sequence[int], weights: NDArray[np.float64]) -> PlanEntry:
        """Return the entry of any path of allowed edges, each with its best operator by `weights`, shape (N,)."""
        chosen = {self.candidates.segments[at].start: at for at in self.candidates.on_path(steps, weights)}
        first = next(iter(self.candidates.operators))
        operators: list[str] = []
        errors: list[float] = []
        fitted: dict[int, tuple[float, ...]] = {}
        for start, _ in pairwise(steps):
            segment = self.candidates.segments[chosen[start]] if start in chosen else None
            operators.append(segment.operator if segment else first)
            errors.append(float(weights[chosen[start]]) if segment else 0.0)
            fitted |= {step: fill.weights for step, fill in segment.fills.items() if fill.weights} if segment else {}
        return PlanEntry(tuple(steps), tuple(sorted(errors, reverse=True)), tuple(operators), fitted)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph as a compressed ``.npz`` without pickles, whole or not at all."""
        known = self.candidates
        metadata = {
            "num_steps": known.num_steps,
            "max_span": known.max_span,
            "switches": known.switches,
            "operators": {name: facts._asdict() for name, facts in known.operators.items()},
            "risk": self.risk,
            "provenance": self.provenance.to_dict(),
            "samples": [sample.to_list() for sample in self.samples],
            "refined": [entry.to_dict() for entry in self.refined.values()],
        }
        arrays: dict[str, Any] = {f"gram_{source}": gram for source, gram in sorted(known.grams.items())}
        arrays |= {"sample_errors": self.sample_errors, "measured": self.measured}
        arrays |= {"file_version": np.array(_FILE_VERSION), "metadata": np.array(json.dumps(metadata))}
        with atomic_write(path) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], path: str) -> OperatorGraph:
        """Build from what `save` wrote.

        Raises
        ------
        InvalidGraphError
            If the arrays are no such graph.
        """
        if arrays.get("file_version") != _FILE_VERSION:
            raise InvalidGraphError(f"{path} is no operator graph of version {_FILE_VERSION}; calibrate again")
        try:
            known = json.loads(str(arrays["metadata"]))
            operators = {
                name: OperatorFacts(int(facts["looks_back"]), tuple(facts["fits"]))
                for name, facts in known["operators"].items()
            }
            grams = {key.removeprefix("gram_"): gram for key, gram in arrays.items() if key.startswith("gram_")}
            switches = known.get("switches", ())  # older files know none
            candidates = Candidates(known["num_steps"], known["max_span"], operators, grams, switches)
            provenance = Provenance.from_dict(known["provenance"])
            samples = tuple(Sample(*sample) for sample in known["samples"])
            entries = [PlanEntry.from_dict(entry, "refined") for entry in known["refined"]]
            refined = {entry.budget: entry for entry in entries}
            errors, measured = arrays["sample_errors"], arrays["measured"]
            graph = cls(candidates, errors, measured, known["risk"], provenance, samples, refined)
        except (PlannerError, ValueError, KeyError, TypeError) as exc:
            raise InvalidGraphError(f"{path} is no operator graph of version {_FILE_VERSION}: {exc}") from exc
        if graph.sample_errors.shape != (len(samples), len(candidates.segments)):
            raise InvalidGraphError(
                f"{path}: {graph.sample_errors.shape} errors for {len(candidates.segments)} segments"
            )
        return graph
