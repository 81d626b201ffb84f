"""Objects of JSON files that an operator writes, and what to say of one that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from lemica_backend.errors import ModelLoadError

_S = TypeVar("_S", bound="Section")


class Section(BaseModel):
    """An object of a JSON file: no field is unknown, no value is converted."""

    # strict: "8" for 8 is a typing error of the operator's; finite: JSON parsers let NaN and Infinity through
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def validate_json(section: type[_S], path: Path) -> _S:
    """Read and check a file.

    Raises
    ------
    ModelLoadError
        If the file cannot be read, is not JSON, or a field is unknown or has a value that is not allowed;
        the message names the file, every such field, what was got and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{path}: cannot be read: {error}") from error
    try:
        return section.model_validate_json(text)
    except ValidationError as error:
        raise ModelLoadError(f"{path}: {_describe(error, section)}") from error


def _describe(error: ValidationError, section: type[Section]) -> str:
    return "; ".join(_describe_field(dict(problem), section) for problem in error.errors(include_url=False))


def _describe_field(problem: dict[str, object], section: type[Section]) -> str:
    location = problem["loc"]
    assert isinstance(location, tuple)
    field = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        return f"{field}: no such field; allowed are {_allowed_fields(location[:-1], section)}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] in ("json_invalid", "value_error"):
        return f"{field}: {message}" if field else message
    return f"{field or 'the file'}: got {problem['input']!r}; {message}"


def _allowed_fields(location: tuple[object, ...], section: type[Section]) -> str:
    for name in location:
        section = _section_in(section.model_fields[str(name)].annotation)
    return ", ".join(section.model_fields)


def _section_in(annotation: object) -> type[Section]:
    """Return the section of a field, which may also be None."""
    kinds = (annotation, *get_args(annotation))
    return next(each for each in kinds if isinstance(each, type) and issubclass(each, Section))
