"""Libraries that report their use to their makers are told not to, wherever this project imports them."""

import os
import subprocess
import sys

import pytest


def imported(tmp_path, *modules):
    """Import modules in a fresh interpreter and return what they leave in its temporary folder."""
    environment = {name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "CI"}}
    code = "; ".join(f"import {module}" for module in modules)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment | {"TMPDIR": str(tmp_path)})
    return [path.name for path in tmp_path.iterdir() if "torchinductor" not in path.name]


def test_onnx_runtime_opens_no_session_of_its_telemetry(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "alone").mkdir()
    (tmp_path / "ours").mkdir()
    assert imported(tmp_path / "alone", "onnxruntime"), "it leaves a trace where nobody tells it not to"
    assert imported(tmp_path / "ours", "lemica_backend", "onnxruntime") == []
    assert imported(tmp_path / "ours", "lemica_backend.worker_main", "lemica_backend.local_worker") == []
