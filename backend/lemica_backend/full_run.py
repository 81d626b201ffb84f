"""Let a worker run a request for nobody, as long as nothing else is to do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lemica_backend.planned import PlannedRequest
from lemica_backend.worker import Worker

_NUMBER = -1  # no request of anyone has it


def run_while_idle(worker: Worker, planned: PlannedRequest, while_idle: Callable[[], bool]) -> NDArray[np.uint8] | None:
    """Return the frames, shape (frames, height, width, 3); None once `while_idle`, asked before each step, is false."""
    try:
        worker.start(_NUMBER, planned)
        for _ in range(planned.num_inference_steps):
            if not while_idle():
                return None
            failures = worker.step([_NUMBER]).failures
            if failures:
                raise failures[_NUMBER]
        return worker.decode(_NUMBER).frames
    finally:
        worker.drop(_NUMBER)
