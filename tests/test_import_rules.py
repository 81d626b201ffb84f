"""What each package may load; each is imported in a fresh interpreter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RULES = {
    "lemica_planner": ("torch", "tritonclient", "diffusers", "typer", "rich", "lemica_backend", "lemica_client"),
    "lemica_planner.interchange": ("torch", "tritonclient", "diffusers", "typer", "rich", "lemica_backend"),
    "lemica_planner.report_files": ("matplotlib", "torch", "tritonclient", "typer", "rich", "lemica_backend"),
    "lemica_planner.integrations": ("torch", "tritonclient", "diffusers", "typer", "rich", "lemica_backend"),
    "lemica_planner.value_history": ("torch", "diffusers", "lemica_backend"),
    "lemica_planner.integrations.step_clock": ("torch", "tritonclient", "diffusers", "lemica_backend"),
    "lemica_planner.integrations.diffusers": ("tritonclient", "typer", "lemica_backend", "lemica_client"),
    "lemica_planner.cli": ("torch", "diffusers", "lemica_backend", "lemica_client"),
    "lemica_client": ("torch", "tritonclient", "grpc", "av", "diffusers", "lemica_backend", "lemica_planner"),
    "lemica_backend": ("torch", "diffusers", "tritonclient", "lemica_client"),
    "lemica_backend.codec": ("torch", "diffusers", "tritonclient", "lemica_client"),
    "lemica_backend.engine": ("torch", "diffusers", "tritonclient", "lemica_client", "triton_python_backend_utils"),
    "lemica_backend.worker_main": ("torch", "diffusers", "tritonclient", "lemica_client"),
    "lemica_backend.replay": ("tritonclient", "lemica_client", "triton_python_backend_utils"),
}


@pytest.mark.parametrize("package", RULES)
def test_importing_loads_nothing_that_is_not_allowed(package):
    code = f"import sys, {package}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert package.partition(".")[0] in loaded
    assert not set(RULES[package]) & set(loaded)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


FORBIDDEN = {
    "lemica_planner": {"torch", "diffusers", "lemica_backend", "lemica_client"},
    "client/lemica_client": {"torch", "diffusers", "lemica_backend", "lemica_planner", "triton_python_backend_utils"},
    "backend/lemica_backend": {"tritonclient", "lemica_client", "triton_python_backend_utils"},
    "training/shapes": {"lemica_backend", "lemica_client", "lemica_planner", "tritonclient"},
}


ALLOWED = {
    "lemica_planner/integrations/diffusers.py": {"torch", "diffusers"},
    "lemica_planner/integrations/block_stack.py": {"torch"},
    "lemica_planner/integrations/stack_cache.py": {"torch"},
}  # these three files


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_file_imports_what_its_package_may_not(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {path.relative_to(ROOT).as_posix(): set(imports(path)) & FORBIDDEN[folder] for path in files}
    assert {name: wrong for name, modules in found.items() if (wrong := modules - ALLOWED.get(name, set()))} == {}


@pytest.mark.parametrize("name", ALLOWED)
def test_an_exception_is_one_that_is_used(name):
    assert set(imports(ROOT / name)) & {"torch", "diffusers"} == ALLOWED[name]


def test_only_model_py_touches_tritons_module():
    users = [
        path.relative_to(ROOT).as_posix()
        for folder in ("backend", "client", "lemica_planner", "training", "demo")
        for path in (ROOT / folder).rglob("*.py")
        if "triton_python_backend_utils" in set(imports(path))
    ]
    assert users == ["backend/model.py"]
