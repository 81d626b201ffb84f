"""The Triton backend `lemica`: between Triton's Python API and the engine, and nothing else.

The only file that imports Triton's module; the life of a request is drawn in docs/flow.md.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

from lemica_backend.codec import DecodedBatch, OutputOptions, Tensors, decode_requests, encode_results
from lemica_backend.engine_place import Server
from lemica_backend.engine_process import EngineOrder
from lemica_backend.errors import (
    DeadlineExceededError,
    EngineUnavailableError,
    InvalidRequestError,
    LemicaError,
    RequestCancelledError,
)
from lemica_backend.event_stream import EventStream
from lemica_backend.front import Client, Front
from lemica_backend.once import Once, OpenAnswers
from lemica_backend.refusals import refusal
from lemica_backend.reports import open_reports
from lemica_backend.shared_engine import find_engine, front_plan
from lemica_backend.triton_config import (
    check_config,
    complete_config,
    inputs_of,
    instance_device,
    is_decoupled,
    version_dir,
)
from lemica_backend.types import GenerationResult

_CODES: dict[type[Exception], str] = {  # by name: the process that auto-completes the configuration has no TritonError
    InvalidRequestError: "INVALID_ARG",
    EngineUnavailableError: "UNAVAILABLE",
    DeadlineExceededError: "UNAVAILABLE",
    RequestCancelledError: "CANCELLED",
}
_GRPC_NAMES = {"INVALID_ARG": "INVALID_ARGUMENT"}
_MAX_MESSAGE = 2000  # characters; gRPC carries an error in a header of at most 8 KiB
_NUM_ENCODERS = 2
_log = logging.getLogger(__name__)


class TritonPythonModel:
    """One instance of a model: a front of an engine that runs in a process of its own."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Add the tensors and the batching that config.pbtxt leaves out; refuse what does not fit."""
        complete_config(auto_complete_model_config)
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Attach to the engine, which loads the model if nobody has yet."""
        logging.getLogger().addHandler(_TritonLog())
        try:
            self._load(args)
        except LemicaError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._answers: OpenAnswers[Any] = OpenAnswers()
        # away from the thread that hears the engine, which every request waits for
        self._encoders = ThreadPoolExecutor(_NUM_ENCODERS, thread_name_prefix="lemica-encode")

    def _load(self, args: dict[str, str]) -> None:
        triton_config = json.loads(args["model_config"])
        check_config(triton_config)
        self._is_batched = triton_config["max_batch_size"] > 0
        self._streams = is_decoupled(triton_config)
        self._inputs = inputs_of(triton_config)
        engine = find_engine(version_dir(args))
        self._config = engine.config
        if self._config.device == "auto":
            self._config = self._config.model_copy(update={"device": instance_device(args)})
        self._config.weights_dir(engine.model_dir)  # what is broken is said at once
        self._reports = open_reports(args, triton_config, self._config, pb_utils.MetricFamily)
        plan_json = front_plan(engine, triton_config)
        order = EngineOrder(Server.of_pid(os.getppid()), engine.model_dir, self._config)
        self._front = Front(order, plan_json=plan_json, owns_plan=engine.is_own, watcher=self._reports)

    def execute(self, requests: list[Any]) -> None:
        """Hand every request to the engine and return at once; never raises, keeps no request."""
        for request in requests:
            try:
                self._accept(request)
            except BaseException:
                _log.exception("a request could not be accepted")

    def finalize(self) -> None:
        """Answer everything that is open, then let go."""
        self._front.close()
        self._encoders.shutdown(wait=True)
        self._reports.close()
        self._answers.close()

    def _accept(self, request: Any) -> None:
        sender = request.get_response_sender()
        request_id = request.request_id() or f"unnamed-{uuid.uuid4().hex[:8]}"
        lost = EngineUnavailableError("the request was lost on the server; send it again")
        answer = self._answers.open(partial(_send, sender), last_word=partial(self._error, lost, request_id))
        try:
            batch = self._decode(request, request_id)
            self._front.submit(batch.requests, self._client(sender, answer, request_id, batch.options))
        except Exception as error:
            answer.send(self._error(error, request_id))

    def _decode(self, request: Any, request_id: str) -> DecodedBatch:
        try:
            return decode_requests(
                self._tensors(request),
                request.requested_output_names(),
                json.loads(request.parameters() or "{}"),
                limits=self._config.limits,
                timeout_us=request.timeout(),
                inputs=self._inputs,
                request_id=request_id,
            )
        except LemicaError as error:
            self._reports.refused(refusal(error, request_id=request_id))
            raise

    def _client(self, sender: Any, answer: Once[Any], request_id: str, options: OutputOptions) -> Client:
        reply = partial(self._reply, answer, request_id, options)
        if not self._streams:
            return Client(lambda outcome: self._encoders.submit(reply, outcome), sender.is_cancelled)
        events = EventStream(partial(_send_event, sender), self._encoders.submit)
        return Client(
            on_done=lambda outcome: events.finish(partial(reply, outcome)),
            is_cancelled=sender.is_cancelled,
            on_event=events.tell if "info" in options.names else None,
            preview_every=options.preview_every,
        )

    def _tensors(self, request: Any) -> Tensors:
        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        return arrays if self._is_batched else {name: array[None] for name, array in arrays.items()}

    def _reply(
        self, answer: Once[Any], request_id: str, options: OutputOptions, outcome: list[GenerationResult] | LemicaError
    ) -> None:
        if isinstance(outcome, LemicaError):  # raised here, it would keep this frame, and the sender, until the next gc
            answer.send(self._error(outcome, request_id))
            return
        try:
            arrays = encode_results([self._marked(result) for result in outcome], options, fps=self._config.fps)
            tensors = [pb_utils.Tensor(name, array if self._is_batched else array[0]) for name, array in arrays.items()]
            answer.send(pb_utils.InferenceResponse(tensors))
        except Exception as error:
            answer.send(self._error(error, request_id))

    def _error(self, error: Exception, request_id: str) -> Any:
        """Tell the client what it can act on; what only the operator can goes to the log."""
        code, message = _CODES.get(type(error), "INTERNAL"), str(error)
        if code == "INTERNAL":
            _log.error("request %s failed", request_id, exc_info=error)
            detail = message if isinstance(error, LemicaError) else f"unexpected {type(error).__name__}"
            message = f"request {request_id}: {detail} (details are in the server's log)"
        if self._streams:  # Triton loses the codes of errors of `generate_stream`
            message = f"{_GRPC_NAMES.get(code, code)}: {message}"
        triton_error = pb_utils.TritonError(message[:_MAX_MESSAGE], getattr(pb_utils.TritonError, code))
        return pb_utils.InferenceResponse(error=triton_error)

    def _marked(self, result: GenerationResult) -> GenerationResult:
        """Return the result with an info that says, in a stream, that it is the last event."""
        return dataclasses.replace(result, info={"event": "result", **result.info}) if self._streams else result


def _send(sender: Any, response: Any) -> None:
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _send_event(sender: Any, text: bytes) -> None:
    info = pb_utils.Tensor("info", np.array([text], dtype=np.object_))
    sender.send(pb_utils.InferenceResponse([info]))


class _TritonLog(logging.Handler):
    """Python's log into Triton's: warnings, errors, and what a logger was told to let through."""

    def emit(self, record: logging.LogRecord) -> None:
        levels = {logging.ERROR: pb_utils.Logger.log_error, logging.WARNING: pb_utils.Logger.log_warn}
        write = levels.get(min(record.levelno, logging.ERROR), pb_utils.Logger.log_info)
        write(f"{record.name}: {self.format(record)}")
