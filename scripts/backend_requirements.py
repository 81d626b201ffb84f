"""Prints what the backend needs, one requirement a line, as the wheel's metadata says; some can be left out.

``python backend_requirements.py lemica-VERSION.whl [--skip PACKAGE]...``
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

# pip brings these: the interpreter of a server's container has pip, but nothing else that can read requirements.
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

DISTRIBUTION = "lemica"
EXTRA = "backend"


def requirements_of(wheel: Path, *, extra: str = EXTRA, skip: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the requirements of an extra; those on the distribution's own extras are replaced by what they need."""
    for requirement in _all_requirements(wheel):
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue  # without a marker it is the wheel's own, which pip sees anyway
        name = canonicalize_name(requirement.name)
        if name == DISTRIBUTION:
            for own_extra in sorted(requirement.extras):
                yield from requirements_of(wheel, extra=own_extra, skip=skip)
        elif name not in skip:
            requirement.marker = None  # it holds here, and pip knows nothing of the extra it names
            yield str(requirement)


def _all_requirements(wheel: Path) -> Iterator[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    return map(Requirement, metadata.get_all("Requires-Dist", []))


def main() -> None:
    """Print the requirements, each once."""
    parser = argparse.ArgumentParser(description="Print what the lemica backend needs.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--skip", action="append", default=[], help="a package to leave out")
    arguments = parser.parse_args()
    skip = frozenset(canonicalize_name(name) for name in arguments.skip)
    print("\n".join(dict.fromkeys(requirements_of(arguments.wheel, skip=skip))))


if __name__ == "__main__":
    main()
