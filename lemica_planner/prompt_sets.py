"""Choose the prompts of a calibration: where they come from, and a seeded draw with equal shares a category.

A plan is only as general as the prompts that its errors were measured on, and every prompt costs many full generations.
So a few are drawn from a large set, the same number from each of its categories:

>>> prompts = [Prompt(f"{number} {noun}", noun) for noun in ("cats", "dogs", "owls") for number in range(100)]
>>> [prompt.text for prompt in draw(prompts, 5, seed=0)]
['34 cats', '20 owls', '53 dogs', '78 cats', '69 owls']
>>> draw(prompts, 3, seed=0) == draw(prompts[::-1], 5, seed=0)[:3]
True

The paper's choice (LeMiCa, arXiv 2511.00090) is the source ``paper:FOLDER``; see `paper_prompts`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

from lemica_planner.errors import PromptSetError
from lemica_planner.prompt_files import Prompt, read_file, read_folder, read_vbench_package, to_json_line

__all__ = ["SOURCES", "Prompt", "count_categories", "draw", "load_prompts", "paper_prompts", "to_json_line"]

SOURCES = (
    "a text file with one prompt a line (# begins a comment line); FILE.jsonl with objects that hold `prompt` or "
    "`prompt_en` and maybe `category` or `dimension`; a FILE.json like VBench_full_info.json; a folder with one .txt "
    "file a category, like T2V-CompBench/prompts; vbench, the installed package; or paper:FOLDER, as many as the paper "
    "uses: 70 from T2V-CompBench/prompts, 10 a category"
)
_VBENCH = "vbench"
_PAPER = "paper:"
_PAPER_CATEGORIES = 7
_PAPER_SHARE = 10


def load_prompts(source: str, *, sample: int | None = None, seed: int = 0) -> tuple[Prompt, ...]:
    """Read the prompts of any source, each once, and draw from them if asked to.

    Parameters
    ----------
    source : str
        A path, ``"vbench"`` or ``"paper:FOLDER"``, see `SOURCES`. A file of the name ``vbench`` is ``"./vbench"``.
    sample : int, optional
        How many to `draw`; by default all, in the order of the source.
    seed : int
        Of the draw, and of the draw that ``paper:`` stands for.

    Returns
    -------
    tuple of Prompt
        Never empty. A text that occurs twice is one prompt: with the same seed it would be the same trajectory.

    Raises
    ------
    PromptSetError
        If the source is of no known kind, breaks its format, holds no prompts, or fewer than `sample`.
    OSError
        If a file cannot be read.
    """
    prompts = _distinct(_read(source, seed))
    if not prompts:
        raise PromptSetError(f"{source} holds no prompts; write one a line")
    return prompts if sample is None else draw(prompts, sample, seed)


def draw(prompts: Iterable[Prompt], count: int, seed: int) -> tuple[Prompt, ...]:
    """Draw `count` prompts without replacement, an equal share from each category.

    The categories take turns, one prompt each, until `count` is reached; one that has no more drops out. So shares
    differ by at most one unless a category is too small, which is the largest remainder method for equal shares. The
    order of the turns, and of the prompts within a category, comes from the seed.

    Parameters
    ----------
    prompts : iterable of Prompt
        Their order does not matter. A text in several categories counts for the alphabetically first one.
    count : int
        From 1 to the number of different texts.
    seed : int
        The same seed draws the same prompts, with any version of Python and numpy.

    Returns
    -------
    tuple of Prompt
        In the order of the turns, so a smaller draw with the same seed is the beginning of a larger one.

    Raises
    ------
    PromptSetError
        If `count` is not in that range.
    """
    groups = _by_category(_distinct(prompts))
    size = sum(map(len, groups.values()))
    if not 1 <= count <= size:
        raise PromptSetError(f"cannot draw {count} of {size} different prompts; allowed: 1 to {size}; or add prompts")
    turns = [
        (turn, _shuffled(seed, category), prompt)
        for category, members in groups.items()
        for turn, prompt in enumerate(sorted(members, key=lambda prompt: _shuffled(seed, category, *_told(prompt))))
    ]
    return tuple(prompt for _, _, prompt in sorted(turns)[:count])


def paper_prompts(folder: Path, *, seed: int = 0) -> tuple[Prompt, ...]:
    """Draw the paper's number of prompts: 70 from T2V-CompBench, 10 from each category.

    Parameters
    ----------
    folder : Path
        The folder ``prompts`` of a checkout of https://github.com/KaiyueSun98/T2V-CompBench.
    seed : int
        Of the draw.

    Returns
    -------
    tuple of Prompt
        10 of each of the 7 categories, in the order of `draw`.

    Raises
    ------
    PromptSetError
        If `folder` does not hold 7 categories of at least 10 prompts.

    Notes
    -----
    What the paper says (LeMiCa, arXiv 2511.00090): the graph is built from 70 prompts of T2V-CompBench, 10 per
    attribute, other prompts than those of its evaluation; sampling is repeated with 10 different seeds, while the
    ablation (table 2) counts 350 samples, 70 prompts with 5 seeds, and sees the errors settle from about 20 samples
    on. What is our reading: an attribute is one of the benchmark's 7 categories, each a file; which 10 the paper took
    is not published, so they are drawn; seeds are left to the caller (10 or 5 are both the paper's).
    """
    if not folder.is_dir():
        raise PromptSetError(
            f"{str(folder)!r} is no folder; run `git clone https://github.com/KaiyueSun98/T2V-CompBench` and give "
            f"{_PAPER}T2V-CompBench/prompts"
        )
    prompts = _distinct(read_folder(folder))
    sizes = count_categories(prompts)
    if len(sizes) != _PAPER_CATEGORIES or min(sizes.values()) < _PAPER_SHARE:
        raise PromptSetError(
            f"{folder} must hold {_PAPER_CATEGORIES} categories of at least {_PAPER_SHARE} prompts; got {sizes}; "
            "give the folder `prompts` of T2V-CompBench, or use --sample on another source"
        )
    return draw(prompts, _PAPER_CATEGORIES * _PAPER_SHARE, seed)


def count_categories(prompts: Iterable[Prompt]) -> dict[str, int]:
    """Return how many prompts each category has, by name."""
    return dict(sorted(Counter(prompt.category for prompt in prompts).items()))


def _read(source: str, seed: int) -> Iterable[Prompt]:
    if source == _VBENCH:
        return read_vbench_package()
    if source.startswith(_PAPER):
        return paper_prompts(Path(source.removeprefix(_PAPER)), seed=seed)
    path = Path(source)
    if not path.exists():
        raise PromptSetError(f"there is no file or folder {source!r}; give {SOURCES}")
    return read_folder(path) if path.is_dir() else read_file(path)


def _distinct(prompts: Iterable[Prompt]) -> tuple[Prompt, ...]:
    """Keep each text and image once; of its categories the first by name, which no order of the input can change."""
    found: dict[tuple[str, str], Prompt] = {}
    for prompt in prompts:
        known = found.setdefault((prompt.text, prompt.image_sha256), prompt)
        found[prompt.text, prompt.image_sha256] = min(known, prompt, key=attrgetter("category"))
    return tuple(found.values())


def _by_category(prompts: Iterable[Prompt]) -> dict[str, list[Prompt]]:
    groups = defaultdict(list)
    for prompt in prompts:
        groups[prompt.category].append(prompt)
    return groups


def _told(prompt: Prompt) -> tuple[str, ...]:
    return (prompt.text, prompt.image_sha256) if prompt.image else (prompt.text,)


def _shuffled(seed: int, *names: str) -> str:
    """Return what to sort by for a random order; hashed, because a generator's stream depends on order and version."""
    return hashlib.sha256(json.dumps([seed, *names]).encode()).hexdigest()
