"""A repository with the stand-in for the streaming model, and a large unary one, for a real server to serve."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

HERE = Path(__file__).parent
INPUTS = {
    "negative_prompt": "STRING",
    "seed": "INT64",
    "guidance_scale": "FP32",
    "num_inference_steps": "INT32",
    "height": "INT32",
    "width": "INT32",
    "num_frames": "INT32",
    "budget": "STRING",
    "deadline_ms": "INT32",
    "priority": "INT32",
    "client_id": "STRING",
    "file_format": "STRING",
    "preview_every": "INT32",
    "file_encoding": "STRING",
}


def add_stand_in(folder: Path, name: str, *, program: str, is_decoupled: bool) -> Path:
    """Add a model of Triton's Python backend to a repository and return its folder."""
    model = folder / name
    (model / "1").mkdir(parents=True)
    shutil.copy(HERE / program, model / "1" / "model.py")
    lines = ['backend: "python"', "max_batch_size: 0", 'input { name: "prompt" data_type: TYPE_STRING dims: [1] }']
    lines += [f'input {{ name: "{n}" data_type: TYPE_{kind} dims: [1] optional: true }}' for n, kind in INPUTS.items()]
    lines += [f'output {{ name: "{n}" data_type: TYPE_STRING dims: [1] }}' for n in ("info", "video_file")]
    lines += ['output { name: "video" data_type: TYPE_UINT8 dims: [-1, -1, -1, 3] }']
    lines += ["instance_group { count: 1 kind: KIND_CPU }"]
    lines += ["model_transaction_policy { decoupled: true }"] * is_decoupled
    plan = json.dumps(json.dumps({"names": {"fast": 4, "slow": 6}, "entries": {}}))
    lines += [f'parameters {{ key: "cache_plan" value {{ string_value: {plan} }} }}'] * (name == "toy")
    (model / "config.pbtxt").write_text("\n".join(lines) + "\n")
    return model
