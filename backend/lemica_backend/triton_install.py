"""Finds a Triton Inference Server on this machine and what its Python stub needs to run under this interpreter."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path

from lemica_backend.errors import LemicaError

STUB_NAME = "triton_python_backend_stub"
CONTAINER_EXECUTABLE = Path("/opt/tritonserver/bin/tritonserver")  # where every Triton container has it
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


class TritonNotFoundError(LemicaError):
    """There is no usable tritonserver; the message says what was looked at and what to install."""


@dataclass(frozen=True)
class TritonInstall:
    """A usable tritonserver.

    Attributes
    ----------
    executable : Path
    backends : Path
        The folder of its stock backends, ``python`` among them.
    caches : Path
        The folder of its response cache implementations; it may be absent.
    stub : Path
        The executable that runs Python models; linked to this interpreter's version.
    library_dirs : tuple of Path
        What the dynamic loader must search beside its own folders.
    """

    executable: Path
    backends: Path
    caches: Path
    stub: Path
    library_dirs: tuple[Path, ...] = ()

    def environment(self) -> dict[str, str]:
        """Return the environment in which the stub runs this interpreter, with what is installed in it.

        The stub embeds Python and looks for its home by the first ``python3`` on PATH; the
        bytecode it would write into a model folder counts as a change of the model there.
        """
        libraries = [*map(str, self.library_dirs), os.environ.get("LD_LIBRARY_PATH", "")]
        path = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        return os.environ | {
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
            "PATH": os.pathsep.join(path),
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def find_triton() -> TritonInstall:
    """Return the first usable server: on PATH, in the container's place, or in the nvidia-pytriton wheel.

    Raises
    ------
    TritonNotFoundError
        If there is none, or its Python stub does not fit this interpreter.
    """
    for executable in _standalone_executables():
        root = executable.resolve().parent.parent
        if (root / "backends" / "python" / STUB_NAME).is_file():
            return _standalone(executable, root)
    wheel = importlib.util.find_spec("pytriton")
    if wheel and wheel.origin:
        return _from_wheel(Path(wheel.origin).parent)
    raise TritonNotFoundError(
        f"no tritonserver on PATH, none at {CONTAINER_EXECUTABLE} (with its python backend), and the nvidia-pytriton "
        "wheel is not installed: run inside a Triton container, or pip install '.[server]' in a checkout of lemica"
    )


def _standalone_executables() -> Iterator[Path]:
    on_path = shutil.which("tritonserver")
    if on_path:
        yield Path(on_path)
    if CONTAINER_EXECUTABLE.is_file():
        yield CONTAINER_EXECUTABLE


def _standalone(executable: Path, root: Path) -> TritonInstall:
    stub = root / "backends" / "python" / STUB_NAME
    linked = re.search(rb"libpython(\d+\.\d+)\.so", stub.read_bytes())
    if linked and linked[1].decode() != PYTHON_VERSION:
        raise TritonNotFoundError(
            f"the Python stub of {executable} is linked to Python {linked[1].decode()}, lemica is installed in "
            f"Python {PYTHON_VERSION}: install lemica into the Python that the server uses"
        )
    return TritonInstall(executable, root / "backends", root / "caches", stub, (_libpython_dir(),))


def _from_wheel(package: Path) -> TritonInstall:
    root = package / "tritonserver"
    stub = root / "python_backend_stubs" / PYTHON_VERSION / STUB_NAME
    if not stub.is_file():
        versions = ", ".join(sorted(folder.name for folder in stub.parent.parent.glob("3.*")))
        raise TritonNotFoundError(f"the nvidia-pytriton wheel serves Python {versions}; this is {PYTHON_VERSION}")
    _require_numpy_1()
    libraries = (_libpython_dir(), package.parent / "nvidia_pytriton.libs")
    return TritonInstall(root / "bin" / "tritonserver", root / "backends", root / "caches", stub, libraries)


def _require_numpy_1() -> None:
    numpy = installed_version("numpy")
    if int(numpy.split(".")[0]) >= 2:
        raise TritonNotFoundError(
            f"numpy {numpy} is installed; under numpy 2 the wheel's server (24.10) loses every string: "
            "pip install 'numpy<2'"
        )


def _libpython_dir() -> Path:
    """Return the folder of the shared library that the stub loads: this interpreter's own where it has one."""
    name = f"libpython{PYTHON_VERSION}.so.1.0"
    for folder in _library_folders():
        if (folder / name).is_file():
            return folder
    raise TritonNotFoundError(
        f"{name} is missing: the server's Python stub loads it. On Debian and Ubuntu: apt install "
        f"libpython{PYTHON_VERSION}; a Python built from source needs --enable-shared"
    )


def _library_folders() -> list[Path]:
    libdir = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    return [libdir, libdir / multiarch, Path(sys.base_prefix) / "lib", Path("/usr/lib") / multiarch]
