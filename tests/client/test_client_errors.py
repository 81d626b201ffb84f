"""Which error a status becomes: by its code, never by its words."""

import re

import grpc
import pytest

from lemica_client import errors
from lemica_client.errors import (
    GRPC_ERRORS,
    HTTP_ERRORS,
    LemicaClientError,
    ServerError,
    ServerUnavailableError,
    error_from_status,
)


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_grpc_status_has_an_error(code):
    error = error_from_status(str(code), "text")
    assert type(error) is GRPC_ERRORS.get(code.name, ServerError)
    assert (str(error), error.status) == ("text", str(code))


def test_the_tables_name_real_codes():
    assert set(GRPC_ERRORS) <= {code.name for code in grpc.StatusCode}
    assert all(400 <= int(code) < 600 for code in HTTP_ERRORS)


@pytest.mark.parametrize(
    ("http", "code"),
    [
        ("400", "INVALID_ARGUMENT"),
        ("404", "NOT_FOUND"),
        ("503", "UNAVAILABLE"),
        ("504", "DEADLINE_EXCEEDED"),
        ("499", "CANCELLED"),
        ("500", "INTERNAL"),
        ("501", "UNIMPLEMENTED"),
    ],
)
def test_both_protocols_agree(http, code):
    assert type(error_from_status(http, "")) is type(error_from_status(f"StatusCode.{code}", ""))


@pytest.mark.parametrize(
    "text",
    [
        "Deadline Exceeded",
        "unknown model",
        "connection refused",
        "INVALID_ARGUMENT",
        "is INVALID_ARGUMENT: no",
        "x: y",
    ],
)
@pytest.mark.parametrize("status", [None, "", "StatusCode.INTERNAL", "500", "418"])
def test_words_decide_nothing(status, text):
    assert type(error_from_status(status, text)) is ServerError


@pytest.mark.parametrize("status", [None, "", "200", "StatusCode.INTERNAL"])
def test_a_code_in_front_of_the_words_decides(status):
    error = error_from_status(status, "UNAVAILABLE: the queue is full: 8")
    assert (type(error), str(error)) == (ServerUnavailableError, "the queue is full: 8")


def test_the_tree_in_the_docstring_is_the_tree():
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert all(issubclass(getattr(errors, name), LemicaClientError) for name in classes)
    drawn = set(re.findall(r"── (\w+)", errors.__doc__))
    assert drawn == classes - {"LemicaClientError"}
