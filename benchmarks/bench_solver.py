"""Time the solver on random graphs, every budget at once, each case in a fresh process on one thread.

The dense graph allows every edge, the others edges up to a span; weights grow with the span, as measured ones do, and
are all distinct. Time is the best of several runs after one warm-up, without building the graph; memory is the peak
resident size of the whole process, numpy included. The last line is one JSON document.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np

from lemica_planner import ErrorGraph, solve_all


class Case(NamedTuple):
    """One graph, and what solving it may take."""

    num_steps: int
    max_span: int
    runs: int
    limit_s: float
    limit_mib: float


CASES = (Case(50, 49, 20, 0.05, 2048), Case(50, 8, 20, 0.05, 2048), Case(1000, 16, 1, 60, 2048))


def random_graph(num_steps: int, max_span: int, seed: int = 0) -> ErrorGraph:
    """Return a graph with every edge up to `max_span`."""
    rng = np.random.default_rng(seed)
    starts = np.arange(num_steps)
    spans = starts[None, :] - starts[:, None]
    weights = np.where(spans <= max_span, spans * rng.random((num_steps, num_steps)), np.inf)
    weights[starts[:-1], starts[1:]] = 0
    return ErrorGraph(weights)


def measure(case: Case) -> dict[str, Any]:
    """Solve one case in this process."""
    graph = random_graph(case.num_steps, case.max_span)
    solve_all(random_graph(50, 8))
    times = []
    for _ in range(case.runs):
        start = time.perf_counter()
        budgets = len(solve_all(graph))
        times.append(time.perf_counter() - start)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    return {**case._asdict(), "budgets": budgets, "time_s": min(times), "peak_mib": peak_mib}


def measure_apart(index: int) -> dict[str, Any]:
    """Solve one case in a fresh process, so that its peak memory is its own."""
    command = [sys.executable, __file__, str(index)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Print a table of all cases with their limits, or one case as JSON if its number is given."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(CASES[int(sys.argv[1])])))
        return
    results = [measure_apart(index) for index in range(len(CASES))]
    print(f"{'steps':>5} {'span':>4} {'budgets':>7} {'time':>10} {'limit':>8} {'peak':>9} {'limit':>9}")
    for found in results:
        print(
            f"{found['num_steps']:5} {found['max_span']:4} {found['budgets']:7} {found['time_s'] * 1e3:7.1f} ms "
            f"{found['limit_s'] * 1e3:5.0f} ms {found['peak_mib']:5.0f} MiB {found['limit_mib']:5.0f} MiB"
        )
    print(json.dumps({"numpy": np.__version__, "python": sys.version.split()[0], "results": results}))


if __name__ == "__main__":
    main()
