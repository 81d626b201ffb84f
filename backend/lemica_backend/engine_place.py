"""Where the process of an engine is found: by tritonserver and model, in a folder that only its user may enter."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import AF_UNIX
from socket import socket as Socket

from lemica_backend.config import MODEL_FILE, ModelConfig
from lemica_backend.errors import ModelLoadError

RUN_DIR_VARIABLE = "LEMICA_RUN_DIR"  # `lemica serve` names a folder that it removes


@dataclass(frozen=True)
class Server:
    """A tritonserver, which no other process can be taken for.

    Attributes
    ----------
    pid : int
    started : int
        When it was started, in the kernel's ticks since boot: process ids come again.
    """

    pid: int
    started: int

    @classmethod
    def of_pid(cls, pid: int) -> Server:
        """Return the running server with that process id."""
        return cls(pid, _start_ticks(pid))

    def is_running(self) -> bool:
        """Whether it has not ended."""
        try:
            return _start_ticks(self.pid) == self.started
        except OSError:
            return False


@dataclass(frozen=True)
class EnginePlace:
    """One engine's own folder."""

    folder: Path

    @classmethod
    def of(cls, server: Server, model_dir: Path, config: ModelConfig) -> EnginePlace:
        """Return the place of the engine of one version folder as it is now; it may not be there yet.

        Another ``model.json``, device or set of weights is another engine.
        """
        parts = (str(model_dir.resolve()), config_json(config), _weights_signature(model_dir, config))
        name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        return cls(run_dir(server) / name)

    @property
    def socket(self) -> Path:
        """Where the engine listens."""
        return self.folder / "socket"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other fronts from starting an engine here; whoever holds this is trusted to be quick."""
        _make_private(self.folder)
        with (self.folder.parent / f"{self.folder.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def listen(self) -> Socket:
        """Return a socket that fronts can connect to, in place of one that a dead engine left."""
        _make_private(self.folder)
        self.socket.unlink(missing_ok=True)
        listener = Socket(AF_UNIX)
        with _short(self.folder) as folder:
            listener.bind(f"{folder}/{self.socket.name}")
        listener.listen()
        return listener

    def connect(self) -> Socket:
        """Return a connection to the engine.

        Raises
        ------
        OSError
            If there is none that listens.
        """
        link = Socket(AF_UNIX)
        try:
            with _short(self.folder) as folder:
                link.connect(f"{folder}/{self.socket.name}")
        except OSError:
            link.close()
            raise
        return link

    def remove(self) -> None:
        """Remove the folder, and what held the last one."""
        self.socket.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def run_dir(server: Server) -> Path:
    """Return the folder of all engines of a server."""
    parent = Path(os.environ.get(RUN_DIR_VARIABLE) or tempfile.gettempdir())
    return parent / f"lemica-engines-{os.getuid()}-{server.pid}-{server.started}"


def remove_run_dir(server: Server) -> None:
    """Remove the folder of a server's engines if none is left in it."""
    folder = run_dir(server)
    if any(entry.is_dir() for entry in folder.glob("*")):
        return
    for lock in folder.glob("*.lock"):
        lock.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def config_json(config: ModelConfig) -> str:
    """Return what was set in a configuration, as a ``model.json`` would say it."""
    return config.model_dump_json(by_alias=True, exclude_unset=True)


def _start_ticks(pid: int) -> int:
    """Read field 22 of ``/proc/PID/stat`` (proc(5)); the second, a name, may hold anything but ends with ``)``."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _make_private(folder: Path) -> None:
    """Make a folder of two levels that only this user may enter; refuse one that somebody else made."""
    for path in (folder.parent, folder):
        path.mkdir(mode=0o700, parents=False, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise ModelLoadError(f"{path} is not a folder of this user alone; remove it, or set TMPDIR")


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Name a folder in few characters: the address of a socket may have 107."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _weights_signature(model_dir: Path, config: ModelConfig) -> str:
    """Return what changes when files of the weights do; with a `hub_id`, model.json says it all."""
    if config.hub_id is not None:
        return (model_dir / MODEL_FILE).name
    folder = model_dir / config.weights
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "\n".join(f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
