"""Model repositories for the tests: tiny models that work, and models broken in one way each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from lemica_planner import CachePlan, Provenance
from lemica_planner.config_writer import apply_plan
from tests.tiny_latte import build_tiny_latte

SHIPPED_CONFIG = Path(__file__).parents[2] / "model_repository" / "latte_shapes" / "config.pbtxt"
BARE_CONFIG = 'backend: "lemica"\n'
STEPS = 6
SLOW, FAST = (0, 1, 3, 5), (0, 2, 5)
DEFAULTS = {"num_inference_steps": STEPS, "guidance_scale": 4.0}


def make_model(
    folder: Path,
    *,
    config: str = BARE_CONFIG,
    settings: dict | str | None = None,
    build: Callable[[Path], None] = build_tiny_latte,
) -> Path:
    """Write a model that works, with the given config.pbtxt and model.json; return its version folder."""
    version = folder / "1"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    settings = {"threads": 1, "defaults": DEFAULTS} | settings if isinstance(settings, dict) else settings
    text = settings if isinstance(settings, str) else json.dumps(settings or {"threads": 1, "defaults": DEFAULTS})
    (version / "model.json").write_text(text)
    build(version / "weights")
    return version


def make_planned_model(folder: Path) -> None:
    """Write a model with the shipped config.pbtxt and a plan of two budgets."""
    limits = {"max_guidance_scale": 3.1e38}  # strong enough for latents that overflow
    make_model(folder, config=SHIPPED_CONFIG.read_text(), settings={"limits": limits})
    provenance = Provenance(num_inference_steps=STEPS, guidance_scale=DEFAULTS["guidance_scale"])
    plan = CachePlan.from_steps(provenance, {len(SLOW): SLOW, len(FAST): FAST}, names={"slow": 4, "fast": 3})
    apply_plan(folder / "config.pbtxt", plan)


def make_stream(folder: Path, engine: str) -> None:
    """Write a model that shares another one's engine and sends its progress."""
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(BARE_CONFIG + "model_transaction_policy { decoupled: true }")
    (folder / "1" / "model.json").write_text(json.dumps({"engine": engine}))


def make_broken_models(repository: Path) -> None:
    """Write one model for each way to be broken."""
    make_model(repository / "broken_json", settings='{"limits": {"max_active": 0}}')
    make_model(
        repository / "broken_config", config=BARE_CONFIG + 'input { name: "prompt" data_type: TYPE_INT32 dims: 1 }'
    )
    make_model(
        repository / "broken_plan", config=BARE_CONFIG + 'parameters { key: "cache_plan" value { string_value: "{" } }'
    )
    weights = make_model(repository / "broken_weights") / "weights"
    tensors = next((weights / "transformer").glob("*.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:1000])
    shutil.rmtree(make_model(repository / "no_weights") / "weights")
    make_stream(repository / "no_engine", "nowhere")


def make_echo(folder: Path) -> None:
    """Write a model of Triton's own Python backend, which loads in a second."""
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(
        'backend: "python" input { name: "x" data_type: TYPE_INT32 dims: 1 } '
        'output { name: "x" data_type: TYPE_INT32 dims: 1 } instance_group { kind: KIND_CPU }'
    )
    (folder / "1" / "model.py").write_text(
        "import triton_python_backend_utils as pb\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        return [pb.InferenceResponse([pb.Tensor('x', r.inputs()[0].as_numpy())]) for r in requests]\n"
    )
