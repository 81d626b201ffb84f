"""Read a plan from any of the places it may be in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lemica_planner.config_writer import read_plan
from lemica_planner.errors import PlanFormatError, PlannerError
from lemica_planner.graph_file import load_graph
from lemica_planner.plan import CachePlan
from lemica_planner.published import published_plan

__all__ = ["PLAN_SOURCES", "PUBLISHED", "config_path", "decoded", "graph_path", "load_plan"]

PUBLISHED = "published:"
PLAN_SOURCES = f"plan.json, graph.npz, config.pbtxt, a model folder, or {PUBLISHED}MODEL"
_ZIP = b"PK"  # how an .npz begins


def config_path(path: Path) -> Path:
    """Return the config.pbtxt of a model folder, or the file itself; `PlannerError` if it is not there."""
    found = path / "config.pbtxt" if path.is_dir() else path
    return _require(found, "give a model folder that holds config.pbtxt, or that file")


def graph_path(path: Path) -> Path:
    """Return the graph.npz of a model folder, or the file itself; `PlannerError` if it is not there."""
    found = path / "calibration" / "graph.npz" if path.is_dir() else path
    return _require(found, "give a graph.npz that `lemica-planner calibrate` wrote, or a model folder that holds one")


def load_plan(source: str, names: dict[str, int] | None) -> CachePlan:
    """Read a plan from any of the places it may be in; `names` replace its own."""
    if source.startswith(PUBLISHED):
        plan = published_plan(source.removeprefix(PUBLISHED))
    else:
        path = Path(source)
        path = config_path(path) if path.is_dir() else _require(path, f"give {PLAN_SOURCES}")
        content = path.read_bytes()
        if content.startswith(_ZIP):
            return CachePlan.from_graph(load_graph(path), names=names)
        plan = CachePlan.from_json(decoded(content, path)) if content.lstrip()[:1] == b"{" else read_plan(path)
    return plan if names is None else replace(plan, names=names)


def _require(path: Path, what_to_do: str) -> Path:
    if not path.exists():
        raise PlannerError(f"there is no {path}; {what_to_do}")
    return path


def decoded(content: bytes, path: Path) -> str:
    """Return a file's text; `PlanFormatError` if it is none."""
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        raise PlanFormatError(f"{path} is no UTF-8 text: {exc}; give a plan that `solve` wrote") from exc
