"""Whether it pays to compute the conditional branch alone at some steps.

``python -m benchmarks.bench_guidance MODEL_DIR --graph FILE.npz --prompts FILE --held-out FILE``: with guidance a
computed step is two forwards, one for each branch. A step may also cost one: the conditional residual is computed, and
the guidance (its difference from the unconditional one) is forecast from the steps that computed both. Beginning with
the graph's plan of each budget, two climbs with as many evaluations each move, add and drop steps at the same number
of branch forwards, one among steps that compute both branches or none, one that may compute the conditional branch
alone as well. Both climb on the calibration prompts and are compared on held-out ones. Forecasts are those of the
operator ``residual-split``. The last line is the same as JSON.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from benchmarks.bench_outcomes import bootstrap
from benchmarks.videos import FIRST_SEED
from demo.measure import read_prompts
from lemica_backend.config import load_config
from lemica_backend.differences import final_difference
from lemica_backend.job import Job, start_job
from lemica_backend.models import Stem, VideoModel
from lemica_backend.opening import open_model
from lemica_backend.planned import FULL, plan_request
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan
from lemica_planner.forecast import fit_weights
from lemica_planner.graph_file import load_graph
from lemica_planner.operator_graph import OperatorGraph

Kinds = Mapping[int, str]  # by step that is not skipped: "both" or "cond"
Grams = Mapping[str, NDArray[np.float64]]
_COST = {"both": 2, "cond": 1}


def cost(kinds: Kinds) -> int:
    """Return the branch forwards."""
    return sum(_COST[kind] for kind in kinds.values())


class History:
    """The last two values of one part, and what they forecast."""

    def __init__(self, gram: NDArray[np.float64]) -> None:
        self._gram, self._known = gram, dict[int, Tensor]()

    def record(self, step: int, value: Tensor) -> None:
        """Keep a computed value."""
        self._known = dict([*self._known.items(), (step, value)][-2:])

    def forecast(self, step: int) -> Tensor:
        """Return the fitted sum of the known values."""
        weights = fit_weights(self._gram, tuple(self._known), step)
        return torch.stack([value * weight for value, weight in zip(self._known.values(), weights, strict=True)]).sum(0)


@dataclass(frozen=True)
class Trial:
    """One prompt's full run, and the metric against it."""

    model: VideoModel
    prompt: str
    seed: int
    guidance_scale: float
    config: Any

    def job(self) -> Job:
        """Return a fresh run."""
        request = GenerationRequest(self.prompt, seed=self.seed, budget=FULL)
        planned = plan_request(request, info=self.model.info, config=self.config, plan=None)
        return start_job(self.model, planned)


@torch.inference_mode()
def run(trial: Trial, kinds: Kinds, grams: Grams) -> Tensor:
    """Return the final latents when each step computes what `kinds` says."""
    model, job = trial.model, trial.job()
    parts = History(grams["cond"]), History(grams["guidance"])
    while not job.is_finished:
        both = [job.texts["uncond"], job.texts["cond"]]
        stem = model.stem(job.latents.expand(2, *job.latents.shape), job.timestep.expand(2), both)
        residuals = _residuals(job, stem, model, kinds.get(job.step), parts)
        output = model.head(stem.hidden + residuals, stem)
        guided = output[0] + trial.guidance_scale * (output[1] - output[0])
        job.latents = job.scheduler.step(guided[None], job.timestep, job.latents[None], return_dict=False)[0][0]
        job.step += 1
    return job.latents


def _residuals(job: Job, stem: Stem, model: VideoModel, kind: str | None, parts: tuple[History, History]) -> Tensor:
    """Return the residuals of (uncond, cond), computed or forecast."""
    cond, guidance = parts
    if kind == "both":
        made: Tensor = model.blocks(stem, [job.texts["uncond"], job.texts["cond"]]) - stem.hidden
        cond.record(job.step, made[1])
        guidance.record(job.step, made[1] - made[0])
        return made
    if kind == "cond":
        alone = (model.blocks(stem.rows([1]), [job.texts["cond"]]) - stem.hidden[1:])[0]
        cond.record(job.step, alone)
    else:
        alone = cond.forecast(job.step)
    return torch.stack([alone - guidance.forecast(job.step), alone])


class Judge:
    """Mean error of a path over trials, each path once."""

    def __init__(self, trials: Sequence[Trial], grams: Grams, metric: str) -> None:
        self._trials, self._grams = trials, grams
        self._measure = final_difference(metric, trials[0].model)
        steps = range(len(grams["cond"]))
        self._full = [run(trial, dict.fromkeys(steps, "both"), grams) for trial in trials]

    def errors(self, kinds: Kinds) -> NDArray[np.float64]:
        """Return each trial's error."""
        made = (run(trial, kinds, self._grams) for trial in self._trials)
        return np.array([self._measure(latents, full) for latents, full in zip(made, self._full, strict=True)])


def neighbour(kinds: Kinds, num_steps: int, rng: random.Random, *, mixed: bool) -> dict[int, str]:
    """Return a random path near this one, at the same cost."""
    change = rng.choice((_shift, _trade, _merge)) if mixed else _shift
    return dict(sorted(change(dict(kinds), range(1, num_steps - 1), rng).items()))


def _shift(kinds: dict[int, str], inner: range, rng: random.Random) -> dict[int, str]:
    """Move a step to one nearby that is skipped."""
    step = rng.choice([step for step in inner if step in kinds])
    free = [to for to in range(step - 2, step + 3) if to in inner and to not in kinds]
    if free:
        kinds[rng.choice(free)] = kinds.pop(step)
    return kinds


def _trade(kinds: dict[int, str], inner: range, rng: random.Random) -> dict[int, str]:
    """Leave the unconditional branch out of a step, and compute the conditional one at another."""
    both = [step for step in inner if kinds.get(step) == "both"]
    free = [step for step in inner if step not in kinds]
    if both and free:
        kinds |= {rng.choice(both): "cond", rng.choice(free): "cond"}
    return kinds


def _merge(kinds: dict[int, str], inner: range, rng: random.Random) -> dict[int, str]:
    """Make one of two steps that compute the conditional branch compute both, and skip the other."""
    alone = [step for step in inner if kinds.get(step) == "cond"]
    if len(alone) > 1:
        grown, dropped = rng.sample(alone, 2)
        kinds[grown] = "both"
        del kinds[dropped]
    return kinds


def climb(judge: Judge, start: Kinds, num_steps: int, evaluations: int, *, mixed: bool) -> Kinds:
    """Return the best path of so many random moves, each from the best so far."""
    rng = random.Random(0)  # noqa: S311 - a search, no secret
    best, least = start, float(judge.errors(start).mean())
    for _ in tqdm(range(evaluations), desc=f"{cost(start)} {'mixed' if mixed else 'both'}", leave=False):
        trial = neighbour(best, num_steps, rng, mixed=mixed)
        error = float(judge.errors(trial).mean())
        best, least = (trial, error) if error < least else (best, least)
    return best


def _row(name: str, kinds: Kinds, errors: NDArray[np.float64], base: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "forwards": cost(kinds),
        "path": name,
        "error": float(errors.mean()),
        "interval": bootstrap(errors),
        "ratio": float(errors.mean() / base.mean()),
        "cond_alone": sum(kind == "cond" for kind in kinds.values()),
    }


def _show(rows: Sequence[dict[str, Any]]) -> None:
    table = Table("branch forwards", "path", "held-out error", "95 %", "ratio to both", "steps of cond alone")
    for row in rows:
        low, high = row["interval"]
        values = (f"{row['error']:.4g}", f"{low:.4g}-{high:.4g}", f"{row['ratio']:.3f}", str(row["cond_alone"]))
        table.add_row(str(row["forwards"]), row["path"], *values)
    Console().print(table)


def main(
    model_dir: Annotated[Path, typer.Argument(help="The model's folder, with config.pbtxt.")],
    *,
    graph: Annotated[Path, typer.Option(help="A lazy graph of the operator residual-split.")],
    held_out: Annotated[Path, typer.Option(help="One held-out prompt a line.")],
    budgets: Annotated[str, typer.Option(help="Steps that compute both branches, to begin with.")] = "10,17",
    evaluations: Annotated[int, typer.Option(help="Paths that each climb may try.")] = 40,
    count: Annotated[int, typer.Option(help="Held-out prompts.")] = 8,
    metric: Annotated[str, typer.Option(help="What errors measure.")] = "frames_l2",
) -> None:
    """Print the comparison as a table, then as one line of JSON."""
    known = load_graph(graph)
    if not isinstance(known, OperatorGraph):
        raise typer.BadParameter(f"{graph} is no graph of a lazy calibration")
    plan, grams = CachePlan.from_graph(known), known.candidates.grams
    config = load_config(model_dir / "1" / "model.json")
    model, scale = open_model(model_dir / "1", config), config.defaults.guidance_scale
    trials = [Trial(model, sample.prompt, sample.seed, scale, config) for sample in known.samples[:2]]
    texts = enumerate(read_prompts(held_out)[:count])
    unseen = Judge([Trial(model, text, FIRST_SEED + at, scale, config) for at, text in texts], grams, metric)
    judge, rows = Judge(trials, grams, metric), []
    for budget in map(int, budgets.split(",")):
        start = dict.fromkeys(plan.resolve(budget).steps, "both")
        paths: dict[str, Kinds] = {"plan": start}
        for name in ("both", "mixed"):
            paths[name] = climb(judge, start, known.num_steps, evaluations, mixed=name == "mixed")
        errors = {name: unseen.errors(kinds) for name, kinds in paths.items()}
        rows += [_row(name, kinds, errors[name], errors["both"]) for name, kinds in paths.items()]
    _show(rows)
    print(json.dumps({"metric": metric, "held_out": count, "evaluations": evaluations, "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
