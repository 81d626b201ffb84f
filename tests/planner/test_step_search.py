import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lemica_planner import CachePlan, CalibrationError, JournalError, PlanMismatchError, Sample
from lemica_planner.cli import app
from lemica_planner.replayer import KnownNames, knows
from lemica_planner.samplers import OWN, Way, parse_sampler
from lemica_planner.step_search import SearchSpace, own_references, search
from lemica_planner.way_plans import Planning
from tests.planner import toy_sampling
from tests.planner.toy_replayer import OPERATORS, toy_graph
from tests.planner.toy_sampling import ToySamplingReplayer

SAMPLES = [Sample("a", 5), Sample("b", 6)]
CALIBRATION = (Sample("c", 0),)
DDIM, UNIPC = parse_sampler("ddim-trailing"), parse_sampler("unipc")
REFERENCES = own_references(ToySamplingReplayer(), UNIPC, 40)
SPACE = SearchSpace((3, 5), samplers=(DDIM, UNIPC), cached=(DDIM,), steps=(9,), operators=("residual", "noise"))


@pytest.fixture
def run(tmp_path):
    def run(space=SPACE, replayer=None, samples=SAMPLES, planning=None, journal="rows.jsonl"):
        known = {"planning": planning, "journal": tmp_path / journal}
        return search(replayer or ToySamplingReplayer(), samples, space, REFERENCES, **known)

    toy_sampling.MADE.clear()
    return run


def test_every_way_is_measured_once_on_every_sample(run):
    known = run()
    assert len(known.ways) == 2 + 4 + 4
    assert len(toy_sampling.MADE) == len(set(toy_sampling.MADE)) == 2 * len(known.ways)
    assert {way.kind for way in known.ways} == {"fewer", "timesteps", "cached"}
    assert known.values["full", "latents_l1"].shape == (10, 2)


def test_what_is_known_is_not_measured_again_and_joins_later_runs(run):
    first = run(SearchSpace((3, 5), samplers=(DDIM,)))
    made = len(toy_sampling.MADE)
    both = run(SearchSpace((3, 5), samplers=(DDIM, UNIPC)))
    assert len(toy_sampling.MADE) == made + 2 * 2
    assert {way.key for way in first.ways} < {way.key for way in both.ways}


def test_an_interrupted_run_goes_on(run, monkeypatch):
    measure, calls = toy_sampling.ToyYardstick.measure, []

    def interrupted(self, way):
        calls.append(way)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return measure(self, way)

    monkeypatch.setattr(toy_sampling.ToyYardstick, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run()
    known = run()
    assert len(toy_sampling.MADE) == len(set(toy_sampling.MADE)) == 2 * len(known.ways)


def test_ways_that_other_samples_lack_are_left_out(run):
    run(samples=SAMPLES[:1])
    known = run(SearchSpace((3,), samplers=(DDIM,)))
    assert {way.name for way in known.ways} == {"own, 9 steps", "unipc, 20 steps", "ddim-trailing, 3 steps"}


def test_held_noise_is_for_samplers_without_memory(run):
    known = run(SearchSpace((3,), cached=(UNIPC,), steps=(9,), operators=("residual", "noise")))
    assert {way.operator for way in known.ways} == {"", "residual"}


def test_measured_plans_and_their_timesteps(run, tmp_path):
    space = SearchSpace((4,), cached=(DDIM,), steps=(9,), operators=("noise",), even=False, measured=True)
    known = run(replace(space, reuse_timesteps=(UNIPC,)), planning=Planning(CALIBRATION, tmp_path))
    held, given = (way for way in known.ways if way.kind == "timesteps")
    assert (held.operator, held.plan) == ("noise", "measured")
    assert given.sampler.timesteps == tuple(1000 - 111 * (step + 1) for step in held.entry.steps)


def test_timesteps_that_a_sampler_chooses_for_itself(run, tmp_path):
    known = run(SearchSpace((4,), leaping=(UNIPC,), steps=(9,)), planning=Planning(CALIBRATION, tmp_path))
    (way,) = (way for way in known.ways if way.kind == "timesteps")
    assert (way.cost, way.entry, way.sampler.scheduler) == (4, None, UNIPC.scheduler)
    assert set(way.sampler.timesteps) <= {1000 - 111 * (step + 1) for step in range(9)}
    with pytest.raises(CalibrationError, match="need prompts"):
        run(SearchSpace((4,), leaping=(UNIPC,), steps=(9,)))


def test_plans_that_exist_are_compared(run):
    provenance = ToySamplingReplayer().provenance()
    entries = {3: (0, 4, 8), 4: (0, 2, 4, 8)}
    plan = CachePlan.from_steps(replace(provenance, operator="residual-linear"), entries)
    known = run(SearchSpace((3, 5), plans=(plan,)))
    (way,) = (way for way in known.ways if way.entry)
    assert (way.entry.steps, way.operator, way.plan, way.sampler.name) == (
        (0, 4, 8),
        "residual-linear",
        "measured",
        "own",
    )
    with pytest.raises(PlanMismatchError, match="guidance_scale"):
        run(SearchSpace((3,), plans=(replace(plan, provenance=replace(provenance, guidance_scale=7.0)),)))


def test_the_own_sampler_knows_its_class(run):
    space = SearchSpace((3,), cached=(OWN,), steps=(9,), operators=("noise",))
    assert not any(way.entry for way in run(space).ways)
    known = run(space, ToySamplingReplayer(scheduler="DDIMScheduler"), journal="ddim")
    assert [way.kind for way in known.ways if way.entry] == ["timesteps"]


def test_measured_plans_need_samples(run):
    with pytest.raises(CalibrationError, match="need prompts"):
        run(SearchSpace((3,), cached=(DDIM,), steps=(9,), operators=("residual",), measured=True))


def test_no_samples(run):
    with pytest.raises(CalibrationError, match="samples and ways"):
        run(samples=[])


def test_measures_must_be_numbers(run, monkeypatch):
    monkeypatch.setattr(toy_sampling.ToyYardstick, "measure", lambda self, way: {"full": {"latents_l1": float("nan")}})
    with pytest.raises(CalibrationError, match="finite"):
        run()


def test_a_journal_with_other_references_is_refused(run, monkeypatch):
    run()
    monkeypatch.setitem(REFERENCES, "converged", Way(UNIPC, 80))
    with pytest.raises(JournalError, match="another comparison"):
        run()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    Path("model").mkdir()
    Path("prompts.txt").write_text("a\nb\n", encoding="utf-8")
    toy_graph().save("graph.npz")
    return tmp_path


@knows(KnownNames((*OPERATORS, "output-linear"), ("latents_l1", "frames_l2")))
def open_nothing(model_dir, metric):
    raise AssertionError("a model was loaded")


def steps(*arguments):
    common = ["steps", "model", "--prompts", "prompts.txt", "--replayer", "tests.planner.toy_sampling:open_sampling"]
    return CliRunner().invoke(app, [*common, *map(str, arguments)])


def test_the_command_writes_what_the_report_shows(folder):
    made = steps("--costs", "3,5", "--cached", "ddim-trailing", "--operators", "residual,noise", "-o", "out.json")
    assert made.exit_code == 0, made.output
    known = json.loads(Path("out.json").read_text())
    assert known["samples"] == [["a", 500000], ["b", 500001]]
    assert {way["name"] for way in known["ways"]} >= {"own, 3 steps", "unipc-trailing, 5 steps", "own, 9 steps"}
    assert {choice["verdict"] for choice in known["choices"]} <= {"yes", "no", "open"}
    page = CliRunner().invoke(app, ["report", "graph.npz", "--steps", "out.json", "-o", "page.html"])
    assert page.exit_code == 0, page.output
    html = Path("page.html").read_text(encoding="utf-8")
    best = next(c for c in known["choices"] if (c["cost"], c["reference"]) == (3, "full"))["best"]["uncached"]["name"]
    assert "Fewer steps, or caching?" in html
    assert best in html


def test_without_a_comparison_the_report_has_no_such_section(folder):
    CliRunner().invoke(app, ["report", "graph.npz", "-o", "page.html"])
    assert "Fewer steps, or caching?" not in Path("page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--costs", "3,x"), "costs must be numbers"),
        (("--costs", "1"), "from 2 on"),
        (("--costs", "3", "--samplers", "heun"), "no sampler 'heun'"),
        (("--costs", "3", "--converged", "ddim"), "converged steps must be"),
        (("--costs", "3", "--measured"), "need prompts"),
        (("--costs", "3", "--operators", "magic"), "no operator 'magic'"),
        (
            ("--costs", "3", "--leaping", "own", "--metric", "lpips", "--calibration", "prompts.txt"),
            "no metric 'lpips'",
        ),
        (("--costs", "3", "--plans", "none.json"), "none.json"),
    ],
)
def test_bad_options_are_one_line_before_a_model_is_loaded(folder, monkeypatch, arguments, message):
    monkeypatch.setattr(toy_sampling, "open_sampling", open_nothing)
    refused = steps(*arguments)
    assert refused.exit_code == 2
    (line,) = [line for line in refused.stderr.strip().splitlines() if line.startswith("error: ")]
    assert message in line


def test_a_replayer_that_cannot_change_its_sampler(folder):
    refused = steps("--costs", "3", "--operators", "residual", "--replayer", "tests.planner.toy_replayer:open_toy")
    assert refused.exit_code == 2
    assert "cannot change its sampler" in refused.stderr


def test_a_report_refuses_another_file(folder):
    Path("other.json").write_text("{}")
    refused = CliRunner().invoke(app, ["report", "graph.npz", "--steps", "other.json"])
    assert refused.exit_code == 2
    assert "no comparison" in refused.stderr
