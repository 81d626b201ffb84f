"""Whether there is a Ray cluster to run on: refused before the work, because Ray itself waits for minutes."""

from __future__ import annotations

import socket
from importlib.util import find_spec

from lemica_planner.errors import CalibrationError

__all__ = ["require_ray"]

_TIMEOUT_S = 10


def require_ray(address: str | None) -> None:
    """Refuse if Ray is not installed, or nothing listens at the `address` of a cluster; ``auto`` is left to Ray.

    Raises
    ------
    CalibrationError
        Naming what is missing.
    """
    if find_spec("ray") is None:
        raise CalibrationError("workers need Ray, which is not installed: pip install '.[ray]' in a checkout of lemica")
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (host and port.isascii() and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S).close()
    except (OSError, OverflowError) as exc:
        raise CalibrationError(f"no Ray cluster answers at {address}: {exc}; start one, or give its address") from exc
