"""What a lazy calibration costs and finds, against the naive one: replayed from a journal that holds every edge.

``python -m benchmarks.bench_lazy JOURNAL``: the journal holds the errors and drifts of all edges of some samples. A
lazy calibration of the operator ``residual`` runs on these numbers in place of the model, for each set of budgets, and
for each sample alone and all together. Printed are its forwards over those of the naive replay, by how much the worst
edges of its paths differ from those of the naive graph's paths, and the smallest and largest total that was foreseen
over what was done in the end. The last line is the same as JSON.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.bench_outcomes import parse_range
from lemica_planner import ErrorGraph, PlanEntry, Provenance, Sample, solve_all
from lemica_planner.calibration_cost import calibration_cost
from lemica_planner.journal import Journal
from lemica_planner.lazy import calibrate_lazily
from lemica_planner.replayer import OperatorFacts, Segment

_OPERATOR = "residual"


class Recorded:
    """A replayer and its only session: answers from a journal, and runs nothing.

    Parameters
    ----------
    records : Journal
    known : Provenance
    """

    def __init__(self, records: Journal, known: Provenance) -> None:
        self._records, self._known = records, known
        self._sample = Sample("", 0)

    def provenance(self) -> Provenance:
        """Return the journal's."""
        return self._known

    def switches(self) -> tuple[int, ...]:
        """Return no steps."""
        return ()

    def operators(self) -> dict[str, OperatorFacts]:
        """Return the one operator."""
        return {_OPERATOR: OperatorFacts(0)}

    def open(self, sample: Sample) -> Recorded:
        """Return a session of the sample."""
        session = Recorded(self._records, self._known)
        session._sample = sample
        return session

    def errors(self, segments: Sequence[Segment]) -> NDArray[np.float64]:
        """Return what was measured."""
        return np.array([self._records.value(self._sample, "error", segment) for segment in segments])

    def drifts(self, segments: Sequence[Segment]) -> NDArray[np.float64]:
        """Return what was measured."""
        return np.array([self._records.value(self._sample, "drift", segment) for segment in segments])

    def outcomes(self, paths: Sequence[PlanEntry]) -> NDArray[np.float64]:
        """Raise: no path is run."""
        raise NotImplementedError

    def grams(self) -> dict[str, NDArray[np.float64]]:
        """Return nothing: the operator is not fitted."""
        return {}

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def open_recorded(journal: Path) -> Iterator[Recorded]:
    """Give a replayer of a copy of the journal."""
    known = Provenance.from_dict(json.loads(journal.open().readline())["provenance"])
    with tempfile.TemporaryDirectory() as folder, Journal(Path(shutil.copy(journal, folder)), known) as records:
        yield Recorded(records, known)


def complete_samples(journal: Path, edges: int) -> list[Sample]:
    """Return the samples of which every edge was measured, in the order of the journal."""
    counts: dict[tuple[Sample, str], int] = {}
    for line in map(json.loads, journal.read_text().splitlines()[1:]):
        if "measure" in line:
            key = Sample(*line["sample"]), line["measure"]
            counts[key] = counts.get(key, 0) + sum(segment[2] == _OPERATOR for segment in line["segments"])
    return [sample for sample, measure in counts if measure == "error" and counts[sample, measure] >= edges]


def naive_graph(recorded: Recorded, samples: Sequence[Sample], max_span: int) -> ErrorGraph:
    """Return the graph of every edge, a mean over the samples."""
    steps = recorded.provenance().num_inference_steps
    weights = np.full((steps, steps), np.inf)
    weights[range(steps - 1), range(1, steps)] = 0
    for start in range(steps - 2):
        ends = range(start + 2, min(start + max_span, steps - 1) + 1)
        segments = [Segment(start, end, _OPERATOR) for end in ends]
        weights[start, list(ends)] = np.mean([recorded.open(each).errors(segments) for each in samples], axis=0)
    return ErrorGraph(weights)


def compare(recorded: Recorded, samples: Sequence[Sample], budgets: Sequence[int], max_span: int) -> dict[str, Any]:
    """Return the share of forwards, and the largest share by which a worst edge is off at these budgets."""
    truth = solve_all(graph := naive_graph(recorded, samples, max_span))
    totals: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        known: dict[str, Any] = {"journal": Path(folder) / "j.jsonl", "progress": lambda _, total: totals.append(total)}
        found = calibrate_lazily(recorded, samples, max_span=max_span, budgets=budgets, checks=0, **known)
    cost = calibration_cost(found)
    assert cost is not None
    paths = {budget: found.entries()[budget].steps for budget in budgets}
    worst = {at: max(graph.weights[edge] for edge in pairwise(path)) for at, path in paths.items()}
    off = {at: float(worst[at] / truth[at].worst - 1) for at in budgets}
    return {
        "samples": len(samples),
        "budgets": list(budgets),
        "forwards": cost.forwards / len(samples),
        "naive": cost.naive / len(samples),
        "share": cost.forwards / cost.naive,
        "off": off,
        "largest_off": max(off.values()),
        "totals": [min(totals) / totals[-1], max(totals) / totals[-1]],
    }


def _rows(recorded: Recorded, samples: Sequence[Sample], sets: Sequence[str], span: int) -> Iterator[dict[str, Any]]:
    groups = [[sample] for sample in samples] + ([list(samples)] if len(samples) > 1 else [])
    for text in tqdm(sets, unit="set", leave=False):
        for group in groups:
            yield compare(recorded, group, parse_range(text), span)


def _show(rows: Sequence[dict[str, Any]]) -> None:
    table = Table("budgets", "samples", "forwards a sample", "of naive", "worst edge off by at most", "totals foreseen")
    for row in rows:
        of_naive, off = f"{100 * row['share']:.1f} %", f"{100 * row['largest_off']:.2f} %"
        totals = "{:.2f} to {:.2f}".format(*row["totals"])
        sizes = ",".join(map(str, row["budgets"])), str(row["samples"]), f"{row['forwards']:.0f}"
        table.add_row(*sizes, of_naive, off, totals)
    Console().print(table)


def main(
    journal: Annotated[Path, typer.Argument(help="Of a naive calibration and a lazy one, both of all its samples.")],
    *,
    max_span: Annotated[int, typer.Option(help="Longest edge.")] = 10,
    sets: Annotated[str, typer.Option(help="Sets of budgets, separated by /.")] = (
        "10,17,25/10/17/25/8,12,20,30/6,8,10,12,14,17,20,25,30"
    ),
) -> None:
    """Print the comparison as a table, then as one line of JSON."""
    with open_recorded(journal) as recorded:
        steps = recorded.provenance().num_inference_steps
        edges = sum(min(max_span, steps - 1 - start) - 1 for start in range(steps - 2))
        samples = complete_samples(journal, edges)
        if not samples:
            raise typer.BadParameter(f"{journal} holds no sample with all {edges} edges; calibrate it naively first")
        rows = list(_rows(recorded, samples, sets.split("/"), max_span))
    _show(rows)
    mean, within = float(np.mean([row["share"] for row in rows])), sum(row["largest_off"] <= 0.02 for row in rows)
    print(f"mean share {100 * mean:.1f} %; {within} of {len(rows)} within 2 %")
    print(json.dumps({"journal": journal.name, "samples": [list(each) for each in samples], "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
