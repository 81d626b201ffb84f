"""Artifacts of block engines on disk: one folder for each identity, with a manifest that says what it was built for.

An artifact is refused where its manifest or its files are not what they must be, and the message says what differs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lemica_backend.errors import ModelLoadError
from lemica_backend.models.weights_hash import hash_file

__all__ = ["Artifact", "Identity", "find_artifact", "write_artifact"]

_MANIFEST = "artifact.json"
_FORMAT = 2  # of what is built; raised when the same inputs give another artifact


@dataclass(frozen=True)
class Identity:
    """All that an artifact depends on, as JSON values.

    Attributes
    ----------
    engine, dtype, precision, device : str
        The precision is ``dtype``, or what blocks or their matrices are rounded to. The device is a kind of GPU or
        processor where the artifact serves no other, else a type of device.
    family, weights_hash : str
    inputs : sequence
        Of each stack: names, shapes and types.
    ranges : mapping or None
        None where the artifact serves any.
    versions : mapping of str to str
        Of the packages that built it.
    """

    engine: str
    dtype: str
    precision: str
    device: str
    family: str
    weights_hash: str
    inputs: Sequence[Any]
    ranges: Mapping[str, Sequence[int]] | None
    versions: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON gives them back."""
        fields: dict[str, Any] = json.loads(json.dumps({"format": _FORMAT, **vars(self)}))
        return fields

    @property
    def folder(self) -> str:
        """Name of the artifact's folder."""
        key = hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()
        kind = self.dtype if self.precision == "dtype" else self.precision
        return f"{self.engine}-{kind}-{key[:16]}"


@dataclass(frozen=True)
class Artifact:
    """One that was found or made.

    Attributes
    ----------
    folder : Path
    files : tuple of Path
        One for each stack.
    agreement : float or None
        Largest difference from the eager engine when it was built, over the largest hidden state; None where it was
        built without a device that runs it.
    """

    folder: Path
    files: tuple[Path, ...]
    agreement: float | None


def find_artifact(root: Path, identity: Identity) -> Artifact:
    """Return the artifact of that identity.

    Raises
    ------
    ModelLoadError
        If there is none, naming how those that are there differ, or it was damaged or changed.
    """
    folder = root / identity.folder
    if not (folder / _MANIFEST).is_file():
        raise ModelLoadError(f"{_missing(root, identity)}: build one with `lemica compile`")
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        differs = _differences(manifest["identity"], identity.to_dict())
        files = {**dict.fromkeys(manifest["stacks"]), **manifest["files"]}
        damaged = [name for name, digest in files.items() if hash_file(folder / name) != digest]
        found = Artifact(folder, tuple(folder / name for name in manifest["stacks"]), manifest["agreement"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{folder}: a broken artifact ({error!r}): {_AGAIN}") from error
    if differs:
        raise ModelLoadError(f"{folder}: built for something else: {'; '.join(differs)}: {_AGAIN}")
    if damaged:
        raise ModelLoadError(f"{folder}: {', '.join(damaged)} changed after it was built: {_AGAIN}")
    return found


_AGAIN = "build it again with `lemica compile --force`"


def write_artifact(
    root: Path, identity: Identity, stacks: Sequence[str], build: Callable[[Sequence[Path]], float | None]
) -> Artifact:
    """Build an artifact in a folder aside, and put it in its place when it is whole.

    Parameters
    ----------
    root : Path
    identity : Identity
    stacks : sequence of str
        Names of the files, one for each stack.
    build : callable
        Writes these files, and returns how far the results are off, as `Artifact.agreement`.
    """
    root.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".building-", dir=root))
    try:
        agreement = build([aside / name for name in stacks])
        files = {each.name: hash_file(each) for each in sorted(aside.iterdir())}
        manifest = {"identity": identity.to_dict(), "stacks": list(stacks), "agreement": agreement, "files": files}
        (aside / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        aside.chmod(0o755)
        folder = root / identity.folder
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Artifact(folder, tuple(folder / name for name in stacks), agreement)


def _missing(root: Path, identity: Identity) -> str:
    """Say that there is no such artifact, and how the nearest one of the same engine differs."""
    reasons: list[list[str]] = []
    for path in sorted(root.glob(f"{identity.engine}-*/{_MANIFEST}")):
        try:
            reasons.append(_differences(json.loads(path.read_text(encoding="utf-8"))["identity"], identity.to_dict()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    if not reasons:
        return f"{root}: no artifact for {identity.engine}"
    nearest = min(reasons, key=lambda each: (len(each), each))
    return f"{root}: the artifact for {identity.engine} is stale: {'; '.join(nearest)}"


def _differences(built: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    names = sorted(built.keys() | wanted.keys())
    return [
        f"{name} was {_short(built.get(name))}, is {_short(wanted.get(name))}"
        for name in names
        if built.get(name) != wanted.get(name)
    ]


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."
