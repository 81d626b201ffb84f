"""The client against a real Triton server with the `lemica` backend, over gRPC and HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from lemica_client import (
    Client,
    InvalidRequestError,
    ModelNotFoundError,
    RequestCancelledError,
    RequestTimeoutError,
    ServerUnavailableError,
)
from tests.client.ctrl_c import press_ctrl_c
from tests.client.repository import FAST_STEPS, NUM_STEPS

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]
FRAMES, SIZE = 16, 48  # of the tiny model
LONG = 1000  # steps that nobody waits for in these tests


@pytest.fixture
def client(url):
    with Client(url, timeout_s=120) as client:
        client.wait_until_ready()
        yield client


@pytest.fixture
def grpc_client(server):
    with Client(server.grpc_url, timeout_s=120) as client:
        yield client


def run(*command, cwd):
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, check=False, cwd=cwd, capture_output=True, text=True, timeout=120)


def count_frames(path):
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_prompt_becomes_frames_and_an_account_of_them(client):
    video = client.generate("a red circle", seed=5)
    assert (video.frames.shape, video.frames.dtype) == ((FRAMES, SIZE, SIZE, 3), np.uint8)
    assert (video.info["seed"], video.info["budget"], video.fps) == (5, "full", 8.0)
    assert video.info["computed_steps"] == list(range(NUM_STEPS))


def test_both_protocols_give_the_same_video(server):
    with Client(f"grpc://{server.grpc_url}") as grpc, Client(f"http://{server.http_url}") as http:
        over_grpc, over_http = (each.generate("Größe \N{CAT FACE}", seed=11).frames for each in (grpc, http))
        np.testing.assert_array_equal(over_grpc, over_http)
        assert not np.array_equal(over_grpc, grpc.generate("Größe \N{CAT FACE}", seed=12).frames)


@pytest.mark.parametrize("budget", ["fast", len(FAST_STEPS), str(len(FAST_STEPS))])
def test_a_budget_is_a_name_or_a_number(client, budget):
    info = client.generate("x", budget=budget).info
    assert (info["computed_steps"], info["budget"]) == (FAST_STEPS, str(budget))


def test_the_plan_is_the_one_that_the_server_uses(client):
    plan = client.plan()
    assert plan["names"] == {"fast": len(FAST_STEPS)}
    assert plan["entries"][str(len(FAST_STEPS))]["steps"] == FAST_STEPS
    assert client.model_config()["max_batch_size"] == 4


def test_every_option_reaches_the_server(client, tmp_path):
    video = client.generate(
        "a cat",
        negative_prompt="blur",
        seed=2**62,
        guidance_scale=1.5,
        num_inference_steps=NUM_STEPS,
        height=SIZE,
        width=SIZE,
        num_frames=FRAMES,
        budget="fast",
        deadline_ms=60_000,
        priority=3,
        file_format="mp4",
    )
    assert (video.info["seed"], video.info["guidance_scale"]) == (2**62, 1.5)
    assert count_frames(video.save(tmp_path / "server.mp4")) == FRAMES
    assert (tmp_path / "server.mp4").read_bytes() == video.file_bytes
    assert count_frames(video.save(tmp_path / "here.gif")) == FRAMES


@pytest.mark.parametrize(("file_format", "magic"), [("mp4", b"ftyp"), ("gif", b"GIF89a"), ("webp", b"WEBP")])
def test_the_server_encodes_every_format(client, file_format, magic):
    video = client.generate("x", budget="fast", file_format=file_format, want_frames=False)
    assert magic in video.file_bytes[:16]
    assert "file only" in repr(video)


@pytest.mark.parametrize(
    "options",
    [
        {"budget": "no-such-name"},
        {"budget": NUM_STEPS + 1},
        {"num_inference_steps": 0},
        {"budget": "fast", "num_inference_steps": NUM_STEPS + 1},
        {"height": SIZE + 2},
        {"num_frames": 1},
        {"guidance_scale": float("nan")},
        {"guidance_scale": 1e300},
        {"seed": -1},
        {"negative_prompt": "x" * 2**20},
    ],
    ids=repr,
)
def test_what_the_server_refuses_is_an_invalid_request(client, options):
    with pytest.raises(InvalidRequestError) as caught:
        client.generate("x", **options)
    assert caught.value.status in ("StatusCode.INVALID_ARGUMENT", "400")
    assert client.generate("x", budget="fast").info["computed_steps"] == FAST_STEPS


def test_a_model_that_is_not_there(url):
    with Client(url, model="no_such_model") as client:
        for ask in (lambda: client.generate("x"), client.plan):
            with pytest.raises(ModelNotFoundError):
                ask()
        with pytest.raises(ServerUnavailableError, match="no_such_model"):
            client.wait_until_ready(0.5)


def test_a_deadline_that_cannot_be_met_is_unavailable(client):
    with pytest.raises(ServerUnavailableError):
        client.generate("x", num_inference_steps=LONG, deadline_ms=50)


def test_one_client_serves_many_threads(client):
    alone = [client.generate("x", seed=seed, budget="fast").frames for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: client.generate("x", seed=seed, budget="fast").frames, range(4)))
    np.testing.assert_array_equal(together, alone)


# The model runs one request at a time, so a short one that follows a given-up long one shows in its own waiting time
# whether the server still works on the other.


def remaining_ms(client):
    """Return about how long the `LONG` request would hold the server, by the pace of a short one."""
    info = client.generate("x", num_inference_steps=20).info
    return LONG * np.median([milliseconds for milliseconds, _ in info["step_ms"]])


def assert_server_is_free(client, held_ms):
    assert client.generate("x", num_inference_steps=2).info["timings_ms"]["queue"] < held_ms / 2


def test_a_time_limit_frees_the_server(client):
    held_ms = remaining_ms(client)
    start = time.monotonic()
    with pytest.raises(RequestTimeoutError):
        client.generate("x", num_inference_steps=LONG, timeout_s=0.5)
    assert 0.4 < time.monotonic() - start < 5
    assert_server_is_free(client, held_ms)


def executions(server):
    with urllib.request.urlopen(f"http://{server.http_url}/v2/models/latte_shapes/stats", timeout=10) as response:
        return json.load(response)["model_stats"][0]["execution_count"]


def wait_for_another_execution(server, before):
    give_up_at = time.monotonic() + 60
    while executions(server) == before:
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    time.sleep(0.2)


def test_close_cancels_what_other_threads_wait_for(server, grpc_client):
    held_ms, before = remaining_ms(grpc_client), executions(server)
    with ThreadPoolExecutor(1) as pool, Client(server.grpc_url) as other:
        waiting = pool.submit(other.generate, "x", num_inference_steps=LONG)
        threading.Thread(target=lambda: (wait_for_another_execution(server, before), other.close())).start()
        with pytest.raises(RequestCancelledError):
            waiting.result(60)
    assert_server_is_free(grpc_client, held_ms)


def test_ctrl_c_cancels_the_request_and_leaves_the_client_usable(server, grpc_client):
    held_ms, before = remaining_ms(grpc_client), executions(server)
    threading.Thread(target=lambda: (wait_for_another_execution(server, before), press_ctrl_c())).start()
    with Client(server.grpc_url) as other:  # kept alive, so that it is not garbage collection that cancels
        with pytest.raises(KeyboardInterrupt):
            other.generate("x", num_inference_steps=LONG)
        assert_server_is_free(grpc_client, held_ms)
        assert other.generate("x", budget="fast").info["computed_steps"] == FAST_STEPS


def test_ctrl_c_in_the_command_line_frees_the_server(server, grpc_client, tmp_path):
    held_ms, before = remaining_ms(grpc_client), executions(server)
    command = ["-m", "lemica_client", "generate", "x", "--num-inference-steps", str(LONG), "--url", server.grpc_url]
    with subprocess.Popen([sys.executable, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        wait_for_another_execution(server, before)
        os.kill(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "cancelled\n")
    assert_server_is_free(grpc_client, held_ms)
    assert not list(tmp_path.iterdir())


def test_the_command_line_makes_a_video(url, tmp_path):
    command = ["-m", "lemica_client", "generate", "a red circle", "--url", url, "--seed", 3, "--budget", "fast"]
    done = run(*command, "-o", "circle.gif", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert count_frames(tmp_path / "circle.gif") == FRAMES
    assert f"{len(FAST_STEPS)} of {NUM_STEPS}" in done.stdout


def test_the_command_line_reports_a_refusal_in_one_line(url, tmp_path):
    done = run("-m", "lemica_client", "generate", "x", "--url", url, "--budget", "slowest", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "slowest" in done.stderr


def test_the_command_line_shows_the_plan(url, tmp_path):
    done = run("-m", "lemica_client", "plan", "--url", url, cwd=tmp_path)
    assert (done.returncode, "fast" in done.stdout) == (0, True)


def test_the_example_with_our_client(url, tmp_path):
    done = run(ROOT / "examples/generate.py", "a red circle", "--url", url, "--budget", "fast", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert count_frames(tmp_path / "video.mp4") == FRAMES


def test_the_example_without_our_code(server, tmp_path):
    program = ROOT / "examples/plain_tritonclient.py"
    done = run(program, "a red circle", "--url", server.grpc_url, "--budget", "fast", "--seed", 3, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["computed_steps"] == FAST_STEPS
    assert "step_ms" not in printed
    assert count_frames(tmp_path / "video.mp4") == FRAMES
    done = run(program, "a red circle", "--url", server.grpc_url, "--budget", "slowest", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.match("error: .*slowest", done.stderr)


def test_the_example_without_our_code_says_that_there_is_no_server(unused_port, tmp_path):
    program = ROOT / "examples/plain_tritonclient.py"
    done = run(program, "a red circle", "--url", f"127.0.0.1:{unused_port}", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
