"""The Dockerfile's install step, run into an empty folder on this machine; torch is taken from this environment."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from lemica_backend.triton_install import find_triton
from lemica_backend.triton_server import TritonServer
from lemica_backend.workspace import Workspace
from lemica_client import Client
from tests.demo.tiny_repository import MODEL, build_tiny_repository

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "install_backend.sh"
SITE_PACKAGES = sysconfig.get_paths()["purelib"]


def install(*arguments, **environment):
    command = [SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("install") / "prefix"
    outcome = install(folder, "--python", sys.executable, "--skip", "torch")
    assert outcome.returncode == 0, outcome.stderr
    assert f"{folder}/venv/bin first on PATH" in outcome.stdout
    return folder


@pytest.fixture(scope="module")
def prefix_with_torch(prefix):
    """The same with this environment's packages behind its own, as ``--skip torch`` means it."""
    (site_packages_of(prefix) / "after_all_others.pth").write_text(SITE_PACKAGES)
    return prefix


def site_packages_of(prefix):
    return next((prefix / "venv" / "lib").glob("python3.*/site-packages"))


def run_python(prefix, program):
    command = [prefix / "venv" / "bin" / "python", "-I", "-c", program]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.split()


def test_the_new_environment_alone_imports_the_backend(prefix):
    program = "import lemica_backend, numpy; print(lemica_backend.__file__, numpy.__version__)"
    file, numpy = run_python(prefix, program)
    assert Path(file).is_relative_to(prefix)
    assert numpy.startswith("1.")


def test_nothing_else_is_left_behind(prefix):
    assert sorted(entry.name for entry in prefix.iterdir()) == ["backends", "venv"]
    assert not (site_packages_of(prefix) / "torch").exists()
    readable = [prefix / "venv", site_packages_of(prefix), prefix / "backends" / "lemica"]
    assert all(folder.stat().st_mode & 0o555 == 0o555 for folder in readable)


def test_the_backend_folder_holds_the_model_file(prefix):
    installed = prefix / "backends" / "lemica" / "model.py"
    assert installed.read_bytes() == (ROOT / "backend" / "model.py").read_bytes()
    assert installed.stat().st_mode & 0o777 == 0o644


def test_with_torch_added_everything_else_is_the_environments_own(prefix_with_torch):
    program = (
        "import sys, torch, diffusers, transformers, safetensors, pydantic, av, lemica_planner, lemica_backend.engine\n"
        "print(*(module.__file__ for name, module in sys.modules.items() if name in "
        "('torch', 'diffusers', 'transformers', 'safetensors', 'pydantic', 'av', 'numpy', 'lemica_planner', "
        "'lemica_backend.engine')))"
    )
    files = run_python(prefix_with_torch, program)
    foreign = [file for file in files if not Path(file).is_relative_to(prefix_with_torch)]
    assert len(files) == 9
    assert [Path(file).parent.name for file in foreign] == ["torch"]


@pytest.mark.server
def test_a_server_with_that_backend_folder_serves(prefix_with_torch, tmp_path, monkeypatch):
    """As in the container: the server's own backends, lemica's folder among them, and the environment on PATH."""
    backends = tmp_path / "backends"
    make_backend_folder(backends, prefix_with_torch)
    repository = build_tiny_repository(tmp_path / "models")
    monkeypatch.setattr(Workspace, "make_backends", lambda *_: backends)
    monkeypatch.setattr(sys, "executable", str(prefix_with_torch / "venv" / "bin" / "python"))
    with TritonServer(repository) as server:
        server.wait_ready(timeout_s=120)
        video = Client(server.grpc_url, model=MODEL).generate("a red circle", seed=1, budget="fast")
        loaded = [line for process in processes_of(server.pid) for line in maps_of(process) if "/numpy/" in line]
    assert video.frames.shape[3] == 3
    assert len(video.info["computed_steps"]) < video.info["num_inference_steps"]
    assert loaded
    assert all(str(prefix_with_torch) in line for line in loaded)


def make_backend_folder(backends, prefix):
    """Copy, because Triton refuses a backend's library that is a link out of its folder."""
    triton = find_triton()
    shutil.copytree(triton.backends / "python", backends / "python")
    shutil.copy2(triton.stub, backends / "python" / triton.stub.name)
    shutil.copytree(prefix / "backends" / "lemica", backends / "lemica")


def processes_of(group):
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and is_in(entry, group)]


def is_in(process, group):
    try:
        return os.getpgid(int(process.name)) == group
    except ProcessLookupError:
        return False


def maps_of(process):
    return Path(f"/proc/{process}/maps").read_text().splitlines()


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "something").touch()
    outcome = install(tmp_path)
    assert outcome.returncode == 1
    assert "is not empty" in outcome.stderr


def test_a_failed_install_leaves_the_folder_empty(tmp_path):
    outcome = install(tmp_path, "--python", sys.executable, PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)
    assert outcome.returncode != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [((), 2, "usage:"), (("--frobnicate",), 1, "unknown option"), (("a", "b"), 1, "one PREFIX only")],
)
def test_a_wrong_command_line_is_explained(arguments, status, message):
    outcome = install(*arguments)
    assert outcome.returncode == status
    assert message in outcome.stderr
