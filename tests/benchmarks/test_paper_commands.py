"""The four commands from end to end, on tiny models."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from benchmarks.models import open_folder, open_folders
from benchmarks.paper.__main__ import app
from benchmarks.paper.scores import MEASURES
from lemica_planner.calibrate import calibrate
from lemica_planner.provenance import Sample
from tests.benchmarks.conftest import OPEN_SORA_STEPS, STEPS

pytestmark = pytest.mark.usefixtures("no_lpips")


@pytest.fixture
def run(tmp_path):
    prompts, pool = tmp_path / "prompts.txt", tmp_path / "pool.txt"
    prompts.write_text("a cat\na dog\n")
    pool.write_text("a fox\nan owl\na bee\na cow\n")

    def invoke(command, *arguments):
        given = [command, *map(str, arguments), "--prompts", prompts, "--work", tmp_path / "work"]
        given += [] if command == "table3" else ["--pool", pool, "--span-share", "0.4"]
        return CliRunner().invoke(app, [*map(str, given), "-o", str(tmp_path / "out.json")])

    return invoke


def checked(result, tmp_path):
    """Return the JSON, the same on the last line and in the file, with a curve for every measure."""
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out.json").read_text())
    assert json.loads(result.stdout.splitlines()[-1]) == found
    groups = dict.fromkeys(row["group"] for row in found["rows"])
    assert len(found["curves"]) == len(MEASURES) * len(groups)
    assert found["heading"]
    assert f"{found['prompts']} held-out prompts" in found["about"]
    for curve in found["curves"].values():
        assert set(curve) == {"title", "unit", "rows"}
        assert all(row["low"] <= row["value"] <= row["high"] for row in curve["rows"])
    return found


def test_table2(run, tiny_a, tmp_path):
    result = run("table2", tiny_a, "--sizes", "1,3", "--draws", "2")
    found = checked(result, tmp_path)
    assert {row["method"] for row in found["rows"]} == {"n = 1", "n = 3"}
    assert {row["budget"] for row in found["rows"]} == {4, 5}
    assert "n = 1: 2 disjoint, n = 3: 2 overlapping" in found["notes"][0]
    assert "not told apart from n = 3" in found["notes"][1]
    assert len(list((tmp_path / "work" / "graphs").iterdir())) == 4


def test_table3(run, tiny_a, tmp_path):
    naive = tiny_a / "calibration" / "naive.npz"
    naive.parent.mkdir(exist_ok=True)
    opened = open_folder(tiny_a)
    calibrate(opened.replayer(), [Sample("a fox", 0)], max_span=4, journal=tmp_path / "journal").save(naive)
    found = checked(run("table3", tiny_a, "--graph", f"again={naive}", "--budgets", "4,6"), tmp_path)
    rows = {(row["method"], row["budget"]): row for row in found["rows"]}
    assert rows["again minimax", 4]["lpips"] == rows["minimax", 4]["lpips"]
    paired = {(row["method"], row["budget"]): row["latents_l1"][0] for row in found["differences"]}
    expected = rows["minimax", 4]["latents_l1"][0] - rows["shortest", 4]["latents_l1"][0]
    assert paired["minimax - shortest", 4] == pytest.approx(expected, abs=1e-5)
    naive.unlink()


def test_table3_without_a_graph_says_how_to_make_one(run, tiny_b):
    result = run("table3", tiny_b)
    assert result.exit_code == 2
    assert "--method naive" in result.stderr


def test_temporal(run, tiny_a, tmp_path):
    found = checked(run("temporal", tiny_a, "--steps", f"7,{STEPS}", "--samples", "1", "--draws", "2"), tmp_path)
    here = {row["method"]: row for row in found["rows"] if row["group"].endswith(f"at T = {STEPS}")}
    assert here["mapped"]["steps"] == here["own"]["steps"]
    assert found["draws"] == 2
    assert len(list((tmp_path / "work" / "graphs").iterdir())) == 2 * 2  # two draws at both lengths
    assert all(row["steps"][0][-1] == 6 for row in found["rows"] if row["group"].endswith("at T = 7"))
    assert "16 frames of 48 x 48 only" in found["notes"][0]


def test_transfer_between_two_models(run, tiny_a, tiny_b, tmp_path):
    found = checked(run("transfer", tiny_a, tiny_b, "--samples", "1", "--draws", "1"), tmp_path)
    ends = {(row["method"], row["steps"][0][-1] + 1) for row in found["rows"] if row["method"].startswith("of ")}
    assert {(name.split()[1], steps) for name, steps in ends} == {("tiny_a", STEPS + 5), ("tiny_b", STEPS)}
    assert len(set(found["models"].values())) == 2


def test_transfer_between_families(run, tiny_a, tiny_open_sora, tmp_path):
    found = checked(run("transfer", tiny_a, tiny_open_sora, "--samples", "1", "--draws", "2"), tmp_path)
    latte, sora = f"tiny_a (T = {STEPS}, guidance 4)", f"tiny_open_sora (T = {OPEN_SORA_STEPS}, guidance 7)"
    assert {row["group"] for row in found["rows"]} == {f"plan of {latte} on {sora}", f"plan of {sora} on {latte}"}
    for row in found["rows"]:
        assert row["steps"][0][-1] == (STEPS if row["group"].endswith(latte) else OPEN_SORA_STEPS) - 1
        assert len(row["steps"][0]) == row["budget"]
        assert row["latents_l1"][0] > 0
    assert found["block_engines"] == {"tiny_a": "eager", "tiny_open_sora": "eager"}
    assert found["heading"] == "The plans of models on each other"


def test_folders_of_one_name_are_told_apart(run, tiny_a, tiny_b, tmp_path):
    folders = [tmp_path / which / "shapes" for which in "ab"]
    for folder, source in zip(folders, (tiny_a, tiny_b), strict=True):
        folder.parent.mkdir()
        folder.symlink_to(source)
    assert [opened.name for opened in open_folders(folders)] == ["tiny_a", "tiny_b"]
    for folder, source in zip(folders, (tiny_a, tiny_b), strict=True):
        folder.unlink()
        shutil.copytree(source, folder)
    assert [opened.name for opened in open_folders(folders)] == ["a/shapes", "b/shapes"]
    found = checked(run("table2", *folders, "--sizes", "1", "--draws", "1"), tmp_path)
    assert set(found["models"]) == {"a/shapes", "b/shapes"}
    assert {path.name.split("-n1-")[0] for path in (tmp_path / "work" / "graphs").iterdir()} == {"a-shapes", "b-shapes"}


def test_transfer_to_other_guidance_needs_one_model_only(run, tiny_a, tmp_path):
    found = checked(run("transfer", tiny_a, "--guidance-scale", "2", "--samples", "1", "--draws", "2"), tmp_path)
    assert found["heading"] == "A plan under other guidance"
    assert len(list((tmp_path / "work" / "graphs").iterdir())) == 2 * 2
    groups = {row["group"] for row in found["rows"]}
    assert groups == {
        f"plan of tiny_a (T = {STEPS}, guidance {first}) on tiny_a (T = {STEPS}, guidance {second})"
        for first, second in ((4, 2), (2, 4))
    }


@pytest.mark.parametrize("more", [(), ("--guidance-scale", "4")])
def test_transfer_from_a_model_to_itself_is_refused(run, tiny_a, more):
    result = run("transfer", tiny_a, *more)
    assert result.exit_code == 2
    assert "second model folder" in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--sizes", "1,x"), "1,x"), (("--sizes", "9"), "a pool of 4 samples"), (("--prompts", "none.txt"), "none.txt")],
)
def test_bad_input_is_one_line(run, tiny_a, arguments, message):
    result = run("table2", tiny_a, *arguments) if arguments[0] != "--prompts" else None
    if result is None:
        result = CliRunner().invoke(app, ["table2", str(tiny_a), *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
