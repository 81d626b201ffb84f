"""model.json: what it may say, and what an operator is told when it says something else."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from lemica_backend.config import ModelConfig, load_config
from lemica_backend.errors import ModelLoadError

SHIPPED = Path(__file__).parents[2] / "model_repository" / "latte_shapes" / "1" / "model.json"


@pytest.fixture
def load(tmp_path):
    def load(content):
        path = tmp_path / "model.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return load_config(path)

    return load


def test_empty_file_means_all_defaults(load):
    config = load({})
    assert (config.family, config.weights, config.device, config.fps) == (None, "weights", "auto", 8)
    assert config.defaults.model_dump() == {"num_inference_steps": 50, "guidance_scale": 4.0, "budget": "full"}
    assert (config.limits.max_active, config.limits.max_queue, config.limits.max_prompt_bytes) == (8, 64, 4096)


def test_shipped_file_names_every_field_that_matters():
    given = json.loads(SHIPPED.read_text())
    optional = {
        "hub_id",
        "hub_revision",
        "allow_hub",
        "scheduler",
        "attention_backend",
        "size",
        "decode",
        "offload",
        "quantization",
        "options",
        "devices",
        "context_parallel",
    }
    assert set(given) == set(ModelConfig.model_fields) - optional
    assert load_config(SHIPPED).defaults.num_inference_steps == 50


def test_devices_are_named_one_by_one_or_as_a_list(load):
    assert load({"device": "cuda:1"}).worker_devices == ("cuda:1",)
    assert load({"devices": ["cuda:0", "cuda:1"]}).worker_devices == ("cuda:0", "cuda:1")
    with pytest.raises(ModelLoadError, match="give device or devices, not both"):
        load({"device": "cpu", "devices": ["cpu"]})
    for wrong in ([], ["auto"], "cpu", ["gpu"]):
        with pytest.raises(ModelLoadError, match="devices"):
            load({"devices": wrong})


def test_neighbours_in_the_list_of_devices_are_one_worker(load):
    devices = [f"cuda:{number}" for number in range(4)]
    config = load({"devices": devices, "context_parallel": 2})
    assert config.worker_groups == (("cuda:0", "cuda:1"), ("cuda:2", "cuda:3"))
    assert config.worker_devices == ("cuda:0", "cuda:2")
    assert load({"devices": ["cpu", "cpu"], "context_parallel": 2}).worker_groups == (("cpu", "cpu"),)
    assert load({"devices": ["cuda", "cuda"]}).worker_groups == (("cuda",), ("cuda",))


def test_config_cannot_be_changed(load):
    with pytest.raises(ValidationError):
        load({}).fps = 9


def test_weights_are_beside_the_file_or_anywhere(load, tmp_path):
    (tmp_path / "weights").mkdir()
    assert load({}).weights_dir(tmp_path) == tmp_path / "weights"
    assert load({"weights": str(tmp_path)}).weights_dir(Path("elsewhere")) == tmp_path


def test_missing_weights_are_named(load, tmp_path):
    with pytest.raises(ModelLoadError, match=r"there is no folder .*/mounted"):
        load({"weights": "mounted"}).weights_dir(tmp_path)


def test_hub_ids_only_on_demand(load, tmp_path):
    assert load({"hub_id": "who/what", "allow_hub": True}).weights_dir(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "Invalid JSON"),
        ("[]", "got []"),
        ({"famly": "latte"}, "famly: no such field; allowed are family, weights"),
        ({"limits": {"max_activ": 1}}, "limits.max_activ: no such field; allowed are max_active"),
        ({"family": "sora"}, "family: got 'sora'; Input should be 'latte', 'open_sora'"),
        ({"size": {"heigth": 48}}, "size.heigth: no such field; allowed are height, width, num_frames"),
        ({"dtype": "int8"}, "'float32', 'bfloat16' or 'float16'"),
        ({"device": "gpu"}, "device: got 'gpu'"),
        ({"fps": 0}, "fps: got 0; Input should be greater than or equal to 1"),
        ({"fps": "8"}, "fps: got '8'; Input should be a valid integer"),
        ({"threads": 0}, "threads: got 0"),
        ({"limits": {"max_active": 0}}, "limits.max_active: got 0"),
        ({"limits": {"timeout_s": 0}}, "limits.timeout_s: got 0"),
        ({"limits": {"min_steps": 9, "max_steps": 3}}, "min_steps (9) must be at most max_steps (3)"),
        ({"limits": {"max_steps": 10}}, "defaults.num_inference_steps is 50"),
        ({"defaults": {"guidance_scale": -1}}, "defaults.guidance_scale is -1, allowed are 0 to "),
        ({"limits": {"max_guidance_scale": 3}}, "defaults.guidance_scale is 4, allowed are 0 to "),
        ('{"defaults": {"guidance_scale": NaN}}', "finite"),
        ({"hub_id": "who/what"}, '"allow_hub": true'),
        ({"hub_id": "who/what", "allow_hub": True, "weights": "weights"}, "not both"),
        ({"context_parallel": 0, "devices": ["cpu"]}, "context_parallel: got 0"),
        ({"context_parallel": 2}, "context_parallel is 2, and devices are []: list 2 for each worker"),
        ({"context_parallel": 2, "devices": ["cpu"] * 3}, "list 2 for each worker"),
        ({"context_parallel": 2, "devices": ["cuda", "cuda"]}, "take a cuda:N of its own for each"),
        ({"context_parallel": 2, "devices": ["cuda:1", "cuda:1"]}, "take a cuda:N of its own for each"),
        ({"context_parallel": 2, "devices": ["cpu", "cuda:1"]}, "take a cuda:N of its own for each"),
        (
            {"context_parallel": 2, "devices": ["cpu", "cpu"], "blocks": {"engine": "compile"}},
            "with context_parallel, take 'eager'",
        ),
        (
            {"context_parallel": 2, "devices": ["cpu", "cpu"], "family": "pipeline", "limits": {"max_active": 1}},
            "context_parallel: family 'pipeline' computes a video on one device",
        ),
        ({"scheduler": "UniPC"}, "scheduler: got 'UniPC'"),
        ({"scheduler": {"class": 3}}, "scheduler.class: got 3"),
        ({"scheduler": {"timesteps": [900, 901]}}, "timesteps must fall"),
        ({"scheduler": {"timesteps": [900, 0]}}, "num_inference_steps is 50, but scheduler.timesteps are 2"),
    ],
    ids=str,
)
def test_refusal_names_file_field_and_what_is_allowed(load, content, said):
    with pytest.raises(ModelLoadError) as caught:
        load(content)
    assert said in str(caught.value)
    assert "model.json" in str(caught.value)


def test_every_fault_is_named_at_once(load):
    with pytest.raises(ModelLoadError, match=r"threads: got 0.*; fps: got 0"):
        load({"fps": 0, "threads": 0})


def test_unreadable_file_is_a_load_error(tmp_path):
    with pytest.raises(ModelLoadError, match="cannot be read"):
        load_config(tmp_path / "model.json")
    (tmp_path / "model.json").write_bytes(b"\xff")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        load_config(tmp_path / "model.json")


def test_a_scheduler_with_its_parameters(load):
    given = {"class": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}
    chosen = load({"scheduler": given}).scheduler
    assert (chosen.class_name, chosen.timesteps) == (given["class"], None)
    assert chosen.parameters == {"use_karras_sigmas": True}


def test_given_timesteps(load):
    config = load({"scheduler": {"timesteps": [900, 400, 1]}, "defaults": {"num_inference_steps": 3}})
    assert config.scheduler.timesteps == (900, 400, 1)
