"""Read prompts and their categories from the files that people and benchmarks keep them in.

::

    suffix               content                                                  category
    .jsonl, .ndjson      one object a line                                        `category` or `dimension`
    .json                an array of such objects: VBench's VBench_full_info.json  the same
    any other            one prompt a line; # begins a comment line               none
    a folder             one .txt file a category: T2V-CompBench's prompts/       the file's name

Formats as published: VBench in the wheel of vbench 0.1.5 (https://pypi.org/project/vbench), T2V-CompBench at
https://github.com/KaiyueSun98/T2V-CompBench. An object may name the file of an `image` that the video is to begin with,
from the folder of the file that it stands in. Knows nothing about drawing or calibration.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from importlib import resources, util
from pathlib import Path
from typing import Any, NamedTuple

from lemica_planner.errors import PromptSetError
from lemica_planner.provenance import Sample
from lemica_planner.strict_json import describe

__all__ = ["Prompt", "read_file", "read_folder", "read_vbench_package", "to_json_line"]

_TEXT_KEYS = ("prompt", "prompt_en")  # prompt_en is VBench's
_CATEGORY_KEYS = ("category", "dimension")  # dimension is VBench's
_EXAMPLE = '{"prompt": "a red cube", "category": "colour"}'
_VBENCH_FILE = "VBench_full_info.json"


class Prompt(NamedTuple):
    """A text to generate from, and the stratum that it stands for.

    Attributes
    ----------
    text : str
        The prompt.
    category : str
        What `draw` takes equal shares of; empty if the source names none.
    image : str
        Path of the image that the video begins with; empty if the source names none.
    image_sha256 : str
        Of that file.
    """

    text: str
    category: str = ""
    image: str = ""
    image_sha256: str = ""

    def sample(self, seed: int) -> Sample:
        """Return the trajectory of this prompt with a seed."""
        return Sample(self.text, seed, self.image, self.image_sha256)


def read_file(path: Path) -> list[Prompt]:
    """Read one file, in the format that its suffix says.

    Raises
    ------
    PromptSetError
        If the content is not in that format; the place is named.
    OSError
        If the file cannot be read.
    """
    parse = _PARSERS.get(path.suffix.lower(), _parse_text)
    prompts = parse(_decoded(path.read_bytes(), str(path)), str(path))
    return [_with_image(prompt, path) if prompt.image else prompt for prompt in prompts]


def read_folder(path: Path) -> list[Prompt]:
    """Read a folder with one text file a category, as T2V-CompBench has.

    The category is the file's name without its number and suffix: ``7_numeracy.txt`` holds ``numeracy``.

    Raises
    ------
    PromptSetError
        If there are no such files, or one is no UTF-8 text.
    """
    files = sorted(path.glob("*.txt"))
    if not files:
        raise PromptSetError(
            f"{path} holds no .txt files; give the folder with one file a category, such as T2V-CompBench/prompts"
        )
    return [Prompt(prompt.text, _category_of(file)) for file in files for prompt in read_file(file)]


def read_vbench_package() -> list[Prompt]:
    """Read the prompts in the installed package `vbench`, without importing it: that would need torch and decord.

    Raises
    ------
    PromptSetError
        If the package is not installed, or lacks the file.
    """
    spec = util.find_spec("vbench")
    if spec is None or spec.submodule_search_locations is None:
        raise PromptSetError(
            "the package vbench is not installed; run `pip install --no-deps vbench` (its dependencies, which are not "
            f"needed here, conflict with lemica's), or give the path of a {_VBENCH_FILE}"
        )
    file = resources.files(util.module_from_spec(spec)) / _VBENCH_FILE
    if not file.is_file():
        raise PromptSetError(f"there is no {file}; install vbench 0.1.5, or give the path of a {_VBENCH_FILE}")
    return _parse_json(_decoded(file.read_bytes(), str(file)), str(file))


def to_json_line(prompt: Prompt) -> str:
    """Return the line of a .jsonl file that reads back as `prompt`."""
    category = {"category": prompt.category} if prompt.category else {}
    image = {"image": prompt.image} if prompt.image else {}
    return json.dumps({**category, "prompt": prompt.text, **image}, ensure_ascii=False)


def _parse_text(content: str, where: str) -> list[Prompt]:
    lines = (line.strip() for line in content.splitlines())
    return [Prompt(line) for line in lines if line and not line.startswith("#")]


def _parse_json_lines(content: str, where: str) -> list[Prompt]:
    """Parse line by line; only newlines part lines, because JSON text may hold Unicode's other separators."""
    lines = ((f"line {number} of {where}", line) for number, line in enumerate(content.split("\n"), 1))
    return [_prompt(_parsed(line, place), place) for place, line in lines if line.strip()]


def _parse_json(content: str, where: str) -> list[Prompt]:
    entries = _parsed(content, where)
    if not isinstance(entries, list):
        raise PromptSetError(
            f"{where} must be a JSON array of objects such as {_EXAMPLE}; got {describe(entries)}; "
            "for one object a line, name the file .jsonl"
        )
    return [_prompt(entry, f"entry {number} of {where}") for number, entry in enumerate(entries, 1)]


_PARSERS: dict[str, Callable[[str, str], list[Prompt]]] = {
    ".jsonl": _parse_json_lines,
    ".ndjson": _parse_json_lines,
    ".json": _parse_json,
}


def _prompt(entry: object, place: str) -> Prompt:
    """Build from a parsed object; keys besides these are the benchmark's own, such as VBench's `auxiliary_info`."""
    if not isinstance(entry, dict):
        raise PromptSetError(f"{place} must be an object such as {_EXAMPLE}; got {describe(entry)}")
    text = _first(entry, _TEXT_KEYS)
    if not isinstance(text, str) or not text.strip() or not _encodable(text):
        raise PromptSetError(
            f"{place} must hold a text that is not empty as {' or '.join(_TEXT_KEYS)}; got {describe(text)}; "
            f"write it as {_EXAMPLE}"
        )
    image = entry.get("image") or ""
    if not isinstance(image, str) or not _encodable(image):
        raise PromptSetError(f"image in {place} must be the path of a file; got {describe(image)}")
    return Prompt(text.strip(), _category(_first(entry, _CATEGORY_KEYS), place), image)


def _with_image(prompt: Prompt, source: Path) -> Prompt:
    """Return the prompt with the whole path of its image, and with what tells its content."""
    path = (source.parent / prompt.image).absolute()
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as exc:
        raise PromptSetError(
            f"{source}: the image {prompt.image!r} of {prompt.text[:60]!r} cannot be read ({exc}); "
            "paths begin at the folder of that file"
        ) from exc
    return prompt._replace(image=str(path), image_sha256=hashlib.sha256(content).hexdigest())


def _category(value: object, place: str) -> str:
    """Return one name; a list is joined, so that prompts with the same VBench dimensions are one category."""
    names: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(name, str) and _encodable(name) for name in names):
        raise PromptSetError(
            f"{' or '.join(_CATEGORY_KEYS)} in {place} must be a text or an array of texts; got {describe(value)}"
        )
    return "+".join(name.strip() for name in names)


def _first(entry: Mapping[str, Any], keys: tuple[str, ...]) -> object:
    return next((entry[key] for key in keys if entry.get(key) is not None), None)


def _encodable(text: str) -> bool:
    r"""Tell whether it is Unicode: JSON can escape half a surrogate pair, as in ``"\ud800"``."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _parsed(content: str, place: str) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise PromptSetError(f"{place} is not JSON ({exc}); write objects such as {_EXAMPLE}") from exc


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")  # editors on Windows put a byte order mark before the first prompt
    except UnicodeDecodeError as exc:
        raise PromptSetError(f"{where} is no UTF-8 text: {exc}; give a text file with one prompt a line") from exc


def _category_of(file: Path) -> str:
    return re.sub(r"^\d+_", "", file.stem)
