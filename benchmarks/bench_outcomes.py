"""Compare plans by what they change in the final latents or frames, on prompts that none of them was calibrated on.

``python -m benchmarks.bench_outcomes MODEL_DIR NAME=GRAPH ... --prompts FILE --budgets 10-30``: every prompt runs in
full once and with every plan at every budget. Printed are means over the prompts with 95 % bootstrap intervals, and
ratios to the first plan; the mean ratio over all budgets has an interval over the prompts, too. The last line is the
same as JSON; ``--output FILE`` keeps it, with the ``curves`` that ``lemica-planner report --curves`` draws.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.videos import FIRST_SEED
from demo.measure import read_prompts
from lemica_backend.replay import open_replayer
from lemica_planner import CachePlan, PlanEntry, Sample
from lemica_planner.atomic import write_text
from lemica_planner.graph_file import load_graph
from lemica_planner.replayer import ReplaySession

ROWS_AT_ONCE = 8
TITLES = {  # of the chart, and its unit, by metric
    "latents_l1": ("Final latents", "mean absolute difference"),
    "latents_l2": ("Final latents", "root mean square difference"),
    "frames_l2": ("Decoded frames", "root mean square difference, white being 1"),
}


def read_plans(sources: Sequence[str], budgets: Sequence[int]) -> dict[tuple[str, int], PlanEntry]:
    """Return every plan's entry at every budget, with its operator stated."""
    entries = {}
    for source in sources:
        name, _, path = source.partition("=")
        plan = CachePlan.from_graph(load_graph(path))
        for budget in budgets:
            entry = plan.resolve(budget)
            operators = entry.operators or (plan.provenance.operator,) * (budget - 1)
            entries[name, budget] = PlanEntry(entry.steps, entry.errors, operators, entry.weights)
    return entries


def parse_range(text: str) -> list[int]:
    """Read ``10-30`` or ``10,17,25``."""
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(part) for part in text.split(",")]


def bootstrap(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean, 2000 draws."""
    picks = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def curve_row(method: str, forwards: float, values: NDArray[np.float64]) -> dict[str, str | float]:
    """Return a point of a curve: the mean over the prompts with its 95 % interval."""
    low, high = bootstrap(values)
    return {"method": method, "forwards": forwards, "value": float(values.mean()), "low": low, "high": high}


def write_result(result: Mapping[str, Any], output: Path | None) -> None:
    """Print a result as the last line of JSON, and write the same to `output`."""
    text = json.dumps(result)
    print(text)
    if output:
        write_text(output, text + "\n")


def _rows(names: Sequence[str], budgets: Sequence[int], errors: Mapping[Any, NDArray[Any]]) -> Iterator[dict[str, Any]]:
    for budget in budgets:
        base = errors[names[0], budget]
        for name in names:
            mine = errors[name, budget]
            ratio = float(mine.mean() / base.mean())
            yield {
                "budget": budget,
                "plan": name,
                "error": float(mine.mean()),
                "interval": bootstrap(mine),
                "ratio": ratio,
            }


def mean_ratio(mine: NDArray[np.float64], base: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean over budgets of the ratio of means over prompts, with its 95 % interval over the prompts.

    Parameters
    ----------
    mine, base : ndarray, shape (prompts, budgets)
    """
    picks = np.random.default_rng(0).integers(0, len(mine), (2000, len(mine)))
    ratios = (mine[picks].mean(axis=1) / base[picks].mean(axis=1)).mean(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float((mine.mean(axis=0) / base.mean(axis=0)).mean()), float(low), float(high)


def _run(session: ReplaySession, paths: Sequence[PlanEntry]) -> list[float]:
    """Return what each path changes; plans often agree on one, which runs once."""
    each = [path for place, path in enumerate(paths) if path not in paths[:place]]
    parts = [session.outcomes(each[at : at + ROWS_AT_ONCE]) for at in range(0, len(each), ROWS_AT_ONCE)]
    found = np.concatenate(parts).tolist()
    return [found[each.index(path)] for path in paths]


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table("budget", "plan", "error", "95 %", "ratio")
    for row in rows:
        low, high = row["interval"]
        table.add_row(
            str(row["budget"]), row["plan"], f"{row['error']:.4g}", f"{low:.4g}-{high:.4g}", f"{row['ratio']:.3f}"
        )
    Console().print(table)


def main(
    model_dir: Annotated[Path, typer.Argument(help="The model's folder, with config.pbtxt.")],
    plans: Annotated[list[str], typer.Argument(help="NAME=GRAPH.npz; the first is what the others are compared with.")],
    *,
    prompts: Annotated[Path, typer.Option(help="One held-out prompt a line.")],
    budgets: Annotated[str, typer.Option(help="Such as 10-30, or 10,17,25.")] = "10-30",
    count: Annotated[int | None, typer.Option(help="Only the first prompts.")] = None,
    metric: Annotated[
        str, typer.Option(help="What outcomes measure: latents_l1, latents_l2, or frames_l2.")
    ] = "latents_l1",
    heading: Annotated[str, typer.Option(help="Above the charts of the report.")] = "What whole plans change",
    output: Annotated[Path | None, typer.Option(help="Write the JSON here as well.")] = None,
) -> None:
    """Print the comparison as a table, then as one line of JSON."""
    wanted = parse_range(budgets)
    entries = read_plans(plans, wanted)
    replayer = open_replayer(model_dir, metric)
    outcomes: list[list[float]] = []
    for number, prompt in enumerate(tqdm(read_prompts(prompts)[:count])):
        session = replayer.open(Sample(prompt, FIRST_SEED + number))
        outcomes.append(_run(session, list(entries.values())))
        session.close()
    errors = {key: np.array(outcomes)[:, place] for place, key in enumerate(entries)}
    names = list(dict.fromkeys(name for name, _ in entries))
    rows = list(_rows(names, wanted, errors))
    _show(rows)
    tables = {name: np.column_stack([errors[name, budget] for budget in wanted]) for name in names}
    mean = {name: mean_ratio(tables[name], tables[names[0]]) for name in names}
    for name, (ratio, low, high) in mean.items():
        Console().print(f"{name}: mean ratio over budgets {ratio:.3f} ({low:.3f} to {high:.3f})")
    points = [curve_row(name, budget, values) for (name, budget), values in errors.items()]
    title, unit = TITLES.get(metric, (metric, "error"))
    curves = {metric: {"title": title, "unit": unit, "rows": points}}
    words = {"heading": heading, "about": f"{len(outcomes)} held-out prompts; the intervals are over them."}
    known = {**words, "metric": metric, "prompts": len(outcomes), "first_seed": FIRST_SEED, "mean_ratio": mean}
    write_result({**known, "rows": rows, "curves": curves}, output)


if __name__ == "__main__":
    typer.run(main)
