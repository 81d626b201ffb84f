"""Attention backends of diffusers, as model.json names them."""

import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry

from lemica_backend.config import Defaults, ModelConfig
from lemica_backend.engine import Engine
from lemica_backend.errors import ModelLoadError
from lemica_backend.opening import open_model, open_worker
from lemica_backend.types import GenerationRequest
from tests.tiny import others
from tests.tiny.families import FAMILIES
from tests.tiny.family import assert_close


@pytest.fixture(autouse=True)
def torch_chooses_again():
    """Setting a backend is for the whole process: other tests must not see it."""
    before = _AttentionBackendRegistry.get_active_backend()[0]
    yield
    _AttentionBackendRegistry.set_active_backend(before)


@pytest.fixture
def opened(tmp_path):
    def opened(name, backend):
        tiny = FAMILIES[name]
        if not (tmp_path / name).exists():
            tiny.build().save_pretrained(tmp_path / name / "weights")
        return open_model(tmp_path / name, config_of(tiny, backend))

    return opened


def config_of(tiny, backend):
    defaults = Defaults(num_inference_steps=3, guidance_scale=1.0)
    return ModelConfig(size=tiny.size, options=tiny.options, defaults=defaults, attention_backend=backend)


def latents_of(model, tiny):
    engine = Engine(model, config_of(tiny, None))
    try:
        return torch.from_numpy(engine.generate(GenerationRequest("a cat", seed=2)).latents)
    finally:
        engine.close()


def backends_of(model):
    modules = (module for network in model.networks for module in network.modules())
    processors = (getattr(module, "processor", None) for module in modules)
    return {each._attention_backend for each in processors if hasattr(each, "_attention_backend")}


@pytest.mark.parametrize("name", ["wan-2.2", "ltx-0.9", "hunyuan_video-embedded"])
def test_transformers_use_the_backend_and_make_the_same(opened, name):
    plain, chosen = opened(name, None), opened(name, "_native_math")
    assert {each and each.value for each in backends_of(chosen)} == {"_native_math"}
    assert {each and each.value for each in backends_of(plain)} == {None}
    assert_close(latents_of(chosen, FAMILIES[name]), latents_of(plain, FAMILIES[name]))


@pytest.mark.parametrize(
    ("name", "backend", "says"),
    [
        ("wan-unipc", "fast", "'fast' cannot be used here: .*must be one of"),
        ("wan-unipc", "sage", "'sage' cannot be used here: .*sageattention"),
        ("wan-unipc", "_native_cudnn", "'_native_cudnn' cannot be used here"),
        ("latte-plain", "native", "LatteTransformer3DModel takes none: leave it out"),
        ("open_sora-1.2", "native", "STDiT3 takes none: leave it out"),
    ],
)
def test_what_cannot_be_is_said_at_load(opened, name, backend, says):
    with pytest.raises(ModelLoadError, match=says):
        opened(name, backend)


def test_a_pipeline_as_it_is_takes_them_too(tmp_path):
    others.tiny_flux().save_pretrained(tmp_path / "weights")
    settings = {"family": "pipeline", "limits": {"max_active": 1}, "size": others.IMAGE}
    good = ModelConfig.model_validate(settings | {"attention_backend": "_native_math"})
    open_worker(tmp_path, good, "cpu", None, measures=True)
    bad = ModelConfig.model_validate(settings | {"attention_backend": "_native_cudnn"})
    with pytest.raises(ModelLoadError, match="_native_cudnn"):
        open_worker(tmp_path, bad, "cpu", None, measures=True)
