"""How much of its caption a video shows, as the benchmark of samplers judges it."""

import numpy as np
import pytest

from benchmarks.bench_steps import fidelity
from lemica_backend.yardstick import Video
from shapes.render import draw
from shapes.scene import Scene, all_scenes


@pytest.fixture
def shown():
    """Return a scene and a video of it."""
    scene = all_scenes()[100]
    return scene, Video(draw(scene, np.random.default_rng(0)), np.zeros((1, 1, 1, 1), np.float32))


def differences(scene, other):
    return [name for name in Scene._fields if getattr(scene, name) != getattr(other, name)]


def test_a_video_of_its_caption_is_faithful(shown):
    scene, video = shown
    assert fidelity(video, scene.caption) == 1


@pytest.mark.parametrize("field", Scene._fields)
def test_each_wrong_attribute_costs_its_share(shown, field):
    scene, video = shown
    other = next(each for each in all_scenes() if differences(each, scene) == [field])
    assert fidelity(video, other.caption) == 1 - 1 / len(Scene._fields)
