"""What a forecast leaves of a skipped step's value, by the variable it is linear in and the values it looks at.

``python -m benchmarks.bench_fits MODEL_DIR JOURNAL``: from nothing but the products of values that a calibration's
journal holds, for every step and gap the relative error of reuse, of lines and parabolas in several variables of the
sampler, and of fitted sums of the last one, two and three values, fitted on the other samples. Printed are medians over
steps and samples, each divided by that of reuse. The last line is the same as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lemica_backend.config import load_config
from lemica_backend.models.base import Scheduler
from lemica_backend.opening import open_model
from lemica_backend.operators import extrapolation_weights
from lemica_planner.forecast import fit_weights

Gram = NDArray[np.float64]
Weigh = Callable[[Gram, Sequence[int], int], Sequence[float]]  # products of other samples, computed steps, skipped step
_TO_LOOK_AT = 3


def read_grams(journal: Path) -> list[dict[str, Gram]]:
    """Return each sample's products of values by part."""
    lines = (json.loads(line) for line in journal.read_text().splitlines())
    by_sample = {json.dumps(line["sample"]): line["grams"] for line in lines if "grams" in line}
    return [{part: np.array(gram) for part, gram in grams.items()} for grams in by_sample.values()]


def variables(scheduler: Scheduler) -> dict[str, list[float]]:
    """Return the sampler's candidate times at each step: of a signal a x0 with noise s."""
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is not None:
        signal = alphas[scheduler.timesteps.long().cpu()].double()
        ratio = ((1 - signal) / signal).sqrt()
        sigma = (1 - signal).sqrt()
    else:
        sigma = getattr(scheduler, "sigmas", torch.empty(0))[: len(scheduler.timesteps)].double()
        ratio = sigma / (1 - sigma).clamp(min=1e-3)
    return {
        "noise/signal": ratio.tolist(),
        "log-SNR": (-2 * ratio.log()).tolist(),
        "sigma": sigma.tolist(),
        "timestep": scheduler.timesteps.double().tolist(),
    }


def forecasts(times: Mapping[str, Sequence[float]]) -> dict[str, tuple[int, Weigh]]:
    """Return how many values each forecast looks at, and its weights."""
    found: dict[str, tuple[int, Weigh]] = {"reuse": (1, lambda gram, known, step: (1.0,))}
    for name, at in times.items():

        def extrapolate(gram: Gram, known: Sequence[int], step: int, at: Sequence[float] = at) -> Sequence[float]:
            return extrapolation_weights([at[place] for place in known], at[step])

        found |= {f"line in {name}": (2, extrapolate), f"parabola in {name}": (3, extrapolate)}
    return found | {f"fitted, {count} values": (count, fit_weights) for count in range(1, _TO_LOOK_AT + 1)}


def errors(grams: Sequence[Gram], gap: int, looks_at: int, weigh: Weigh) -> Iterator[float]:
    """Yield the relative error of the last skipped step of every gap, of every sample, fitted on the others."""
    for number, gram in enumerate(grams):
        others = np.mean([other for at, other in enumerate(grams) if at != number], axis=0)
        for start in range((_TO_LOOK_AT - 1) * gap, len(gram) - gap):
            known = range(start - (looks_at - 1) * gap, start + 1, gap)
            yield relative_error(gram, known, start + gap - 1, weigh(others, known, start + gap - 1))


def relative_error(gram: Gram, known: Sequence[int], step: int, weights: Sequence[float]) -> float:
    """Return the root mean square of value minus forecast over that of the value."""
    w = np.array([*(-np.array(weights)), 1.0])
    places = [*known, step]
    return float(np.sqrt(max(w @ gram[np.ix_(places, places)] @ w, 0) / gram[step, step]))


def compare(
    samples: Sequence[Mapping[str, Gram]], times: Mapping[str, Sequence[float]], gaps: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each part of a value, gap and forecast."""
    for part in samples[0]:
        grams = [sample[part] for sample in samples]
        for gap in gaps:
            reuse = np.median(list(errors(grams, gap, *forecasts(times)["reuse"])))
            for name, (looks_at, weigh) in forecasts(times).items():
                left = float(np.median(list(errors(grams, gap, looks_at, weigh))) / reuse)
                yield {"part": part, "gap": gap, "forecast": name, "of_reuse": left}


def _show(rows: Sequence[dict[str, Any]], gaps: Sequence[int]) -> None:
    parts = list(dict.fromkeys(row["part"] for row in rows))
    table = Table("error / reuse's", *(f"{part}, gap {gap}" for part in parts for gap in gaps))
    for name in dict.fromkeys(row["forecast"] for row in rows):
        table.add_row(name, *(f"{row['of_reuse']:.3f}" for row in rows if row["forecast"] == name))
    Console(width=200).print(table)


def main(
    model_dir: Annotated[Path, typer.Argument(help="The model's folder, with config.pbtxt.")],
    journal: Annotated[Path, typer.Argument(help="Of a calibration of two samples or more with a fitted operator.")],
    *,
    gaps: Annotated[str, typer.Option(help="Distances of computed steps.")] = "2,3,5",
) -> None:
    """Print the comparison as a table, then as one line of JSON."""
    config = load_config(model_dir / "1" / "model.json")
    scheduler = open_model(model_dir / "1", config).new_scheduler(config.defaults.num_inference_steps)
    samples, chosen = read_grams(journal), [int(gap) for gap in gaps.split(",")]
    rows = list(compare(samples, variables(scheduler), chosen))
    _show(rows, chosen)
    print(json.dumps({"samples": len(samples), "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
