"""The Dockerfile as far as it can be checked without building an image."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", DOCKERFILE)).splitlines()


def arguments_of(instruction):
    return [line.split(maxsplit=1)[1] for line in INSTRUCTIONS if line.startswith(instruction + " ")]


def find_tool(name):
    """Return a linter that the dev extra installs beside this Python, or one on PATH."""
    beside = Path(sys.executable).with_name(name)
    tool = str(beside) if beside.is_file() else shutil.which(name)
    if tool is None:
        pytest.skip(f"{name} is not installed")
    return tool


def test_hadolint_has_nothing_to_say():
    outcome = subprocess.run([find_tool("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout) == (0, "")


def test_shellcheck_has_nothing_to_say():
    scripts = sorted(path.relative_to(ROOT) for path in (ROOT / "scripts").glob("*.sh"))
    assert scripts
    command = [find_tool("shellcheck"), "-x", *scripts]  # -x: what a script sources is read with it
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout) == (0, "")


def test_the_only_install_step_is_the_script():
    assert arguments_of("RUN") == ["scripts/install_backend.sh /opt/lemica"]


def test_both_stages_stand_on_the_stock_container_of_one_version():
    images = [arguments.split(" AS ")[0] for arguments in arguments_of("FROM")]
    assert images == ["nvcr.io/nvidia/tritonserver:${TRITON_VERSION}-py3"] * 2
    assert re.fullmatch(r"TRITON_VERSION=\d\d\.\d\d", arguments_of("ARG")[0])


def test_it_runs_as_a_user_that_owns_nothing():
    assert arguments_of("USER") == ["1000:1000"]
    assert "--chown" not in DOCKERFILE
    assert "--chmod" not in DOCKERFILE


def test_ports_volume_health_and_offline():
    assert arguments_of("EXPOSE") == ["8000 8001 8002"]
    assert arguments_of("VOLUME") == ["/models"]
    assert "/v2/health/ready" in arguments_of("HEALTHCHECK")[0]
    assert "HF_HUB_OFFLINE=1" in arguments_of("ENV")[0]
    assert "--shm-size" in DOCKERFILE


def test_the_health_check_is_a_program_that_tells_good_from_bad(tmp_path):
    """It must fail where nothing answers; port 9 of this machine stands for that."""
    program = re.search(r'"-c", "([^"]*)"', arguments_of("HEALTHCHECK")[0])[1].replace(":8000", ":9")
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=30)
    assert outcome.returncode == 1
    assert b"URLError" in outcome.stderr


def test_the_label_tells_the_version_of_the_project():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert f"LEMICA_VERSION={version}" in arguments_of("ARG")


def test_what_is_copied_is_in_the_build_context():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = [name for copy in arguments_of("COPY") if "--from" not in copy for name in copy.split()[:-1]]
    assert sorted(sources) == sorted(allowed)
    assert all((ROOT / name).exists() for name in sources)
