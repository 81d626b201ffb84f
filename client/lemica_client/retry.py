"""When a request is sent again: only where the server cannot be working on it, and only within its time limit."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lemica_client.errors import InvalidRequestError, LemicaClientError, ServerUnavailableError

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
MAX_RETRIES = 100


@dataclass
class Retries:
    """The attempts of one request.

    Pauses double and are drawn evenly from 0 to their length ("full jitter"), so that clients that were refused
    together do not come back together: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

    Attributes
    ----------
    left : int
        How often it may still be sent again.
    give_up_at_s : float
        On the clock of `time.monotonic`: no pause goes beyond.
    sleep : callable
        Waits for so many seconds.
    """

    left: int
    give_up_at_s: float
    sleep: Callable[[float], Awaitable[None]]
    _longest_s: float = field(default=FIRST_PAUSE_S, init=False)
    _first: str | None = field(default=None, init=False)

    async def pause_after(self, error: LemicaClientError) -> None:
        """Wait before the next attempt, or raise `error` where there must be none."""
        pause_s = random.uniform(0, self._longest_s)  # noqa: S311  (no secret)
        if not _is_refused(error) or self.left <= 0 or time.monotonic() + pause_s >= self.give_up_at_s:
            self.tell_first(error)
            raise error
        self._first = self._first or str(error)
        self.left -= 1
        self._longest_s = min(2 * self._longest_s, LONGEST_PAUSE_S)
        await self.sleep(pause_s)

    def tell_first(self, error: LemicaClientError) -> None:
        """Add to the message of `error` that of the first attempt, where it was another one.

        A server that is shutting down says so once; what the next attempt finds is a model that is unknown.
        """
        if self._first not in (None, str(error)):
            error.args = (f"{error}; at first: {self._first}",)


def _is_refused(error: LemicaClientError) -> bool:
    """Return whether the server surely does not work on the request and may take it later."""
    return isinstance(error, ServerUnavailableError) and not error.may_be_running


def check_retries(retries: int) -> int:
    """Return the number if it can be one."""
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= MAX_RETRIES:
        raise InvalidRequestError(f"retries: got {retries!r}; allowed is 0 (never) to {MAX_RETRIES}")
    return retries
