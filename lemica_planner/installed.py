"""Find the replayers that are installed: entry points that open a model folder."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from lemica_planner.errors import CalibrationError, ReplayerNotFoundError
from lemica_planner.replayer import Replayer

__all__ = ["open_replayer"]

_GROUP = "lemica_planner.replayers"


def open_replayer(name: str, model_dir: Path, metric: str) -> Replayer:
    """Import the replayer of that name, and only that one, and open the model with it, to measure by `metric`.

    A name with a colon, ``MODULE:FUNCTION``, is taken as it stands and needs no entry point.

    Raises
    ------
    ReplayerNotFoundError
        If there is none, or what it needs is not installed.
    CalibrationError
        If it cannot open the folder.
    """
    found = {point.name: point for point in metadata.entry_points(group=_GROUP)}
    if ":" in name:
        found = {name: metadata.EntryPoint(name, name, _GROUP)}
    if name not in found:
        raise ReplayerNotFoundError(
            f"no replayer {name!r} is installed; installed: {', '.join(sorted(found)) or 'none'}; "
            f"a package provides one by an entry point of the group {_GROUP}"
        )
    try:
        factory: Any = found[name].load()
    except (ImportError, AttributeError) as exc:
        raise ReplayerNotFoundError(
            f"the replayer {name!r} cannot be imported: {exc}; install what it needs, such as lemica[backend]"
        ) from exc
    if not model_dir.is_dir():
        raise CalibrationError(f"{model_dir} is no folder; give the model folder, the one with config.pbtxt")
    return _opened(factory, name, model_dir, metric)


def _opened(factory: Callable[[Path, str], Replayer], name: str, model_dir: Path, metric: str) -> Replayer:
    try:
        return factory(model_dir, metric)
    except Exception as exc:  # whatever another package raises about the folder that the user named
        raise CalibrationError(f"the replayer {name!r} cannot open {model_dir}: {exc}") from exc
