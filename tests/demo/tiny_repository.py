"""A model repository as an operator makes it, around a model of random weights."""

import json

from lemica_planner import CachePlan, ErrorGraph
from lemica_planner.config_writer import apply_plan
from tests.demo.synthetic import synthetic_weights
from tests.tiny_latte import build_tiny_latte

MODEL = "tiny"
NUM_STEPS = 12


def build_tiny_repository(repository):
    """Write config.pbtxt with a plan, model.json, the weights, and the graph that the plan was made from."""
    model = repository / MODEL
    build_tiny_latte(model / "1" / "weights")
    defaults = {"num_inference_steps": NUM_STEPS, "guidance_scale": 4.0, "budget": "full"}
    (model / "1" / "model.json").write_text(json.dumps({"threads": 1, "defaults": defaults}))
    (model / "config.pbtxt").write_text('backend: "lemica"\nmax_batch_size: 4\n')
    graph = ErrorGraph(synthetic_weights(NUM_STEPS, longest=6))
    (model / "calibration").mkdir()
    graph.save(model / "calibration" / "graph.npz")
    apply_plan(model / "config.pbtxt", CachePlan.from_graph(graph))
    return repository
