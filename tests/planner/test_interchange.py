import json
from itertools import product

import pytest
from typer.testing import CliRunner

from lemica_planner import (
    CachePlan,
    PlanEntry,
    PlanFormatError,
    Provenance,
    UnknownBudgetError,
    published_names,
    published_plan,
)
from lemica_planner.cli import app
from lemica_planner.interchange import cache_dit_config, export_plan, from_mask, import_plan, to_mask

LISTS = {4: (0, 1, 3, 5), 3: (0, 2, 5)}


@pytest.fixture
def plan():
    return CachePlan.from_steps(Provenance(num_inference_steps=6, metric=None), LISTS, names={"slow": 4, "fast": 3})


@pytest.mark.parametrize(
    ("budget", "mask"),
    [("slow", [1, 1, 0, 1, 0, 1]), (3, [1, 0, 1, 0, 0, 1]), ("3", [1, 0, 1, 0, 0, 1]), ("full", [1, 1, 1, 1, 1, 1])],
)
def test_a_mask_has_one_entry_a_step(plan, budget, mask):
    assert to_mask(plan, budget) == mask
    assert from_mask(mask) == plan.resolve(budget).steps


def test_every_mask_of_a_length_comes_back():
    for inner in product((0, 1), repeat=5):
        steps = from_mask([1, *inner, 1])
        plan = import_plan(",".join(map(str, steps)), source="a test")
        assert to_mask(plan, len(steps)) == [1, *inner, 1]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([], "two steps or more"),
        ([1], "two steps or more"),
        ([0, 1, 1], "compute the first and the last"),
        ([1, 1, 0], "compute the first and the last"),
        ([1, 2, 1], r"0 and 1 only.*got \[1, 2, 1\]"),
        ([True, False, True], "0 and 1 only"),
    ],
)
def test_a_list_that_is_no_mask_is_refused(mask, message):
    with pytest.raises(PlanFormatError, match=message):
        from_mask(mask)


def test_an_unknown_budget_is_refused(plan):
    for ask in (to_mask, cache_dit_config, lambda plan, budget: export_plan(plan, "json", budget)):
        with pytest.raises(UnknownBudgetError, match="available: full, slow"):
            ask(plan, 5)


def test_json_names_every_budget(plan):
    written = json.loads(export_plan(plan, "json"))
    assert written == {"slow": [0, 1, 3, 5], "fast": [0, 2, 5], "3": [0, 2, 5], "4": [0, 1, 3, 5]}
    assert json.loads(export_plan(plan, "json", "fast")) == {"fast": [0, 2, 5]}
    assert json.loads(export_plan(plan, "json", "full")) == {"6": [0, 1, 2, 3, 4, 5]}


def test_steps_are_one_line_a_budget(plan):
    assert sorted(export_plan(plan, "steps").splitlines()) == ["0,1,3,5", "0,2,5"]
    assert export_plan(plan, "steps", 4) == "0,1,3,5\n"


def test_cache_dit_is_told_to_follow_the_mask(plan):
    config = json.loads(export_plan(plan, "cache-dit", "fast"))["cache_config"]
    assert config == cache_dit_config(plan, "fast")
    assert config["steps_computation_mask"] == [1, 0, 1, 0, 0, 1]
    assert (config["steps_computation_policy"], config["num_inference_steps"]) == ("static", 6)
    assert (config["Fn_compute_blocks"], config["Bn_compute_blocks"]) == (1, 0)


def test_cache_dit_cannot_run_other_operators(plan):
    entry = PlanEntry((0, 2, 5), operators=("residual", "output-linear"))
    other = CachePlan(provenance=plan.provenance, entries={3: entry})
    with pytest.raises(PlanFormatError, match="is for output-linear, residual: calibrate with --operators residual"):
        cache_dit_config(other, 3)


@pytest.mark.parametrize(
    ("form", "budget", "message"),
    [
        ("cache-dit", None, "takes one budget.*full, slow, fast, 3, 4"),
        ("yaml", None, "unknown format 'yaml'; allowed: json, steps, cache-dit"),
    ],
)
def test_a_format_that_cannot_be_written_is_refused(plan, form, budget, message):
    with pytest.raises(PlanFormatError, match=message):
        export_plan(plan, form, budget)


@pytest.mark.parametrize("model", published_names())
def test_published_plans_survive_every_format(model):
    plan = published_plan(model)
    for form in ("json", "steps"):
        assert import_plan(export_plan(plan, form), source="a test").entries == plan.entries
    for budget, entry in plan.entries.items():
        read = import_plan(export_plan(plan, "cache-dit", budget), source="a test")
        assert read.entries == {budget: entry}
        assert read.provenance.num_inference_steps == plan.provenance.num_inference_steps


def test_names_survive_json(plan):
    assert import_plan(export_plan(plan, "json"), source="a test") == CachePlan.from_steps(
        Provenance(num_inference_steps=6, metric=None, source="a test"), LISTS, names={"slow": 4, "fast": 3}
    )


@pytest.mark.parametrize(
    "text",
    [
        "0,1,3,5\n0,2,5",
        "# made by hand\n 0, 2, 5  # fast\n\n1,1,0,1,0,1\n",
        "[[0, 1, 3, 5], [0, 2, 5]]",
        "\n[[1, 1, 0, 1, 0, 1], [0, 2, 5], [0, 2, 5]]",
        '{"4": [0, 1, 3, 5], "3": [1, 0, 1, 0, 0, 1]}',
    ],
)
def test_lists_and_masks_are_read(text, plan):
    read = import_plan(text, source="a blog", model="Wan", names={"fast": 3})
    assert read.entries == plan.entries
    known = read.provenance
    assert (known.calibrated, known.source, known.model, known.num_inference_steps) == (False, "a blog", "Wan", 6)
    assert read.resolve("fast").predicted_error is None
    assert CachePlan.from_json(read.to_json()) == read


def test_a_single_list_is_read():
    assert list(import_plan("[0, 2, 5]", source="x").budgets.values()) == [(0, 2, 5)]
    assert list(import_plan("[1, 0, 1]", source="x").budgets.values()) == [(0, 2)]
    assert list(import_plan("0,1", source="x").budgets.values()) == [(0, 1)]
    assert list(import_plan("1,1", source="x").budgets.values()) == [(0, 1)]
    mask = '{"steps_computation_mask": [1, 0, 1], "num_inference_steps": 3}'
    assert list(import_plan(mask, source="x").budgets.values()) == [(0, 2)]


WRONG = [
    ("", "there are no lists"),
    ("{}", "there are no lists"),
    ("# nothing\n", "there are no lists"),
    ("0,1;4", "line 1 must be numbers separated by commas; got '0,1;4'"),
    ("0,1,4\n0,,4", "line 2 must be numbers"),
    ("2,3,4", "begin with 0"),
    ("0,3,2", "ascend strictly"),
    ("0", "two integers or more"),
    ("0,1,1,0", "compute the first and the last"),
    ("0,2,5\n0,3", "must end at the last step, 5; got 3"),
    ("0,2,5\n0,3,5", "two different lists have 3"),
    ("[0, 2.5, 5]", "two integers or more"),
    ("[0, true, 5]", "two integers or more"),
    ("[[0, 2], 5]", "list 2 must be a JSON array; got 5"),
    ("[0, 2", "is not JSON"),
    ('[0, 2], "x": [1', "is not JSON"),
    ('[0, 2], "x": 1', "unknown keys"),
    ('{"2": [0, 2, 5]}', "budget 2 has 3 steps"),
    ('{"a": [0, 5], "b": [0, 1, 5], "b": [0, 5]}', "more than once"),
    ('{"full": [0, 2, 5]}', "not be 'full'"),
    ('{"schema_version": 1}', "schema_version must be a JSON array"),
    ('{"cache_config": [1, 0, 1]}', "cache_config must be a JSON object"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_other_texts_are_refused(text, message):
    with pytest.raises(PlanFormatError, match=message):
        import_plan(text, source="x")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_commands_are_each_others_inverse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = published_plan("Wan2.1-T2V-1.3B")
    assert run("export", "published:Wan2.1-T2V-1.3B", "-o", "lists.json").exit_code == 0
    done = run("import", "lists.json", "--model", "mine", "--names", "fast=14", "-o", "mine.json")
    assert done.exit_code == 0, done.output
    assert "with 4 budgets: mine.json" in done.output
    plan = CachePlan.from_json((tmp_path / "mine.json").read_text())
    assert (plan.entries, plan.names) == (source.entries, {"fast": 14})
    assert (plan.provenance.source, plan.provenance.model, plan.provenance.calibrated) == ("lists.json", "mine", False)
    printed = run("export", "mine.json", "--format", "cache-dit", "--budget", "fast")
    assert json.loads(printed.output)["cache_config"] == cache_dit_config(source, 14)
    assert (
        run("export", "mine.json", "--format", "steps", "--budget", 14).output == "0,1,2,3,4,5,7,10,16,23,30,37,44,49\n"
    )


def test_the_origin_of_lists_can_be_stated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists.txt").write_text("0,2,5\n")
    assert run("import", "lists.txt", "--origin", "a blog").exit_code == 0
    assert CachePlan.from_json((tmp_path / "plan.json").read_text()).provenance.source == "a blog"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "published:Qwen-Image", "--format", "yaml"), "unknown format"),
        (("export", "published:Qwen-Image", "--format", "cache-dit"), "takes one budget"),
        (("export", "published:Qwen-Image", "--budget", "11"), "no budget '11'"),
        (("import", "none.txt"), "none.txt"),
        (("import", "latin.txt"), "no UTF-8 text"),
        (("import", "wrong.txt"), "line 1 must be numbers"),
        (("import", "right.txt", "--names", "fast=9"), "names.fast must be a budget"),
        (("import", "right.txt", "-o", "no/plan.json"), "/no; make it"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    (tmp_path / "wrong.txt").write_text("first, last")
    (tmp_path / "right.txt").write_text("0,2,5")
    result = run(*arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
