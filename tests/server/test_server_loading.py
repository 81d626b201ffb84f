"""Models that cannot be loaded say why and leave the others alone."""

import pytest

from lemica_backend.triton_server import ServerStartError, TritonServer
from tests.server.repository import make_echo

pytestmark = pytest.mark.server

REASONS = {
    "broken_json": "model.json: limits.max_active: got 0; Input should be greater than or equal to 1",
    "broken_config": "config.pbtxt: input prompt is declared TYPE_INT32; allowed is TYPE_STRING",
    "broken_plan": "config.pbtxt, parameter cache_plan",
    "broken_weights": "weights",
    "no_weights": "model.json: weights: there is no folder",
    "no_engine": "model.json: engine is 'nowhere', but there is no",
}


@pytest.fixture(scope="module")
def loaded(server):
    return {model.name: model for model in server.models()}


def test_every_other_model_is_ready(loaded):
    assert {name for name, model in loaded.items() if model.is_ready} == {
        "tiny",
        "tiny_stream",
        "narrow",
        "narrow_stream",
        "unbatched",
        "open_sora",
    }


@pytest.mark.parametrize("name", REASONS)
def test_broken_model_says_why_in_words_for_an_operator(loaded, name):
    assert REASONS[name] in loaded[name].reason
    assert "Traceback" not in loaded[name].reason
    assert ".py" not in loaded[name].reason


def test_only_that_model_is_not_ready(caller, loaded):
    assert not caller.client.is_model_ready("broken_json")
    assert caller.client.is_model_ready("tiny")
    assert "unknown model" in caller.refusal(model="broken_json", prompt="a").message()


def test_server_without_a_model_to_serve_does_not_start(tmp_path):
    with pytest.raises(ServerStartError, match="no such folder"), TritonServer(tmp_path / "nowhere"):
        pass
    with pytest.raises(ServerStartError, match="holds no model"), TritonServer(tmp_path):
        pass


def test_a_limit_that_is_too_short_for_loading_says_which_option_is_longer(tmp_path):
    make_echo(tmp_path / "models" / "echo")
    with (
        TritonServer(tmp_path / "models", log=tmp_path / "log") as server,
        pytest.raises(ServerStartError, match=r"not ready within 0 s; models may still .* --timeout-s"),
    ):
        server.wait_ready(timeout_s=0)
