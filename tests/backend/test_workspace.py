"""The server's temporary folder: complete, private, and gone afterwards, also when its owner was killed."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lemica_backend import workspace
from lemica_backend.triton_install import STUB_NAME, TritonInstall
from lemica_backend.workspace import Workspace


@pytest.fixture(autouse=True)
def private_folders(monkeypatch, tmp_path):
    for name in ("tmp", "shm"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(workspace, "_SHARED_MEMORY", tmp_path / "shm")
    return tmp_path


def left_over(private_folders):
    return [path.name for name in ("tmp", "shm") for path in (private_folders / name).iterdir()]


def make_install(root):
    for name in (
        "lemica/model.py",
        f"python/{STUB_NAME}",
        "python/libtriton_python.so",
        "python/__pycache__/x",
        "onnxruntime/lib.so",
    ):
        path = root / "backends" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("stock")
    stub = root / "stubs" / STUB_NAME
    stub.parent.mkdir()
    stub.write_text("for this Python")
    return TritonInstall(root / "tritonserver", root / "backends", root / "caches", stub)


def test_backends_are_the_servers_own_and_lemica(tmp_path):
    with Workspace() as space:
        backends = space.make_backends(make_install(tmp_path / "triton"))
        assert {entry.name for entry in backends.iterdir()} == {"python", "onnxruntime", "lemica"}
        assert (backends / "onnxruntime" / "lib.so").read_text() == "stock"
        assert (backends / "python" / STUB_NAME).read_text() == "for this Python"
        assert not (backends / "python" / "libtriton_python.so").is_symlink()
        assert not (backends / "python" / "__pycache__").exists()
        assert "class TritonPythonModel" in (backends / "lemica" / "model.py").read_text()


def test_nothing_is_left(private_folders):
    with Workspace() as space:
        (private_folders / "shm" / f"{space.shm_prefix}0123").touch()
        assert len(left_over(private_folders)) == 2
    assert left_over(private_folders) == []


def test_start_removes_what_a_killed_owner_left_and_spares_the_living(private_folders):
    leave = "import os, lemica_backend.workspace as w; print(w.Workspace().folder, flush=True); os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", leave], capture_output=True, text=True, check=False)
    abandoned = Path(killed.stdout.strip())
    assert abandoned.is_dir()
    (private_folders / "shm" / f"{abandoned.name}0123").touch()
    (private_folders / "shm" / "of_somebody_else").touch()
    with Workspace() as first, Workspace() as second:
        assert not abandoned.exists()
        assert first.folder.is_dir()
        assert second.folder.is_dir()
    assert left_over(private_folders) == ["of_somebody_else"]


def test_links_are_not_followed(private_folders):
    target = private_folders / "precious"
    target.mkdir()
    (private_folders / "tmp" / "lemica-serve-trap").symlink_to(target)
    Workspace().close()
    assert list(target.iterdir()) == []
