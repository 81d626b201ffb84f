"""Tensors to requests and back, without a server."""

import base64
import dataclasses
import json
from io import BytesIO

import av
import numpy as np
import pytest

from lemica_backend.codec import MAX_SEED, OutputOptions, decode_requests, encode_results
from lemica_backend.config import Limits
from lemica_backend.errors import InvalidRequestError
from lemica_backend.protocol import OUTPUTS, STREAM_INPUTS
from lemica_backend.types import GenerationRequest, GenerationResult, Image
from tests.tiny.family import noise_png

DTYPES = {spec.name: spec.dtype for spec in STREAM_INPUTS}
PICTURE = noise_png(6, 4)
ALL_OUTPUTS = [spec.name for spec in OUTPUTS]


def tensors(**values):
    """One column for each value; a list is several rows."""
    columns = {name: value if isinstance(value, list) else [value] for name, value in values.items()}
    return {name: np.array([[_raw(value)] for value in column], DTYPES[name]) for name, column in columns.items()}


def _raw(value):
    return value.encode() if isinstance(value, str) else value


def decode(given, outputs=("info",), parameters=None, **kwargs):
    return decode_requests(given, outputs, parameters or {}, limits=Limits(), **kwargs)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_image_bytes": 50}, "its file may have 50: make it smaller"),
        ({"max_image_pixels": 23}, "image is 4 x 6; at most 23"),
    ],
)
@pytest.mark.parametrize("encoding", ["raw", "base64"])
def test_images_have_limits(limits, said, encoding):
    image = PICTURE if encoding == "raw" else base64.b64encode(PICTURE)
    given = tensors(prompt="a", image=image, file_encoding=encoding)
    with pytest.raises(InvalidRequestError, match=said):
        decode_requests(given, ("info",), {}, limits=Limits(**limits))


def result(seed, num_frames=3):
    frames = np.random.default_rng(seed).integers(0, 256, (num_frames, 8, 6, 3), dtype=np.uint8)
    return GenerationResult(frames, np.zeros((4, num_frames, 1, 1), np.float32), {"seed": seed})


def test_prompt_alone_leaves_everything_to_the_model():
    batch = decode(tensors(prompt="a red circle"))
    assert batch.requests == [GenerationRequest("a red circle")]
    assert batch.options == OutputOptions(frozenset({"info"}), ("mp4",))


def test_every_field_arrives():
    given = tensors(
        prompt="naïve 猫",
        negative_prompt="blurry",
        image=base64.b64encode(PICTURE),
        seed=MAX_SEED,
        guidance_scale=7.5,
        num_inference_steps=20,
        height=64,
        width=48,
        num_frames=16,
        budget="fast",
        deadline_ms=900,
        priority=-3,
        client_id="me",
        file_format="gif",
        file_encoding="base64",
        preview_every=3,
    )
    assert set(given) == set(DTYPES)
    batch = decode(given, timeout_us=7000, inputs=STREAM_INPUTS)
    expected = GenerationRequest("naïve 猫", "blurry", MAX_SEED, 7.5, 20, 64, 48, 16, "fast", 900, -3, "me", 7)
    assert batch.requests == [dataclasses.replace(expected, image=Image(PICTURE, 6, 4))]
    assert batch.options == OutputOptions(frozenset({"info"}), ("gif",), is_base64=True, preview_every=3)
    assert all(type(value) in (str, int, float, Image) for value in vars(batch.requests[0]).values())


def test_a_range_of_two_long_names_fits():
    budget = f"{'f' * 64}..{'s' * 64}"
    assert decode(tensors(prompt="a", budget=budget)).requests[0].budget == budget


def test_rows_are_requests():
    batch = decode(tensors(prompt=["a", "b"], seed=[1, 2], file_format=["gif", "webp"]))
    assert [(request.prompt, request.seed) for request in batch.requests] == [("a", 1), ("b", 2)]
    assert batch.options.file_formats == ("gif", "webp")


def test_base64_is_for_all_rows_or_none_and_makes_no_array():
    given = tensors(prompt=["a", "b"], file_encoding=["base64", "base64"])
    assert decode(given, outputs=ALL_OUTPUTS).options.names == {"video_file", "info"}
    with pytest.raises(InvalidRequestError, match="file_encoding must be the same in every row"):
        decode(tensors(prompt=["a", "b"], file_encoding=["base64", "raw"]))


def test_strings_may_come_as_str():
    given = {"prompt": np.array([["a"]], dtype=object)}
    assert decode(given).requests[0].prompt == "a"


@pytest.mark.parametrize(("timeout_us", "timeout_ms"), [(0, None), (1, 1), (3000, 3), (3001, 4)])
def test_tritons_timeout_is_a_limit_of_its_own_and_no_deadline(timeout_us, timeout_ms):
    request = decode(tensors(prompt="a", deadline_ms=5), timeout_us=timeout_us).requests[0]
    assert (request.deadline_ms, request.timeout_ms) == (5, timeout_ms)


MALFORMED = [
    ({}, "prompt is missing"),
    ({"seed": 1}, "prompt is missing"),
    ({"prompt": b"\xff\xfe"}, "prompt is not valid UTF-8 (byte 0xff at position 0)"),
    ({"prompt": "x" * 4097}, "prompt has 4097 bytes; at most 4096 are allowed"),
    ({"prompt": "é" * 2049}, "prompt has 4098 bytes"),
    ({"prompt": "a", "negative_prompt": "x" * 4097}, "negative_prompt has 4097 bytes"),
    ({"prompt": "a", "seed": -1}, f"seed is -1; 0 to {MAX_SEED} are allowed, or leave it out"),
    ({"prompt": "a", "guidance_scale": float("nan")}, "guidance_scale is nan; any finite number"),
    ({"prompt": "a", "guidance_scale": float("-inf")}, "guidance_scale is -inf"),
    ({"prompt": "a", "num_inference_steps": 0}, "num_inference_steps is 0; at least 1 is allowed"),
    ({"prompt": "a", "height": -64}, "height is -64"),
    ({"prompt": "a", "width": 0}, "width is 0"),
    ({"prompt": "a", "num_frames": 0}, "num_frames is 0"),
    ({"prompt": "a", "deadline_ms": 0}, "deadline_ms is 0; at least 1"),
    ({"prompt": "a", "budget": "x" * 131}, "budget has 131 bytes; at most 130"),
    ({"prompt": "a", "client_id": "x" * 257}, "client_id has 257 bytes; at most 256"),
    ({"prompt": "a", "budget": b"\x80"}, "budget is not valid UTF-8"),
    ({"prompt": "a", "file_format": "avi"}, "file_format is 'avi'; allowed are mp4, gif, webp"),
    ({"prompt": "a", "file_format": ""}, "file_format is ''"),
    ({"prompt": "a", "image": PICTURE, "file_encoding": "base64"}, "image is not base64, which file_encoding says"),
    ({"prompt": "a", "image": base64.b64encode(PICTURE)}, "send one of these, as base64 text where file_encoding is"),
    ({"prompt": ["a", "b"], "image": [PICTURE, PICTURE[:-30]]}, "row 1: image is broken"),
]


@pytest.mark.parametrize(("values", "said"), MALFORMED, ids=[said for _, said in MALFORMED])
def test_malformed_value_is_refused_with_what_is_allowed(values, said):
    with pytest.raises(InvalidRequestError) as caught:
        decode(tensors(**values))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (np.array([b"a"], dtype=object), "shape [1]; allowed is [1, 1]"),
        (np.array([[b"a", b"b"]], dtype=object), "shape [1, 2]; allowed is [1, 1]"),
        (np.array(b"a", dtype=object), "shape []"),
        (np.zeros((0, 1), dtype=object), "shape [0, 1]; allowed is [rows, 1]"),
        (np.array([[1]], np.int32), "elements of type int32; allowed is object (TYPE_STRING)"),
    ],
    ids=str,
)
def test_wrong_shape_or_type_is_refused(tensor, said):
    with pytest.raises(InvalidRequestError) as caught:
        decode({"prompt": tensor})
    assert said in str(caught.value)


def test_columns_must_have_the_prompts_rows():
    with pytest.raises(InvalidRequestError, match=r"seed has the shape \[1, 1\]; allowed is \[2, 1\]"):
        decode(tensors(prompt=["a", "b"], seed=1))


def test_fault_in_a_batch_names_its_row():
    with pytest.raises(InvalidRequestError, match=r"^row 1: seed is -5"):
        decode(tensors(prompt=["a", "b"], seed=[1, -5]))


def test_parameters_are_refused_by_name():
    with pytest.raises(InvalidRequestError, match=r"unknown request parameter 'seed', 'steps'; none is allowed"):
        decode(tensors(prompt="a"), parameters={"steps": 3, "seed": 1, "id": "generate sends it"})
    decode(tensors(prompt="a"), parameters={"id": "generate sends it"})


def test_error_stays_short_however_much_is_wrong():
    with pytest.raises(InvalidRequestError) as caught:
        decode(tensors(prompt="a"), parameters={f"{i}" * 5000: 1 for i in range(1000)})
    assert len(str(caught.value)) < 1000


def test_unknown_names_are_refused():
    with pytest.raises(InvalidRequestError, match="unknown input 'promt'; allowed are prompt"):
        decode(tensors(prompt="a") | {"promt": np.zeros((1, 1))})
    with pytest.raises(InvalidRequestError, match="unknown output 'vid'; allowed are video, video_file, info"):
        decode(tensors(prompt="a"), outputs=["vid"])


def test_rows_of_different_sizes_cannot_share_one_array():
    given = tensors(prompt=["a", "b"], height=[8, 16])
    assert len(decode(given, outputs=["video_file", "info"]).requests) == 2
    with pytest.raises(InvalidRequestError, match="must be the same in every row"):
        decode(given, outputs=["video"])


def test_odd_size_is_refused_before_the_work_where_mp4_is_asked_for():
    given = tensors(prompt="a", height=33)
    assert decode(given, outputs=["video"]).requests[0].height == 33
    with pytest.raises(InvalidRequestError, match=r"mp4 needs an even height and width"):
        decode(given, outputs=["video_file"])


def test_only_the_requested_outputs_are_made(monkeypatch):
    monkeypatch.setattr("lemica_backend.codec.encode_video", lambda *_: pytest.fail("nobody asked for a file"))
    made = encode_results([result(1)], OutputOptions(frozenset({"info", "video"}), ("mp4",)), fps=8)
    assert set(made) == {"info", "video"}
    assert set(encode_results([result(1)], OutputOptions(frozenset({"info"}), ("mp4",)), fps=8)) == {"info"}


def test_results_become_rows():
    results = [result(1), result(2)]
    made = encode_results(results, OutputOptions(frozenset(ALL_OUTPUTS), ("mp4", "gif")), fps=8)
    assert made["video"].shape == (2, 3, 8, 6, 3)
    assert made["video"].dtype == np.uint8
    assert np.array_equal(made["video"][1], results[1].frames)
    assert made["info"].shape == made["video_file"].shape == (2, 1)
    assert [json.loads(info)["seed"] for info in made["info"][:, 0]] == [1, 2]
    with av.open(BytesIO(made["video_file"][0, 0])) as mp4, av.open(BytesIO(made["video_file"][1, 0])) as gif:
        assert ("mp4" in mp4.format.name, gif.format.name) == (True, "gif")


def test_info_accounts_for_the_encoding_without_touching_the_result():
    given = GenerationResult(result(1).frames, result(1).latents, {"timings_ms": {"denoise": 5.0, "total": 7.0}})
    made = encode_results([given], OutputOptions(frozenset({"info", "video_file"}), ("gif",)), fps=8)
    timings = json.loads(made["info"][0, 0])["timings_ms"]
    assert timings["encode"] > 0
    assert timings["total"] == pytest.approx(7.0 + timings["encode"])
    assert given.info == {"timings_ms": {"denoise": 5.0, "total": 7.0}}


@pytest.mark.parametrize("scale", [4.1, 7.3, 1.0, 0.1])
def test_guidance_means_the_number_that_was_typed(scale):
    """A plan made at 4.1 must serve a request of 4.1, which travels as FP32."""
    tensors = {"prompt": np.array([[b"a"]], object), "guidance_scale": np.array([[scale]], np.float32)}
    batch = decode_requests(tensors, ["info"], {}, limits=Limits())
    assert batch.requests[0].guidance_scale == scale
