import json
import shutil
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lemica_backend.config_sections import Defaults
from lemica_planner import CachePlan, ErrorGraph, Sample, published_plan, served_steps
from lemica_planner.cli import app
from lemica_planner.config_writer import read_plan
from lemica_planner.graph_file import load_graph
from tests.planner import toy_replayer
from tests.planner.toy_replayer import toy_graph

EXAMPLE = Path(__file__).with_name("example_config.pbtxt")
COMMANDS = ("calibrate", "solve", "apply", "show", "report")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a graph, a model and prompts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    toy_graph().save("graph.npz")
    Path("model").mkdir()
    shutil.copy(EXAMPLE, "model/config.pbtxt")
    Path("prompts.txt").write_text("# two prompts\na red cube\n\n  zwei Würfel \n", encoding="utf-8")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def fail(*arguments):
    """Run what must fail with exit code 2 and one line, and return that line."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag):
    assert all(command in succeed(flag) for command in COMMANDS)
    assert all("Usage" in succeed(command, flag) for command in COMMANDS)


def test_version_is_that_of_the_package():
    assert succeed("--version") == f"lemica-planner {metadata.version('lemica')}\n"


def test_solve_writes_a_plan(folder):
    assert "plan.json" in succeed("solve", "graph.npz", "--names", "slow=6, fast=3", "-o", "plan.json")
    plan = CachePlan.from_json(Path("plan.json").read_text())
    assert plan == CachePlan.from_graph(toy_graph(), names={"slow": 6, "fast": 3})


def test_solve_prints_a_plan(folder):
    output = succeed("solve", "graph.npz", "--budget", 4)
    steps = CachePlan.from_graph(toy_graph()).budgets[4]
    assert "".join("█" if step in steps else "·" for step in range(9)) in output
    assert "·" * 9 not in output


@pytest.mark.parametrize("source", ["graph.npz", "plan.json", "model", "model/config.pbtxt", "published:Qwen-Image"])
def test_show(folder, source):
    succeed("solve", "graph.npz", "-o", "plan.json")
    succeed("apply", "plan.json", "model")
    output = succeed("show", source)
    assert "predicted error" in output
    assert "█" in output
    assert ("not measured" in output) == source.startswith("published")


def test_apply_writes_every_feasible_budget(folder):
    assert "7 budgets" in succeed("apply", "graph.npz", "model")
    assert read_plan(Path("model/config.pbtxt")) == CachePlan.from_graph(toy_graph())
    succeed("apply", "graph.npz", "model/config.pbtxt", "--names", "quick=3")
    assert read_plan(Path("model/config.pbtxt")).names == {"quick": 3}


def test_apply_the_authors_list(folder):
    assert "not calibrated here" in succeed("apply", "model", "--published", "hunyuanvideo-1.5", "--names", "")
    assert read_plan(Path("model/config.pbtxt")) == published_plan("HunyuanVideo-1.5")


@pytest.mark.parametrize(
    ("defaults", "said"),
    [
        ({"num_inference_steps": 50}, "requests that use the plan without stating their num_inference_steps."),
        ({}, "or apply a plan for num_inference_steps 50"),
        ({"num_inference_steps": 50, "budget": "20"}, "refuse to load the model"),
        ({"num_inference_steps": 40}, None),
    ],
)
def test_a_plan_for_another_number_of_steps_is_warned_of(folder, defaults, said):
    for version, known in (("1", {"defaults": {"num_inference_steps": 7}}), ("10", {"defaults": defaults})):
        Path("model", version).mkdir()
        Path("model", version, "model.json").write_text(json.dumps(known))
    made = run("apply", "model", "--published", "wan2.1-i2v-14b", "--names", "")
    assert made.exit_code == 0, made.output
    assert read_plan(Path("model/config.pbtxt")) == published_plan("Wan2.1-I2V-14B")
    if said is None:
        assert not made.stderr
    else:
        planned, taken = (f"num_inference_steps {steps}" for steps in (40, 50))
        assert made.stderr.startswith(f"warning: the plan is for {planned}, and model/10/model.json takes {taken}")
        assert said in made.stderr
        assert made.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("defaults", "taken"),
    [
        ({"num_inference_steps": 9, "guidance_scale": 7.5}, "guidance_scale 7.5"),
        ({"num_inference_steps": 9}, "guidance_scale 4.0"),
        ({"guidance_scale": 7.5}, "num_inference_steps 50 and guidance_scale 7.5"),
        ({"num_inference_steps": 9, "guidance_scale": 1}, None),
    ],
)
def test_a_plan_for_another_guidance_is_warned_of(folder, defaults, taken):
    Path("model/1").mkdir()
    Path("model/1/model.json").write_text(json.dumps({"defaults": defaults}))
    made = run("apply", "graph.npz", "model")
    assert made.exit_code == 0, made.output
    if taken is None:
        assert not made.stderr
    else:
        assert f"model/1/model.json takes {taken} by default" in made.stderr
        assert "defaults.guidance_scale to 1.0" in made.stderr


@pytest.mark.parametrize("content", ["{", "[]", '{"defaults": 5}', "\udcff"])
def test_a_model_file_that_cannot_be_read_is_left_to_the_server(folder, content):
    Path("model/1").mkdir()
    Path("model/1/model.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert "warning" not in succeed("apply", "model", "--published", "wan2.1-i2v-14b", "--names", "")


def test_what_a_model_takes_by_default_is_what_the_server_takes():
    taken = (served_steps._STEPS, served_steps._GUIDANCE, served_steps._BUDGET)
    assert (Defaults().num_inference_steps, Defaults().guidance_scale, Defaults().budget) == taken


@pytest.mark.parametrize("arguments", [("model",), ("plan.json", "model", "--published", "HunyuanVideo-1.5")])
def test_apply_takes_one_plan(folder, arguments):
    assert "--published NAME" in fail("apply", *arguments)


def test_apply_a_plan_with_other_names(folder):
    succeed("solve", "graph.npz", "-o", "plan.json")
    succeed("apply", "plan.json", "model", "--names", "")
    assert read_plan(Path("model/config.pbtxt")).names == {}
    succeed("apply", "published:HunyuanVideo-1.5", "model", "--names", "fast=10")
    assert read_plan(Path("model/config.pbtxt")).entries == published_plan("HunyuanVideo-1.5").entries


def test_report_is_one_page_without_links(folder):
    weights = toy_graph().weights.copy()
    weights[3, 5] = np.inf  # an edge of the four evenly spaced steps
    ErrorGraph(weights).save("graph.npz")
    succeed("report", "graph.npz", "-o", "page.html", "--names", "fast=3")
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.count("<tr data-budget=") == 7
    assert page.count("<rect ") == sum(9 - span for span in (2, 3, 4)) - 1
    assert "http" not in page
    assert "$" not in page.partition("<script>")[0]
    assert "<td>not allowed</td>" in page


def test_a_model_folder_stands_for_the_graph_of_its_calibration(folder):
    Path("model/calibration").mkdir()
    toy_graph().save("model/calibration/graph.npz")
    succeed("report", "model")
    assert "<tr data-budget=" in Path("report.html").read_text(encoding="utf-8")
    assert succeed("solve", "model") == succeed("solve", "graph.npz")


def test_report_of_a_graph_that_allows_no_reuse(folder):
    weights = np.full((4, 4), np.inf)
    weights[range(3), range(1, 4)] = 0
    ErrorGraph(weights).save("graph.npz")
    succeed("report", "graph.npz")
    assert "nothing to compare" in Path("report.html").read_text(encoding="utf-8")


def test_report_escapes_what_others_wrote(folder):
    known = toy_graph()
    hostile = known.provenance.__class__.from_dict(known.provenance.to_dict() | {"model": "<script>alert(1)</script>"})
    ErrorGraph(known.weights, provenance=hostile).save("graph.npz")
    succeed("report", "graph.npz")
    assert "<script>alert" not in Path("report.html").read_text(encoding="utf-8")


@pytest.fixture
def replayers(monkeypatch):
    """Install replayers, one that works and two that do not; return those that get opened."""
    points = [
        EntryPoint("toy", "tests.planner.toy_replayer:open_toy", "lemica_planner.replayers"),
        EntryPoint("gone", "no_such_package:open_replayer", "lemica_planner.replayers"),
        EntryPoint("broken", "tests.planner.toy_replayer:open_broken", "lemica_planner.replayers"),
    ]
    monkeypatch.setattr("lemica_planner.installed.metadata.entry_points", lambda group: points)
    monkeypatch.setattr(toy_replayer, "OPENED", [])
    return toy_replayer.OPENED


LAZY = ("calibrate", "model", "--prompts", "prompts.txt", "--seeds", 2, "--max-span", 3, "--replayer", "toy")
CALIBRATE = (*LAZY, "--method", "naive")


def test_calibrate_writes_a_graph(folder, replayers):
    assert "edges up to 3 steps long, 4 samples" in succeed(*CALIBRATE, "-o", "new.npz")
    samples = [("a red cube", 0), ("a red cube", 1), ("zwei Würfel", 0), ("zwei Würfel", 1)]
    assert ErrorGraph.load("new.npz").samples == tuple(Sample(*each) for each in samples)
    assert Path("new.npz.journal.jsonl").exists()
    succeed("apply", "new.npz", "model")


def test_a_lazy_calibration_makes_a_plan_with_operators(folder, replayers):
    operators = "residual,residual-linear,residual-fitted"
    printed = succeed(*LAZY, "--operators", operators, "--budgets", "6,5", "-o", "new.npz")
    assert "segments measured" in printed
    succeed("apply", "new.npz", "model", "--names", "fast=5")
    succeed("report", "new.npz", "-o", "report.html")
    plan = read_plan(Path("model/config.pbtxt"))
    assert plan.provenance.operator == operators.replace(",", "+")
    assert plan.operators <= set(operators.split(","))
    assert plan.resolve("fast").operators


def test_a_lazy_calibration_needs_no_options(folder, replayers):
    """The default budgets are those that the span allows."""
    succeed(*LAZY, "-o", "new.npz")
    assert set(load_graph("new.npz").entries()) == {4, 5, 6, 7, 8, 9}


def test_risk_and_refinement_are_in_the_graph(folder, replayers):
    succeed(*LAZY, "--risk", "cvar:0.5", "--refine", 4, "--budgets", "6", "-o", "new.npz")
    graph = load_graph("new.npz")
    assert graph.risk == "cvar:0.5"
    assert list(graph.refined) == [6]
    assert "outcome" in succeed("show", "new.npz")


def test_an_interrupted_calibration_goes_on(folder, replayers, monkeypatch):
    monkeypatch.setattr(toy_replayer, "INTERRUPT_AFTER", 10)
    result = run(*CALIBRATE, "-o", "new.npz")
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr
    assert not Path("new.npz").exists()
    monkeypatch.setattr(toy_replayer, "INTERRUPT_AFTER", None)
    succeed(*CALIBRATE, "-o", "new.npz")
    assert len(replayers[1].calls) == 4 * 7 - 10
    succeed(*CALIBRATE, "-o", "other.npz")
    np.testing.assert_array_equal(ErrorGraph.load("new.npz").weights, ErrorGraph.load("other.npz").weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--replayer", "other"), "no replayer 'other' is installed; installed: broken, gone, toy"),
        (("--replayer", "gone"), "cannot be imported: No module named 'no_such_package'; install"),
        (("--replayer", "broken"), "cannot open model: weights of another model"),
        (("--prompts", "none.txt"), "none.txt"),
        (("--method", "lazy", "--budgets", "five"), "numbers of steps, separated by commas; got 'five'"),
        (("--method", "lazy", "--budgets", "2"), "smallest feasible budget is 4"),
        (("--operators", "magic"), "no operator 'magic'"),
        (("--risk", "cvar:0.5"), "naive knows no --risk"),
        (("--budgets", "5", "--refine", "3"), "naive knows no --budgets, --refine"),
        (("--worker-gpus", "1"), "--worker-gpus does nothing without --workers or --ray"),
        (("--method", "lazy", "--risk", "luck"), "the risk must be mean"),
        (("--prompts", "empty.txt"), "holds no prompts"),
        (("--prompts", "graph.npz"), "no UTF-8 text"),
        (("-o", "no/such/folder.npz"), "does not exist"),
        (("--journal", "prompts.txt"), "no calibration journal"),
    ],
)
def test_calibrate_refuses(folder, replayers, arguments, message):
    Path("empty.txt").write_text("# nothing\n")
    assert message in fail(*CALIBRATE, *arguments)
    assert Path("prompts.txt").read_text(encoding="utf-8").startswith("# two prompts")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--operators", "residual,magic"), "no operator 'magic'; there are residual, residual-linear"),
        (("--operators", ""), "no operator ''"),
        (("--metric", "lpips"), "no metric 'lpips'; there are latents_l1, frames_l2"),
        (("--risk", "luck"), "the risk must be mean"),
        (("--risk", "cvar:2"), "the risk must be mean"),
        (("--budgets", "five"), "numbers of steps"),
        (("--method", "naive", "--operators", "residual,noise"), "naive takes one operator"),
        (("--method", "naive", "--refine", 2), "naive knows no --refine"),
        (("-o", "no/such/folder.npz"), "does not exist"),
        (("--prompts", "none.txt"), "none.txt"),
    ],
)
def test_calibrate_refuses_before_it_loads_the_model(folder, replayers, arguments, message):
    assert message in fail(*LAZY, *arguments)
    assert not replayers


def test_workers_without_ray_are_refused_before_the_model_is_loaded(folder, replayers, monkeypatch):
    monkeypatch.setattr("lemica_planner.cluster.find_spec", lambda name: None)
    assert "pip install '.[ray]' in a checkout of lemica" in fail(*LAZY, "--workers", 1)
    assert not replayers


def test_a_replayer_that_does_not_say_what_it_knows_refuses_by_itself(folder):
    silent = (*LAZY[:-1], "tests.planner.toy_sampling:open_sampling")
    assert "no operator ['magic']; it has noise" in fail(*silent, "--operators", "magic")


def test_calibrate_needs_a_folder(folder, replayers):
    assert "no folder" in fail("calibrate", "prompts.txt", *CALIBRATE[2:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("solve", "none.npz"), "there is no none.npz; give a graph.npz that `lemica-planner calibrate` wrote"),
        (("solve", "prompts.txt"), "no error graph"),
        (("solve", "graph.npz", "--budget", 2), "the smallest feasible budget is 3"),
        (("solve", "graph.npz", "--names", "fast"), "NAME=NUMBER"),
        (("solve", "graph.npz", "--names", "fast=3,fast=4"), "each once"),
        (("solve", "graph.npz", "--names", "fast=2"), "names.fast must be a budget of the plan"),
        (("solve", "graph.npz", "-o", "no/plan.json"), "/no; make it"),
        (
            ("show", "none.json"),
            "there is no none.json; give plan.json, graph.npz, config.pbtxt, a model folder, or",
        ),
        (("show", "empty"), "there is no empty/config.pbtxt; give a model folder that holds"),
        (("show", "model"), "holds no 'cache_plan'"),
        (("show", "prompts.txt"), "no Triton model configuration"),
        (("show", "published:Latte"), "no plan is published"),
        (("show", "plan.json"), "unknown keys"),
        (("show", "latin.json"), "no UTF-8 text"),
        (("apply", "graph.npz", "prompts.txt"), "no Triton model configuration"),
        (("apply", "graph.npz", "nowhere"), "there is no nowhere; give a model folder that holds config.pbtxt"),
        (("report", "empty"), "there is no empty/calibration/graph.npz; give a graph.npz"),
        (("report", "graph.npz", "--steps", "none.json"), "there is no none.json; correct the path"),
        (("import", "none.txt"), "there is no none.txt; correct the path"),
        (("report", "prompts.txt"), "no error graph"),
    ],
)
def test_bad_input_is_one_line(folder, arguments, message):
    plan = json.loads(CachePlan.from_graph(toy_graph()).to_json()) | {"extra": 1}
    Path("plan.json").write_text(json.dumps(plan))
    Path("latin.json").write_bytes(b'{"a": "\xe9"}')
    Path("empty").mkdir()
    line = fail(*arguments)
    assert message in line
    assert "Errno" not in line


STEPS_COMMAND = ("steps", "model", "--prompts", "prompts.txt", "--costs", "4")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*STEPS_COMMAND, "--refine", 4), "--refine does nothing without --measured or --leaping"),
        ((*STEPS_COMMAND, "--metric", "latents_l1"), "--metric does nothing without --measured or --leaping"),
        ((*STEPS_COMMAND, "--operators", "residual-fitted"), "a fitted operator does nothing without --calibration"),
        ((*STEPS_COMMAND, "--operators", "residual", "--reuse-timesteps", "own"), "without noise in --operators"),
        ((*STEPS_COMMAND, "--sample-seed", 1), "--sample-seed does nothing without --sample"),
        (("calibrate", "model", "--prompts", "prompts.txt", "--sample-seed", 1), "--sample-seed does nothing"),
        (("report", "graph.npz", "--ours", "mine"), "--ours does nothing without --curves"),
    ],
)
def test_options_that_would_do_nothing_are_refused(folder, arguments, says):
    assert says in fail(*arguments)
