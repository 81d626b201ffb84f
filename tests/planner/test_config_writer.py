import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from lemica_planner import CachePlan, ConfigError, PlanFormatError, published_plan
from lemica_planner.config_writer import apply_plan, read_plan

EXAMPLE = Path(__file__).with_name("example_config.pbtxt")


@pytest.fixture
def config(tmp_path):
    return Path(shutil.copy(EXAMPLE, tmp_path / "config.pbtxt"))


def parse(path):
    return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def test_nothing_but_the_parameter_changes(config):
    before = parse(config)
    plan = published_plan("Wan2.1-T2V-1.3B")
    apply_plan(config, plan)
    after = parse(config)
    assert after.parameters["cache_plan"].string_value == plan.to_json()
    del after.parameters["cache_plan"]
    assert after == before
    assert read_plan(config) == plan


def test_a_second_plan_replaces_the_first(config):
    apply_plan(config, published_plan("Wan2.1-T2V-1.3B"))
    apply_plan(config, published_plan("Qwen-Image"))
    assert read_plan(config) == published_plan("Qwen-Image")
    first = config.read_bytes()
    apply_plan(config, published_plan("Qwen-Image"))
    assert config.read_bytes() == first


def test_the_comments_above_the_first_field_stay(config):
    apply_plan(config, published_plan("Qwen-Image"))
    assert config.read_text().splitlines()[:4] == EXAMPLE.read_text().splitlines()[:4]
    assert "héllo" in config.read_text(encoding="utf-8")


def test_it_is_written_whole_or_not_at_all(config, monkeypatch):
    before = config.read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        apply_plan(config, published_plan("Qwen-Image"))
    assert config.read_bytes() == before
    assert list(config.parent.iterdir()) == [config]


def test_mode_and_links_are_kept(config, tmp_path):
    config.chmod(0o640)
    link = tmp_path / "link.pbtxt"
    link.symlink_to(config)
    apply_plan(link, published_plan("Qwen-Image"))
    assert link.is_symlink()
    assert config.stat().st_mode & 0o777 == 0o640
    assert isinstance(read_plan(config), CachePlan)


@pytest.mark.parametrize("content", [b"name: ", b"no_such_field: 1", b"\xff\xfe", b"{}"])
def test_other_files_are_refused(config, content):
    config.write_bytes(content)
    with pytest.raises(ConfigError, match="no Triton model configuration"):
        apply_plan(config, published_plan("Qwen-Image"))
    assert config.read_bytes() == content


def test_a_config_without_a_plan_says_how_to_get_one(config):
    with pytest.raises(ConfigError, match="lemica-planner apply"):
        read_plan(config)
    config.write_text('parameters: { key: "cache_plan" value: { string_value: "{}" } }')
    with pytest.raises(PlanFormatError, match="lacks the keys"):
        read_plan(config)


def test_a_missing_config_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        apply_plan(tmp_path / "config.pbtxt", published_plan("Qwen-Image"))
