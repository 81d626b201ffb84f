"""Put a plan into a Triton config.pbtxt, and read it back.

The file is parsed and printed as the real protobuf, so everything else keeps its meaning; of comments only those
before the first field survive. The one module that imports tritonclient.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from lemica_planner.atomic import write_text
from lemica_planner.errors import ConfigError
from lemica_planner.plan import CachePlan

__all__ = ["PARAMETER", "apply_plan", "new_config", "read_plan"]

PARAMETER = "cache_plan"


def new_config(config_path: Path, fields: dict[str, Any], comment: str = "") -> None:
    """Write a new configuration.

    Parameters
    ----------
    config_path : Path
    fields : dict
        As in the JSON form of the configuration.
    comment : str
        One line for the top of the file.
    """
    config = json_format.ParseDict(fields, model_config_pb2.ModelConfig())
    heading = f"# {comment}\n" if comment else ""
    write_text(config_path, heading + text_format.MessageToString(config, as_utf8=True))


def apply_plan(config_path: Path, plan: CachePlan) -> None:
    """Write `plan` into ``parameters["cache_plan"]`` of the configuration, whole or not at all.

    Parameters
    ----------
    config_path : Path
        An existing ``config.pbtxt``.
    plan : CachePlan
        What to serve; it replaces the plan that is there.

    Raises
    ------
    ConfigError
        If the file is no model configuration.
    OSError
        If it cannot be read or written.
    """
    config, comments = _read(Path(config_path))
    config.parameters[PARAMETER].string_value = plan.to_json()
    write_text(config_path, comments + text_format.MessageToString(config, as_utf8=True))


def read_plan(config_path: Path) -> CachePlan:
    """Return the plan that the configuration holds.

    Raises
    ------
    ConfigError
        If the file is no model configuration, or holds no plan.
    PlanFormatError
        If what it holds is no plan.
    OSError
        If it cannot be read.
    """
    config, _ = _read(Path(config_path))
    if PARAMETER not in config.parameters:
        raise ConfigError(f"{config_path} holds no {PARAMETER!r} parameter; put one there with `lemica-planner apply`")
    return CachePlan.from_json(config.parameters[PARAMETER].string_value)


def _read(path: Path) -> tuple[Any, str]:
    """Return the parsed configuration and the comments that precede its first field."""
    try:
        text = path.read_text(encoding="utf-8")
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is no Triton model configuration: {exc}; correct it first") from exc
    return config, _leading_comments(text)


def _leading_comments(text: str) -> str:
    kept = []
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            break
        kept.append(line)
    return "".join(f"{line}\n" for line in kept)
