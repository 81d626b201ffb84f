"""What a stream's `info` becomes, and lines of server-sent events, without a server."""

import json

import pytest

from lemica_client import (
    Accepted,
    InvalidRequestError,
    Progress,
    RequestTimeoutError,
    ServerError,
    ServerUnavailableError,
)
from lemica_client.events import read_event
from lemica_client.sse import read_line, refusal

STEP = {"event": "progress", "step": 3, "num_steps": 10, "computed": False, "eta_ms": None}


def test_events_are_read_and_unknown_fields_left_alone():
    assert read_event({"event": "accepted", "budget": "fast", "eta_ms": 5, "new": 1}) == Accepted("fast", 5)
    assert read_event(STEP) == Progress(3, 10, False, None)
    assert read_event(STEP | {"preview": "aGk="}).preview == b"hi"
    assert read_event({"event": "result"}) is None


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"event": "other"},
        {"event": "accepted"},
        {"event": "progress", "step": 1},
        STEP | {"step": "one"},
        STEP | {"preview": "no base64!"},
    ],
)
def test_what_is_no_event_is_the_servers_fault(info):
    with pytest.raises(ServerError, match="event"):
        read_event(info)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARGUMENT", InvalidRequestError),
        ("UNAVAILABLE", ServerUnavailableError),
        ("DEADLINE_EXCEEDED", RequestTimeoutError),
        ("INTERNAL", ServerError),
        (None, ServerError),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_the_code_before_a_message_names_the_class_and_is_left_out(code, kind, status):
    text = f"{code}: the words: two" if code else "the words: two"
    with pytest.raises(kind, match=r"^the words: two$") as caught:
        read_line(f'data: {{"error": "{text}"}}'.encode(), status)
    assert type(caught.value) is kind


def test_lines_of_a_stream_carry_text_and_files():
    line = b"data: " + json.dumps({"info": "{}", "video_file": "aGk=", "model_name": "x"}).encode() + b"\n"
    arrays = read_line(line, 200)
    assert {name: array.item() for name, array in arrays.items()} == {"info": b"{}", "video_file": b"hi"}
    assert [read_line(line, 200) for line in (b"\n", b": comment\n", b"event: x\n")] == [None] * 3


@pytest.mark.parametrize(
    ("status", "kind"), [(200, ServerError), (400, ServerError), (503, ServerUnavailableError), (500, ServerError)]
)
def test_an_error_line_has_the_class_of_a_status_that_says_something(status, kind):
    with pytest.raises(kind, match="words") as caught:
        read_line(b'data: {"error": "words"}', status)
    assert type(caught.value) is kind


@pytest.mark.parametrize("line", [b"data: {", b"data: [1]", b"data: "])
def test_a_line_that_is_no_json_object_is_the_servers_fault(line):
    with pytest.raises(ServerError, match="stream"):
        read_line(line, 200)


def test_a_file_that_is_no_base64_is_the_servers_fault():
    with pytest.raises(ServerError, match="base64"):
        read_line(b'data: {"info": "{}", "video_file": "a b"}', 200)


def test_a_proxys_refusal_keeps_its_words():
    assert (type(refusal(503, b"<html>away</html>")), str(refusal(503, b"<html>away</html>"))) == (
        ServerUnavailableError,
        "<html>away</html>",
    )
    assert str(refusal(503, b"")) == "HTTP status 503"
