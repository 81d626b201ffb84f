import re
from io import StringIO

import pytest
from rich.console import Console
from rich.progress import Progress

from demo.measure import PROMPTS_FILE, Schedule, choose_budgets, judge_all, read_prompts, send_all, warm_up
from demo.metrics import Quality
from demo.records import FULL
from shapes.scene import split_scenes
from tests.demo.synthetic import BUDGETS, NUM_STEPS, PROMPTS, SyntheticClient, spread_steps

PLANNED = {"slow": 12, "medium": 8, "fast": 5} | {number: number for number in range(3, 20)}
PLANNED = {name: spread_steps(forwards) for name, forwards in PLANNED.items()}


def schedule(**changes):
    return Schedule(**{"prompts": PROMPTS, "budgets": tuple(BUDGETS), "seed": 7, "repeats": 2} | changes)


def test_budgets_alternate_and_every_round_sends_all():
    client = SyntheticClient()
    with Progress(disable=True) as progress:
        measurements, videos = send_all(client, schedule(), progress)
    a_round = [(prompt, 7 + number, budget) for number, prompt in enumerate(PROMPTS) for budget in BUDGETS]
    assert client.sent == a_round * 2
    assert len(measurements) == len(schedule()) == 20
    assert [shot.repeat for shot in measurements] == [0] * 10 + [1] * 10
    assert list(videos) == [(prompt, budget) for prompt, _, budget in a_round]


def test_a_measurement_holds_what_the_server_says():
    with Progress(disable=True) as progress:
        measurements, _ = send_all(SyntheticClient(), schedule(), progress)
    shot = measurements[1]
    assert (shot.budget, shot.num_steps, shot.denoise_ms) == ("slow", NUM_STEPS, 120.0)
    assert shot.computed_steps == spread_steps(12)
    assert shot.predicted_error == pytest.approx(0.1 / 12)
    assert 0 < shot.seconds < 10


def test_clips_are_saved_and_compared_with_full(tmp_path, lpips_weights):
    with Progress(disable=True) as progress:
        _, videos = send_all(SyntheticClient(), schedule(repeats=1), progress)
        clips = judge_all(videos, schedule(repeats=1), tmp_path, progress)
    assert all((tmp_path / clip.file).stat().st_size > 0 for clip in clips)
    assert len({clip.file for clip in clips}) == len(clips) == 10
    by_budget = {clip.budget: clip.quality for clip in clips if clip.prompt == PROMPTS[1]}
    assert by_budget[FULL].lpips == 0
    assert 0 < by_budget["slow"].lpips < by_budget["fast"].lpips
    assert {clip.seed for clip in clips if clip.prompt == PROMPTS[1]} == {8}
    assert {clip.budget for clip in clips if clip.is_warned_of} == {"fast"}


def what_is_shown(monkeypatch, folder, **settings):
    """Send and compare all; return what the console wrote."""
    monkeypatch.setattr("demo.measure.compare", lambda *_: Quality(0.0, 1.0, 100.0))
    out = StringIO()
    with Progress(console=Console(file=out, width=100, **settings)) as progress:
        _, videos = send_all(SyntheticClient(), schedule(), progress)
        judge_all(videos, schedule(), folder, progress)
    return out.getvalue()


def test_a_log_goes_on_with_every_prompt(monkeypatch, tmp_path):
    lines = re.findall(r"^(.+) done, 0:0\d:\d\d so far$", what_is_shown(monkeypatch, tmp_path), re.MULTILINE)
    assert lines == [
        "Round 1 of 2, prompt 1 of 2: 0 of 20",
        "Round 1 of 2, prompt 2 of 2: 5 of 20",
        "Round 2 of 2, prompt 1 of 2: 10 of 20",
        "Round 2 of 2, prompt 2 of 2: 15 of 20",
        "Comparing videos, prompt 1 of 2: 0 of 10",
        "Comparing videos, prompt 2 of 2: 5 of 10",
    ]


def test_a_terminal_has_bars_instead(monkeypatch, tmp_path):
    shown = what_is_shown(monkeypatch, tmp_path, force_terminal=True, _environ={"TERM": "xterm"})
    assert "Comparing videos" in shown
    assert "so far" not in shown


def test_warm_up_tells_the_number_of_steps():
    client = SyntheticClient()
    assert warm_up(client, "a prompt", 3) == NUM_STEPS
    assert client.sent == [("a prompt", 3, FULL)]


def test_every_name_is_chosen_and_numbers_fill_the_widest_gaps():
    assert choose_budgets(PLANNED, NUM_STEPS, numbers=0) == ("full", "slow", "medium", "fast")
    chosen = choose_budgets(PLANNED, NUM_STEPS, numbers=3)
    assert set(chosen) == {"full", "slow", "medium", "fast", "16", "4", "3"}
    counts = [len(PLANNED.get(int(name) if name.isdecimal() else name, range(20))) for name in chosen]
    assert counts == sorted(set(counts), reverse=True)


def test_a_plan_without_numbers_gives_names_only():
    assert choose_budgets({"fast": spread_steps(5)}, NUM_STEPS) == ("full", "fast")


def test_a_schedule_must_start_with_full_and_hold_something():
    with pytest.raises(ValueError, match="first budget"):
        schedule(budgets=("slow", "full"))
    with pytest.raises(ValueError, match="at least one"):
        schedule(prompts=())


def test_prompts_are_read_without_comments_and_repetitions(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("# a comment\n\n  one \ntwo\none\n")
    assert read_prompts(file) == ("one", "two")
    file.write_text("# nothing\n")
    with pytest.raises(ValueError, match="no prompt"):
        read_prompts(file)


def test_the_shipped_prompts_were_held_out_and_show_every_motion():
    prompts = read_prompts(PROMPTS_FILE)
    held_out = {scene.caption: scene for scene in split_scenes()[1]}
    assert set(prompts) <= held_out.keys()
    assert len({held_out[prompt].motion for prompt in prompts}) == 6
    assert len({held_out[prompt].shape for prompt in prompts}) == 4
