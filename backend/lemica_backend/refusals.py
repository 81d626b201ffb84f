"""Tell a watcher of requests that were not accepted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lemica_backend.errors import EngineUnavailableError, LemicaError
from lemica_backend.types import GenerationRequest
from lemica_backend.watch import Refused, Watcher, tell

_UNREAD = GenerationRequest("")


def refusal(error: LemicaError, request: GenerationRequest = _UNREAD, *, request_id: str = "") -> Refused:
    """Return the event of a refused request; of one that could not even be read, its id may be known."""
    return Refused(
        outcome=error.kind,
        reason=error.reason if isinstance(error, EngineUnavailableError) else error.kind,
        message=str(error),
        budget=request.budget or "",
        request_id=request.request_id or request_id,
        client=request.client_id,
    )


@contextmanager
def telling_refusals(watcher: Watcher, requests: Sequence[GenerationRequest], default_budget: str) -> Iterator[None]:
    """Tell that every one of `requests` is refused, if what is done here raises an error of ours."""
    try:
        yield
    except LemicaError as error:
        for request in requests:
            known = request if request.budget else dataclasses.replace(request, budget=default_budget)
            tell(watcher, refusal(error, known))
        raise
