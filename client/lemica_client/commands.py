"""The commands that other packages add to `lemica`, such as `lemica serve`: loaded when they are asked for.

A client-only install knows their names from the entry-point group ``lemica.commands`` without being able to import
them; asking for one says what is missing, and all other commands work.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup
from typer.main import get_command

GROUP = "lemica.commands"
_EXTRAS = {"lemica_backend": "backend,server"}
_NEEDS = {"lemica_backend": "torch"}  # its commands start what imports it: said before, not by that one's failure


class CommandGroup(TyperGroup):
    """A command line of its own commands and those of ``lemica.commands``; its own win over theirs."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return all names: ours in the order of their definition, then the others'."""
        own = super().list_commands(ctx)
        return [*own, *sorted(set(_found()) - set(own))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None; another package's is imported now."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or (entry := _found().get(cmd_name)) is None:
            return own
        return _load(entry)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a package that it misses only then is reported like one that it misses at import."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as exc:
            entry = _found().get(ctx.invoked_subcommand)
            if entry is None:
                raise
            _refuse(entry, exc)


def _found() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(entry: EntryPoint) -> Any:
    try:
        _require(_NEEDS.get(_package(entry)))
        return _to_command(entry.name, entry.load())
    except Exception as exc:  # whatever is wrong with another package, `lemica --help` goes on working
        return _to_command(entry.name, _stand_in(entry, exc), ignore_unknown_options=True, allow_extra_args=True)


def _require(module: str | None) -> None:
    if module is not None and find_spec(module) is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def _package(entry: EntryPoint) -> str:
    return entry.value.split(".")[0]


def _to_command(name: str, function: Callable[..., Any], **settings: bool) -> Any:
    holder = typer.Typer(add_completion=False)
    holder.command(name, context_settings=settings)(function)
    return get_command(holder)


def _stand_in(entry: EntryPoint, exc: Exception) -> Callable[[], None]:
    def refuse() -> None:
        _refuse(entry, exc)

    refuse.__doc__ = escape(f"Not available here: {_reason(entry, exc)}")  # help texts are markup
    return refuse


def _refuse(entry: EntryPoint, exc: Exception) -> None:
    typer.echo(f"error: lemica {entry.name} is not available here: {_reason(entry, exc)}", err=True)
    raise typer.Exit(1) from exc


def _reason(entry: EntryPoint, exc: Exception) -> str:
    extras = _EXTRAS.get(_package(entry))
    if not isinstance(exc, ImportError) or extras is None:
        return f"{type(exc).__name__}: {exc}"
    return f"{exc}; install what it needs with pip install '.[{extras}]' in a checkout of lemica"
