"""Fewer steps of better samplers against caching, at the same cost, judged by more than the planner itself can.

``PYTHONPATH=training python -m benchmarks.bench_steps MODEL_DIR OPTIONS``, with the options of
``lemica-planner steps``, whose command this is. It adds LPIPS against each reference, and how much of its caption the
checker of the embedded model finds in a video (``fidelity``: the share of colour, shape, motion and background that
are right). References stay in ``runs/steps_references``. Several runs with one ``--journal`` are one comparison; a run
that was stopped goes on where it was. Printed at the end are all ways, as means over the prompts with 95 % bootstrap
intervals; the last line is JSON, and ``--output`` the whole of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.bench_outcomes import bootstrap
from demo.lpips_weights import ensure_weights
from demo.metrics import lpips
from lemica_backend.replay import EngineReplayer, open_replayer
from lemica_backend.yardstick import MEASURES, Judges, Video
from lemica_planner.cli import app
from shapes.checker import recognise
from shapes.scene import all_scenes

HERE = "benchmarks.bench_steps:open_judged"
_SHOWN = (
    ("full", "lpips"),
    ("full", "psnr_db"),
    ("converged", "lpips"),
    ("converged", "psnr_db"),
    ("converged", "latents_l1"),
    ("prompt", "fidelity"),
    ("run", "time_in_forwards"),
)


def fidelity(video: Video, prompt: str) -> float:
    """Return the share of the caption's attributes that the checker finds in the video."""
    scenes = {scene.caption: scene for scene in all_scenes()}
    wanted, seen = scenes[prompt], recognise(video.frames)
    return sum(one == other for one, other in zip(wanted, seen, strict=True)) / len(wanted)


def open_judged(model_dir: Path, metric: str) -> EngineReplayer:
    """Open the engine's own replayer with more judges."""
    ensure_weights()
    replayer = open_replayer(model_dir, metric)
    pairs = {"lpips": lambda video, reference: lpips(video.frames, reference.frames), **MEASURES}
    replayer.judges = Judges(pairs, {"fidelity": fidelity})
    replayer.keep = Path("runs/steps_references")
    replayer.keep.mkdir(parents=True, exist_ok=True)
    return replayer


def _show(ways: Sequence[Mapping[str, Any]]) -> None:
    table = Table("forwards", "way", *(f"{measure}, {reference}" for reference, measure in _SHOWN))
    for way in sorted(ways, key=lambda way: (way["cost"], way["name"])):
        cells = (_cell(way["values"][reference][measure]) for reference, measure in _SHOWN)
        table.add_row(str(way["cost"]), way["name"], *cells)
    Console().print(table)


def _cell(values: Sequence[float]) -> str:
    low, high = bootstrap(np.asarray(values))
    return f"{np.mean(values):.4g} ({low:.4g} to {high:.4g})"


def main(arguments: Sequence[str]) -> None:
    """Run the planner's command, then print all ways and one line of JSON."""
    output = "steps.json"
    for name, value in pairwise(arguments):
        output = value if name in ("--output", "-o") else output
    app(["steps", *arguments, "--replayer", HERE], standalone_mode=False)
    known = json.loads(Path(output).read_text(encoding="utf-8"))
    _show(known["ways"])
    print(json.dumps({"samples": len(known["samples"]), "ways": len(known["ways"]), "choices": known["choices"]}))


if __name__ == "__main__":
    main(sys.argv[1:])
