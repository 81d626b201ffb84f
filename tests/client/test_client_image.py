"""What callers give as an image, as it is sent."""

import base64
import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lemica_client import Client, InvalidRequestError
from lemica_client.cli import app
from lemica_client.protocol import build_inputs
from lemica_client.sse import stream_body

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
FILE = b"any bytes: \xff\x00"


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.png").write_bytes(FILE)
    return tmp_path / "a.png"


def sent(transport):
    return [tensors["image"].array.item() for _, tensors, _, _ in transport.requests]


def test_a_path_and_bytes_are_sent_as_they_are(path, make_transport):
    transport = make_transport()
    with Client("grpc://here:1", transport=transport) as client:
        for image in (path, str(path), FILE, bytearray(FILE)):
            client.generate("a cat", image=image)
        client.generate("a cat", image=None)
        assert "image" not in transport.requests.pop()[1]
    assert sent(transport) == [FILE] * 4


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[::-1, ::2], np.zeros((1, 1, 3), np.uint8)])
def test_pixels_become_a_png_of_just_these(pixels, make_transport):
    transport = make_transport()
    with Client("grpc://here:1", transport=transport) as client:
        client.generate("a cat", image=pixels)
    picture = Image.open(BytesIO(sent(transport)[0]), formats=["PNG"])
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("none.png", "image: none.png cannot be read"),
        (5, "image: got int; allowed are a path, bytes and a numpy array"),
        (PIXELS / 255, r"image: got an array \[5, 7, 3\] of float64; allowed is \[height, width, 3\] of uint8"),
        (PIXELS[..., :2], r"\[5, 7, 2\] of uint8"),
        (PIXELS[:0], r"\[0, 7, 3\]"),
        (PIXELS[0], r"\[7, 3\]"),
    ],
)
def test_what_is_no_image_is_refused_before_anything_is_sent(image, says, make_transport):
    transport = make_transport()
    with Client("grpc://here:1", transport=transport) as client, pytest.raises(InvalidRequestError, match=says):
        client.generate("a cat", image=image)
    assert not transport.requests


def test_a_stream_over_http_carries_it_as_base64():
    body = json.loads(stream_body(build_inputs({"prompt": "a cat", "image": FILE})))
    assert base64.b64decode(body["image"], validate=True) == FILE
    assert body["file_encoding"] == "base64"


def test_the_command_line_names_a_file(path, make_transport, monkeypatch):
    transport = make_transport()
    monkeypatch.setattr("lemica_client.client.open_transport", lambda url: transport)
    monkeypatch.chdir(path.parent)
    done = CliRunner().invoke(app, ["generate", "a cat", "--image", "a.png"])
    assert done.exit_code == 0, done.output
    assert sent(transport) == [FILE]
    done = CliRunner().invoke(app, ["generate", "a cat", "--image", "b.png"])
    assert done.exit_code == 2
    assert "b.png cannot be read" in done.output
