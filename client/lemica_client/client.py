"""The blocking client: one call, one video."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from lemica_client.encode import check_file_format
from lemica_client.errors import (
    InvalidRequestError,
    RequestTimeoutError,
    ServerError,
    ServerUnavailableError,
)
from lemica_client.protocol import add_batch_dimension, build_inputs
from lemica_client.transport import Transport, open_transport
from lemica_client.video import Video

_POLL_S = 0.2
_MAX_TIMEOUT_S = 1e9  # 30 years; far beyond it the protocols' own clocks overflow


class Client:
    """A connection to a Triton server that serves a `lemica` model.

    It may be used from several threads: the server merges requests that run at the same time at every denoising
    step, so a thread for each prompt is the way to make several videos at once.

    Parameters
    ----------
    url : str
        ``grpc://host:port``, ``http://host:port``, or ``host:port`` for gRPC. Prefer gRPC: only there do Ctrl-C
        and `close` stop a request on the server; a time limit does over both.
    model : str
        Name of the model on the server.
    timeout_s : float
        Seconds to wait for an answer, unless a call says otherwise.
    transport : Transport, optional
        What carries the requests; by default what `url` asks for.

    Raises
    ------
    InvalidRequestError
        If `url` cannot be read. Nothing is sent before the first call.
    MissingDependencyError
        If tritonclient is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = "latte_shapes",
        timeout_s: float = 600.0,
        transport: Transport | None = None,
    ) -> None:
        self.url = url
        self.model = model
        self.timeout_s = _check_timeout(timeout_s)
        self._transport = transport or open_transport(url)
        self._takes_batches: bool | None = None  # None: not asked yet

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; over gRPC, requests of other threads end with `RequestCancelledError`."""
        self._transport.close()

    def generate(
        self,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        seed: int | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        budget: str | int | None = None,
        deadline_ms: int | None = None,
        priority: int | None = None,
        client_id: str | None = None,
        file_format: str | None = None,
        want_frames: bool = True,
        timeout_s: float | None = None,
    ) -> Video:
        """Make one video and wait for it. None leaves an option to the server.

        Parameters
        ----------
        prompt, negative_prompt : str
            What the video should show, and what it should not.
        seed : int
            Seed of the initial noise; without it the server draws one (``video.info["seed"]``).
        guidance_scale : float
            Weight of classifier-free guidance; at most 1 turns it off.
        num_inference_steps : int
            Denoising steps.
        height, width : int
            Size in pixels.
        num_frames : int
            Frames.
        budget : str or int
            ``"full"``, a name in the model's plan such as ``"slow"`` or ``"fast"``, or a number of computed steps; or
            a range of these, such as ``"fast..slow"``, in which the server chooses.
        deadline_ms : int
            Milliseconds from its arrival at the server after which the video is of no use. The server refuses at once
            what it cannot make by then, and names the earliest time that it could.
        priority : int
            Requests of a higher priority go first.
        client_id : str
            Whose request it is: the server shares its time fairly between clients that wait. Those that do not say are
            one client together.
        file_format : {"mp4", "gif", "webp"}
            Also let the server encode the video; `Video.save` then writes that file.
        want_frames : bool
            False leaves the raw frames on the server: only the encoded file crosses the network.
        timeout_s : float
            Seconds to wait for this answer; the server then stops working on it.

        Raises
        ------
        InvalidRequestError
            If the request can never be served as it is.
        ModelNotFoundError
            If the server has no such model.
        ServerUnavailableError
            If there is no connection, or the server cannot take the request now.
        RequestTimeoutError
            If the answer does not come within `timeout_s`.
        RequestCancelledError
            If the request was cancelled, by `close` or on the server.
        ServerError
            If the server failed.
        """
        options = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "seed": seed,
            "guidance_scale": guidance_scale,
            "num_inference_steps": num_inference_steps,
            "height": height,
            "width": width,
            "num_frames": num_frames,
            "budget": budget,
            "deadline_ms": deadline_ms,
            "priority": priority,
            "client_id": client_id,
            "file_format": file_format,
        }
        outputs = _choose_outputs(file_format, want_frames)
        arrays = self._infer(options, outputs, self._timeout(timeout_s))
        return _to_video(arrays, file_format)

    def wait_until_ready(self, timeout_s: float | None = None) -> None:
        """Wait until the server and the model are ready.

        Parameters
        ----------
        timeout_s : float, optional
            Seconds to wait at most.

        Raises
        ------
        ServerUnavailableError
            If they are not ready by then; the message says what was missing last.
        """
        limit_s = self._timeout(timeout_s)
        give_up_at = time.monotonic() + limit_s
        while (remaining_s := give_up_at - time.monotonic()) > 0:
            try:
                if self._transport.is_ready(self.model, remaining_s):
                    return
                missing = f"the server answers, but model {self.model!r} is not ready (is it the right name?)"
            except (ServerUnavailableError, RequestTimeoutError) as exc:
                missing = str(exc)
            time.sleep(min(_POLL_S, remaining_s))
        raise ServerUnavailableError(f"{self.url} was not ready within {limit_s:.3g} s: {missing}")

    def model_config(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the model's configuration as the server has loaded it: the fields of its config.pbtxt.

        Raises the errors of `generate`.
        """
        return self._transport.model_config(self.model, self._timeout(timeout_s))

    def plan(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """Return the cache plan that the model serves, or None if it has none (then only ``full`` is served).

        Raises the errors of `generate`; `ServerError` if what the server holds is not a plan.
        """
        parameters = self.model_config(timeout_s).get("parameters", {})
        text = parameters.get("cache_plan", {}).get("string_value")
        return _read_json_object(text, "the model's cache_plan") if text else None

    def _infer(self, options: Mapping[str, object], outputs: list[str], timeout_s: float) -> dict[str, NDArray[Any]]:
        tensors = build_inputs(options)  # first: what is wrong in the request needs no server to find
        give_up_at = time.monotonic() + timeout_s
        if self._takes_batches is None:
            config = self._transport.model_config(self.model, timeout_s)
            self._takes_batches = int(config.get("max_batch_size", 0)) > 0
        if self._takes_batches:
            tensors = add_batch_dimension(tensors)
        remaining_s = max(give_up_at - time.monotonic(), 0.001)
        arrays = self._transport.infer(self.model, tensors, outputs, remaining_s)
        return {name: array[0] for name, array in arrays.items()} if self._takes_batches else arrays

    def _timeout(self, timeout_s: float | None) -> float:
        return self.timeout_s if timeout_s is None else _check_timeout(timeout_s)


def _check_timeout(timeout_s: float) -> float:
    if not 0 < timeout_s <= _MAX_TIMEOUT_S:  # NaN included
        raise InvalidRequestError(f"timeout_s: got {timeout_s}; allowed is above 0 and at most {_MAX_TIMEOUT_S:.0f}")
    return timeout_s


def _choose_outputs(file_format: str | None, want_frames: bool) -> list[str]:
    """Name only what will be used: the server makes no other output."""
    if file_format is None and not want_frames:
        raise InvalidRequestError("want_frames: got False without a file_format, which leaves nothing to make")
    if file_format is not None:
        check_file_format(file_format)
    return [*(["video"] if want_frames else []), *(["video_file"] if file_format else []), "info"]


def _to_video(arrays: dict[str, NDArray[Any]], file_format: str | None) -> Video:
    file = arrays.get("video_file")
    return Video(
        _read_json_object(arrays["info"].item(), "info"),
        frames=arrays.get("video"),
        file_bytes=None if file is None else file.item(),
        file_format=file_format,
    )


def _read_json_object(text: str | bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise ServerError(f"{name} is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise ServerError(f"{name} is not a JSON object")
    return value
