"""``lemica serve`` as a process: it reports, passes signals on and leaves nothing behind."""

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

from tests.server import repository
from tests.server.callers import Caller

pytestmark = pytest.mark.server
COMMAND = [str(Path(sys.executable).parent / "lemica"), "serve"]
ANY_PORTS = ["--http-port=0", "--grpc-port=0", "--metrics-port=0"]


class Serve:
    """A running ``lemica serve`` with a temporary folder of its own, and a mark by which to find its processes."""

    def __init__(self, folder, models, *options):
        self.tmp, self.mark = folder / "tmp", f"LEMICA_TEST={uuid.uuid4().hex}"
        self.tmp.mkdir()
        self.stderr_file = folder / "stderr"
        name, value = self.mark.split("=")
        with self.stderr_file.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*COMMAND, f"--model-repository={models}", *ANY_PORTS, *options],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=os.environ | {name: value, "TMPDIR": str(self.tmp)},
            )

    def wait_ready(self):
        """Read stdout up to the last line of the report; keep the addresses."""
        self.report = ""
        for line in self.process.stdout:
            self.report += line
            if "models" in line:
                break
        else:
            raise AssertionError(f"it ended: {self.stderr}")
        self.http_url = re.search(r"HTTP +http://(\S+)", self.report)[1]
        self.grpc_url = re.search(r"gRPC +(\S+)", self.report)[1]
        self.metrics_url = re.search(r"metrics +(\S+)", self.report)[1]

    @property
    def stderr(self):
        return self.stderr_file.read_text()

    def end(self, signum):
        self.process.send_signal(signum)
        return self.process.wait(60)

    def processes(self):
        """The command lines of every process that inherited the mark."""
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in environment.read_bytes():
                    found.append(environment.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # gone, or not ours
                continue
        return [command for command in found if command]  # a zombie has none

    def left_over(self):
        shared_memory = [path.name for path in Path("/dev/shm").iterdir() if self._is_ours(path)]
        return self.processes(), [path.name for path in self.tmp.iterdir()], shared_memory

    def _is_ours(self, path):
        return any(path.name.startswith(folder) for folder in self._folders)

    def remember_folders(self):
        self._folders = [path.name for path in self.tmp.iterdir()]
        assert self._folders


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("echo")
    repository.make_echo(folder / "echo")
    return folder


@pytest.fixture
def serve(tmp_path):
    started = []

    def serve(models, *options):
        started.append(Serve(tmp_path, models, *options))
        return started[-1]

    yield serve
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGTERM)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda signum: signum.name)
def test_signal_ends_it_and_nothing_is_left(serve, echo, signum):
    served = serve(echo)
    served.wait_ready()
    served.remember_folders()
    assert any("tritonserver" in command for command in served.processes())
    assert any("stub" in command for command in served.processes())
    assert served.end(signum) == 0
    assert served.left_over() == ([], [], [])


def test_report_names_what_is_served_and_where(serve, echo):
    served = serve(echo)
    served.wait_ready()
    assert "echo (version 1)" in served.report
    for url in (f"http://{served.http_url}/v2/health/ready", served.metrics_url):
        with urllib.request.urlopen(url, timeout=10) as response:
            assert response.status == 200
    with socket.create_connection(served.grpc_url.split(":"), timeout=10):
        pass


def test_killed_owner_takes_the_server_with_it_and_the_next_start_cleans_up(serve, echo, tmp_path):
    killed = serve(echo)
    killed.wait_ready()
    killed.remember_folders()
    killed.end(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while killed.processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert killed.processes() == []
    environment = os.environ | {"TMPDIR": str(killed.tmp)}
    subprocess.run(
        [*COMMAND, f"--model-repository={echo}", *ANY_PORTS, "--", "--no-such-option"], env=environment, check=False
    )
    assert killed.left_over() == ([], [], [])


def test_running_request_finishes_before_the_end(serve, tmp_path):
    repository.make_model(tmp_path / "models" / "tiny")
    served = serve(tmp_path / "models")
    served.wait_ready()
    served.remember_folders()
    caller, answers = Caller("grpc", served), queue.Queue()
    tensors = caller.tensors(prompt="a", num_inference_steps=100)
    caller.client.async_infer("tiny", tensors, lambda result, error: answers.put(error or result))
    time.sleep(0.5)
    assert served.end(signal.SIGTERM) == 0
    assert json.loads(answers.get(timeout=1).as_numpy("info")[0, 0])["num_inference_steps"] == 100
    caller.close()
    assert served.left_over() == ([], [], [])


@pytest.fixture(scope="module")
def half_broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half_broken")
    repository.make_echo(folder / "echo")
    repository.make_model(folder / "broken", settings='{"fps": 0}')
    return folder


def test_broken_model_is_reported_in_one_block_and_the_other_served(serve, half_broken):
    served = serve(half_broken)
    served.wait_ready()
    assert "echo (version 1)" in served.report
    time.sleep(0.2)
    said = served.stderr.split("lemica serve: these models failed to load; the others serve:\n")[1]
    assert re.match(r"  broken: /\S+/model\.json: fps: got 0; Input should be greater than or equal to 1\n", said)
    assert served.end(signal.SIGTERM) == 0


def test_strict_ends_it_when_a_model_is_broken(serve, half_broken):
    served = serve(half_broken, "--strict")
    assert served.process.wait(60) == 1
    assert "a model failed to load, and --strict was given" in served.stderr
    assert served.processes() == []
    assert list(served.tmp.iterdir()) == []


def test_nothing_to_serve_ends_it_with_the_reason(serve, tmp_path):
    repository.make_model(tmp_path / "models" / "broken", settings='{"fps": 0}')
    served = serve(tmp_path / "models")
    assert served.process.wait(60) == 1
    assert "lemica serve: no model could be loaded:\n  broken: " in served.stderr
    assert list(served.tmp.iterdir()) == []


def test_missing_repository_and_taken_port_are_said_at_once(serve, echo, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = run(f"--model-repository={echo}", f"--http-port={port}")
    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr
    assert (
        f"model repository {tmp_path / 'none'}: no such folder" in run(f"--model-repository={tmp_path / 'none'}").stderr
    )


def test_argument_that_triton_does_not_know_ends_it(echo):
    refused = run(f"--model-repository={echo}", *ANY_PORTS, "--", "--no-such-option")
    assert refused.returncode == 1
    assert "tritonserver ended with exit code" in refused.stderr


def run(*options):
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=60, check=False)
