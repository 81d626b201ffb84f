"""Text encoders that wait on the CPU. No GPU is needed: torch's meta device is another device, without values."""

import json

import pytest
import torch
from transformers import T5Config, T5EncoderModel

from lemica_backend.config import ModelConfig, load_config
from lemica_backend.errors import ModelLoadError
from lemica_backend.footprint import footprint
from lemica_backend.models import load_model
from lemica_backend.models.offloading import offload_between_uses, place, text_encoders
from lemica_backend.opening import open_model
from tests.tiny.families import FAMILIES

IDS = torch.tensor([[3, 1, 4, 1, 5]])


def small_t5():
    torch.manual_seed(0)
    config = T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2)
    return T5EncoderModel(config).eval()


def devices(module):
    return {tensor.device.type for tensor in (*module.parameters(), *module.buffers())}


def watched(module):
    """Return where the module's weights were in its forwards."""
    seen = []
    inner = module.encoder if hasattr(module, "encoder") else module
    inner.register_forward_pre_hook(lambda *_: seen.append(devices(module)))
    return seen


def test_an_encoder_is_on_the_device_only_while_it_encodes():
    encoder = small_t5()
    before = {name: (weight.data_ptr(), weight.clone()) for name, weight in encoder.named_parameters()}
    offload_between_uses(encoder, "meta")
    seen = watched(encoder)
    with torch.inference_mode():
        states = encoder(input_ids=IDS).last_hidden_state
    assert seen == [{"meta"}]
    assert states.device.type == "meta"  # what comes out stays where the model computes
    assert devices(encoder) == {"cpu"}
    for name, weight in encoder.named_parameters():
        pointer, value = before[name]
        assert weight.data_ptr() == pointer, "weights come back without a copy"
        assert torch.equal(weight, value)
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight, "tied weights stay tied"


def test_a_forward_that_fails_leaves_nothing_on_the_device():
    encoder = small_t5()
    offload_between_uses(encoder, "meta")
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        encoder()
    assert devices(encoder) == {"cpu"}


def test_it_computes_the_same_to_the_last_bit():
    plain, offloaded = small_t5(), small_t5()
    offload_between_uses(offloaded, "cpu")
    with torch.inference_mode():
        assert torch.equal(offloaded(input_ids=IDS).last_hidden_state, plain(input_ids=IDS).last_hidden_state)


@pytest.mark.parametrize("name", ["wan-2.2", "hunyuan_video-embedded", "hunyuan_video_15-guider", "latte-plain"])
def test_all_encoders_of_a_pipeline_wait_and_nothing_else(name):
    config = load_settings(offload={"text_encoders": True})
    pipeline = FAMILIES[name].build()
    place(pipeline, "meta", config.offload)
    for part, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            assert devices(module) == {"cpu" if part.startswith("text_encoder") else "meta"}, part
    assert text_encoders(pipeline.components)


def load_settings(**settings):
    return ModelConfig.model_validate(settings)


@pytest.mark.parametrize("name", ["latte-plain", "open_sora-1.2"])
def test_a_cpu_has_nowhere_to_offload_to(name, tmp_path):
    FAMILIES[name].build().save_pretrained(tmp_path / "weights")
    config = load_settings(offload={"text_encoders": True}, device="cpu", size=FAMILIES[name].size)
    with pytest.raises(ModelLoadError, match="the device is the CPU, where they wait anyway: leave it out"):
        open_model(tmp_path, config)


def test_a_pipeline_that_runs_as_it_is_cannot(tmp_path):
    settings = {"family": "pipeline", "limits": {"max_active": 1}, "offload": {"text_encoders": True}}
    (tmp_path / "model.json").write_text(json.dumps(settings))
    with pytest.raises(ModelLoadError, match="family 'pipeline' computes where its text encoder is: leave it out"):
        load_config(tmp_path / "model.json")


def test_inspect_counts_an_encoder_only_while_it_visits(tmp_path):
    (tmp_path / "1").mkdir()
    FAMILIES["latte-plain"].build().save_pretrained(tmp_path / "1" / "weights")
    (tmp_path / "1" / "model.json").write_text("{}")
    plain = footprint(tmp_path)
    (tmp_path / "1" / "model.json").write_text(json.dumps({"offload": {"text_encoders": True}}))
    need = footprint(tmp_path)
    encoder = plain.parts["text_encoder"][1]
    assert need.weight_bytes == plain.weight_bytes - encoder
    assert need.visiting_bytes == encoder > plain.visiting_bytes == 0
    one = plain.cache_bytes(1)
    room = plain.weight_bytes + 10 * one
    assert plain.requests_in(room, 0, 1) == 10
    assert need.requests_in(room, 0, 1) == 10, "while it encodes, the encoder is there"
    assert plain.requests_in(room, encoder, 1) < 10
    assert need.requests_in(room, encoder, 1) == 10, "and activations are not"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU: the same latents were not shown on one")
def test_on_a_gpu_latents_are_the_same_and_the_encoder_is_away(tmp_path):
    tiny = FAMILIES["latte-plain"]
    tiny.build().save_pretrained(tmp_path)
    config = load_settings(offload={"text_encoders": True})
    kept, away = (
        load_model(None, tmp_path, dtype=torch.float32, device="cuda", memory=memory)
        for memory in (load_settings().memory, config.memory)
    )
    with torch.inference_mode():
        theirs, ours = (each.encode_text("a cat", "", ("uncond", "cond")) for each in (kept, away))
    assert all(torch.equal(ours[branch], theirs[branch]) for branch in ours)
    assert devices(away._pipeline.text_encoder) == {"cpu"}
    assert devices(away._pipeline.transformer) == {"cuda"}
