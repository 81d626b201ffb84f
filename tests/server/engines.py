"""The processes of engines, as a test sees them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil
import pytest

from lemica_backend.config import load_config
from lemica_backend.engine_place import RUN_DIR_VARIABLE, Server
from lemica_backend.engine_process import EngineOrder
from lemica_backend.front import Front


def engine_pids(server):
    """Return the engines of a server: they are in its process group."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == server.pid and "lemica_backend.host" in process.cmdline():
                found.append(process.pid)
    return found


@contextlib.contextmanager
def attached(server, version, watcher=None, plan_json=None):
    """Attach to the engine of a model, as one more front; with a plan, as one that owns it."""
    environment = dict(
        entry.split("=", 1) for entry in Path(f"/proc/{server.pid}/environ").read_text().split("\0") if "=" in entry
    )
    config = load_config(version / "model.json").model_copy(update={"device": "auto"})  # as instances without a GPU do
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUN_DIR_VARIABLE, environment[RUN_DIR_VARIABLE])
        front = Front(
            EngineOrder(Server.of_pid(server.pid), version, config),
            plan_json=plan_json,
            owns_plan=plan_json is not None,
            watcher=watcher,
        )
    try:
        yield front
    finally:
        front.close()


def wait_until(is_true, timeout_s=60):
    """Wait; True if it came to pass."""
    deadline = time.monotonic() + timeout_s
    while not (found := is_true()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(found)
