"""The GPU script on tiny models: the whole path on a CPU; and its models at their real sizes, without weights."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks.real_sizes.__main__ import main
from benchmarks.real_sizes.cases import CASES, Place
from benchmarks.real_sizes.filling import made
from benchmarks.real_sizes.measure import Video, ideal, outlined, spread

REAL = Place(torch.bfloat16, "meta", is_tiny=False)


def run(*arguments):
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.parametrize(("model", "engine"), [("latte", "onnxruntime"), ("wan2.1-1.3b", "eager")])
def test_tiny_models_go_the_whole_way(model, engine, tmp_path):
    if engine != "eager":
        pytest.importorskip(engine, reason="the extra `engines` is not installed")
    table = tmp_path / "out" / "table.json"
    told = run(model, "--tiny", "--rounds", 2, "--engine", engine, "--dtype", "float32", "--output", table)
    assert told.exit_code == 0, told.output
    result = json.loads(table.read_text())
    assert (result["machine"], result["tiny"]) == ("CPU", True)
    turns = {(row["engine"], row["computed"], row["steps"]) for row in result["rows"]}
    assert turns == {(name, computed, 4) for name in ("eager", engine) for computed in (2, 4)}
    for row in result["rows"]:
        assert row["seconds"] > 0
        assert row["tflops"] == pytest.approx(row["step_tflop"] / row["f_s"])
        assert (row["peak_gib"], row["of_peak"]) == (None, None)
        if row["computed"] == row["steps"]:
            assert (row["speed_up"], row["ideal"]) == (1, 1)
        if row["engine"] == "eager":
            assert row["times_eager"] == 1


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # of the published checkpoints' transformers; Latte's and Open-Sora's were counted from the official code
        ("latte", 1_057_246_880),
        ("open_sora", 1_207_643_936),
        ("cogvideox-2b", 1_693_783_872),
        ("wan2.1-1.3b", 1_418_996_800),
    ],
)
def test_the_real_sizes_are_the_published_ones(name, parameters):
    found = outlined(CASES[name], REAL)
    assert found.parameters == parameters
    assert found.flops > 2 * 2 * parameters, "every weight of the blocks meets many tokens, in both branches"


def test_sizes_are_printed_without_a_gpu():
    told = run("latte", "--sizes")
    assert told.exit_code == 0, told.output
    assert "1,057.2" in told.output


def test_a_model_that_is_not_there_is_named():
    told = run("sora")
    assert told.exit_code == 2
    assert "there is no model" in told.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, on which this would take an hour")
def test_without_a_gpu_it_says_what_to_do():
    told = run("latte")
    assert told.exit_code == 2
    assert "there is no GPU here" in told.output


def test_steps_are_spread_from_the_first_to_the_last():
    assert spread(50, 3) == (0, 24, 49)
    for case in CASES.values():
        for computed in case.budgets:
            steps = spread(case.steps, computed)
            assert (steps[0], steps[-1], len(set(steps))) == (0, case.steps - 1, computed)


def test_the_ideal_counts_steps_and_the_rest():
    full = Video(seconds=12.0, step_s=0.2, peak_bytes=None)  # 50 steps and 2 s
    assert ideal(full, 50, 50) == pytest.approx(1)
    assert ideal(full, 50, 10) == pytest.approx(12 / 4)


def test_weights_are_made_where_they_are_needed_and_keep_the_scale():
    layer = made(lambda: torch.nn.Sequential(torch.nn.Linear(256, 64), torch.nn.LayerNorm(64)), torch.bfloat16, "cpu")
    assert {weight.dtype for weight in layer.parameters()} == {torch.bfloat16}
    assert layer[0].weight.std().item() == pytest.approx(1 / 16, rel=0.1)
    assert torch.equal(layer[1].weight, torch.ones(64, dtype=torch.bfloat16))
