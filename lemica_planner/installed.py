"""Find the replayers that are installed: entry points that open a model folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from lemica_planner.errors import CalibrationError, ReplayerNotFoundError
from lemica_planner.replayer import Replayer, names_known_to

__all__ = ["open_replayer", "require_known"]

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
    factory = _find(name)
    if not model_dir.is_dir():
        raise CalibrationError(f"{model_dir} is no folder; give the model folder, the one with config.pbtxt")
    return _opened(factory, name, model_dir, metric)


def _opened(factory: Callable[[Path, str], Replayer], name: str, model_dir: Path, metric: str) -> Replayer:
    try:
        return factory(model_dir, metric)
    except Exception as exc:  # whatever another package raises about the folder that the user named
        raise CalibrationError(f"the replayer {name!r} cannot open {model_dir}: {exc}") from exc


def require_known(name: str, *, operators: Iterable[str], metric: str) -> None:
    """Refuse operators and a metric that the replayer of that name knows for no model; opens none.

    Raises
    ------
    ReplayerNotFoundError
        If there is no such replayer.
    CalibrationError
        If a name is unknown. Replayers that do not say what they know (`lemica_planner.replayer.knows`) refuse it
        themselves, once they are open.
    """
    known = names_known_to(_find(name))
    if known is None:
        return
    unknown = [each for each in operators if each not in known.operators]
    if unknown:
        raise CalibrationError(f"there is no operator {unknown[0]!r}; there are {', '.join(known.operators)}")
    if metric not in known.metrics:
        raise CalibrationError(f"there is no metric {metric!r}; there are {', '.join(known.metrics)}")


def _find(name: str) -> Callable[[Path, str], Replayer]:
    found = {point.name: point for point in metadata.entry_points(group=_GROUP)}
    if ":" in name:
        found = {name: metadata.EntryPoint(name, name, _GROUP)}
    if name not in found:
        raise ReplayerNotFoundError(
            f"no replayer {name!r} is installed; installed: {', '.join(sorted(found)) or 'none'}; "
            f"a package provides one by an entry point of the group {_GROUP}"
        )
    try:
        factory: Callable[[Path, str], Replayer] = found[name].load()
    except (ImportError, AttributeError) as exc:
        raise ReplayerNotFoundError(
            f"the replayer {name!r} cannot be imported: {exc}; install what it needs, such as "
            "pip install '.[backend]' in a checkout of lemica"
        ) from exc
    return factory
