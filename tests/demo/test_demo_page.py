import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from demo.graph_picture import draw_graph
from demo.page import budget_colours, named_rows, render_page, write_page
from demo.records import FULL, Record
from demo.run import console, print_table
from demo.summary import summarise
from demo.table import describe_noise, make_table
from tests.demo.synthetic import BUDGETS, NUM_STEPS, PROMPTS, spread_steps, synthetic_record, synthetic_weights

VOID = {"meta", "br", "link", "img", "input"}


class Elements(HTMLParser):
    """Collects tags, attributes and text, and refuses tags that are not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.found, self.text = [], [], ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def record(lpips_weights):
    return synthetic_record()


@pytest.fixture(scope="module")
def svg(record):
    summary = summarise(record)
    paths = {row.budget: row.steps for row in named_rows(summary)}
    return draw_graph(synthetic_weights(), paths, budget_colours(summary))


def test_rows_hold_the_hand_computed_figures(record):
    summary = summarise(record)
    assert (summary.num_steps, summary.step_ms, summary.other_ms) == (20, pytest.approx(10.5), pytest.approx(42))
    rows = {row.budget: row for row in summary.rows}
    assert list(rows) == ["full", "slow", "10", "medium", "fast"]
    assert rows["full"].seconds == pytest.approx(0.252)  # median of 240, 240, 264, 264 ms
    assert rows["slow"].seconds == pytest.approx(0.168)
    for name, speedup in (("slow", 1.5), ("fast", 252 / 94.5)):
        row = rows[name]
        assert (row.speedup, row.ideal_speedup) == pytest.approx((speedup,) * 2)
        assert row.share_of_ideal == pytest.approx(1)
    assert rows["fast"].forwards == 5
    assert 0 < rows["slow"].quality.lpips < rows["fast"].quality.lpips


def busy_at_full(record, slow_down, rounds=(0, 1)):
    """The record of a machine that was busy whenever `full` was sent in some rounds."""
    shots = (
        replace(shot, seconds=shot.seconds * (slow_down if shot.budget == FULL and shot.repeat in rounds else 1))
        for shot in record.measurements
    )
    return replace(record, measurements=tuple(shots))


def printed(summary):
    with console.capture() as captured:
        print_table(summary)
    return captured.get()


def test_a_machine_that_is_slow_for_a_while_adds_no_speedup(record):
    shots = tuple(
        replace(shot, seconds=shot.seconds * (3 if shot.repeat and (shot.budget == FULL or shot.seed == 0) else 1))
        for shot in record.measurements
    )
    rows = {row.budget: row for row in summarise(replace(record, measurements=shots)).rows}
    assert rows["full"].seconds / rows["slow"].seconds > 3  # what the medians would make of it
    assert rows["slow"].speedup == pytest.approx(1.5)


def test_a_quiet_machine_is_not_called_busy(record):
    assert describe_noise(summarise(record)) is None
    assert "busy" not in render_page(record)


@pytest.mark.parametrize("rounds", [(0, 1), (1,)])
def test_a_busy_machine_is_told_in_the_terminal_and_on_the_page(record, rounds):
    noisy = busy_at_full(record, 2, rounds)
    summary = summarise(noisy)
    line = describe_noise(summary)
    assert line is not None
    assert "do not trust these times" in line
    assert line in Elements(render_page(noisy)).text
    assert line in printed(summary).splitlines()
    assert "busy" not in printed(summarise(record))


def test_a_busy_machine_is_told_by_the_signs_that_it_gives_alone(record):
    summary = summarise(record)
    fast = replace(summary.rows[-1], speedup=1.06 * summary.rows[-1].ideal_speedup)
    spread, impossible = "differ by 51% of their median", "106% of the ideal is impossible"
    uneven = replace(summary, full_spread=0.51)
    line = describe_noise(uneven)
    assert (spread in line, "of the ideal" in line) == (True, False)
    line = describe_noise(replace(summary, rows=(*summary.rows[:-1], fast)))
    assert ("of their median" in line, impossible in line) == (False, True)
    line = describe_noise(replace(uneven, rows=(*summary.rows[:-1], fast)))
    assert (spread in line, impossible in line) == (True, True)


def big_and_small(record):
    """The large and the small text of every card, without the quality."""
    return re.findall(r'<div class="big">(.+)</div>\s+<div class="small">(.+)<br>', render_page(record))


def test_a_card_shows_no_speedup_of_a_busy_machine_in_large(record):
    assert big_and_small(record)[-1] == ("2.67\N{MULTIPLICATION SIGN} faster", "5 of 20 steps computed")
    cards = big_and_small(busy_at_full(record, 2))
    assert [big for big, _ in cards] == ["12 of 20 steps", "8 of 20 steps", "5 of 20 steps"]
    assert cards[-1][1] == "5.33\N{MULTIPLICATION SIGN} faster, measured on a busy machine"


def test_a_warning_stands_under_its_clip_alone(record):
    assert not Elements(render_page(record)).of("span").count({"class": "warning"})
    warned = replace(record.clips[3], is_warned_of=True)
    html = render_page(replace(record, clips=(*record.clips[:3], warned, *record.clips[4:])))
    figures = [figure.partition("</figure>")[0] for figure in html.split("<figure")[1:]]
    assert [warned.file in figure for figure in figures] == ["may lose more" in figure for figure in figures]
    assert Elements(html).of("span").count({"class": "warning"}) == 1


def test_a_summary_without_full_is_refused(record):
    others = tuple(shot for shot in record.measurements if shot.budget != FULL)
    with pytest.raises(ValueError, match="needs requests with the budget `full`"):
        summarise(Record(record.facts, others, record.clips))


def test_the_table_fits_a_terminal_of_80_columns(record):
    out = StringIO()
    Console(file=out, width=80).print(make_table(summarise(record)))
    lines = out.getvalue().splitlines()
    header = next(line for line in lines if "budget" in line)
    for column in ("forwards", "seconds", "speed-up", "ideal", "of ideal", "LPIPS", "SSIM", "PSNR"):
        assert column in header
    assert re.search(r"^fast +5/20 +0\.09 +2\.67x +2\.67x +100%", "\n".join(lines), re.MULTILINE)
    assert "…" not in out.getvalue()


def test_the_page_is_well_formed_and_escapes_prompts(record, svg):
    page = Elements(render_page(record, graph_svg=svg))
    assert PROMPTS[1] in page.text
    assert "<b>bold</b>" not in render_page(record)
    assert "The plan on the error graph" in page.text


def test_every_clip_plays_in_a_loop_from_a_relative_file(record):
    videos = Elements(render_page(record)).of("video")
    assert [video["src"] for video in videos][:2] == ["videos/1-full.mp4", "videos/1-slow.mp4"]
    assert {video["src"] for video in videos} == {clip.file for clip in record.clips}
    assert all({"autoplay", "loop", "muted", "playsinline"} <= video.keys() for video in videos)


def test_nothing_is_loaded_from_elsewhere(record, svg):
    html = render_page(record, graph_svg=svg)
    page = Elements(html)
    links = [value for _, attributes in page.found for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert not [link for link in links if "//" in link]
    assert not page.of("link")
    assert not re.search(r"@import|url\(\s*['\"]?(https?:|//)|fetch\(", html)


def test_every_budget_has_a_row_and_a_strip_of_its_steps(record):
    page = Elements(render_page(record))
    cells = page.of("i")
    assert len(cells) == NUM_STEPS * len(BUDGETS)
    assert sum(cell.get("class") == "on" for cell in cells) == sum(BUDGETS.values())
    assert len(page.of("tr")) == 1 + len(BUDGETS)
    assert "2.67\N{MULTIPLICATION SIGN} faster" in page.text


def test_the_page_does_without_a_graph(record, tmp_path):
    page = write_page(record, tmp_path / "new" / "folder")
    assert "error graph" not in page.read_text(encoding="utf-8")


def test_all_figures_are_written_beside_the_page(record, tmp_path):
    write_page(record, tmp_path)
    data = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert len(data["measurements"]) == 20
    assert data["clips"][0]["quality"] == {"lpips": 0.0, "ssim": 1.0, "psnr": 100.0}


def test_the_picture_shows_every_path_and_is_reproducible(record, svg):
    root = ET.fromstring(svg)
    text = " ".join(root.itertext())
    for label in ("slow (12 steps)", "medium (8 steps)", "fast (5 steps)", "next computed step j"):
        assert label in text
    assert "10 (10 steps)" not in text
    summary = summarise(record)
    again = draw_graph(
        synthetic_weights(), {row.budget: row.steps for row in named_rows(summary)}, budget_colours(summary)
    )
    assert again == svg


@pytest.mark.parametrize("reuse", [np.inf, 0.0])
def test_a_graph_without_anything_to_show_is_drawn_too(reuse):
    weights = np.full((4, 4), reuse)
    weights[np.arange(3), np.arange(1, 4)] = 0
    ET.fromstring(draw_graph(weights, {"all": spread_steps(4, 4)}, {"all": "#000000"}))
