"""Plans as other tools write them: plain lists of steps, masks of 0 and 1, and the configuration of cache-dit.

A mask has one entry a step, 1 where the block stack runs, as in cache-dit's ``steps_computation_mask``. Lists and masks
know nothing of model, scheduler and errors, so a plan that is made from them is marked ``calibrated: false``.

>>> plan = import_plan("0,1,4", source="a note")
>>> to_mask(plan, 3)
[1, 1, 0, 0, 1]
>>> from_mask([1, 1, 0, 0, 1])
(0, 1, 4)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lemica_planner.errors import PlanFormatError
from lemica_planner.plan import CachePlan
from lemica_planner.provenance import Provenance
from lemica_planner.strict_json import check_keys, describe, load_object, require_list, require_object

__all__ = ["FORMATS", "cache_dit_config", "export_plan", "from_mask", "import_plan", "to_mask"]

FORMATS = ("json", "steps", "cache-dit")
_MASK = "steps_computation_mask"


def to_mask(plan: CachePlan, budget: str | int) -> list[int]:
    """Return the mask of one budget: for each of the T steps 1 if it is computed, else 0.

    Parameters
    ----------
    plan : CachePlan
        A plan of T steps.
    budget : str or int
        What `CachePlan.resolve` knows, ``full`` included.

    Raises
    ------
    UnknownBudgetError
        If the plan holds no such budget.
    """
    computed = set(plan.resolve(budget).steps)
    return [int(step in computed) for step in range(plan.provenance.num_inference_steps)]


def from_mask(mask: Sequence[int]) -> tuple[int, ...]:
    """Return the computed steps of a mask, ascending.

    Parameters
    ----------
    mask : sequence of int
        One 0 or 1 for each of the T steps. The first and the last step must be computed, as in every plan.

    Raises
    ------
    PlanFormatError
        If it holds something else, or begins or ends with 0.
    """
    if any(isinstance(entry, bool) or entry not in (0, 1) for entry in mask):
        raise PlanFormatError(f"a mask must hold 0 and 1 only, one for each step; got {describe(list(mask))}")
    if len(mask) < 2 or not (mask[0] and mask[-1]):
        raise PlanFormatError(
            "a mask must have two steps or more and compute the first and the last one; "
            f"got {describe(list(mask))}: set both to 1"
        )
    return tuple(step for step, entry in enumerate(mask) if entry)


def cache_dit_config(plan: CachePlan, budget: str | int) -> dict[str, Any]:
    """Return the arguments of cache-dit's ``DBCacheConfig`` that follow one budget and decide nothing at run time.

    cache-dit always runs the first block, and takes the residual of the others; so one block is run at the steps that
    the plan skips, and errors measured with whole-stack reuse are near, not equal, to those under cache-dit.
    Source: cache-dit 1.5.3, ``cache_dit/caching/cache_contexts`` (``cache_config.py``, ``cache_manager.py``).

    Raises
    ------
    UnknownBudgetError
        If the plan holds no such budget.
    PlanFormatError
        If the plan was made for another operator than residual reuse.
    """
    if plan.operators != {"residual"}:
        raise PlanFormatError(
            "a mask says which steps are computed, not what the others are made of, and cache-dit reuses residuals as "
            f"they are; the plan is for {', '.join(sorted(plan.operators))}: calibrate with --operators residual, or "
            "use lemica_planner.integrations.diffusers, which runs forecasts of residuals"
        )
    return {
        "num_inference_steps": plan.provenance.num_inference_steps,
        _MASK: to_mask(plan, budget),
        "steps_computation_policy": "static",  # "dynamic", the default, compares residuals at steps of 0
        "Fn_compute_blocks": 1,  # the least that it allows
        "Bn_compute_blocks": 0,
    }


def export_plan(plan: CachePlan, form: str, budget: str | int | None = None) -> str:
    """Return a plan as the text of another format.

    Parameters
    ----------
    plan : CachePlan
        What to write.
    form : {"json", "steps", "cache-dit"}
        ``json``: one object, from budgets (numbers, and names) to lists of steps. ``steps``: one line a budget,
        such as ``0,1,4``. ``cache-dit``: JSON that ``cache_dit.load_configs`` reads.
    budget : str or int, optional
        Only this one; ``cache-dit`` needs it.

    Raises
    ------
    PlanFormatError
        If `form` is none of these, or ``cache-dit`` gets no budget.
    UnknownBudgetError
        If the plan holds no such budget.
    """
    if form == "json":
        return _json_lines({str(key): list(steps) for key, steps in _chosen(plan, budget).items()})
    if form == "steps":
        return "".join(",".join(map(str, steps)) + "\n" for steps in dict.fromkeys(_chosen(plan, budget).values()))
    if form != "cache-dit":
        raise PlanFormatError(f"unknown format {form!r}; allowed: {', '.join(FORMATS)}")
    if budget is None:
        known = ", ".join(map(str, plan.budgets))
        raise PlanFormatError(f"cache-dit takes one budget and got none; give one of full, {known}")
    return json.dumps({"cache_config": cache_dit_config(plan, budget)}) + "\n"


def import_plan(
    text: str, *, source: str, model: str | None = None, names: Mapping[str, int] | None = None
) -> CachePlan:
    """Make a plan of lists that were made elsewhere; it is marked as not calibrated.

    Parameters
    ----------
    text : str
        One of: an object from budgets to lists, as `export_plan` writes; an array of lists, or one list; what
        cache-dit's ``load_configs`` reads, as JSON; lines such as ``0,1,4`` (``#`` begins a comment). Every list may
        be one of steps, which begins with 0, or a mask, which begins with 1. Steps are numbered from 0 to T-1, and the
        last one is T-1.
    source : str
        Where the lists come from; kept in the plan.
    model : str, optional
        The model that they are for; kept, never compared.
    names : mapping of str to int, optional
        More names of budgets.

    Raises
    ------
    PlanFormatError
        If `text` is none of these, or a list is no path from step 0 to step T-1.
    """
    lists = _read_lists(text)
    if not lists:
        raise PlanFormatError("there are no lists of steps; give one or more, such as 0,1,4")
    num_steps = max(steps[-1] for steps in lists.values()) + 1
    provenance = Provenance(num_inference_steps=num_steps, model=model, metric=None, source=source)
    return CachePlan.from_steps(provenance, lists, names=names)


def _chosen(plan: CachePlan, budget: str | int | None) -> dict[str | int, tuple[int, ...]]:
    if budget is None:
        return plan.budgets
    entry = plan.resolve(budget)
    name = str(budget).strip()
    return {name if name in plan.names else entry.budget: entry.steps}


def _json_lines(lists: Mapping[str, list[int]]) -> str:
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(steps)}" for key, steps in lists.items()) + "\n}\n"


def _read_lists(text: str) -> dict[str | int, tuple[int, ...]]:
    start = text.lstrip()[:1]
    if start == "{":
        return _from_object(load_object(text, "the file"))
    lists = _array(text) if start == "[" else _lines(text)
    return _by_budget(_steps(part, f"list {index}") for index, part in enumerate(lists, 1))


def _array(text: str) -> list[Any]:
    data = load_object(f'{{"lists": {text}}}', "the file")
    check_keys(data, "the file", required=["lists"])
    lists = require_list(data["lists"], "the file")
    return lists if any(isinstance(part, list) for part in lists) else [lists]


def _lines(text: str) -> list[Any]:
    return [_numbers(line, number) for number, line in enumerate(text.splitlines(), 1) if _content(line)]


def _from_object(data: dict[str, Any]) -> dict[str | int, tuple[int, ...]]:
    if "cache_config" in data:
        data = require_object(data["cache_config"], "cache_config")
    if _MASK in data:
        return _by_budget([_steps(data[_MASK], _MASK)])
    return {int(key) if key.isascii() and key.isdigit() else key: _steps(part, key) for key, part in data.items()}


def _by_budget(paths: Iterable[tuple[int, ...]]) -> dict[str | int, tuple[int, ...]]:
    found: dict[str | int, tuple[int, ...]] = {}
    for path in paths:
        if found.setdefault(len(path), path) != path:
            raise PlanFormatError(f"two different lists have {len(path)} computed steps; a plan holds one a budget")
    return found


def _steps(values: Any, where: str) -> tuple[int, ...]:
    """Return the steps that a list or a mask stands for; every list of steps begins with 0, every mask with 1."""
    numbers = require_list(values, where)
    if any(isinstance(number, bool) or not isinstance(number, int) for number in numbers) or len(numbers) < 2:
        raise PlanFormatError(f"{where} must hold two integers or more, steps or a mask; got {describe(numbers)}")
    is_mask = numbers[0] == 1 or (len(numbers) > 2 and set(numbers) <= {0, 1})
    return from_mask(numbers) if is_mask else tuple(numbers)


def _content(line: str) -> str:
    return line.partition("#")[0].strip()


def _numbers(line: str, number: int) -> list[int]:
    try:
        return [int(part) for part in _content(line).split(",")]
    except ValueError as exc:
        raise PlanFormatError(f"line {number} must be numbers separated by commas; got {line.strip()!r}") from exc
