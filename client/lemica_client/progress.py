"""Progress of `generate`: a bar in a terminal or notebook, or whatever the caller does with the events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lemica_client.errors import InvalidRequestError, MissingDependencyError
from lemica_client.events import Accepted, Progress

if TYPE_CHECKING:
    from tqdm import tqdm

Watcher = Callable[[Accepted | Progress], None]


@contextmanager
def watching(progress: bool | Watcher) -> Iterator[Watcher]:
    """Lend what takes the events: a tqdm bar for True, else what was given.

    Raises
    ------
    InvalidRequestError
        If `progress` is neither.
    MissingDependencyError
        If a bar is asked for and tqdm is not installed.
    """
    if progress is not True:
        if not callable(progress):
            raise InvalidRequestError(f"progress: got {progress!r}; allowed are True, False and a function of an event")
        yield progress
        return
    bar = _make_bar()
    try:
        yield lambda event: _show(bar, event)
    finally:
        bar.close()


def describe(event: Accepted | Progress) -> str:
    """Return what stands beside a bar.

    Examples
    --------
    >>> describe(Progress(3, 10, False, 1500.0))
    'reused, 1.5 s to go'
    """
    words = f"budget {event.budget}" if isinstance(event, Accepted) else "computed" if event.is_computed else "reused"
    return words if event.eta_ms is None else f"{words}, {event.eta_ms / 1e3:.1f} s to go"


def _make_bar() -> tqdm[Any]:
    try:
        from tqdm.auto import tqdm as auto  # noqa: PLC0415  (a widget in a notebook, a line in a terminal)
    except ModuleNotFoundError as exc:
        raise MissingDependencyError(
            f"progress=True needs {exc.name}: install the extra `client` "
            "(pip install '.[client]' in a checkout of lemica)"
        ) from exc
    return auto(unit="step", desc="waiting")


def _show(bar: tqdm[Any], event: Accepted | Progress) -> None:
    if isinstance(event, Progress):
        bar.total = event.num_steps
        bar.update(event.step - bar.n)
    bar.set_description(describe(event))
