"""The cache plan: per budget the steps to compute, and what they are valid for. Knows nothing about servers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lemica_planner.errors import InfeasibleBudgetError, PlanFormatError, UnknownBudgetError
from lemica_planner.graph import ErrorGraph
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.plan_checks import Checks, checks_from_dict, checks_of, checks_to_dict
from lemica_planner.plan_entry import Fill, PlanEntry
from lemica_planner.provenance import Provenance
from lemica_planner.solver import solve_all
from lemica_planner.strict_json import canonical, check_keys, describe, load_object, require_object

__all__ = ["SCHEMA_VERSION", "CachePlan", "Fill", "PlanEntry", "default_names"]

SCHEMA_VERSION = 1
_PLAN_KEYS = ("schema_version", "provenance", "names", "entries")
_OPTIONAL_KEYS = ("checks",)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_DEFAULT_NAMES = {"slow": 0.5, "medium": 0.34, "fast": 0.2}  # the paper's 25, 17 and 10 of 50 steps


@dataclass(frozen=True, kw_only=True)
class CachePlan:
    """Which steps to compute for every budget, and what that is valid for; an immutable value.

    Attributes
    ----------
    provenance : Provenance
        What the plan may be served with.
    entries : mapping of int to PlanEntry
        By number of computed steps, ascending; at least one.
    names : mapping of str to int
        Names of some budgets, such as ``{"fast": 10}``.
    checks : mapping of tuple of int to Check
        What a server may compare its requests' computed steps with; empty if nothing is known.
    schema_version : int
        Version of the JSON format.

    Raises
    ------
    PlanFormatError
        If steps do not lead from 0 to T-1, a budget differs from its number of steps, or a name is no name.
    """

    provenance: Provenance
    entries: Mapping[int, PlanEntry]
    names: Mapping[str, int] = field(default_factory=dict)
    checks: Checks = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION or isinstance(self.schema_version, bool):
            raise PlanFormatError(
                f"schema_version must be {SCHEMA_VERSION}; got {describe(self.schema_version)}; "
                "use the version of lemica that wrote the plan, or make the plan again"
            )
        object.__setattr__(self, "entries", dict(sorted(self.entries.items())))
        object.__setattr__(self, "names", dict(self.names))
        object.__setattr__(self, "checks", dict(sorted(self.checks.items())))
        self._check_entries()
        self._check_names()

    @property
    def budgets(self) -> dict[str | int, tuple[int, ...]]:
        """The steps by name and by number: every budget that `resolve` knows besides ``full``."""
        named: dict[str | int, tuple[int, ...]] = {name: self.entries[at].steps for name, at in self.names.items()}
        return named | {budget: entry.steps for budget, entry in self.entries.items()}

    @property
    def operators(self) -> set[str]:
        """The operators that some entry uses."""
        named = (entry.operators or (self.provenance.operator,) for entry in self.entries.values())
        return {name for names in named for name in names}

    @property
    def has_outcomes(self) -> bool:
        """Whether whole paths of the plan were run: those that were refined."""
        return any(entry.outcome is not None for entry in self.entries.values())

    @cached_property
    def plan_id(self) -> str:
        """Twelve hexadecimal digits that change when anything in the plan does (SHA-256 of the canonical JSON)."""
        return hashlib.sha256(canonical(self._to_dict()).encode()).hexdigest()[:12]

    def resolve(self, budget: str | int) -> PlanEntry:
        """Return the entry of a name, of a number (also as text), or of ``full``: every step computed.

        Raises
        ------
        UnknownBudgetError
            If the plan holds no such budget; it lists those it holds.
        """
        text = str(budget).strip()
        steps = self.provenance.num_inference_steps
        if text == "full":
            return PlanEntry(tuple(range(steps)), (0.0,) * (steps - 1))
        number = int(text) if text.isascii() and text.isdigit() else self.names.get(text)
        if number is None or number not in self.entries:
            raise UnknownBudgetError(
                f"the plan has no budget {budget!r}; available: full, "
                + "".join(f"{name} (= {at}), " for name, at in self.names.items())
                + ", ".join(map(str, self.entries))
            )
        return self.entries[number]

    def require_match(self, **served: object) -> None:
        """Refuse to serve something else than what the plan was made for; see `Provenance.require_match`."""
        self.provenance.require_match(**served)

    def to_json(self, *, pretty: bool = False) -> str:
        """Return the plan as JSON: canonical on one line, or with one line for each budget and each check."""
        if not pretty:
            return canonical(self._to_dict())
        data = self._to_dict()
        tables = {key: data.pop(key) for key in ("entries", "checks") if key in data}
        lined = (f' "{name}": {{\n' + ",\n".join(_lines(table)) + "\n }" for name, table in tables.items())
        return json.dumps(data, indent=1, ensure_ascii=False)[:-2] + ",\n" + ",\n".join(lined) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> CachePlan:
        """Read what `to_json` wrote, exactly.

        Raises
        ------
        PlanFormatError
            If `text` is no JSON, has unknown, missing or doubled keys, or breaks a rule of the format.
        """
        data = load_object(text, "the plan")
        check_keys(data, "the plan", required=_PLAN_KEYS, optional=_OPTIONAL_KEYS)
        entries = require_object(data["entries"], "entries")
        return cls(
            schema_version=data["schema_version"],
            provenance=Provenance.from_dict(require_object(data["provenance"], "provenance")),
            names=require_object(data["names"], "names"),
            checks=checks_from_dict(require_object(data.get("checks", {}), "checks")),
            entries={
                _budget_key(key): PlanEntry.from_dict(require_object(entry, f"entries.{key}"), f"entries.{key}")
                for key, entry in entries.items()
            },
        )

    @classmethod
    def from_steps(
        cls,
        provenance: Provenance,
        steps: Mapping[Any, Iterable[int]],
        *,
        names: Mapping[str, int] | None = None,
    ) -> CachePlan:
        """Build from lists of steps whose errors were never measured.

        Parameters
        ----------
        provenance : Provenance
            What the steps are for.
        steps : mapping of (int or str) to iterable of int
            As `budgets` gives them: by number, which must equal the length of its list, or by name.
        names : mapping of str to int, optional
            More names.
        """
        paths = {key: tuple(path) for key, path in steps.items()}
        wrong = [key for key, path in paths.items() if isinstance(key, int) and key != len(path)]
        if wrong:
            raise PlanFormatError(f"budget {wrong[0]} has {len(paths[wrong[0]])} steps; give exactly {wrong[0]}")
        _refuse_rivals(paths.values())
        named = {key: len(path) for key, path in paths.items() if not isinstance(key, int)}
        entries = {len(path): PlanEntry(path) for path in paths.values()}
        return cls(provenance=provenance, entries=entries, names=named | dict(names or {}))

    @classmethod
    def from_graph(
        cls,
        graph: ErrorGraph | OperatorGraph,
        *,
        names: Mapping[str, int] | None = None,
        budgets: Sequence[int] | None = None,
        provenance: Provenance | None = None,
    ) -> CachePlan:
        """Solve `graph` and keep the best path of every feasible budget.

        Parameters
        ----------
        graph : ErrorGraph or OperatorGraph
            The errors.
        names : mapping of str to int, optional
            Names of budgets; by default slow, medium and fast (see `default_names`).
        budgets : sequence of int, optional
            Keep these only.
        provenance : Provenance, optional
            In place of the graph's. Without either, the plan states its number of steps and nothing else.

        Raises
        ------
        InfeasibleBudgetError
            If one of `budgets` has no path.
        """
        known = provenance or graph.provenance or Provenance(num_inference_steps=graph.num_steps, metric=None)
        every = graph.entries() if isinstance(graph, OperatorGraph) else _solved(graph)
        missing = [at for at in budgets or () if at not in every]
        if missing:
            raise InfeasibleBudgetError(missing[0], tuple(every))
        entries = {at: every[at] for at in budgets or every}
        if names is None:
            proposed = default_names(graph.num_steps, tuple(every))
            names = {name: at for name, at in proposed.items() if at in entries}
        checks = checks_of(graph.candidates, entries.values()) if isinstance(graph, OperatorGraph) else {}
        return cls(provenance=known, names=names, entries=entries, checks=checks)

    def _to_dict(self) -> dict[str, Any]:
        known: dict[str, Any] = {
            "schema_version": self.schema_version,
            "provenance": self.provenance.to_dict(),
            "names": dict(self.names),
            "entries": {str(budget): entry.to_dict() for budget, entry in self.entries.items()},
        }
        if self.checks:
            known["checks"] = checks_to_dict(self.checks)
        return known

    def _check_entries(self) -> None:
        last = self.provenance.num_inference_steps - 1
        if not self.entries:
            raise PlanFormatError("a plan must hold at least one budget; got none")
        for budget, entry in self.entries.items():
            if entry.budget != budget:
                raise PlanFormatError(f"entries.{budget} must have {budget} steps; got {entry.budget}")
            if entry.steps[-1] != last:
                raise PlanFormatError(
                    f"entries.{budget}.steps must end at the last step, {last}; got {entry.steps[-1]}"
                )

    def _check_names(self) -> None:
        for name, budget in self.names.items():
            if not (isinstance(name, str) and _NAME.fullmatch(name)) or name == "full":
                raise PlanFormatError(
                    "names must begin with a letter, hold letters, digits, '_', '.' and '-', and not be 'full'; "
                    f"got {name!r}"
                )
            if isinstance(budget, bool) or budget not in self.entries:
                raise PlanFormatError(
                    f"names.{name} must be a budget of the plan, one of {list(self.entries)}; got {describe(budget)}"
                )


def default_names(num_steps: int, feasible: Sequence[int]) -> dict[str, int]:
    """Return the budgets called slow, medium and fast: a half, a third and a fifth of the steps.

    Each is the nearest feasible budget that computes no fewer steps than its share.

    Examples
    --------
    >>> default_names(50, range(8, 51))
    {'slow': 25, 'medium': 17, 'fast': 10}
    """
    wanted = {name: round(share * num_steps) for name, share in _DEFAULT_NAMES.items()}
    return {name: min(at for at in feasible if at >= target) for name, target in wanted.items()}


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f'  "{key}": {json.dumps(value)}' for key, value in table.items()]


def _solved(graph: ErrorGraph) -> dict[int, PlanEntry]:
    return {budget: PlanEntry(found.steps, found.errors) for budget, found in solve_all(graph).items()}


def _refuse_rivals(paths: Iterable[tuple[int, ...]]) -> None:
    """Refuse two different lists of one length: a plan has one list for each budget."""
    known: dict[int, tuple[int, ...]] = {}
    for path in paths:
        if known.setdefault(len(path), path) != path:
            raise PlanFormatError(f"two different lists have {len(path)} steps; a plan holds one for each budget")


def _budget_key(key: str) -> int:
    if not (key.isascii() and key.isdigit()) or str(int(key)) != key:
        raise PlanFormatError(f"entries must be keyed by numbers of computed steps, such as '10'; got {key!r}")
    return int(key)
