"""One line in the log for every request that ended."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from lemica_backend.config import Log
from lemica_backend.watch import OK, Answered, NoWatcher, Refused

LOGGER = "lemica.requests"
_BARE = re.compile(r"[\w.:/+-]+", re.ASCII)


class RequestLog(NoWatcher):
    """A watcher that writes to the logger `LOGGER`, at level INFO. Prompts are never written.

    Parameters
    ----------
    config : Log
    labels : mapping of str to str
        What every line begins with: ``model`` and ``version``.
    """

    def __init__(self, config: Log, labels: Mapping[str, str]) -> None:
        self._config = config
        self._labels = labels
        self._logger = logging.getLogger(LOGGER)
        self._logger.setLevel(logging.INFO)

    def refused(self, refused: Refused) -> None:
        """Write its line."""
        self._write(refused, {"reason": refused.reason, "error": refused.message})

    def answered(self, answered: Answered) -> None:
        """Write its line."""
        times = {f"{stage}_ms": round(seconds * 1e3, 3) for stage, seconds in answered.stages_s.items()}
        eta = {} if answered.eta_s is None else {"eta_ms": round(answered.eta_s * 1e3, 3)}
        facts = {
            "seed": answered.seed,
            "num_steps": answered.num_steps,
            "computed_steps": answered.computed_steps,
            **({"priority": answered.priority} if answered.priority else {}),
            **times,
            "total_ms": round(answered.total_s * 1e3, 3),
            **eta,
            **({"quality_warning": True} if answered.is_warned_of else {}),
        }
        self._write(answered, facts if answered.outcome == OK else {**facts, "error": answered.message})

    def _write(self, event: Answered | Refused, facts: Mapping[str, Any]) -> None:
        if self._config.requests == "off" or (self._config.requests == "failures" and event.outcome == OK):
            return
        line = {
            "event": "request",
            **self._labels,
            "request_id": event.request_id,
            "client_id": event.client,
            "outcome": event.outcome,
            "budget": event.budget,
            **facts,
        }
        self._logger.info("%s", json.dumps(line) if self._config.format == "json" else _pairs(line))


def _pairs(line: Mapping[str, Any]) -> str:
    """Return key=value pairs; what is not a plain word is quoted as in JSON.

    Examples
    --------
    >>> _pairs({"outcome": "ok", "client_id": "a b", "request_id": ""})
    'outcome=ok client_id="a b" request_id=""'
    """
    return " ".join(f"{key}={_value(value)}" for key, value in line.items())


def _value(value: Any) -> str:
    return text if _BARE.fullmatch(text := str(value)) else json.dumps(text)
