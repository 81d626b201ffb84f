"""A block engine behind a real server: its artifact comes from ``lemica compile``, its videos are the eager ones."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lemica_backend.triton_server import TritonServer
from tests.server import repository
from tests.server.callers import Caller
from tests.server.scrape import scrape_until

pytest.importorskip("openvino", reason="the extra `engines` is not installed")
pytest.importorskip("onnx", reason="the extra `engines` is not installed")
pytestmark = pytest.mark.server
COMMAND = [str(Path(sys.executable).parent / "lemica"), "compile"]
TEXT_TOKENS = 24  # bytes, for the tiny tokenizer
LONG = "a prompt with more bytes than that"


def make_engine(folder, **blocks):
    settings = {"engine": "openvino", "max_text_tokens": TEXT_TOKENS} | blocks
    repository.make_model(folder, settings={"blocks": settings})


def change_weights(folder):
    """Other weights than those that the artifact was built from."""
    (tensors,) = (folder / "1" / "weights" / "transformer").glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\1")


@pytest.fixture(scope="module")
def blocks_server(tmp_path_factory):
    """One model for each engine and state of its artifact."""
    models = tmp_path_factory.mktemp("blocks")
    repository.make_model(models / "eager")
    make_engine(models / "openvino")
    subprocess.run([*COMMAND, str(models / "openvino")], check=True, timeout=600)
    for name, blocks in (("stale", {}), ("spared", {"required": False})):
        make_engine(models / name, **blocks)
        shutil.copytree(models / "openvino" / "1" / "blocks", models / name / "1" / "blocks")
        change_weights(models / name)
    make_engine(models / "missing")
    with TritonServer(models, log=tmp_path_factory.mktemp("log") / "server.log") as server:
        server.wait_ready(timeout_s=300)
        yield server


@pytest.fixture(scope="module")
def blocks_caller(blocks_server):
    caller = Caller("grpc", blocks_server)
    yield caller
    caller.close()


def made(caller, model, **request):
    """Return a request's frames and info."""
    answer = caller.infer(model, outputs=("video", "info"), **request)
    return answer.as_numpy("video").astype(int), [json.loads(row) for row in answer.as_numpy("info")[:, 0]]


def fallback_rows(scrape):
    rows = scrape.by("lemica_block_fallback_rows_total", "reason", model="openvino")
    return rows.get(("out_of_range",), 0)


@pytest.mark.parametrize(
    "request_", [{"prompt": "a cat", "seed": 7}, {"prompt": ["a cat", "a big dog"], "seed": [7, 8]}], ids=["one", "two"]
)
def test_videos_are_those_of_the_eager_engine_and_info_says_who_computed_them(blocks_caller, request_):
    theirs, told_theirs = made(blocks_caller, "eager", **request_)
    ours, told = made(blocks_caller, "openvino", **request_)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1
    assert theirs.std() > 10
    assert {info["block_engine"] for info in told} == {"openvino"}
    assert {info["block_engine"] for info in told_theirs} == {"eager"}


def test_texts_that_it_was_not_built_for_are_made_eagerly_and_counted(blocks_server, blocks_caller):
    before = fallback_rows(scrape_until(blocks_server, lambda _: True))
    ours, _ = made(blocks_caller, "openvino", prompt=LONG, seed=7)
    theirs, _ = made(blocks_caller, "eager", prompt=LONG, seed=7)
    assert np.array_equal(ours, theirs)
    rows = repository.STEPS * 2  # guidance takes two in each step
    scrape_until(blocks_server, lambda scrape: fallback_rows(scrape) - before == rows)


def test_a_model_whose_artifact_is_stale_or_missing_does_not_load_and_says_why(blocks_server):
    reasons = {model.name: model.reason for model in blocks_server.models() if not model.is_ready}
    assert reasons.keys() == {"stale", "missing"}
    for name, why in (("stale", "is stale: weights_hash was"), ("missing", "no artifact for openvino")):
        assert why in reasons[name]
        assert "build one with `lemica compile`" in reasons[name]


def test_where_the_engine_is_not_required_the_eager_one_serves(blocks_caller):
    _, (info,) = made(blocks_caller, "spared", prompt="a cat", seed=7)
    assert info["block_engine"] == "eager"
