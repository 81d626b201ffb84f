import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import lemica_planner
import lemica_planner.pictures

PACKAGES = (lemica_planner, lemica_planner.pictures)
MODULES = [f"{each.__name__}.{found.name}" for each in PACKAGES for found in pkgutil.iter_modules(each.__path__)]


def test_importing_the_package_needs_numpy_only():
    """Checked in a fresh process, because this one has imported the others long ago."""
    code = (
        "import sys, numpy; before = set(sys.modules)\n"
        "import lemica_planner, lemica_planner.report\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(names - sys.stdlib_module_names - {'lemica_planner', 'numpy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_public_names():
    assert sorted(lemica_planner.__all__) == sorted(set(lemica_planner.__all__))
    for name in lemica_planner.__all__:
        assert getattr(lemica_planner, name).__doc__, name


@pytest.mark.parametrize("module", ["lemica_planner", *MODULES])
def test_examples_in_docstrings(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0
