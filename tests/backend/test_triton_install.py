"""Which tritonserver is taken, and what is said when none fits."""

import os
import sys
from pathlib import Path

import pytest

from lemica_backend import triton_install
from lemica_backend.triton_install import PYTHON_VERSION, STUB_NAME, TritonNotFoundError, find_triton


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No tritonserver on PATH, none in the container's place, no wheel: each test adds what it needs."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(triton_install, "CONTAINER_EXECUTABLE", tmp_path / "opt" / "bin" / "tritonserver")
    monkeypatch.setattr(triton_install.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(triton_install, "_library_folders", lambda: [make_libpython(tmp_path / "lib")])


def make_libpython(folder):
    folder.mkdir(exist_ok=True)
    (folder / f"libpython{PYTHON_VERSION}.so.1.0").touch()
    return folder


def make_server(root, python=PYTHON_VERSION):
    executable = root / "bin" / "tritonserver"
    stub = root / "backends" / "python" / STUB_NAME
    for path in (executable, stub):
        path.parent.mkdir(parents=True)
        path.touch(0o755)
    stub.write_bytes(b"\x7fELF\0libpython" + python.encode() + b".so.1.0\0")
    return executable


def test_server_on_path_comes_first(monkeypatch, tmp_path):
    on_path, in_container = make_server(tmp_path / "mine"), make_server(tmp_path / "opt")
    assert find_triton().executable == in_container
    monkeypatch.setenv("PATH", str(on_path.parent))
    install = find_triton()
    assert install.executable == on_path
    assert install.backends == tmp_path / "mine" / "backends"
    assert install.stub.name == STUB_NAME


def test_link_on_path_leads_to_the_servers_own_folder(monkeypatch, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "tritonserver").symlink_to(make_server(tmp_path / "mine"))
    monkeypatch.setenv("PATH", str(tmp_path / "links"))
    assert find_triton().backends == tmp_path / "mine" / "backends"


def test_server_without_a_python_backend_is_passed_over(monkeypatch, tmp_path):
    incomplete = make_server(tmp_path / "mine")
    (tmp_path / "mine" / "backends" / "python" / STUB_NAME).unlink()
    monkeypatch.setenv("PATH", str(incomplete.parent))
    with pytest.raises(TritonNotFoundError, match=r"pip install '\.\[server\]' in a checkout of lemica"):
        find_triton()
    in_container = make_server(tmp_path / "opt")
    assert find_triton().executable == in_container


def test_stub_of_another_python_is_refused(tmp_path):
    make_server(tmp_path / "opt", python="3.99")
    with pytest.raises(TritonNotFoundError, match=r"linked to Python 3\.99, lemica is installed in Python 3\."):
        find_triton()


def test_missing_libpython_is_named_with_the_remedy(monkeypatch, tmp_path):
    make_server(tmp_path / "opt")
    monkeypatch.setattr(triton_install, "_library_folders", lambda: [tmp_path])
    with pytest.raises(TritonNotFoundError, match=f"apt install libpython{PYTHON_VERSION}"):
        find_triton()


def test_the_stub_gets_this_interpreter_and_its_libraries(monkeypatch, tmp_path):
    make_server(tmp_path / "opt")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/before")
    environment = find_triton().environment()
    assert environment["LD_LIBRARY_PATH"].split(os.pathsep) == [str(tmp_path / "lib"), "/before"]
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert find_triton().environment()["LD_LIBRARY_PATH"] == str(tmp_path / "lib")
