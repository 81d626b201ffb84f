"""Entry point of `benchmarks.far_prompts`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.far_prompts.cases import make_cases, read_groups
from benchmarks.far_prompts.compare import compare
from benchmarks.far_prompts.judge import judge_signals
from benchmarks.far_prompts.plans import Oracles, Rivals
from benchmarks.far_prompts.report import show
from benchmarks.far_prompts.runs import Runs
from benchmarks.far_prompts.survey import Depth, survey
from benchmarks.far_prompts.warning import judge_warning
from demo.measure import read_prompts
from lemica_backend.config import load_config
from lemica_backend.opening import open_model
from lemica_backend.replay import EngineReplayer
from lemica_planner.errors import InvalidGraphError
from lemica_planner.graph_file import load_graph
from lemica_planner.operator_graph import OperatorGraph

FAR = Path(__file__).parent.with_suffix(".txt")
HELD_OUT = FAR.with_name("held_out_prompts.txt")
NEAR = ("calibration", "held out")


def main(
    model_dir: Annotated[Path, typer.Argument(help="The model's folder, with config.pbtxt.")],
    plans: Annotated[list[str], typer.Argument(help="NAME=GRAPH.npz; the first is the plan that is examined.")],
    *,
    far: Annotated[Path, typer.Option(help="Groups of far prompts.")] = FAR,
    held_out: Annotated[Path, typer.Option(help="One prompt a line.")] = HELD_OUT,
    count: Annotated[int, typer.Option(help="How many of the held-out prompts.")] = 12,
    budgets: Annotated[str, typer.Option(help="Such as 10,17,25.")] = "10,17,25",
    risks: Annotated[str, typer.Option(help="Risks to weigh the first graph under.")] = "quantile:0.9,cvar:0.8,mean+1",
    rounds: Annotated[int, typer.Option(min=1, help="Seeds of each prompt.")] = 2,
    deep: Annotated[int, typer.Option(help="Prompts of a group that run with every plan.")] = 3,
    oracle_groups: Annotated[str, typer.Option(help="Groups with oracles, separated by commas; by default all.")] = "",
    twins: Annotated[int, typer.Option(help="Prompts of a group with an oracle for another seed, too.")] = 1,
    folder: Annotated[Path, typer.Option(help="Finished work.")] = Path("runs/far"),
    minutes: Annotated[float | None, typer.Option(help="Begin nothing new after this time.")] = None,
    output: Annotated[Path | None, typer.Option(help="For the JSON.")] = None,
) -> None:
    """Run what is missing, then print the tables and one line of JSON."""
    if twins and rounds < 2:
        raise typer.BadParameter("an oracle for another seed needs --rounds 2; or give --twins 0")
    config = load_config(model_dir / "1" / "model.json")
    model = open_model(model_dir / "1", config)
    graphs = {name: _load(path) for name, _, path in (plan.partition("=") for plan in plans)}
    graph = next(iter(graphs.values()))
    numbers = [int(budget) for budget in budgets.split(",")]
    replayer = EngineReplayer(model, config, model_dir.resolve().name, graph.provenance.metric or "latents_l1")
    runs = Runs(model, config, folder)
    oracles = Oracles(replayer, graph, numbers, folder / "oracles.jsonl")
    rivals = Rivals(graphs, numbers, risks.split(","), oracles)
    calibrated = tuple(dict.fromkeys(sample.prompt for sample in graph.samples))
    groups = {"held out": read_prompts(held_out)[:count], **read_groups(far), "calibration": calibrated}
    named = frozenset(filter(None, oracle_groups.split(",")))
    if unknown := named - groups.keys():
        raise typer.BadParameter(f"no such groups: {', '.join(sorted(unknown))}; there are: {', '.join(groups)}")
    findings = survey(make_cases(groups, rounds), rivals, runs, Depth(deep, twins, named), minutes)
    if findings is None:
        print("the time is up; run the same command again to go on")
        raise typer.Exit(75)
    report = (
        compare(findings, NEAR) | judge_signals(findings, rivals, runs, model) | judge_warning(findings, rivals, runs)
    )
    show(report)
    text = json.dumps({"plan": plans[0], "budgets": numbers, "videos": len(findings), **report})
    print(text)
    if output:
        output.write_text(text + "\n", encoding="utf-8")


def _load(path: str) -> OperatorGraph:
    graph = load_graph(path)
    if not isinstance(graph, OperatorGraph):
        raise InvalidGraphError(f"{path} has no operators to choose from; calibrate with --method lazy")
    return graph


if __name__ == "__main__":
    typer.run(main)
