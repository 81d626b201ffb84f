"""The temporary folder and the shared memory of one running server, and their removal in every case."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from lemica_backend.triton_install import STUB_NAME, TritonInstall, TritonNotFoundError

_PREFIX = "lemica-serve-"
_UNLOCKED_PREFIX = "lemica-new-"  # another start must not take a folder without a lock for an abandoned one
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps it; names are unique
_MODEL_FILE = "model.py"


class Workspace:
    """A folder that only its owner uses; what owners that were killed left behind goes at the next start.

    The owner holds a lock on a file in it, which the kernel releases however the owner ends.

    Attributes
    ----------
    folder : Path
    shm_prefix : str
        What the names of the server's shared memory begin with.
    """

    def __init__(self) -> None:
        _remove_abandoned()
        unlocked = Path(tempfile.mkdtemp(prefix=_UNLOCKED_PREFIX))
        self._lock = _try_lock(unlocked)
        self.folder = unlocked.rename(unlocked.with_name(_PREFIX + unlocked.name.removeprefix(_UNLOCKED_PREFIX)))
        self.shm_prefix = self.folder.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything."""
        _remove(self.folder)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def make_backends(self, install: TritonInstall) -> Path:
        """Return a backend folder: the server's own backends, and lemica.

        The Python backend is copied (3 MB): the server refuses to run a backend in Python with a
        libtriton_python.so that is a link out of the folder.
        """
        backends = self.folder / "backends"
        shutil.copytree(install.backends / "python", backends / "python", ignore=_not_needed)
        shutil.copy2(install.stub, backends / "python" / STUB_NAME)
        for backend in install.backends.iterdir():
            if backend.name not in ("python", "lemica"):
                (backends / backend.name).symlink_to(backend.resolve())
        (backends / "lemica").mkdir()
        (backends / "lemica" / _MODEL_FILE).symlink_to(_find_model_file(install))
        return backends


def _find_model_file(install: TritonInstall) -> Path:
    """Return the backend's model.py: inside this package in a wheel, beside it in a checkout, or the server's own."""
    package = Path(__file__).resolve().parent
    folders = (package / "triton_backend", package.parent, install.backends / "lemica")
    for folder in folders:
        if (folder / _MODEL_FILE).is_file():
            return folder / _MODEL_FILE
    places = ", ".join(str(folder) for folder in folders)
    raise TritonNotFoundError(f"{_MODEL_FILE} of the lemica backend is in none of {places}: reinstall lemica")


def _not_needed(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("__pycache__", STUB_NAME)]


def _try_lock(folder: Path) -> int | None:
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            lock = _try_lock(folder) if _is_mine(folder) else None
        except OSError:  # gone by now
            continue
        if lock is not None:
            _remove(folder)
            os.close(lock)


def _is_mine(folder: Path) -> bool:
    return folder.lstat().st_uid == os.getuid() and not folder.is_symlink()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for segment in _SHARED_MEMORY.glob(f"{folder.name}*"):
        segment.unlink(missing_ok=True)
