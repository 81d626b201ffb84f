"""`lemica init` and `lemica inspect` against the models that they are about."""

import json
import re
from concurrent.futures import Future
from inspect import signature

import pytest
import torch
import typer
from typer.testing import CliRunner

from lemica_backend.config import Defaults, Size, load_config
from lemica_backend.engine import Engine
from lemica_backend.errors import ModelLoadError
from lemica_backend.footprint import footprint
from lemica_backend.init_command import init
from lemica_backend.inspect_command import inspect
from lemica_backend.job import start_job
from lemica_backend.model_folder import make_folder
from lemica_backend.opening import open_model, open_worker
from lemica_backend.pipelines.worker import PipelineWorker
from lemica_backend.planned import plan_request
from lemica_backend.replay import EngineReplayer
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, published_names, published_plan
from lemica_planner.cli import app as planner
from lemica_planner.config_writer import read_plan
from tests.tiny import hunyuan_video_15, other_images, other_videos, others
from tests.tiny.families import FAMILIES
from tests.tiny.family import COMPUTED, STEPS

ONE_OF_EACH = {tiny.family: tiny for tiny in reversed(FAMILIES.values())}


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES)
def made(request, tmp_path):
    """A model folder of a tiny pipeline, at the tiny size."""
    tiny = request.param
    tiny.build().save_pretrained(tmp_path / "weights")
    made = make_folder(str(tmp_path / "weights"), tmp_path / "repository", tiny.name)
    path = made.path / "1" / "model.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"size": dict(tiny.size), "options": dict(tiny.options)}))
    return tiny, made


def test_what_is_inspected_is_what_is_loaded(made):
    tiny, folder = made
    config = load_config(folder.path / "1" / "model.json")
    model, need = open_model(folder.path / "1", config), footprint(folder.path)
    info = model.info
    assert (need.outline.height, need.outline.width) == (info.height, info.width)
    assert need.outline.num_frames == info.num_frames
    assert need.outline.latents_shape == info.latents_shape
    request = GenerationRequest("a", seed=0, budget="full", **tiny.shown())
    planned = plan_request(request, info=info, config=config, plan=None)
    with torch.inference_mode():
        job = start_job(model, planned)
        stem = model.stem(
            torch.stack([job.model_input] * len(job.texts)),
            torch.stack([job.timestep] * len(job.texts)),
            list(job.texts.values()),
        )
    assert stem.hidden[0].nbytes == need.residual_bytes


def test_a_request_holds_what_was_inspected(made):
    tiny, folder = made
    path = folder.path / "1" / "model.json"
    config = load_config(path).model_copy(update={"defaults": Defaults(num_inference_steps=STEPS)})
    path.write_text(config.model_dump_json(include={"family", "weights", "size", "options", "defaults"}))
    model, need, held, answer = open_model(path.parent, config), footprint(folder.path), [], Future()
    plan = CachePlan.from_steps(EngineReplayer(model, config, "tiny").provenance(), {3: COMPUTED})
    engine = Engine(model, config, plan)

    def note():
        held.append(engine.cached_bytes())

    request = GenerationRequest("a cat", seed=7, budget="3", **tiny.shown())
    engine.submit(request, on_done=answer.set_result, is_cancelled=note)
    assert answer.result(60).info["computed_steps"] == list(COMPUTED)
    engine.close()
    assert max(held) == need.cache_bytes(1)


def test_parameters_are_those_of_the_pipeline(made):
    tiny, folder = made
    pipeline = tiny.build()
    need = footprint(folder.path)
    for name, counted in need.parts.items():
        if not (name == "vae" and tiny.options.get("temporal_decoder")):
            weights = list(getattr(pipeline, name).parameters())
            assert counted == (sum(each.numel() for each in weights), sum(each.nbytes for each in weights))


@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_init_takes_family_size_and_defaults_from_the_pipeline(family, tmp_path):
    ONE_OF_EACH[family].build().save_pretrained(tmp_path / "weights")
    made = make_folder(str(tmp_path / "weights"), tmp_path / "repository", "mine")
    config = load_config(made.path / "1" / "model.json")
    assert config.family == family
    assert (config.size.height, config.size.width) == (made.outline.height, made.outline.width)
    assert config.defaults.num_inference_steps == made.outline.defaults["num_inference_steps"]
    assert config.dtype == "float32"  # as the tiny weights are stored


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    ONE_OF_EACH["latte"].build().save_pretrained(tmp_path / "weights")
    make_folder(str(tmp_path / "weights"), tmp_path / "repository", "mine")
    with pytest.raises(ModelLoadError, match="is there already"):
        make_folder(str(tmp_path / "weights"), tmp_path / "repository", "mine")


def test_a_pipeline_that_is_not_served_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ModelLoadError, match="FluxPipeline"):
        make_folder(str(tmp_path / "weights"), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_any_other_pipeline_runs_as_it_is(tmp_path):
    pipeline = others.tiny_flux()
    pipeline.save_pretrained(tmp_path / "weights")
    made = make_folder(str(tmp_path / "weights"), tmp_path / "repository", "mine")
    config = load_config(made.path / "1" / "model.json")
    assert (config.family, config.limits.max_active, config.dtype) == ("pipeline", 1, "float32")
    assert (config.defaults.num_inference_steps, config.defaults.guidance_scale) == (28, 3.5)
    need = footprint(made.path)
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        assert need.parts[name][0] == sum(weight.numel() for weight in getattr(pipeline, name).parameters())
    assert isinstance(open_worker(made.path / "1", sized(config), "cpu", None, measures=True), PipelineWorker)


def sized(config):
    return config.model_copy(update={"size": Size(**others.IMAGE)})


OTHERS = {
    "flux": others.tiny_flux,
    "pixart": others.pixart_sigma,
    "skyreels": others.tiny_skyreels,
    "allegro": others.allegro,
    "qwen_image": other_images.tiny_qwen_image,
    "z_image": other_images.tiny_z_image,
    "easyanimate": other_videos.tiny_easyanimate,
    "sana_video": other_videos.tiny_sana_video,
    "kandinsky": other_videos.tiny_kandinsky,
}


OPTIONS = {"easyanimate": {"negative_prompt": ""}, "qwen_image": {"negative_prompt": " "}}


@pytest.mark.parametrize("name", OTHERS)
def test_init_takes_what_the_call_of_any_other_pipeline_takes_by_default(name, tmp_path):
    pipeline = OTHERS[name]()
    pipeline.save_pretrained(tmp_path / "weights")
    made = make_folder(str(tmp_path / "weights"), tmp_path / "repository", "mine")
    config, known = load_config(made.path / "1" / "model.json"), signature(type(pipeline).__call__).parameters
    assert (config.family, config.limits.max_active) == ("pipeline", 1)
    assert config.defaults.num_inference_steps == known["num_inference_steps"].default
    assert config.defaults.guidance_scale == (known["guidance_scale"].default or Defaults().guidance_scale)
    assert config.options == {"easyanimate": {"negative_prompt": ""}, "qwen_image": {"negative_prompt": " "}}.get(
        name, {}
    )
    assert footprint(made.path).parts["transformer"][0] == sum(
        each.numel() for each in pipeline.transformer.parameters()
    )


def test_the_guider_of_hunyuan_video_15_tells_its_guidance(tmp_path):
    hunyuan_video_15.tiny_hunyuan_video_15(guidance_scale=6.5).save_pretrained(tmp_path / "weights")
    made = make_folder(str(tmp_path / "weights"), tmp_path / "repository", "mine")
    assert load_config(made.path / "1" / "model.json").defaults.guidance_scale == 6.5


@pytest.mark.parametrize("name", ["wan", "wan_i2v", "hunyuan_video_15", "qwen_image"])
def test_the_published_steps_that_init_speaks_of_can_be_applied(name, tmp_path):
    build = OTHERS[name] if name in OTHERS else ONE_OF_EACH[name].build
    build().save_pretrained(tmp_path / name)
    app = typer.Typer()
    app.command()(init)
    said = CliRunner().invoke(app, [str(tmp_path / name), "--repository", str(tmp_path / "models")]).output
    (model,) = re.findall(r"--published (\S+)", said)
    assert model in published_names()
    result = CliRunner().invoke(planner, ["apply", str(tmp_path / "models" / name), "--published", model.lower()])
    assert result.exit_code == 0, result.output
    assert "not calibrated here" in result.output
    assert read_plan(tmp_path / "models" / name / "config.pbtxt").entries == published_plan(model).entries


def test_no_steps_are_published_for_two_transformers(tmp_path):
    FAMILIES["wan-2.2"].build().save_pretrained(tmp_path / "weights")
    assert make_folder(str(tmp_path / "weights"), tmp_path / "repository", "mine").published == ()


def test_neither_a_folder_nor_a_model_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelLoadError, match="no such folder"):
        make_folder("nobody/nothing-at-all", tmp_path)


def test_the_commands_work_from_a_folder(tmp_path):
    app = typer.Typer()
    app.command()(init), app.command()(inspect)
    ONE_OF_EACH["latte"].build().save_pretrained(tmp_path / "my-latte")
    result = CliRunner().invoke(app, ["init", str(tmp_path / "my-latte"), "--repository", str(tmp_path / "models")])
    assert result.exit_code == 0, result.output
    assert "lemica-planner calibrate" in result.output
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "models" / "my-latte")])
    assert result.exit_code == 0, result.output
    assert "transformer" in result.output
    others.tiny_flux().save_pretrained(tmp_path / "my-flux")
    result = CliRunner().invoke(app, ["init", str(tmp_path / "my-flux"), "--repository", str(tmp_path / "models")])
    assert result.exit_code == 0, result.output
    assert "one request at a time" in result.output
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "models" / "my-flux")])
    assert result.exit_code == 0, result.output
    assert "lemica_cached_bytes" in result.output
    result = CliRunner().invoke(app, ["init", str(tmp_path / "nothing"), "--repository", str(tmp_path / "models")])
    assert result.exit_code == 1
