"""A model repository that is made in seconds, for a real server to serve."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lemica_planner import CachePlan, ErrorGraph
from lemica_planner.config_writer import apply_plan
from tests.server.repository import make_stream
from tests.tiny_latte import build_tiny_latte

NUM_STEPS = 10
FAST_STEPS = [0, 3, 6, 9]


def make_repository(folder: Path) -> Path:
    """Fill a model repository with `latte_shapes`, of random weights, and its stream: noise, in milliseconds a step.

    One request runs at a time, so that a test can see whether a given-up request still holds the server.
    """
    version = folder / "latte_shapes" / "1"
    version.mkdir(parents=True)
    build_tiny_latte(version / "weights")
    defaults = {"num_inference_steps": NUM_STEPS, "guidance_scale": 3.0}
    limits = {"max_active": 1, "max_guidance_scale": 3.1e38}  # strong enough for latents that overflow
    (version / "model.json").write_text(json.dumps({"threads": 1, "defaults": defaults, "limits": limits}))
    config = version.parent / "config.pbtxt"
    config.write_text('backend: "lemica"\nmax_batch_size: 4\n')
    spans = np.subtract.outer(np.arange(NUM_STEPS), np.arange(NUM_STEPS)).T - 1  # error: number of steps reused
    plan = CachePlan.from_graph(ErrorGraph(np.where(spans >= 0, spans, np.inf)), names={"fast": len(FAST_STEPS)})
    apply_plan(config, plan)
    make_stream(folder / "latte_shapes_stream", "latte_shapes")
    return folder
