"""A client machine has numpy and what it talks with: importing must ask for nothing else."""

import subprocess
import sys
from types import ModuleType

import pytest

import lemica_client

HEAVY = (
    "torch",
    "grpc",
    "tritonclient",
    "gevent",
    "av",
    "typer",
    "rich",
    "diffusers",
    "transformers",
    "lemica_backend",
    "aiohttp",
    "gradio",
    "tqdm",
)


def loaded_by(statement):
    program = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_import_loads_numpy_and_nothing_heavy():
    loaded = loaded_by("import lemica_client")
    assert "numpy" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", ["Client", "AsyncClient"])
@pytest.mark.parametrize(("url", "unwanted"), [("grpc://127.0.0.1:1", "gevent"), ("http://127.0.0.1:1", "grpc")])
def test_a_client_loads_its_own_protocol_only(name, url, unwanted):
    loaded = loaded_by(f"import lemica_client; lemica_client.{name}({url!r})")
    assert "tritonclient" in loaded
    assert loaded.isdisjoint({unwanted, "torch", "av", "lemica_backend", "lemica_planner"})


def test_the_command_line_loads_no_backend():
    loaded = loaded_by("import lemica_client.cli")
    assert loaded.isdisjoint({"torch", "grpc", "tritonclient", "av", "lemica_backend", "lemica_planner"})


def test_all_names_what_is_public():
    public = {
        name for name, value in vars(lemica_client).items() if not isinstance(value, ModuleType) and name[0].isalpha()
    }
    assert set(lemica_client.__all__) == public
