"""A real tritonserver as a child process: start it, wait until its models are loaded, stop it, leave nothing behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lemica_backend.engine_place import RUN_DIR_VARIABLE
from lemica_backend.errors import LemicaError
from lemica_backend.triton_install import find_triton
from lemica_backend.workspace import Workspace

_LAUNCHER = Path(__file__).with_name("die_with_parent.py")
_POLL_S = 0.1
_KILL_AFTER_S = 15  # beyond the time that the server itself takes to end at most


class ServerStartError(LemicaError):
    """The server could not be started, died, or was not ready in time; the message says why."""


@dataclass(frozen=True)
class ModelStatus:
    """What became of one version of a model at start-up; without a version, of the model as a whole."""

    name: str
    version: str
    is_ready: bool
    reason: str


class TritonServer:
    """A tritonserver with the `lemica` backend.

    Start it from a thread that lives as long as the server should: the kernel ends the
    server with that thread, so that it never outlives its owner.

    Parameters
    ----------
    model_repository : Path
    host : str
        Address to listen on.
    http_port, grpc_port, metrics_port : int
        0 picks a free one.
    log : Path or None
        File for the server's output; None shows it on this process's stderr.
    log_verbose : bool
        Triton's verbose log.
    exit_timeout_s : int
        Seconds that running requests get to finish when the server is stopped. An HTTP connection that a
        client keeps open, even an idle one, takes them all.
    extra_args : sequence of str
        More arguments for tritonserver; they win over those set here.

    Examples
    --------
    >>> with TritonServer(Path("model_repository")) as server:  # doctest: +SKIP
    ...     server.wait_ready(timeout_s=60)
    ...     print(server.http_url, server.grpc_url)
    """

    def __init__(
        self,
        model_repository: Path,
        *,
        host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        log: Path | None = None,
        log_verbose: bool = False,
        exit_timeout_s: int = 30,
        extra_args: Sequence[str] = (),
    ) -> None:
        self.model_repository = model_repository
        self.host = host
        self._wanted_ports = (http_port, grpc_port, metrics_port)
        self._ports: Sequence[int] = self._wanted_ports
        self._log = log
        self._log_verbose = log_verbose
        self._exit_timeout_s = exit_timeout_s
        self._extra_args = tuple(extra_args)
        self._process: subprocess.Popen[bytes] | None = None
        self._workspace: Workspace | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    @property
    def http_url(self) -> str:
        """Host and port for HTTP, as tritonclient wants them."""
        return f"{_reachable(self.host)}:{self._ports[0]}"

    @property
    def grpc_url(self) -> str:
        """Host and port for gRPC."""
        return f"{_reachable(self.host)}:{self._ports[1]}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus finds the metrics."""
        return f"http://{_reachable(self.host)}:{self._ports[2]}/metrics"

    @property
    def is_started(self) -> bool:
        """Whether there is a process, running or ended."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._running().pid

    def start(self) -> None:
        """Start the process; returns before anything is loaded.

        Raises
        ------
        TritonNotFoundError
            If there is no usable tritonserver.
        ServerStartError
            If the model repository holds no model, or a port is taken.
        """
        _require_models(self.model_repository)
        self._ports = _free_ports(self.host, self._wanted_ports)
        install = find_triton()
        self._workspace = Workspace()
        try:
            backends = self._workspace.make_backends(install)
            command = [str(install.executable), *self._arguments(backends, install.caches)]
            environment = install.environment() | {RUN_DIR_VARIABLE: str(self._workspace.folder)}
            self._process = self._launch(command, environment)
        except BaseException:
            self.stop()
            raise

    def wait_ready(self, timeout_s: float = 120) -> list[ModelStatus]:
        """Wait until the server has tried to load every model; return what became of each.

        A model that failed to load does not raise: the others serve.

        Raises
        ------
        ServerStartError
            If the server died, is not ready in time, or models failed to load and none is left to serve.
        """
        deadline = time.monotonic() + timeout_s
        while not self._is_up():
            self._require_alive()
            if time.monotonic() > deadline:
                raise ServerStartError(
                    f"tritonserver was not ready within {timeout_s:g} s; models may still have been loading: a longer "
                    f"limit, --timeout-s of `lemica serve`, gives them longer{self._log_hint()}"
                )
            time.sleep(_POLL_S)
        models = self.models()
        if models and not any(model.is_ready for model in models):
            raise ServerStartError("no model could be loaded:\n" + describe_failures(models))
        return models

    def models(self) -> list[ModelStatus]:
        """Return every model that is loaded or failed to load."""
        status, body = self._ask("POST", "/v2/repository/index")
        if status != http.HTTPStatus.OK:
            raise ServerStartError(f"tritonserver does not list its models: HTTP {status}: {body.decode()}")
        return [_status(entry) for entry in json.loads(body) if entry.get("state")]

    def wait(self) -> int:
        """Wait until the server ends by itself or by a signal; return its exit code."""
        return self._running().wait()

    def send_signal(self, signum: int) -> None:
        """Pass a signal on; SIGTERM and SIGINT let running requests finish."""
        self._running().send_signal(signum)

    def stop(self) -> None:
        """End the server, by force where it does not end itself, and remove all it leaves."""
        if self._process is not None:
            self._process.terminate()
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(self._exit_timeout_s + _KILL_AFTER_S)
            finally:
                _kill_group(self._process.pid)  # its Python stubs with it
                self._process.wait()
        if self._workspace is not None:
            self._workspace.close()
            self._workspace = None

    def _arguments(self, backends: Path, caches: Path) -> list[str]:
        assert self._workspace is not None
        http, grpc, metrics = self._ports
        return [
            f"--model-repository={self.model_repository}",
            f"--backend-directory={backends}",
            f"--cache-directory={caches}",
            f"--backend-config=python,shm-region-prefix-name={self._workspace.shm_prefix}",
            *(f"--{kind}-address={self.host}" for kind in ("http", "grpc", "metrics")),
            f"--http-port={http}",
            f"--grpc-port={grpc}",
            f"--metrics-port={metrics}",
            # one broken model must not take the others down; each model's own readiness still tells
            "--exit-on-error=false",
            "--strict-readiness=false",
            f"--exit-timeout-secs={self._exit_timeout_s}",
            *(["--log-verbose=1"] if self._log_verbose else []),
            *self._extra_args,
        ]

    def _launch(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid())]
        output = self._log.open("ab") if self._log else None
        try:
            return subprocess.Popen(
                [*launcher, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output or sys.stderr.fileno(),
                stderr=subprocess.STDOUT,
                process_group=0,  # a Ctrl-C in the terminal reaches the owner alone, who passes it on
            )
        finally:
            if output:
                output.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerStartError("the server was not started")
        return self._process

    def _require_alive(self) -> None:
        code = self._running().poll()
        if code is not None:
            raise ServerStartError(f"tritonserver ended with exit code {code} before it was ready{self._log_hint()}")

    def _is_up(self) -> bool:
        try:
            return self._ask("GET", "/v2/health/ready")[0] == http.HTTPStatus.OK and self._has_metrics()
        except OSError:
            return False

    def _has_metrics(self) -> bool:
        """Whether metrics can be had, which the server opens last, or are not wanted."""
        if any(argument.startswith("--allow-metrics") for argument in self._extra_args):
            return True
        connection = http.client.HTTPConnection(f"{_reachable(self.host)}:{self._ports[2]}", timeout=10)
        connection.connect()
        connection.close()
        return True

    def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        """Ask over a connection of its own, past any proxy: an open one would hold up the server's end."""
        connection = http.client.HTTPConnection(self.http_url, timeout=10)
        try:
            connection.request(method, path, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _log_hint(self) -> str:
        if self._log is None or not self._log.is_file():
            return "; its own messages are above"
        lines = self._log.read_text(errors="replace").splitlines()[-20:]
        return f"; the end of {self._log}:\n" + "\n".join(lines)


def describe_failures(models: Sequence[ModelStatus]) -> str:
    """Return one paragraph for each model that failed to load; empty if all are ready."""
    return "\n".join(f"  {model.name}: {model.reason}" for model in models if not model.is_ready)


def _status(entry: dict[str, Any]) -> ModelStatus:
    reason = str(entry.get("reason", ""))
    is_ready = entry["state"] == "READY"
    return ModelStatus(entry["name"], entry.get("version", ""), is_ready, "" if is_ready else _first_sentence(reason))


def _first_sentence(reason: str) -> str:
    """Drop Triton's wrapping and the Python traceback: an operator wants what the model said."""
    said = re.split(r"\n\s*At:\n", reason)[0]
    return (
        re.sub(r"^Internal: ((TritonModelException|ModelLoadError): )?", "", said).strip()
        or "no reason given; see the server's log"
    )


def _require_models(repository: Path) -> None:
    if not repository.is_dir():
        raise ServerStartError(f"model repository {repository}: no such folder")
    if not any(entry.is_dir() for entry in repository.iterdir()):
        raise ServerStartError(f"model repository {repository}: holds no model (a folder with a config.pbtxt)")


def _free_ports(host: str, wanted: Sequence[int]) -> list[int]:
    """Return the wanted ports, each 0 replaced by a free one; all are held at once so that none comes twice."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sockets = [socket.socket(family, socket.SOCK_STREAM) for _ in wanted]
    try:
        for port, held in zip(wanted, sockets, strict=True):
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _bind(held, host, port)
        return [int(held.getsockname()[1]) for held in sockets]
    finally:
        for held in sockets:
            held.close()


def _bind(held: socket.socket, host: str, port: int) -> None:
    try:
        held.bind((host, port))
    except OSError as error:
        raise ServerStartError(f"cannot listen on {host}:{port}: {error.strerror}; port 0 picks a free one") from error


def _reachable(host: str) -> str:
    """Return the host as a client on this machine writes it into a URL."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{host}]" if ":" in host else host


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
