import base64
import json
import re
import struct
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from lemica_planner import CachePlan, ErrorGraph, Sample
from lemica_planner.calibrate import calibrate
from lemica_planner.calibration_cost import calibration_cost
from lemica_planner.curves_file import read_curves
from lemica_planner.pictures import draw_chart
from lemica_planner.pictures.labels import Box
from lemica_planner.pictures.marks import Label, Stroke, text_width
from lemica_planner.pictures.palette import TONES
from lemica_planner.report import render_report
from lemica_planner.report_content import Report
from lemica_planner.report_files import save_pictures
from tests.planner.test_confidence import noisy
from tests.planner.test_lazy import ALL, SAMPLES, SPAN, STEPS, run
from tests.planner.test_planner_cli import fail, succeed
from tests.planner.toy_replayer import ToyReplayer, toy_graph

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
NAMES = {"slow": 6, "fast": 4}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy_graph().save("graph.npz")
    Path("sheet.png").write_bytes(PNG)
    return tmp_path


@pytest.fixture(scope="module")
def lazy(tmp_path_factory):
    """A graph with operators and history, and the replayer that made it."""
    replayer = ToyReplayer(STEPS)
    return run(tmp_path_factory.mktemp("lazy") / "journal", replayer, operators=ALL), replayer


def report_of(graph, names=NAMES):
    return Report(graph, CachePlan.from_graph(graph, names=names))


def curves(*methods, values=(0.01, 0.001)):
    rows = [
        {"method": method, "forwards": forwards, "value": value, "low": value * 0.9, "high": value * 1.1}
        for method in methods
        for forwards, value in zip((10, 25), values, strict=True)
    ]
    return {"title": "LPIPS", "unit": "distance", "rows": rows}


def write(path, data):
    Path(path).write_text(json.dumps(data))


def test_every_budget_has_a_path_and_named_ones_stand_out():
    graph = toy_graph()
    page = render_report(report_of(graph))
    paths = re.findall(r'<polyline class="s-(\w+)"[^>]* data-budget="(\d+)" points="([^"]+)"', page)
    tones = {int(budget): tone for tone, budget, _ in paths}
    assert set(tones) == set(CachePlan.from_graph(graph).entries)
    assert {budget for budget, tone in tones.items() if tone != "grey"} == {4, 6}
    assert tones[4] != tones[6]
    assert all(f">{name}: {budget} steps</text>" in page for name, budget in NAMES.items())


def test_a_path_turns_at_its_computed_steps():
    graph = toy_graph()
    steps = CachePlan.from_graph(graph).entries[4].steps
    page = render_report(report_of(graph))
    (places,) = re.findall(r'data-budget="4" points="([^"]+)"', page)
    cell = 620 / 9
    corners = [tuple(round(float(number) / cell - 0.5) for number in place.split(",")) for place in places.split()]
    assert corners[::2] == [(step, step) for step in steps]
    assert corners[1::2] == list(zip(steps[1:], steps[:-1], strict=True))


def test_curves_become_one_chart_a_measure(folder):
    measures = {"lpips": curves("lemica", "other"), "psnr": curves("a", values=(30, 40)) | {"unit": "dB"}}
    write("trial.json", {"plan_id": "x", "curves": measures})
    write("single.json", curves("minimax"))
    succeed("report", "graph.npz", "--curves", "trial.json", "--curves", "single.json")
    page = Path("report.html").read_text(encoding="utf-8")
    measured = page[page.index("Measured against cost") :]
    assert measured.count('aria-label="LPIPS over forwards"') == 3
    sections = {part.partition("<")[0]: part for part in measured.split("<h3>")[1:]}
    assert {name: part.count("<figure>") for name, part in sections.items()} == {"Trial": 2, "Single": 1}
    assert "lemica, 25 forwards: 0.001 (0.0009 to 0.0011)" in measured
    assert measured.count("<polygon") == 4
    assert (measured.count("distance, log scale<"), measured.count("dB<")) == (2, 1)
    assert "http" not in page


def test_curves_may_be_over_another_cost(folder):
    by_time = curves("lemica") | {"axis": "share of a full run's time"}
    by_time["rows"] = [{"cost": 0.5 if at else 0.25, **row} for at, row in enumerate(by_time["rows"])]
    write("trial.json", {"curves": {"lpips_by_time": by_time}})
    succeed("report", "graph.npz", "--curves", "trial.json")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "LPIPS over share of a full run" in page
    assert "lemica, 0.25 share of a full run" in page
    del by_time["rows"][1]["cost"]
    write("trial.json", by_time)
    assert "trial.json.rows[1] lacks the keys ['cost']" in fail("report", "graph.npz", "--curves", "trial.json")


def test_files_that_know_ours_come_first(folder):
    write("a.json", curves("other")), write("b.json", curves("lemica"))
    succeed("report", "graph.npz", "--curves", "a.json", "--curves", "b.json")
    page = Path("report.html").read_text(encoding="utf-8")
    assert page.index("<h3>B<") < page.index("<h3>A<")


def test_a_long_legend_stands_under_the_first_chart_only(folder):
    many = [f"method {number}" for number in range(7)]
    write("trial.json", {"curves": {name: curves(*many) for name in ("lpips", "ssim")}})
    write("other.json", {"curves": {name: curves(*many[:6]) for name in ("lpips", "ssim")}})
    succeed("report", "graph.npz", "--curves", "trial.json", "--curves", "other.json")
    sections = Path("report.html").read_text(encoding="utf-8").split("<h3>")[1:]
    heights = [re.findall(r'viewBox="0 0 520 ([0-9.]+)"', section)[:2] for section in sections]
    (first, second), (third, fourth) = (map(float, each) for each in heights)
    assert first > second
    assert third == fourth


def test_a_file_may_say_what_its_charts_are(folder):
    write("trial.json", {"heading": "What <caches> do", "about": "Six prompts.", "curves": {"lpips": curves("a")}})
    succeed("report", "graph.npz", "--curves", "trial.json")
    page = Path("report.html").read_text(encoding="utf-8")
    assert '<h3>What &lt;caches&gt; do</h3><p>Six prompts.</p><div class="grid">' in page
    write("trial.json", {"heading": 3, "curves": {"lpips": curves("a")}})
    assert "trial.json: heading must be a text" in fail("report", "graph.npz", "--curves", "trial.json")


def test_what_a_long_title_is_about_has_a_line_of_its_own():
    group = "plan of latte_shapes (T = 50, guidance 4) on opensora_shapes (T = 30, guidance 7)"
    chart = read_curves(json.dumps(curves("a") | {"title": f"LPIPS, {group}"}), "it")[""]
    picture = draw_chart(chart)
    heading = [mark for mark in picture.marks if isinstance(mark, Label)][:3]
    assert [label.text for label in heading] == ["LPIPS", group, "distance, log scale"]
    assert all(label.size > 10 for label in heading)
    assert picture.corner.y + heading[0].size < heading[0].place.y < heading[1].place.y < heading[2].place.y
    short = draw_chart(read_curves(json.dumps(curves("a")), "it")[""])
    assert picture.corner.y + picture.height == short.corner.y + short.height


def test_without_curves_there_is_no_section_of_them():
    assert "Measured against cost" not in render_report(report_of(toy_graph()))


@pytest.mark.parametrize(("options", "thick"), [((), ["lemica split", "MiniMax"]), (("--ours", "other"), ["other"])])
def test_ours_are_thick(folder, options, thick):
    write("trial.json", curves("lemica split", "other", "MiniMax"))
    succeed("report", "graph.npz", "--curves", "trial.json", *options)
    chart = Path("report.html").read_text(encoding="utf-8").partition("Measured against cost")[2]
    assert re.findall(r'font-size="13"[^>]* font-weight="600">([^<]+)<', chart) == thick
    assert chart.count('stroke-width="3.4"') == 2 * len(thick)  # the line, and its piece in the legend


def test_fifteen_methods_are_told_apart_and_no_names_collide():
    names = [f"method {number}" for number in range(15)]
    rows = [curves(name, values=(0.02, 0.001 + 0.0007 * number)) for number, name in enumerate(names)]
    known = read_curves(json.dumps(curves() | {"rows": [row for each in rows for row in each["rows"]]}), "it")
    picture = draw_chart(known[""])
    lines = [mark for mark in picture.marks if isinstance(mark, Stroke) and len(mark.places) == 2 and mark.width > 1.5]
    looks = [(mark.tone, mark.dash) for mark in lines]
    assert len(set(looks)) == 15
    labels = [mark for mark in picture.marks if isinstance(mark, Label)]
    assert [mark.text for mark in labels if mark.tone == "ink"] == ["LPIPS", *names]
    beside = [mark for mark in labels if mark.halo]
    boxes = [box_of(mark) for mark in beside]
    assert len(beside) >= 3
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def box_of(label):
    width = text_width(label.text, label.size)
    left = label.place.x - {"start": 0, "middle": 0.5, "end": 1}[label.anchor] * width
    return Box(left, label.place.y - 0.7 * label.size, left + width, label.place.y)


def broken(**changes):
    known = curves("a")
    known["rows"][1] |= changes
    return {"curves": {"lpips": known}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "curves.json is not JSON"),
        ([], "curves.json must be a JSON object"),
        ({"rows": []}, "curves.json holds no curves"),
        ({"curves": []}, "curves.json: curves must be a JSON object"),
        ({"curves": {"lpips": 3}}, "curves.json: curves.lpips must be a JSON object"),
        ({"curves": {"lpips": {"title": "LPIPS", "rows": []}}}, "curves.json: curves.lpips lacks the keys ['unit']"),
        (curves(), "curves.json.rows is empty"),
        (curves("a") | {"title": ""}, "curves.json.title must be a text"),
        (broken(value="0.1"), "curves.json: curves.lpips.rows[1].value must be a finite number; got '0.1'"),
        (broken(low=float("nan")), "curves.json: curves.lpips.rows[1].low must be a finite number; got nan"),
        (broken(high=True), "curves.json: curves.lpips.rows[1].high must be a finite number; got True"),
        (broken(value=0.5), "curves.json: curves.lpips.rows[1]: value 0.5 is outside its interval"),
        (broken(method=None), "curves.json: curves.lpips.rows[1].method must be a text"),
        ({"curves": {"lpips": curves("a") | {"rows": [{}]}}}, "curves.lpips.rows[0] lacks the keys"),
    ],
)
def test_broken_curves_are_refused_by_file_and_place(folder, content, message):
    Path("curves.json").write_text(content if isinstance(content, str) else json.dumps(content))
    assert message in fail("report", "graph.npz", "--curves", "curves.json")
    assert not Path("report.html").exists()


def test_two_files_of_one_name_are_refused(folder):
    Path("other").mkdir()
    for path in ("curves.json", "other/curves.json"):
        write(path, curves("a"))
    line = fail("report", "graph.npz", "--curves", "curves.json", "--curves", "other/curves.json")
    assert "two files of curves are called curves; rename one: other/curves.json" in line


def test_texts_of_others_are_escaped(folder):
    write("curves.json", curves("<script>alert(1)</script>") | {"title": "$x <b>"})
    succeed("report", "graph.npz", "--curves", "curves.json", "--sheet", "<i>=sheet.png")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "$x &lt;b&gt;" in page
    assert not any(text in page for text in ("<script>alert", "<i>"))


def test_the_cost_is_what_the_replayers_counted(lazy, tmp_path):
    graph, replayer = lazy
    naive = ToyReplayer(STEPS)
    calibrate(naive, SAMPLES, max_span=SPAN, journal=tmp_path / "naive")
    cost = calibration_cost(graph)
    assert cost.naive == naive.model.forwards
    assert cost.forwards == replayer.model.forwards
    assert cost.measured == sum(len(call) for call in replayer.calls)
    assert cost.segments == len(SAMPLES) * len(graph.candidates.segments)
    page = render_report(report_of(graph, {"fast": 6}))
    share = replayer.model.forwards / naive.model.forwards
    check = graph.provenance.calibration["check"]
    for text in (f"{share:.1%}", f"{cost.measured} of {cost.segments}", f"median {check['median']}, of 8 segments"):
        assert text in page


def test_a_naive_graph_says_that_everything_was_measured(tmp_path):
    replayer = ToyReplayer(14)
    graph = calibrate(replayer, [Sample("a red cube", 0)], max_span=5, journal=tmp_path / "journal")
    assert f"of 1 samples were measured: {replayer.model.forwards} forwards" in render_report(report_of(graph))


def test_a_graph_that_was_made_by_hand_has_no_cost():
    assert calibration_cost(ErrorGraph(toy_graph().weights)) is None
    assert "does not say how it was calibrated" in render_report(report_of(toy_graph()))


def test_rivals_of_a_graph_with_history_are_never_better(lazy):
    """Minimax is the best path by worst reuse, so a rival that looks better was not weighed with its own history."""
    errors = report_of(lazy[0], {}).errors
    for rival in ("shortest", "uniform"):
        assert all(errors["minimax"][budget] <= error for budget, error in errors[rival].items())
    assert any(np.isfinite(error) for error in errors["uniform"].values())


def test_sheets_are_in_the_page(folder):
    succeed("report", "graph.npz", "--sheet", "slow = fast?=sheet.png", "--sheet", "again=sheet.png")
    page = Path("report.html").read_text(encoding="utf-8")
    first, _ = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    assert base64.b64decode(first) == PNG
    assert "<figcaption>slow = fast?</figcaption>" in page


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sheet.png", "must be CAPTION=FILE.png; got 'sheet.png'"),
        (" =sheet.png", "must be CAPTION=FILE.png"),
        ("a=graph.npz", "graph.npz is no PNG"),
        ("a=none.png", "none.png"),
    ],
)
def test_bad_sheets_are_refused(folder, given, message):
    assert message in fail("report", "graph.npz", "--sheet", given)


def test_charts_are_written_as_png(folder):
    write("my trial.json", {"curves": {"psnr/db": curves("lemica", "$other_1$")}})
    output = succeed("report", "graph.npz", "--curves", "my trial.json", "--png", "new/png")
    names = ["map", "worst", "positions", "my-trial-psnr-db"]
    assert {path.stem for path in Path("new/png").iterdir()} == set(names)
    assert all(f"picture: new/png/{name}.png" in output for name in names)


def test_a_png_shows_its_picture_in_full(tmp_path):
    report = report_of(toy_graph())
    (path,) = save_pictures({"map": report.pictures["map"]}, tmp_path)
    picture = report.pictures["map"]
    assert struct.unpack(">II", path.read_bytes()[16:24]) == (2 * picture.width, 2 * picture.height)
    pixels = (imread(path)[..., :3] * 255).round().astype(int)
    for tone in ("page", "heat0", "heat5", "magenta", "green"):
        colour = [int(TONES[tone].light[at : at + 2], 16) for at in (1, 3, 5)]
        assert (pixels == colour).all(axis=2).sum() > 100, tone


def test_png_without_matplotlib_is_one_line(folder, monkeypatch):
    monkeypatch.delitem(sys.modules, "lemica_planner.pictures.png", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    line = fail("report", "graph.npz", "--png", "png")
    assert "pip install '.[report]' in a checkout of lemica" in line
    assert not Path("png").exists()
    assert not Path("report.html").exists()


def test_the_page_of_a_refined_plan_shows_what_whole_paths_change(tmp_path):
    plain, refined = (run(tmp_path / "journal", checks=0, refine=refine) for refine in (0, 4))
    pages = [render_report(Report(graph, CachePlan.from_graph(graph))) for graph in (plain, refined)]
    assert "<th>whole path</th>" not in pages[0]
    assert all(f"<td>{entry.outcome:.4g}</td>" in pages[1] for entry in refined.refined.values())


@pytest.mark.parametrize(("noise", "pattern"), [(0, "these 4"), (0.3, r"about (\d+), (\d+) more")])
def test_it_says_how_many_more_samples_would_change_the_plan(noise, pattern):
    graph = noisy(samples=4, noise=noise)
    page = render_report(report_of(graph, {"slow": 8}))
    (row,) = re.findall(r"<tr><td>8 slow</td>.*?</tr>", page)
    (found,) = re.finditer(f"<td>{pattern}</td></tr>", row)
    if noise:
        assert int(found[1]) - int(found[2]) == 4 < int(found[1])


def test_two_names_of_one_budget_are_one_row_of_doubt(lazy):
    page = render_report(report_of(lazy[0], {"slow": 6, "best": 6, "fast": 5}))
    doubt = page[page.index("How sure") : page.index("</table>", page.index("How sure"))]
    assert doubt.count("<tr><td>6 ") == doubt.count("<tr><td>5 ") == 1
