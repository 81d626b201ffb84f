"""Artifacts on disk: found by what they were built from, refused with the reason."""

import dataclasses
import json

import pytest

from lemica_backend.blocks.artifacts import Identity, find_artifact, write_artifact
from lemica_backend.errors import ModelLoadError

IDENTITY = Identity(
    engine="openvino",
    dtype="float32",
    precision="dtype",
    device="cpu",
    family="latte",
    weights_hash="ab" * 32,
    inputs=[[["hidden", ("rows", 8), "torch.float32"]]],
    ranges=None,
    versions={"openvino": "1.0", "torch": "2.0"},
)


def build(paths):
    for path in paths:
        path.write_bytes(path.name.encode())
    return 1e-6


@pytest.fixture
def written(tmp_path):
    return write_artifact(tmp_path, IDENTITY, ["stack0.onnx", "stack1.onnx"], build)


def test_it_is_found_as_it_was_written(tmp_path, written):
    assert find_artifact(tmp_path, IDENTITY) == written
    assert [path.read_bytes() for path in written.files] == [b"stack0.onnx", b"stack1.onnx"]
    assert written.agreement == 1e-6


@pytest.mark.parametrize(
    "change",
    [
        {"weights_hash": "cd" * 32},
        {"dtype": "float16"},
        {"precision": "int8"},
        {"inputs": [[["hidden", ("rows", 9), "torch.float32"]]]},
        {"versions": {"openvino": "1.1", "torch": "2.0"}},
        {"ranges": {"rows": (1, 4)}},
        {"family": "wan"},
        {"device": "a GPU"},
    ],
)
def test_a_stale_one_is_refused_and_what_differs_is_named(tmp_path, written, change):
    with pytest.raises(ModelLoadError, match=f"is stale: {next(iter(change))} was .*lemica compile"):
        find_artifact(tmp_path, dataclasses.replace(IDENTITY, **change))


def test_none_at_all_is_refused(tmp_path):
    with pytest.raises(ModelLoadError, match="no artifact for openvino: build one"):
        find_artifact(tmp_path / "nowhere", IDENTITY)


def test_a_foreign_one_under_its_name_is_refused(tmp_path, written):
    manifest = written.folder / "artifact.json"
    told = json.loads(manifest.read_text())
    told["identity"]["weights_hash"] = "cd" * 32
    manifest.write_text(json.dumps(told))
    with pytest.raises(ModelLoadError, match="built for something else: weights_hash was"):
        find_artifact(tmp_path, IDENTITY)


def test_a_changed_file_is_refused(tmp_path, written):
    written.files[1].write_bytes(b"stack9.onnx")
    with pytest.raises(ModelLoadError, match=r"stack1\.onnx changed after it was built"):
        find_artifact(tmp_path, IDENTITY)


def test_a_file_that_its_manifest_does_not_vouch_for_is_refused(tmp_path, written):
    manifest = written.folder / "artifact.json"
    told = json.loads(manifest.read_text())
    del told["files"]["stack1.onnx"]
    manifest.write_text(json.dumps(told))
    with pytest.raises(ModelLoadError, match=r"stack1\.onnx changed after it was built"):
        find_artifact(tmp_path, IDENTITY)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"identity": 1}'])
def test_a_broken_manifest_is_refused(tmp_path, written, text):
    (written.folder / "artifact.json").write_text(text)
    with pytest.raises(ModelLoadError, match="a broken artifact"):
        find_artifact(tmp_path, IDENTITY)


def test_a_build_that_fails_leaves_nothing_and_spares_what_is_there(tmp_path, written):
    def fail(paths):
        build(paths)
        raise ModelLoadError("too far off")

    with pytest.raises(ModelLoadError):
        write_artifact(tmp_path, IDENTITY, ["stack0.onnx"], fail)
    assert find_artifact(tmp_path, IDENTITY) == written
    assert list(tmp_path.iterdir()) == [written.folder]


def test_building_again_replaces_it(tmp_path, written):
    again = write_artifact(tmp_path, IDENTITY, ["stack0.onnx"], lambda paths: build(paths) * 2)
    assert find_artifact(tmp_path, IDENTITY) == again
    assert again.agreement == 2e-6
