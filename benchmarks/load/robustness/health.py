"""What a server says about itself after it was tried."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request

from benchmarks.load.robustness.wire import Target, grpc_exchange, grpc_message, opened_channel

_BUSY = ("lemica_waiting_requests", "lemica_started_requests", "lemica_cached_bytes")
_POLL_S = 0.5
_PROBE_S = 120.0


def metric(metrics_url: str, name: str) -> float:
    """Return the sum of a metric over its labels.

    Raises
    ------
    ValueError
        If the server does not export it.
    """
    with urllib.request.urlopen(metrics_url, timeout=_PROBE_S) as answer:  # noqa: S310 - our own server
        text = answer.read().decode()
    values = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
    if not values:
        raise ValueError(f"{metrics_url} does not export {name}: is this a server of lemica?")
    return sum(map(float, values))


def left_over(metrics_url: str, patience_s: float) -> dict[str, float]:
    """Wait until no request and no cached byte is left; return what is left all the same, by metric."""
    deadline = time.monotonic() + patience_s
    while True:
        values = {name: metric(metrics_url, name) for name in _BUSY}
        left = {name: value for name, value in values.items() if value}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(_POLL_S)


async def serves(target: Target) -> bool:
    """Return whether a plain request is served on a new connection."""
    message = grpc_message(target.model, [1, 1], "probe", {"prompt": "a red circle", "seed": 1})
    async with opened_channel(target.grpc_url) as channel:
        return await grpc_exchange(channel, message, _PROBE_S) == "grpc OK"


async def settled(target: Target, metrics_url: str, patience_s: float = 120.0) -> dict[str, object]:
    """Return whether the server serves on, and what it has not let go of."""
    is_serving = await serves(target)
    left = await asyncio.to_thread(left_over, metrics_url, patience_s)
    return {"serves_afterwards": is_serving, "left_over": left}
