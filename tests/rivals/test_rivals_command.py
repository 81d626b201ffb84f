"""The command from end to end, on a tiny Latte."""

import json
import shutil

import pytest

from benchmarks.rivals.__main__ import main
from demo.lpips_weights import LpipsWeightsError, ensure_weights
from lemica_planner import ErrorGraph
from tests.demo.synthetic import synthetic_weights
from tests.demo.tiny_repository import MODEL, NUM_STEPS, build_tiny_repository

METHODS = "uniform,teacache,magcache,first block,fewer steps"


@pytest.fixture(scope="module")
def lpips_weights():
    try:
        return ensure_weights()
    except LpipsWeightsError as error:
        pytest.skip(f"no LPIPS weights on this machine: {error}")


@pytest.fixture
def model_dir(tmp_path):
    """A tiny model whose graphs say what they were calibrated on."""
    folder = build_tiny_repository(tmp_path) / MODEL
    graph = ErrorGraph(synthetic_weights(NUM_STEPS, longest=6), samples=[("a red circle", 0), ("a blue cross", 1)])
    graph.save(folder / "calibration" / "graph.npz")
    shutil.copy(folder / "calibration" / "graph.npz", folder / "calibration" / "naive.npz")
    return folder


def compare(model_dir, **options):
    (model_dir / "prompts.txt").write_text("a green square\na white cross\n")
    output = model_dir / "out" / "rivals.json"
    main(model_dir, prompts=model_dir / "prompts.txt", budgets="3,5", at="3,5", output=output, **options)


def test_a_run_ends_with_json_and_a_figure_and_a_second_one_adds_to_it(model_dir, lpips_weights, capsys):
    compare(model_dir, methods=METHODS, count=1, timed=1, rounds=1)
    printed = capsys.readouterr().out
    rows = (model_dir / "out" / "rivals.jsonl").read_text().splitlines()
    assert "LPIPS over lemica's at equal wall clock" in printed
    found = json.loads(printed.splitlines()[-1])
    assert found == json.loads((model_dir / "out" / "rivals.json").read_text())
    curve = {row["method"]: row for row in found["curves"]["lpips"]["rows"]}
    assert {"lemica", "first block (28 pairs)", *METHODS.split(",")} <= set(curve)
    assert "full" not in curve  # what the others are measured against is no curve
    assert all(0 < row["forwards"] <= NUM_STEPS for row in curve.values())

    compare(model_dir, methods=METHODS, plot=model_dir / "out" / "figure.png")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["prompts"] == 2
    assert (model_dir / "out" / "rivals.jsonl").read_text().splitlines()[: len(rows)] == rows
    assert (model_dir / "out" / "figure.png").stat().st_size > 10_000


def test_an_unknown_method_is_refused_with_those_that_exist(model_dir, lpips_weights):
    with pytest.raises(ValueError, match="no such methods: unifrom; there are: full, lemica"):
        compare(model_dir, methods="unifrom")
