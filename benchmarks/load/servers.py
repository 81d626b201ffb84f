"""Real servers for load tests: what they hold, and all of their processes."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lemica_backend.triton_server import ServerStartError, TritonServer, describe_failures

_MARK = "LEMICA_LOAD_TEST"
_PROC = Path("/proc")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps it
_READY_S = 900.0


class ServerProcess(NamedTuple):
    """A process that belongs to the server."""

    pid: int
    command: str


class LoadServer:
    """A running server, with the processes that it and its models started.

    All of them inherit a mark in their environment; a parent's id would not tell, as a process whose parent ended gets
    another one.
    """

    def __init__(self, server: TritonServer, mark: str, log: Path) -> None:
        self._server = server
        self._mark = mark.encode()
        self.log = log
        self.grpc_url = server.grpc_url
        self.http_url = server.http_url
        self.metrics_url = server.metrics_url

    @property
    def is_alive(self) -> bool:
        """Whether tritonserver itself runs."""
        return any(process.pid == self._server.pid for process in self.processes())

    def processes(self, name: str = "") -> list[ServerProcess]:
        """Return all processes of the server whose command line contains a text."""
        found = (_process(folder, self._mark) for folder in _PROC.glob("[0-9]*"))
        return [process for process in found if process and name in process.command and process.pid != os.getpid()]

    def resident_bytes(self) -> int:
        """Return the memory of all processes: resident pages that are not shared, each once, plus those in /dev/shm."""
        return sum(_private_bytes(process.pid) for process in self.processes()) + _shared_memory_bytes()


@contextmanager
def serving(repository: Path, *, log: Path, extra_args: Sequence[str] = ()) -> Iterator[LoadServer]:
    """Start a server, wait until all its models are loaded, and stop it in the end.

    Raises
    ------
    ServerStartError
        If a model failed to load.
    """
    mark = f"{_MARK}={uuid.uuid4().hex}"
    name, value = mark.split("=")
    os.environ[name] = value  # tritonserver inherits this process's environment
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # models of torch that spin while they wait starve each other
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with TritonServer(repository, log=log, extra_args=extra_args) as server:
            failures = describe_failures(server.wait_ready(timeout_s=_READY_S))
            if failures:
                raise ServerStartError(f"models failed to load; the log is {log}\n{failures}")
            yield LoadServer(server, mark, log)
    finally:
        del os.environ[name]


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Return a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="lemica-load-") as folder:
        yield Path(folder)


def _process(folder: Path, mark: bytes) -> ServerProcess | None:
    try:
        if mark not in (folder / "environ").read_bytes().split(b"\0"):
            return None
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:  # gone, or not ours
        return None
    return ServerProcess(int(folder.name), command) if command else None  # a zombie has none


def _private_bytes(pid: int) -> int:
    """Return resident bytes less those shared with other processes or files."""
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in lines if ":" in line and "-" not in line.split(":", 1)[0])
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Private_Clean", "Private_Dirty") if name in fields)


def _shared_memory_bytes() -> int:
    """Return what all files in /dev/shm take up, those of other servers included: they only add noise."""
    total = 0
    for path in _SHARED_MEMORY.iterdir():
        try:
            total += path.stat().st_blocks * 512
        except OSError:
            continue
    return total
