"""Finds the process of an engine, or starts it; for fronts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lemica_backend.config import ModelConfig
from lemica_backend.engine_place import EnginePlace, Server, config_json
from lemica_backend.errors import EngineUnavailableError, LemicaError
from lemica_backend.messages import Attach, Attached, NotAttached
from lemica_backend.wire import Connection, ConnectionLostError

_ATTEMPTS = 2  # the first may meet an engine that is just leaving


@dataclass(frozen=True)
class EngineOrder:
    """Which engine a front needs.

    Attributes
    ----------
    server : Server
    model_dir : Path
        The version folder, which holds ``model.json`` and the weights.
    config : ModelConfig
    """

    server: Server
    model_dir: Path
    config: ModelConfig

    @property
    def place(self) -> EnginePlace:
        """Where the engine is, as the model's files are now."""
        return EnginePlace.of(self.server, self.model_dir, self.config)


def attach_engine(order: EngineOrder, attach: Attach) -> tuple[Connection, int]:
    """Connect to the engine, starting it if need be, and wait until it has loaded; return it and its process id.

    Raises
    ------
    LemicaError
        What the engine says: a broken model or plan, or that it cannot be started.
    """
    for _ in range(_ATTEMPTS):
        place = order.place
        with place.locked():
            try:
                connection = Connection(place.connect())
            except OSError:
                _start(order, place)
                connection = Connection(place.connect())
        try:
            return connection, _be_attached(connection, attach)
        except ConnectionLostError:
            connection.close()
        except LemicaError:
            connection.close()
            raise
    raise EngineUnavailableError("the process of the engine ended while it loaded the model; see the server's log")


def _be_attached(connection: Connection, attach: Attach) -> int:
    connection.send(attach)
    answer = connection.receive()
    if isinstance(answer, NotAttached):
        raise answer.error
    assert isinstance(answer, Attached)
    return answer.pid


def _start(order: EngineOrder, place: EnginePlace) -> None:
    """Start the process; return when it listens. It loads the model when the first front has said its word."""
    text = json.dumps(
        {
            "server_pid": order.server.pid,
            "server_started": order.server.started,
            "folder": str(place.folder),
            "model_dir": str(order.model_dir),
            "config": config_json(order.config),
        }
    )
    process = subprocess.Popen(
        [_python(), "-m", "lemica_backend.host"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        process.stdin.write(text)
        process.stdin.close()
        said = process.stdout.readline()
    if said.strip() != "listening":
        raise EngineUnavailableError(f"the engine's process ended with code {process.wait()}; see the server's log")


def _python() -> str:
    """Return the interpreter that this one is: inside Triton's stub, the one that PATH names."""
    return sys.executable or shutil.which("python3") or "python3"
