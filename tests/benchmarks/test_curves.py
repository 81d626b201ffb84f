"""The benchmarks' result files, and the contact sheet, on a model of random weights."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import bench_outcomes, bench_plans, contact_sheet
from lemica_backend.config import load_config
from lemica_backend.engine import load_engine
from lemica_planner.config_writer import read_plan
from lemica_planner.curves_file import read_curves
from tests.benchmarks.conftest import cheap_compare
from tests.demo.tiny_repository import MODEL, NUM_STEPS, build_tiny_repository
from tests.tiny_latte import FRAMES, SIZE


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_repository(tmp_path_factory.mktemp("models")) / MODEL


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("a red circle\na blue square\n")
    return path


@pytest.fixture
def cheap_lpips(no_lpips, monkeypatch):
    monkeypatch.setattr(contact_sheet, "compare", cheap_compare)
    for module in (bench_plans, contact_sheet):
        monkeypatch.setattr(module, "ensure_weights", lambda: None)


def points(chart):
    return {(series.name, point.at): point for series in chart.series for point in series.points}


def test_bench_outcomes_writes_what_it_prints(model, prompts, tmp_path, capsys):
    graph = model / "calibration" / "graph.npz"
    output = tmp_path / "outcomes.json"
    bench_outcomes.main(model, [f"a={graph}", f"b={graph}"], prompts=prompts, budgets="4,6", output=output)
    text = output.read_text()
    assert text == capsys.readouterr().out.splitlines()[-1] + "\n"
    chart = read_curves(text, "it")["latents_l1"]
    rows = {(row["plan"], row["budget"]): row for row in json.loads(text)["rows"]}
    assert points(chart).keys() == rows.keys() == {(name, budget) for name in "ab" for budget in (4, 6)}
    for key, point in points(chart).items():
        assert [point.value, point.low, point.high] == [rows[key]["error"], *rows[key]["interval"]]
        assert 0 < point.low < point.value < point.high


def test_bench_plans_measures_every_method_with_intervals(model, prompts, tmp_path, cheap_lpips):
    graph, output = model / "calibration" / "graph.npz", tmp_path / "plans.json"
    bench_plans.main(model, [f"same={graph}"], prompts=prompts, graph=graph, output=output)
    charts = read_curves(output.read_text(), "it")
    assert list(charts) == ["lpips", "ssim", "psnr_db", "latents_l1"]
    for chart in charts.values():
        assert [series.name for series in chart.series] == ["minimax", "shortest", "uniform", "same"]
        known = points(chart)
        assert len({budget for _, budget in known}) == 3
        pairs = [(known["same", budget], point) for (name, budget), point in known.items() if name == "minimax"]
        assert all(same == pytest.approx(point, rel=1e-3) for same, point in pairs)  # other rows of other batches
    rows = json.loads(output.read_text())["rows"]
    assert all(row["psnr_db_interval"][0] < row["psnr_db"] < row["psnr_db_interval"][1] for row in rows)


def test_a_sheet_shows_every_prompt_at_every_budget(model, prompts, tmp_path, cheap_lpips):
    output = tmp_path / "sheet.png"
    contact_sheet.main(model, prompts=prompts, count=2, budgets="full,fast", output=output)
    sheet = np.asarray(Image.open(output))
    frame = 3 * SIZE  # enlarged to at least 140 pixels
    assert sheet.shape == (2 * (frame + 60 + 16) + 16, 2 * (4 * frame + 16) + 16, 3)
    full = sheet[76 : 76 + frame, 16 : 16 + 4 * frame]
    fast = sheet[76 : 76 + frame, 32 + 4 * frame : 32 + 8 * frame]
    assert (full == full[::3].repeat(3, axis=0)).all()
    assert not (full == fast).all()


def test_labels_say_what_was_computed_and_lost(model, prompts, cheap_lpips):
    plan = read_plan(model / "config.pbtxt")
    engine = load_engine(model / "1", load_config(model / "1" / "model.json"), plan.to_json())
    row = contact_sheet.make_row(engine, "a red circle", 0, ["full", "fast"])
    engine.close()
    full, fast = row.takes
    assert full.label == f"full, {NUM_STEPS} of {NUM_STEPS} steps computed"
    assert fast.label.startswith(f"fast, {plan.names['fast']} of {NUM_STEPS} steps computed: PSNR ")
    assert full.frames.shape == fast.frames.shape == (FRAMES, SIZE, SIZE, 3)


def test_the_mean_ratio_over_budgets_has_an_interval_over_the_prompts():
    base = np.array([[1.0, 4.0], [3.0, 4.0]])
    mine = np.array([[1.0, 2.0], [1.0, 2.0]])
    ratio, low, high = bench_outcomes.mean_ratio(mine, base)
    assert ratio == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert low == pytest.approx((1 / 3 + 1 / 2) / 2), "the draw of the second prompt alone"
    assert high == pytest.approx((1 / 1 + 1 / 2) / 2)
