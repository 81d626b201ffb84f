"""The whole demo, with a real server and a model of random weights."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.demo.tiny_repository import MODEL, build_tiny_repository

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return build_tiny_repository(tmp_path_factory.mktemp("demo") / "models")


@pytest.fixture
def demo_command(repository, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\na blue square\n")
    options = {"repository": repository, "model": MODEL, "prompts": prompts, "output": tmp_path / "out"}
    command = [sys.executable, "-m", "demo"]
    return command + [text for name, value in options.items() for text in (f"--{name}", str(value))]


def start(command):
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "100"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def is_listening(address):
    host, port = address.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_a_run_ends_with_a_table_and_a_page(demo_command, tmp_path, lpips_weights):
    process = start([*demo_command, "--repeats", "2", "--numbers", "1"])
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    for budget in ("full", "slow", "medium", "fast"):
        assert re.search(rf"^{budget} +\d+/12 ", output, re.MULTILINE), output
    assert f"on this page: {tmp_path}/out/index.html" in output
    assert re.search(r"^Round 2 of 2, prompt 2 of 2: 15 of 20 done", output, re.MULTILINE), output
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert len(record["measurements"]) == 2 * 2 * 5
    assert record["facts"]["server"].startswith("triton 2.")
    assert all((tmp_path / "out" / clip["file"]).stat().st_size > 0 for clip in record["clips"])
    assert "<svg" in (tmp_path / "out" / "index.html").read_text()
    assert not is_listening(re.search(r"answers at (\S+)\.", output)[1])


def test_ctrl_c_stops_the_server(demo_command, tmp_path, lpips_weights):
    process = start([*demo_command, "--repeats", "1000"])
    said = ""
    while "Sending" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    address = re.search(r"answers at (\S+)\.", said)[1]
    assert is_listening(address)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Interrupted: the server is stopped" in output
    assert "Traceback" not in output
    assert not is_listening(address)
    assert not (tmp_path / "out" / "index.html").exists()


def test_a_model_without_a_plan_is_explained(demo_command, repository, tmp_path, lpips_weights):
    bare = tmp_path / "models"
    shutil.copytree(repository, bare)
    (bare / MODEL / "config.pbtxt").write_text('backend: "lemica"\nmax_batch_size: 4\n')
    process = start([*demo_command, "--repository", str(bare)])
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "without a cache plan" in output
    assert "Traceback" not in output
