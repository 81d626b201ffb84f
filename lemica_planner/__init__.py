"""Plan which steps of a diffusion sampler to compute, and which to reuse (LeMiCa, arXiv 2511.00090).

A video diffusion transformer denoises in T steps, and neighbouring steps resemble each other: a step may be skipped
by reusing what the last computed one added to its input. What that costs the *final* video depends on where it
happens, and is measured once, offline::

    errors of every reuse        paths with exactly B computed steps      what a server runs
    ErrorGraph          ── solve ──────────────────────────────────────>  CachePlan

      0 ─── 1 ─── 2 ─── 3 ─── 4 ─── 5      an edge i -> j: compute i and j, reuse i in between;
      └───────────┘     └───────────┘      its weight: what the final video loses; direct edges: 0

A plan's worth is its worst edge, then the second worst, and so on; it is the path on which these are smallest.

>>> import numpy as np
>>> weights = np.full((5, 5), np.inf)            # inf: not allowed
>>> weights[range(4), range(1, 5)] = 0.0         # direct edges reuse nothing
>>> weights[range(3), range(2, 5)] = [0.9, 0.2, 0.1]
>>> weights[range(2), range(3, 5)] = [1.5, 0.6]
>>> graph = ErrorGraph(weights)
>>> solve(graph, 4)
Solution(steps=(0, 1, 2, 4), errors=(0.1, 0.0, 0.0))
>>> {budget: found.worst for budget, found in solve_all(graph).items()}
{3: 0.6, 4: 0.1, 5: 0.0}
>>> plan = CachePlan.from_graph(graph, names={"fast": 3})
>>> plan.resolve("fast").steps
(0, 1, 4)
>>> CachePlan.from_json(plan.to_json()) == plan
True

`lemica_planner.calibrate` measures a graph, `lemica_planner.prompt_sets` chooses the prompts for that,
`lemica_planner.published` holds the authors' lists of steps, and `lemica_planner.config_writer` puts a plan into a
Triton ``config.pbtxt``. Importing this package needs numpy only.
"""

from lemica_planner.errors import (
    CalibrationError,
    ConfigError,
    InfeasibleBudgetError,
    InvalidGraphError,
    JournalError,
    PlanFormatError,
    PlanMismatchError,
    PlannerError,
    PromptSetError,
    ReplayerNotFoundError,
    UnknownBudgetError,
)
from lemica_planner.graph import ErrorGraph
from lemica_planner.plan import CachePlan, Fill, PlanEntry
from lemica_planner.plan_checks import Check
from lemica_planner.provenance import Provenance, Sample
from lemica_planner.published import published_names, published_plan
from lemica_planner.replayer import OperatorFacts, Replayer, ReplaySession, Segment
from lemica_planner.solver import (
    Solution,
    evaluate,
    feasible_budgets,
    shortest_path,
    shortest_path_all,
    solve,
    solve_all,
    uniform_steps,
)

__all__ = [
    "CachePlan",
    "CalibrationError",
    "Check",
    "ConfigError",
    "ErrorGraph",
    "Fill",
    "InfeasibleBudgetError",
    "InvalidGraphError",
    "JournalError",
    "OperatorFacts",
    "PlanEntry",
    "PlanFormatError",
    "PlanMismatchError",
    "PlannerError",
    "PromptSetError",
    "Provenance",
    "ReplaySession",
    "Replayer",
    "ReplayerNotFoundError",
    "Sample",
    "Segment",
    "Solution",
    "UnknownBudgetError",
    "evaluate",
    "feasible_budgets",
    "published_names",
    "published_plan",
    "shortest_path",
    "shortest_path_all",
    "solve",
    "solve_all",
    "uniform_steps",
]
