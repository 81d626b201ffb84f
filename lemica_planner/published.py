"""Lists of steps that LeMiCa's authors published, as plans.

They state neither the weights nor the scheduler, guidance and size they were made for, and no predicted errors: such
a plan is marked ``calibrated=False``, and what it does not state cannot be checked. Calibrate your own where you can.
"""

from __future__ import annotations

from typing import NamedTuple

from lemica_planner.errors import PlanFormatError
from lemica_planner.plan import CachePlan
from lemica_planner.provenance import Provenance

__all__ = ["SOURCE", "published_names", "published_plan"]

SOURCE = "github.com/UnicomAI/LeMiCa"


class _Lists(NamedTuple):
    num_steps: int
    lists: tuple[str, ...]


_PUBLISHED = {
    "Wan2.1-T2V-1.3B": _Lists(
        50,
        (
            "0-12,14,16,18,21,24,29,35,40,44,47,48,49",
            "0-9,11,13,16,20,26,33,40,45,48,49",
            "0-8,10,13,18,25,32,39,46,49",
            "0-5,7,10,16,23,30,37,44,49",
        ),
    ),
    "Wan2.1-T2V-14B": _Lists(
        50,
        (
            "0-11,13,15,18,21,25,29,34,38,42,45,47,48,49",
            "0-9,11,14,18,23,29,36,42,46,48,49",
            "0-7,9,12,16,22,29,36,43,47,49",
            "0-5,7,10,17,24,31,38,45,49",
        ),
    ),
    "Wan2.1-I2V-14B": _Lists(
        40,
        (
            "0-10,12,14,16,18,21,24,27,30,32,34,36-39",
            "0-6,8,10,12,15,18,21,25,29,32,35,37,38,39",
            "0-5,7,9,12,15,19,24,29,33,36,38,39",
            "0-4,6,8,11,15,22,29,34,37,39",
        ),
    ),
    "HunyuanVideo-1.5": _Lists(
        50,
        (
            "0-13,15,17,19,21,24,28,33,39,45,48,49",
            "0-11,13,15,18,22,28,36,44,49",
            "0-6,8,10,13,17,25,33,41,49",
            "0,1,3,5,9,17,25,33,41,49",
        ),
    ),
    "Qwen-Image": _Lists(
        50,
        (
            "0-19,26,33,36,42,49",
            "0-10,15,22,29,36,42,49",
            "0,1,3,7,14,21,28,35,42,49",
        ),
    ),
}


def published_names() -> tuple[str, ...]:
    """Return the models that have a published plan."""
    return tuple(_PUBLISHED)


def published_plan(model: str) -> CachePlan:
    """Return the published plan of `model`, one of `published_names` in any case of letters.

    Raises
    ------
    PlanFormatError
        If there is none.
    """
    names = {name.lower(): name for name in _PUBLISHED}
    if model.lower() not in names:
        raise PlanFormatError(f"no plan is published for {model!r}; published: {', '.join(_PUBLISHED)}; calibrate one")
    model = names[model.lower()]
    num_steps, lists = _PUBLISHED[model]
    paths = [_expand(text) for text in lists]
    provenance = Provenance(model=model, num_inference_steps=num_steps, metric=None, source=SOURCE)
    return CachePlan.from_steps(provenance, {len(path): path for path in paths})


def _expand(text: str) -> list[int]:
    """Return the steps that `text` lists, such as ``0-3,7``."""
    steps: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        steps.extend(range(int(first), int(last or first) + 1))
    return steps
