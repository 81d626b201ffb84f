"""The process of an engine: it serves every front of one model on one tritonserver, and ends with them.

Started by `lemica_backend.engine_process`, as ``python -m lemica_backend.host`` with its order as JSON on stdin.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lemica_backend.config import ModelConfig
from lemica_backend.engine_place import EnginePlace, Server, remove_run_dir
from lemica_backend.errors import EngineUnavailableError, ModelLoadError
from lemica_backend.front_link import FrontLink
from lemica_backend.messages import Attach, Watched
from lemica_backend.outbox import MAX_WATCHED
from lemica_backend.server_watch import ServerWatch
from lemica_backend.watch import Watcher
from lemica_backend.wire import Connection

if TYPE_CHECKING:  # it knows torch, which is loaded when fronts can connect
    from lemica_backend.plans import ServedPlan

_LINGER_S = 2.0  # without a front; an unloaded model that comes back finds its weights
_FIRST_S = 30.0  # for the first front to say its word
_POLL_S = 0.2
_END_S = 5.0  # for the engine to close; torch may be in the middle of something
_log = logging.getLogger(__name__)


class Host:
    """One engine and its fronts.

    Parameters
    ----------
    place : EnginePlace
        Locked, while this is made, by the front that starts it.
    server : Server
    model_dir : Path
    config : ModelConfig
    """

    def __init__(self, place: EnginePlace, server: Server, model_dir: Path, config: ModelConfig) -> None:
        self._place = place
        self._config = config
        self._model_dir = model_dir
        self._server = ServerWatch(server)
        self._listener = place.listen()
        self._watched: list[Watched] = []  # ticks that are not passed on yet
        self._watched_lock = threading.Lock()
        self._lock = threading.Lock()  # of what follows
        self._engine: Any = None  # loaded for the first front
        self._links: list[FrontLink] = []
        self._plan: ServedPlan | None = None
        self._plan_since = float("-inf")
        self._idle_since = time.monotonic() + _FIRST_S
        self._told_to_end = threading.Event()
        self._drain_until: float | None = None

    def run(self) -> None:
        """Serve until nobody is left to be served."""
        threading.Thread(target=self._accept_all, name="lemica-accept", daemon=True).start()
        while not (self._server.is_gone() or self._is_done()):
            if self._is_ending():
                self._drain()
            time.sleep(_POLL_S)
        self._end()

    def _is_done(self) -> bool:
        if self._told_to_end.is_set() and self._engine and not self._has_work():
            return True
        return self._is_idle() and self._try_to_leave()

    def _drain(self) -> None:
        """Give what is accepted its time to finish; what is not predicted to need less is refused at once."""
        now, limit_s = time.monotonic(), self._config.limits.drain_s
        if self._drain_until is None:
            self._drain_until = now + limit_s
            self._refuse_what_takes_longer(limit_s)
        if now >= self._drain_until:
            self._refuse_what_takes_longer(0.0)

    def end_soon(self) -> None:
        """Finish or refuse what is accepted, as if the server ended."""
        self._told_to_end.set()

    def _accept_all(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:  # closed: the end
                return
            front = FrontLink(
                Connection(link), attach=self._attach, plan=self._served_plan, leave=self._leave, pid=os.getpid()
            )
            threading.Thread(target=front.run, name="lemica-front", daemon=True).start()

    def _attach(self, link: FrontLink, attach: Attach) -> tuple[Any, ServedPlan | None]:
        with self._lock:
            is_first = self._engine is None
            if is_first:
                self._engine = self._load(attach)
            own = None
            if attach.owns_plan:
                own = self._engine.open_plan(attach.plan_json)
            if own and attach.since >= self._plan_since:
                self._plan, self._plan_since = own, attach.since
            elif self._plan is None:
                self._plan = self._engine.open_plan(attach.plan_json)
            link.owns_plan = attach.owns_plan
            self._links.append(link)
        return self._engine, own

    def _load(self, attach: Attach) -> Any:
        from lemica_backend.engine import load_engine  # noqa: PLC0415 - seconds, after fronts can connect

        watcher = cast(Watcher, _Forwarder(self))
        try:
            return load_engine(self._model_dir, self._config, attach.plan_json, watcher=watcher)
        except ModelLoadError:
            self._idle_since = time.monotonic() - _LINGER_S  # nothing to stay for
            raise

    def _served_plan(self) -> ServedPlan:
        assert self._plan is not None  # fronts are attached after it was set
        return self._plan

    def _leave(self, link: FrontLink) -> None:
        with self._lock:
            if link in self._links:
                self._links.remove(link)
                self._idle_since = time.monotonic()

    def _is_idle(self) -> bool:
        if self._lock.locked():  # loading
            return False
        return not self._links and time.monotonic() - self._idle_since >= _LINGER_S

    def _try_to_leave(self) -> bool:
        """Stop listening, unless a front came in this moment."""
        with self._place.locked(), self._lock:
            if self._links:
                return False
            self._place.socket.unlink(missing_ok=True)
            return True

    def _is_ending(self) -> bool:
        # looks before there is work, too, or an end just after the first request would find nothing to compare with
        return self._told_to_end.is_set() or self._server.is_ending()

    def _has_work(self) -> bool:
        return any(link.groups for link in self._links)

    def _refuse_what_takes_longer(self, seconds: float) -> None:
        """Answer what is not predicted to be finished in time; what nothing is known of gets the time."""
        etas = self._engine.etas_s() if self._engine else []
        late = {id(caller) for caller, eta_s in etas if (eta_s or 0.0) >= seconds}
        for link in self._links.copy():
            for group in link.groups:
                if not seconds or any(id(caller) in late for caller in group.callers):
                    group.refuse(EngineUnavailableError("the server is shutting down; send the request to another"))

    def watch(self, method: str, *arguments: Any) -> None:
        """Pass what a watcher hears to one front: of those that own their plan, the one that is attached longest.

        Ticks wait for the next other event, which comes within a second, and do not wake the front each by itself.
        """
        with self._watched_lock:
            self._watched.append(Watched(method, arguments))
            if method == "ticked" and len(self._watched) < MAX_WATCHED:
                return
            watched, self._watched = self._watched, []
            link = next((link for link in self._links if link.owns_plan), None)
            if link:
                link.outbox.put(*watched)

    def _end(self) -> None:
        watchdog = threading.Timer(_END_S, os._exit, (1,))
        watchdog.daemon = True
        watchdog.start()
        self._listener.close()
        if self._engine is not None:
            self._engine.close()
        self._place.remove()


class _Forwarder:
    """Stands for any `Watcher`: every method passes on what it is told."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __getattr__(self, method: str) -> Any:
        return partial(self._host.watch, method)


def main() -> None:
    """Read the order, then serve."""
    logging.basicConfig(level=logging.WARNING, format="lemica engine: %(levelname)s: %(name)s: %(message)s")
    order = json.load(sys.stdin)
    server = Server(order["server_pid"], order["server_started"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the server's business
    host = Host(
        EnginePlace(Path(order["folder"])),
        server,
        Path(order["model_dir"]),
        ModelConfig.model_validate_json(order["config"]),
    )
    signal.signal(signal.SIGTERM, lambda *_: host.end_soon())
    print("listening", flush=True)  # the front that started it waits for this word
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # and then no longer
    host.run()
    if not server.is_running():
        remove_run_dir(server)


if __name__ == "__main__":
    main()
