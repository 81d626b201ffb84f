"""The Triton backend `lemica`: between Triton's Python API and the engine, and nothing else.

The only file that imports Triton's module; the life of a request is drawn in docs/flow.md.
"""

from __future__ import annotations

import json
import logging
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

from lemica_backend.codec import OutputOptions, Tensors, decode_requests, encode_results
from lemica_backend.config import MODEL_FILE, load_config
from lemica_backend.errors import (
    DeadlineExceededError,
    EngineUnavailableError,
    InvalidRequestError,
    LemicaError,
    RequestCancelledError,
)
from lemica_backend.once import Once, OpenAnswers
from lemica_backend.row_group import RowGroup
from lemica_backend.triton_config import cache_plan, check_config, complete_config, instance_device, version_dir
from lemica_backend.types import GenerationResult

_CODES: dict[type[Exception], str] = {  # by name: the process that auto-completes the configuration has no TritonError
    InvalidRequestError: "INVALID_ARG",
    EngineUnavailableError: "UNAVAILABLE",
    DeadlineExceededError: "UNAVAILABLE",
    RequestCancelledError: "CANCELLED",
}
_MAX_MESSAGE = 2000  # characters; gRPC carries an error in a header of at most 8 KiB
_NUM_ENCODERS = 2
_log = logging.getLogger(__name__)


class TritonPythonModel:
    """One instance of a model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Add the tensors and the batching that config.pbtxt leaves out; refuse what does not fit."""
        complete_config(auto_complete_model_config)
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model and start its engine."""
        logging.getLogger().addHandler(_TritonLog())
        try:
            self._load(args)
        except LemicaError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._answers: OpenAnswers[Any] = OpenAnswers()
        # away from the engine's thread, which every request waits for
        self._encoders = ThreadPoolExecutor(_NUM_ENCODERS, thread_name_prefix="lemica-encode")

    def _load(self, args: dict[str, str]) -> None:
        triton_config = json.loads(args["model_config"])
        check_config(triton_config)
        self._is_batched = triton_config["max_batch_size"] > 0
        folder = version_dir(args)
        self._config = load_config(folder / MODEL_FILE)
        if self._config.device == "auto":
            self._config = self._config.model_copy(update={"device": instance_device(args)})
        self._config.weights_dir(folder)  # what is broken is said at once; loading torch takes seconds
        from lemica_backend.engine import load_engine  # noqa: PLC0415

        self._engine = load_engine(folder, self._config, cache_plan(triton_config))

    def execute(self, requests: list[Any]) -> None:
        """Hand every request to the engine and return at once; never raises, keeps no request."""
        for request in requests:
            try:
                self._accept(request)
            except BaseException:
                _log.exception("a request could not be accepted")

    def finalize(self) -> None:
        """Answer everything that is open, then let go."""
        self._engine.close()
        self._encoders.shutdown(wait=True)
        self._answers.close()

    def _accept(self, request: Any) -> None:
        sender = request.get_response_sender()
        request_id = request.request_id() or f"unnamed-{uuid.uuid4().hex[:8]}"
        lost = EngineUnavailableError("the request was lost on the server; send it again")
        answer = self._answers.open(partial(_send, sender), last_word=partial(_error_response, lost, request_id))
        try:
            batch = decode_requests(
                self._tensors(request),
                request.requested_output_names(),
                json.loads(request.parameters() or "{}"),
                limits=self._config.limits,
                timeout_us=request.timeout(),
            )
            reply = partial(self._reply, answer, request_id, batch.options)
            group = RowGroup(len(batch.requests), reply=reply, is_cancelled=sender.is_cancelled)
            group.submit(self._engine, batch.requests)
        except Exception as error:
            answer.send(_error_response(error, request_id))

    def _tensors(self, request: Any) -> Tensors:
        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        return arrays if self._is_batched else {name: array[None] for name, array in arrays.items()}

    def _reply(
        self, answer: Once[Any], request_id: str, options: OutputOptions, outcome: list[GenerationResult] | LemicaError
    ) -> None:
        if isinstance(outcome, LemicaError):
            answer.send(_error_response(outcome, request_id))
        else:
            self._encoders.submit(self._send_results, answer, request_id, options, outcome)

    def _send_results(
        self, answer: Once[Any], request_id: str, options: OutputOptions, results: list[GenerationResult]
    ) -> None:
        try:
            arrays = encode_results(results, options, fps=self._config.fps)
            tensors = [pb_utils.Tensor(name, array if self._is_batched else array[0]) for name, array in arrays.items()]
            answer.send(pb_utils.InferenceResponse(tensors))
        except Exception as error:
            answer.send(_error_response(error, request_id))


def _send(sender: Any, response: Any) -> None:
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _error_response(error: Exception, request_id: str) -> Any:
    """Tell the client what it can act on; what only the operator can goes to the log."""
    code = _CODES.get(type(error), "INTERNAL")
    message = str(error)
    if code == "INTERNAL":
        _log.error("request %s failed", request_id, exc_info=error)
        detail = message if isinstance(error, LemicaError) else f"unexpected {type(error).__name__}"
        message = f"request {request_id}: {detail} (details are in the server's log)"
    triton_error = pb_utils.TritonError(message[:_MAX_MESSAGE], getattr(pb_utils.TritonError, code))
    return pb_utils.InferenceResponse(error=triton_error)


class _TritonLog(logging.Handler):
    """Python's log, from warnings on, into Triton's."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        write = pb_utils.Logger.log_error if record.levelno >= logging.ERROR else pb_utils.Logger.log_warn
        write(f"{record.name}: {self.format(record)}")
