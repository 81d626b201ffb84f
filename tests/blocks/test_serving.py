"""A tiny model folder: `lemica compile`, then the engine serves as the eager one does, and says who it is."""

import dataclasses
import json
import logging
import queue

import pytest
import torch
from typer.testing import CliRunner

from lemica_backend.blocks.engine_stack import EngineStack, take_fallbacks
from lemica_backend.caller import Caller, Submission
from lemica_backend.config import load_config
from lemica_backend.engine import Engine
from lemica_backend.errors import ModelLoadError
from lemica_backend.local_worker import LocalWorker
from lemica_backend.measuring import measure_sizes
from lemica_backend.opening import facts_of, open_model
from lemica_backend.planned import plan_request
from lemica_backend.replay import EngineReplayer
from lemica_backend.types import GenerationRequest
from lemica_client.cli import app
from lemica_planner import CachePlan, Sample
from lemica_planner.replayer import Segment
from tests.server.repository import make_model

pytest.importorskip("openvino", reason="the extra `engines` is not installed")
pytest.importorskip("onnx", reason="the extra `engines` is not installed")
PROMPTS = ("a red circle", "a much longer prompt about a square", "x")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder with an artifact for OpenVINO."""
    model = tmp_path_factory.mktemp("repository") / "tiny"
    make_model(model, settings={"blocks": {"engine": "openvino", "max_rows": 6}})
    told = CliRunner().invoke(app, ["compile", str(model)])
    assert told.exit_code == 0, told.output
    assert "built in" in told.output
    assert "rows 1 to 6" in told.output
    return model


def configured(folder, **blocks):
    config = load_config(folder / "1" / "model.json")
    return config.model_copy(update={"blocks": config.blocks.model_copy(update=blocks)})


def opened(folder, **blocks):
    return open_model(folder / "1", configured(folder, **blocks))


def latents(model, folder, prompts, plan=None):
    """Return the final latents of prompts that are made together, by seed; each prompt has a budget."""
    engine, done = Engine(model, configured(folder), plan), queue.Queue()
    requests = [GenerationRequest(prompt, seed=seed, budget=budget) for seed, (prompt, budget) in prompts.items()]
    try:
        engine.submit_all([Submission(each, Caller(done.put)) for each in requests])
        outcomes = [done.get(timeout=300) for _ in requests]
    finally:
        engine.close()
    assert {outcome.info["block_engine"] for outcome in outcomes} == {model.info.block_engine}
    return {outcome.info["seed"]: torch.from_numpy(outcome.latents) for outcome in outcomes}


def off(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_a_calibration_of_many_edges_at_once_runs_on_the_engine(folder):
    segments = [Segment(start, 6) for start in range(5)]  # with guidance ten rows, of which the engine serves six
    errors = []
    for model in (opened(folder), opened(folder, engine="eager")):
        errors.append(EngineReplayer(model, configured(folder), "tiny").open(Sample("a cat", 4)).errors(segments))
        assert take_fallbacks(model) == {}
    assert errors[0] == pytest.approx(errors[1], rel=0.01)


def test_videos_are_those_of_the_eager_engine_alone_and_among_others_at_other_budgets(folder):
    model, config = opened(folder), configured(folder)
    assert isinstance(model.stacks[0], EngineStack)
    provenance = EngineReplayer(model, config, "tiny").provenance()
    plan = CachePlan.from_steps(provenance, {3: (0, 2, 5), 4: (0, 1, 3, 5)})
    prompts = dict(enumerate(zip(PROMPTS, ("full", "3", "4"), strict=True)))
    together = latents(model, folder, prompts, plan)
    eager = latents(opened(folder, engine="eager"), folder, prompts, plan)
    for seed, request in prompts.items():
        alone = latents(model, folder, {seed: request}, plan)
        assert off(together[seed], alone[seed]) <= 1e-4
        assert 0 < off(together[seed], eager[seed]) <= 1e-4


def test_calibrations_plans_and_answers_say_which_engine(folder):
    model, config = opened(folder), configured(folder)
    provenance = EngineReplayer(model, config, "tiny").provenance()
    assert provenance.block_engine == "openvino"
    assert EngineReplayer(opened(folder, engine="eager"), config, "tiny").provenance().block_engine is None
    for calibrated_on in ("openvino", None):
        plan = CachePlan.from_steps(dataclasses.replace(provenance, block_engine=calibrated_on), {3: (0, 2, 5)})
        engine = Engine(model, config, plan)
        try:
            infos = [engine.generate(GenerationRequest("x", seed=1, budget=budget)).info for budget in ("3", "full")]
        finally:
            engine.close()
        told = [(info["block_engine"], info["plan_engine"]) for info in infos]
        assert told == [("openvino", calibrated_on or "eager"), ("openvino", "openvino")]


def test_building_again_finds_what_is_there(folder):
    told = CliRunner().invoke(app, ["compile", str(folder), "--engine", "openvino"])
    assert told.exit_code == 0
    assert "is there already" in told.output


def test_a_damaged_artifact_is_refused_and_built_again_on_request(folder):
    (graph,) = (folder / "1" / "blocks").glob("openvino-float32-*/stack0.onnx")
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ModelLoadError, match=r"stack0\.onnx changed after it was built: .*`lemica compile --force`"):
        opened(folder)
    told = CliRunner().invoke(app, ["compile", str(folder), "--force"])
    assert told.exit_code == 0, told.output
    assert "built in" in told.output
    assert opened(folder).info.block_engine == "openvino"


def test_other_weights_are_refused_or_served_eagerly_as_the_operator_wants(folder, tmp_path, caplog):
    other = tmp_path / "other"
    make_model(other, settings={"blocks": {"engine": "openvino", "artifacts": str(folder / "1" / "blocks")}})
    weights = next((other / "1" / "weights" / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(ModelLoadError, match=r"is stale: weights_hash was .*: build one with `lemica compile`"):
        opened(other)
    with caplog.at_level(logging.WARNING):
        model = opened(other, required=False)
    assert model.info.block_engine == "eager"
    assert "the eager engine runs the block stack" in caplog.text
    assert "weights_hash" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "bfloat16", "blocks": {"engine": "onnxruntime"}}, "serves float32, float16, and dtype is bfloat16"),
        ({"blocks": {"engine": "openvino", "precision": "int8"}}, "'openvino' serves dtype, bfloat16, and not int8"),
        (
            {"dtype": "float16", "blocks": {"engine": "onnxruntime", "precision": "int8"}},
            "int8 takes a dtype of float32, and dtype is float16",
        ),
        ({"blocks": {"engine": "fast"}}, "blocks.engine"),
        ({"blocks": {"engine": "openvino", "max_rows": 0}}, r"blocks\.max_rows"),
    ],
)
def test_what_cannot_be_served_is_refused(folder, tmp_path, settings, message):
    make_model(tmp_path / "other", settings={"blocks": {"engine": "openvino"}} | settings)
    with pytest.raises(ModelLoadError, match=message):
        open_model(tmp_path / "other" / "1", load_config(tmp_path / "other" / "1" / "model.json"))


def test_a_sampler_of_its_own_changes_nothing_in_the_artifact(folder, tmp_path):
    blocks = {"engine": "openvino", "artifacts": str(folder / "1" / "blocks")}
    make_model(tmp_path / "other", settings={"blocks": blocks, "scheduler": {"timestep_spacing": "trailing"}})
    told = CliRunner().invoke(app, ["compile", str(tmp_path / "other")])
    assert told.exit_code == 0, told.output
    assert "is there already" in told.output


def test_rows_beyond_the_range_are_counted_in_what_watchers_hear(folder):
    config, model = configured(folder, max_rows=3), opened(folder, max_rows=3)
    worker = LocalWorker(model, facts_of(model, config, None, measure_sizes(model, config, None)))
    planned = plan_request(GenerationRequest("x", seed=1), info=model.info, config=config, plan=None)
    for number in (1, 2):
        worker.start(number, dataclasses.replace(planned, seed=number))
    assert worker.step([1]).fallbacks == ()
    assert worker.step([1, 2]).fallbacks == (("out_of_range", 4),)


def test_the_command_refuses_an_engine_that_needs_nothing_built_and_one_that_there_is_not(folder):
    for engine, said in (("eager", "engine is 'eager'; allowed are compile, aot, onnxruntime"), ("x", "engine is 'x'")):
        told = CliRunner().invoke(app, ["compile", str(folder), "--engine", engine])
        assert told.exit_code == 1
        assert said in told.output


def test_the_artifact_says_what_it_is_for(folder):
    (manifest,) = (folder / "1" / "blocks").glob("openvino-float32-*/artifact.json")
    identity = json.loads(manifest.read_text())["identity"]
    assert identity["family"] == "latte"
    assert identity["weights_hash"] == opened(folder).info.weights_hash
    assert identity["versions"].keys() == {"openvino", "torch", "diffusers"}
