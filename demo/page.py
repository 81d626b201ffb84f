"""Writes the HTML page of a run: one file beside its videos, with nothing loaded from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from demo.records import FULL, Clip, Record
from demo.summary import Row, Summary, summarise
from demo.table import describe_noise, explain

PAGE_NAME = "index.html"
RECORD_NAME = "record.json"

_INK = "#475569"
_COLOURS = ("#0d9488", "#d97706", "#db2777", "#7c3aed", "#2563eb", "#65a30d")


@dataclass(frozen=True)
class Tile:
    """A video on the page with the row of its budget."""

    clip: Clip
    row: Row
    is_reference: bool


def write_page(record: Record, folder: Path, *, graph_svg: str | None = None) -> Path:
    """Write ``index.html`` and ``record.json`` into `folder` and return the page's path.

    Parameters
    ----------
    record : Record
        Its clips' files lie in `folder` already.
    folder : Path
    graph_svg : str, optional
        The picture of `draw_graph`, made with the colours of `budget_colours`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD_NAME).write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
    page = folder / PAGE_NAME
    page.write_text(render_page(record, graph_svg=graph_svg), encoding="utf-8")
    return page


def render_page(record: Record, *, graph_svg: str | None = None) -> str:
    """Return the page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    summary = summarise(record)
    return environment.get_template("page.html.j2").render(
        facts=record.facts,
        summary=summary,
        explanation=explain(summary),
        noise=describe_noise(summary),
        highlights=named_rows(summary),
        colours=budget_colours(summary),
        prompts=_tiles_by_prompt(record, summary),
        graph_svg=Markup(graph_svg) if graph_svg else None,  # noqa: S704 - drawn by this program
        full=FULL,
    )


def named_rows(summary: Summary) -> list[Row]:
    """Return the rows of the budgets that have a name in the plan."""
    return [row for row in summary.rows if row.budget != FULL and not row.budget.isdecimal()]


def budget_colours(summary: Summary) -> Mapping[str, str]:
    """Return the colour of each budget, the same in the table and in the picture; names come first."""
    names = [row.budget for row in named_rows(summary)]
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    return {row.budget: colours.get(row.budget, _INK) for row in summary.rows}


def _tiles_by_prompt(record: Record, summary: Summary) -> list[list[Tile]]:
    """Return one list of tiles for each prompt, in the order of the table's rows."""
    clips = {(clip.prompt, clip.budget): clip for clip in record.clips}
    prompts = dict.fromkeys(clip.prompt for clip in record.clips)
    return [
        [
            Tile(clips[prompt, row.budget], row, row.budget == FULL)
            for row in summary.rows
            if (prompt, row.budget) in clips
        ]
        for prompt in prompts
    ]
