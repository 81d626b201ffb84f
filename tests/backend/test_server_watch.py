"""Whether a server ends is seen by its closed ports, in a real process."""

import subprocess
import sys

import psutil
import pytest

from lemica_backend.engine_place import Server
from lemica_backend.server_watch import ServerWatch

LISTENER = """
import socket
input()
ports = [socket.create_server(("127.0.0.1", 0))]
print("first", flush=True)
input()
ports.append(socket.create_server(("127.0.0.1", 0)))
print("second", flush=True)
input()
ports.pop().close()
print("closed", flush=True)
input()
"""


@pytest.fixture
def child():
    with subprocess.Popen([sys.executable, "-c", LISTENER], stdin=-1, stdout=-1, text=True) as child:
        yield child
        child.kill()


def go_on(child, expected):
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline().strip() == expected


def test_a_server_that_closes_a_port_is_ending(child):
    watch = ServerWatch(Server.of_pid(child.pid))
    assert not watch.is_ending()  # it may still begin to listen
    go_on(child, "first")
    go_on(child, "second")
    assert not watch.is_ending()
    go_on(child, "closed")
    assert watch.is_ending()
    assert not watch.is_gone()
    child.kill()
    child.wait()
    assert watch.is_gone()


def test_ports_that_are_opened_later_are_watched_as_well(child):
    watch = ServerWatch(Server.of_pid(child.pid))
    go_on(child, "first")
    assert not watch.is_ending()
    go_on(child, "second")
    assert not watch.is_ending()
    go_on(child, "closed")
    assert watch.is_ending()
    assert watch.is_ending()  # and goes on ending


def test_a_server_that_may_not_be_seen_is_said_once_and_never_ends(child, caplog, monkeypatch):
    def denied(self, kind):
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "net_connections", denied)
    watch = ServerWatch(Server.of_pid(child.pid))
    assert [watch.is_ending(), watch.is_ending()] == [False, False]
    assert [record.message for record in caplog.records] == [
        "cannot see where the server listens: requests may be cut off at its end"
    ]
