"""The report's section about steps: for every cost the best way to spend it, and whether caching is part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from lemica_planner.errors import PlanFormatError
from lemica_planner.strict_json import load_object
from lemica_planner.way_journal import FORMAT

__all__ = ["read_comparison", "render_steps"]

_VERDICTS = {"yes": "yes", "no": "no", "open": "cannot be told"}
_FIRST_WAY = 5  # columns before it say the answer, which must be on the page before long names are
_WRAPS = ' class="wraps"'
_KEYS = ("format", "samples", "references", "measures", "ways", "choices")


def read_comparison(text: str, where: str) -> dict[str, Any]:
    """Read what ``lemica-planner steps`` wrote.

    Raises
    ------
    PlanFormatError
        If it is no such file.
    """
    known = load_object(text, where)
    if known.get("format") != FORMAT or not all(key in known for key in _KEYS):
        raise PlanFormatError(f"{where} is no comparison of format {FORMAT}; give what `lemica-planner steps` wrote")
    return known


def render_steps(known: Mapping[str, Any]) -> str:
    """Return the section as HTML: the verdict by the first measure, then every measure."""
    main = known["measures"][0]
    first = [choice for choice in known["choices"] if choice["measure"] == main and choice["reference"] != "prompt"]
    rest = [choice for choice in known["choices"] if choice not in first]
    return (
        f"<h2>Fewer steps, or caching?</h2><p>{_about(known)}</p>{_sentences(first)}{_table(first)}"
        f"<details><summary>By the other measures</summary>{_table(rest)}</details>"
        f"<details><summary>All {len(known['ways'])} ways</summary>{_ways(known)}</details>"
    )


def _about(known: Mapping[str, Any]) -> str:
    full, converged = (_reference(known["references"][name]) for name in ("full", "converged"))
    return (
        f"Every way to spend a number of forwards made the same {len(known['samples'])} videos. They are compared with "
        f"the full run ({escape(full)}), which favours ways that skip its steps, and with a solution that has "
        f"converged ({escape(converged)}). Caching wins where the 95 % interval of its gain is above 0, each video "
        "having the ways that are best on the other videos."
    )


def _reference(way: Mapping[str, Any]) -> str:
    return f"{way['sampler']['name']}, {way['num_steps']} steps"


def _sentences(choices: Sequence[Mapping[str, Any]]) -> str:
    """Return one sentence for each cost and reference."""
    items = []
    for choice in choices:
        kinds = [kind for kind in ("uncached", "cached") if kind in choice["best"]]
        if len(kinds) == 2:
            known = {"yes": "Caching wins", "no": "Caching loses", "open": "Neither wins for certain"}
            cached, uncached = (escape(choice["best"][kind]["name"]) for kind in ("cached", "uncached"))
            where = f"at {choice['cost']} forwards, against {escape(choice['reference'])}"
            items.append(
                f"<li>{known[choice['verdict']]} {where}: {cached}; the best without a cache: {uncached}.</li>"
            )
    return f"<ul>{''.join(items)}</ul>"


def _table(choices: Sequence[Mapping[str, Any]]) -> str:
    headings = ("forwards", "against", "measure", "caching wins", "gain", "cached", "fewer steps", "chosen timesteps")
    cells = "".join(f"<th{_WRAPS * (at >= _FIRST_WAY)}>{heading}</th>" for at, heading in enumerate(headings))
    rows = "".join(_row(choice) for choice in choices)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(choice: Mapping[str, Any]) -> str:
    best = (choice["best"].get(kind) for kind in ("cached", "fewer", "timesteps"))
    cells = [str(choice["cost"]), escape(choice["reference"]), escape(choice["measure"])]
    cells += [_VERDICTS[choice["verdict"]], f"{choice['gain']:.2g} ({choice['low']:.2g} to {choice['high']:.2g})"]
    ways = (f"{escape(way['name'])}<br>{way['value']:.4g}" if way else "" for way in best)
    return (
        "<tr>"
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "".join(f"<td{_WRAPS}>{way}</td>" for way in ways)
        + "</tr>"
    )


def _ways(known: Mapping[str, Any]) -> str:
    """Return the mean of every measure of every way, cheapest first."""
    ways = sorted(known["ways"], key=lambda way: (way["cost"], way["name"]))
    keys = [(reference, measure) for reference, measures in ways[0]["values"].items() for measure in measures]
    head = "".join(f"<th>{escape(measure)}, {escape(reference)}</th>" for reference, measure in keys)
    rows = "".join(
        f"<tr><td>{way['cost']}</td><td class=plan>{escape(way['name'])}</td>"
        + "".join(f"<td>{np.mean(way['values'][reference][measure]):.4g}</td>" for reference, measure in keys)
        + "</tr>"
        for way in ways
    )
    return (
        f'<div class="wide"><table><thead><tr><th>forwards</th><th class="plan">way</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
