"""The family open_sora through the real server."""

import json

import numpy as np
import pytest

from tests.server.callers import INVALID
from tests.server.repository import STEPS
from tests.tiny_open_sora import FRAMES

pytestmark = pytest.mark.server
SHAPE = (FRAMES, 36, 56, 3)


def test_a_video(caller):
    request = {"model": "open_sora", "prompt": "a red circle", "seed": 7, "outputs": ("video", "video_file", "info")}
    first, again = caller.infer(**request), caller.infer(**request)
    assert first.as_numpy("video").shape == (1, *SHAPE)
    assert first.as_numpy("video").std() > 10
    assert np.array_equal(first.as_numpy("video"), again.as_numpy("video"))
    assert json.loads(first.as_numpy("info")[0, 0])["computed_steps"] == list(range(STEPS))


def test_prompts_of_different_length_in_one_request(caller):
    prompts = ["a", "a much longer prompt of a dog"]
    both = caller.infer("open_sora", prompt=prompts, seed=[1, 2], outputs=("video",)).as_numpy("video")
    for row, prompt in enumerate(prompts):
        alone = caller.infer("open_sora", prompt=prompt, seed=row + 1, outputs=("video",)).as_numpy("video")[0]
        assert np.abs(both[row].astype(int) - alone).max() <= 1


@pytest.mark.parametrize(
    ("options", "says"), [({"negative_prompt": "fog"}, "negative_prompt"), ({"width": 58}, "this model makes 56 only")]
)
def test_what_the_family_cannot_do_is_refused(caller, options, says):
    error = caller.refusal(model="open_sora", prompt="a", **options)
    assert error.status() == INVALID[caller.protocol]
    assert says in error.message()
