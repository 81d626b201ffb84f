"""Compare caching methods on one model, at equal measured forwards and at equal wall clock.

``python -m benchmarks.rivals MODEL_DIR [NAME=GRAPH.npz ...] --prompts FILE --count N --output FILE``: every prompt
runs in full once and with every rival at every setting; LPIPS, SSIM, PSNR and the checker read the frames, and the
block work that really ran is counted. The first plan, by default ``lemica=MODEL_DIR/calibration/graph.npz``, is what
the others are compared with. Rows go to ``--results`` (by default beside the output) one by one: a run that was
stopped goes on, and a run with more prompts or other methods adds to it. ``--time 2 --rounds 3`` also times two
prompts three times; nothing else may run on the machine then. ``--plot FILE.png`` draws LPIPS against forwards. The
last line is the same as JSON. ``docs/rivals.md`` says what the rivals are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from diffusers.utils import logging as diffusers_logging

from benchmarks.bench_outcomes import parse_range
from benchmarks.rivals.catalogue import calibrated_facts, chosen, rivals
from benchmarks.rivals.measure import FULL_METHOD, make_videos
from benchmarks.rivals.plot import draw
from benchmarks.rivals.rival import open_latte, start
from benchmarks.rivals.rows import Store
from benchmarks.rivals.summary import Run, summarise
from benchmarks.rivals.timing import loops, time_all
from benchmarks.rivals.unsupported import faults
from benchmarks.videos import FIRST_SEED
from demo.lpips_weights import ensure_weights
from demo.measure import read_prompts


def main(
    model_dir: Annotated[Path, typer.Argument(help="The model's folder, with config.pbtxt.")],
    graphs: Annotated[list[str] | None, typer.Argument(help="NAME=GRAPH.npz; the first is the base.")] = None,
    *,
    prompts: Annotated[Path, typer.Option(help="One held-out prompt a line.")],
    count: Annotated[int | None, typer.Option(help="Only the first prompts.")] = None,
    output: Annotated[Path, typer.Option(help="The JSON.")] = Path("out/rivals.json"),
    results: Annotated[Path | None, typer.Option(help="The rows; by default OUTPUT with .jsonl.")] = None,
    methods: Annotated[str, typer.Option(help="Names, separated by commas; by default all.")] = "",
    budgets: Annotated[str, typer.Option(help="Of the plans, such as 8,10,13.")] = "8,10,13,17,25,30",
    at: Annotated[str, typer.Option(help="Budgets to compare at.")] = "10,17,25",
    timed: Annotated[int, typer.Option("--time", help="How many prompts to time.")] = 0,
    rounds: Annotated[int, typer.Option(help="How often to time each.")] = 3,
    plot: Annotated[Path | None, typer.Option(help="Where to save a figure.")] = None,
) -> None:
    """Print the comparison as tables, then as one line of JSON."""
    ensure_weights()
    diffusers_logging.set_verbosity_error()  # some caches warn at every generation
    model, config = open_latte(model_dir)
    sources = graphs or [f"lemica={model_dir / 'calibration' / 'graph.npz'}"]
    store = Store(results or output.with_suffix(".jsonl"))
    base = sources[0].partition("=")[0]
    every = rivals(
        sources,
        naive=model_dir / "calibration" / "naive.npz",
        num_steps=config.defaults.num_inference_steps,
        pairs=len(model.net.transformer_blocks),
        budgets=parse_range(budgets),
        facts=lambda: calibrated_facts(model, config, sources[0], store),
    )
    mine = chosen(every, [name for name in methods.split(",") if name], always=(FULL_METHOD, base))
    texts = [(text, FIRST_SEED + number) for number, text in enumerate(read_prompts(prompts)[:count])]
    make_videos(model, config, mine, texts, store)
    time_all(model, config, [*mine, *loops()], texts[:timed], store, rounds=rounds)
    broken = list(faults(start(model, config, *texts[0])))
    run = Run(mine, base, texts, model.info.weights_hash, config.defaults.num_inference_steps)
    found = summarise(run, store, parse_range(at), broken)
    found.show()
    if plot:
        draw(found.curves, base, plot)
    line = json.dumps(found.as_json(), allow_nan=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    typer.run(main)
