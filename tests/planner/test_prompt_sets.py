"""The files in prompt_sources/ are ours, in the formats of vbench 0.1.5 and of T2V-CompBench's prompts/."""

import hashlib
import json
import sys
from collections import Counter
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lemica_planner import CalibrationError, ErrorGraph, PromptSetError, Sample
from lemica_planner.cli import app
from lemica_planner.prompt_sets import Prompt, count_categories, draw, load_prompts, paper_prompts, to_json_line

SOURCES = Path(__file__).with_name("prompt_sources")
VBENCH_FILE = SOURCES / "VBench_full_info.json"
VBENCH = (
    ("a lamp, standing still", "temporal_flickering"),
    ("a kettle", "object_class"),
    ("a harbour in the fog, pencil drawing", "appearance_style"),  # of its two categories, the first by name
)


def prompts_of(**sizes):
    return [Prompt(f"{category} {number}", category) for category, size in sizes.items() for number in range(size)]


def shares(prompts):
    return sorted(Counter(prompt.category for prompt in prompts).values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain.txt", (("a red cube", ""), ("zwei Würfel", ""))),
        ("objects.jsonl", (("a red cube", "colour"), ("two cubes beside a ball", "count+space"), ("zwei Würfel", ""))),
        ("VBench_full_info.json", VBENCH),
    ],
)
def test_files(name, expected):
    assert load_prompts(str(SOURCES / name)) == tuple(Prompt(*each) for each in expected)


def test_a_folder_has_one_file_a_category():
    prompts = load_prompts(str(SOURCES / "compbench"))
    assert count_categories(prompts) == {
        "action_binding": 1,
        "consistent_attr": 3,
        "dynamic_attr": 2,
        "interaction": 1,
        "motion_binding": 2,  # one of its three lines stands there twice
        "numeracy": 2,
        "spatial_relationship": 2,
    }
    assert Prompt("A barrel rolls left, a goat runs right", "motion_binding") in prompts  # a space ends that line


def test_suffixes_decide_the_format(tmp_path):
    line = '{"prompt": "a red cube"}'
    for name, expected in (("a.JSONL", "a red cube"), ("a.ndjson", "a red cube"), ("a.md", line), ("vbench", line)):
        (tmp_path / name).write_text(line)
        assert load_prompts(str(tmp_path / name)) == (Prompt(expected),)


@pytest.fixture
def vbench(tmp_path, monkeypatch):
    """Install a package `vbench` that cannot be imported, like the real one without its dependencies."""
    package = tmp_path / "site" / "vbench"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('torch')")
    (package / "VBench_full_info.json").write_bytes(VBENCH_FILE.read_bytes())
    monkeypatch.syspath_prepend(package.parent)
    return package


def test_vbench_is_found_where_it_is_installed(vbench):
    assert load_prompts("vbench") == tuple(Prompt(*each) for each in VBENCH)


def test_vbench_without_its_file(vbench):
    (vbench / "VBench_full_info.json").unlink()
    with pytest.raises(PromptSetError, match=r"there is no .*VBench_full_info\.json; install vbench 0\.1\.5"):
        load_prompts("vbench")


def test_vbench_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "vbench", None)
    with pytest.raises(CalibrationError, match="vbench is not installed; run `pip install --no-deps vbench`"):
        load_prompts("vbench")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "# nothing\n", "holds no prompts"),
        ("a.txt", b"caf\xe9", "is no UTF-8 text"),
        ("a.jsonl", "", "holds no prompts"),
        ("a.jsonl", '{"prompt": "x"}\na red cube\n', "line 2 of .* is not JSON"),
        ("a.jsonl", '"a red cube"', "line 1 of .* must be an object"),
        ("a.jsonl", '{"text": "a red cube"}', r"as prompt or prompt_en; got None"),
        ("a.jsonl", '{"prompt": "  "}', "a text that is not empty"),
        ("a.jsonl", '{"prompt": ["x"]}', r"got \['x'\] \(list\)"),
        ("a.jsonl", r'{"prompt": "\ud800"}', "must hold a text"),
        ("a.jsonl", '{"prompt": "x", "category": 3}', r"category or dimension .* got 3 \(int\)"),
        ("a.jsonl", '{"prompt": "x", "dimension": ["scene", null]}', "must be a text or an array of texts"),
        ("a.jsonl", '{"prompt": "x", "n": ' + "9" * 5000 + "}", "line 1 of .* is not JSON"),
        ("a.json", '{"prompt": "x"}', "must be a JSON array .* name the file .jsonl"),
        ("a.json", '[{"prompt": "x"}, {}]', "entry 2 of .* must hold a text"),
        ("a.json", "[" * 100_000, "is not JSON"),
    ],
)
def test_refused_content_names_the_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PromptSetError, match=f"(?s){message}"):
        load_prompts(str(path))


def test_unknown_sources(tmp_path):
    with pytest.raises(PromptSetError, match=r"no file or folder 'vbech'; give a text file .* vbench, the installed"):
        load_prompts("vbech")
    with pytest.raises(PromptSetError, match=r"holds no \.txt files; give the folder with one file a category"):
        load_prompts(str(tmp_path))


@pytest.mark.parametrize(
    "prompt", [Prompt("a red cube"), Prompt('Würfel, "so"\u2028und so', "farbe+zahl"), Prompt("# no comment", "x")]
)
def test_a_line_reads_back(tmp_path, prompt):
    (tmp_path / "a.jsonl").write_text(to_json_line(prompt), encoding="utf-8")
    assert load_prompts(str(tmp_path / "a.jsonl")) == (prompt,)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 21, 22, 23])
def test_a_draw_takes_equal_shares_without_replacement(count, seed):
    prompts = prompts_of(a=9, b=2, c=12)
    drawn = draw(prompts, count, seed)
    assert len(set(drawn)) == len(drawn) == count
    assert set(drawn) <= set(prompts)
    taken, sizes = count_categories(drawn), {"a": 9, "b": 2, "c": 12}
    most = max(taken.values())
    assert all(taken.get(name, 0) >= min(most - 1, size) for name, size in sizes.items())


def test_small_categories_leave_the_rest_to_the_others():
    assert count_categories(draw(prompts_of(a=9, b=2, c=12), 12, 0)) == {"a": 5, "b": 2, "c": 5}
    assert shares(draw(prompts_of(a=9, b=2, c=12), 13, 0)) == [2, 5, 6]


def test_a_draw_does_not_depend_on_the_order_of_the_input():
    prompts = [*prompts_of(a=9, b=2, c=12), Prompt("a 1", "c"), Prompt("c 5", "a")]  # two texts in two categories
    assert draw(prompts, 23, 4) == draw(prompts[::-1], 23, 4)
    assert shares(draw(prompts, 23, 4)) == [2, 10, 11]


def test_a_smaller_draw_is_the_beginning_of_a_larger_one():
    prompts = prompts_of(a=9, b=2, c=12)
    assert all(draw(prompts, count, 1) == draw(prompts, 23, 1)[:count] for count in range(1, 23))


def test_the_seed_decides():
    """Every prompt, and every category for the odd one out, comes up for some seed; equal seeds agree."""
    prompts = prompts_of(a=9, b=9, c=9)
    draws = [draw(prompts, 1, seed) for seed in range(200)]
    assert {prompt for drawn in draws for prompt in drawn} == set(prompts)
    assert min(Counter(prompt.category for (prompt,) in draws).values()) > 200 / 3 - 30  # 4.5 standard deviations
    assert draws[7] == draw(prompts, 1, 7)


def test_a_draw_stays_what_it_is():
    """A journal goes on only if the same command still draws the same prompts in later versions."""
    texts = [prompt.text for prompt in draw(prompts_of(a=5, b=5, ü=5), 7, 2025)]
    assert texts == ["b 3", "ü 0", "a 0", "b 0", "ü 1", "a 2", "b 2"]


@pytest.mark.parametrize("count", [-1, 0, 5])
def test_a_draw_of_too_many_or_none(count):
    prompts = [*prompts_of(a=2, b=2), Prompt("a 1", "b")]
    with pytest.raises(PromptSetError, match=f"cannot draw {count} of 4 different prompts; allowed: 1 to 4"):
        draw(prompts, count, 0)


@pytest.fixture
def benchmark(tmp_path):
    """A folder like T2V-CompBench's, with 12 prompts a category; the committed one is too small for the paper's."""
    folder = tmp_path / "T2V-CompBench" / "prompts"
    folder.mkdir(parents=True)
    for file in (SOURCES / "compbench").iterdir():
        (folder / file.name).write_text("\n".join(f"{file.stem} {number}" for number in range(12)))
    return folder


def test_the_papers_prompts(benchmark):
    prompts = load_prompts(f"paper:{benchmark}")
    assert len(prompts) == 70
    assert shares(prompts) == [10] * 7
    assert prompts == paper_prompts(benchmark, seed=0) != paper_prompts(benchmark, seed=1)
    assert load_prompts(f"paper:{benchmark}", sample=20, seed=1) == paper_prompts(benchmark, seed=1)[:20]


def test_the_papers_prompts_need_the_whole_benchmark(benchmark):
    with pytest.raises(PromptSetError, match="cannot draw 71 of 70"):
        load_prompts(f"paper:{benchmark}", sample=71)
    (benchmark / "7_numeracy.txt").write_text("One lantern")
    with pytest.raises(PromptSetError, match=r"7 categories of at least 10 prompts; got .*'numeracy': 1,"):
        paper_prompts(benchmark)
    (benchmark / "7_numeracy.txt").unlink()
    with pytest.raises(PromptSetError, match=r"7 categories .* got (?!.*numeracy)"):
        paper_prompts(benchmark)
    with pytest.raises(PromptSetError, match="'nowhere' is no folder; run `git clone"):
        load_prompts("paper:nowhere")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def test_prompts_prints_lines_that_are_a_source(tmp_path):
    result = run("prompts", SOURCES / "compbench", "--sample", 8, "--sample-seed", 3)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("8 prompts (action_binding: 1, ")
    (tmp_path / "drawn.jsonl").write_text(result.stdout, encoding="utf-8")
    drawn = load_prompts(str(SOURCES / "compbench"), sample=8, seed=3)
    assert load_prompts(str(tmp_path / "drawn.jsonl")) == drawn


def test_prompts_without_categories():
    result = run("prompts", SOURCES / "plain.txt")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"prompt": "a red cube"},
        {"prompt": "zwei Würfel"},
    ]
    assert result.stderr == "2 prompts (no category: 2)\n"


@pytest.mark.parametrize("command", ["prompts", "calibrate"])
def test_the_help_names_every_source(command):
    words = " ".join(run(command, "--help").output.replace("│", " ").split())
    assert all(source in words for source in ("FILE.jsonl", "VBench_full_info.json", "T2V-CompBench", "paper:FOLDER"))


def test_bad_sources_are_one_line():
    result = run("prompts", SOURCES / "plain.txt", "--sample", 3)
    assert result.exit_code == 2
    assert result.stderr == "error: cannot draw 3 of 2 different prompts; allowed: 1 to 2; or add prompts\n"


def test_calibrate_measures_what_prompts_prints(tmp_path, monkeypatch):
    toy = EntryPoint("toy", "tests.planner.toy_replayer:open_toy", "lemica_planner.replayers")
    monkeypatch.setattr("lemica_planner.installed.metadata.entry_points", lambda group: [toy])
    drawing = (SOURCES / "compbench", "--sample", 3, "--sample-seed", 1)
    graph = tmp_path / "graph.npz"
    options = ("--method", "naive", "--seeds", 2, "--max-span", 3, "--replayer", "toy", "-o", graph)
    result = run("calibrate", tmp_path, "--prompts", *drawing, *options)
    assert result.exit_code == 0, result.output
    printed = [json.loads(line)["prompt"] for line in run("prompts", *drawing).stdout.splitlines()]
    assert ErrorGraph.load(graph).samples == tuple(Sample(text, seed) for text in printed for seed in (0, 1))


@pytest.fixture
def pictured(tmp_path):
    """A file of prompts with images beside it."""
    (tmp_path / "images").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "images" / f"{name}.png").write_bytes(name.encode())
    lines = [{"prompt": "it runs", "image": f"images/{name}.png"} for name in ("cat", "dog", "cat")]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"prompt": "it runs"}]))
    return path


def test_an_image_is_found_beside_the_file_and_is_part_of_what_a_prompt_is(pictured, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    prompts = load_prompts(str(pictured))
    assert [prompt.image for prompt in prompts] == [
        *(str(tmp_path / "images" / f"{name}.png") for name in ("cat", "dog")),
        "",
    ]
    assert prompts[0].image_sha256 == hashlib.sha256(b"cat").hexdigest()
    assert prompts[0].sample(3) == Sample("it runs", 3, prompts[0].image, prompts[0].image_sha256)


def test_printed_images_are_read_back_from_anywhere(pictured, tmp_path):
    prompts = load_prompts(str(pictured))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "drawn.jsonl").write_text("\n".join(map(to_json_line, prompts)))
    assert load_prompts(str(elsewhere / "drawn.jsonl")) == prompts
    assert draw(prompts, 2, seed=0) == draw(prompts[::-1], 2, seed=0)


@pytest.mark.parametrize(
    ("image", "says"), [("none.png", "'none.png' of 'a' cannot be read"), (5, "image in line 1 .* must be the path")]
)
def test_an_image_that_is_none_is_named(tmp_path, image, says):
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "a", "image": image}))
    with pytest.raises(PromptSetError, match=says):
        load_prompts(str(tmp_path / "prompts.jsonl"))
