"""A group of processes that computes videos together: the worker, and others that run blocks for it.

Only the worker knows requests, samplers and step caches, and does what is beside the block stack. The others hold the
same weights, wait at a socket, and take part in `blocks.parallel_stack` when they are told to. Where one of them ends,
all do, so that nobody waits in a collective for ever: what the engine sees is a lost worker.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import threading
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import distributed as dist

from lemica_backend.blocks.parallel_stack import (
    FAILED,
    Form,
    ParallelStack,
    compute_share,
    ending_on_failure,
    split_attention,
)
from lemica_backend.blocks.stack import TOKENS, BlockStack
from lemica_backend.errors import ModelLoadError
from lemica_backend.models.base import VideoModel
from lemica_backend.pipe import receive, send
from lemica_backend.process_worker import Child, Recipe, start_child
from lemica_backend.stepping import free_memory

__all__ = ["Follower", "Group", "require_gpus", "require_shareable"]

_HOST = "127.0.0.1"
_MEETING_S = 120.0
_SERVED = "wan, wan_i2v, ltx"
_log = logging.getLogger(__name__)


class _Seat(NamedTuple):
    """A process's place in its group."""

    rank: int
    size: int
    timeout_s: float


class Group:
    """The worker's side: starts the other processes, which end with this thread at the latest.

    Parameters
    ----------
    devices : sequence of str
        One for each process, this one's first.
    recipes : sequence of Recipe
        How the others make their `Follower`; they load while this process does.
    timeout_s : float
        ``limits.worker_timeout_s``.

    Raises
    ------
    ModelLoadError
        If there is no such GPU.
    """

    def __init__(self, devices: Sequence[str], recipes: Sequence[Recipe], timeout_s: float) -> None:
        require_gpus(devices)
        self._devices = tuple(devices)
        self._timeout_s = timeout_s
        self._others = tuple(start_child() for _ in recipes)
        for other, recipe in zip(self._others, recipes, strict=True):
            with contextlib.suppress(OSError):  # it died at once, which is found when it should have loaded
                send(other.connection, (recipe, False))

    def share(self, model: VideoModel) -> None:
        """Let the group run the model's block stacks, once all of it has loaded.

        Raises
        ------
        ModelLoadError
            If the model cannot be shared by so many, or another process could not load it.
        """
        base: Any = getattr(model, "base", model)
        require_shareable(base, len(self._devices))
        self._await_loaded()
        for other, device in zip(self._others, self._devices[1:], strict=True):
            threading.Thread(target=_end_with, args=[other, device], daemon=True).start()
        self._meet()
        split_attention(base.stacks)
        for other in self._others:
            receive(other.connection)
        base.stacks = [ParallelStack(stack, partial(self._tell, index)) for index, stack in enumerate(base.stacks)]

    def _await_loaded(self) -> None:
        for other, device in zip(self._others, self._devices[1:], strict=True):
            try:
                is_error, value = receive(other.connection)
            except (EOFError, OSError):
                raise ModelLoadError(f"the process of {device} ended while it loaded the model") from None
            if is_error:
                raise value

    def _meet(self) -> None:
        with socket.create_server((_HOST, 0)) as listener:
            port, descriptor = listener.getsockname()[1], listener.detach()
        seat = _Seat(0, len(self._devices), self._timeout_s)
        for rank, other in enumerate(self._others, 1):
            send(other.connection, ("join", port, seat._replace(rank=rank)))
        _join(port, seat, torch.device(self._devices[0]), descriptor)

    def _tell(self, index: int, forms: tuple[Form, ...]) -> None:
        for other in self._others:
            send(other.connection, ("compute", index, forms))


class Follower:
    """What another process of the group does; `lemica_backend.worker_main` calls it.

    Parameters
    ----------
    model : VideoModel
        Of which only the block stacks are kept.
    """

    facts = None  # the engine asks the worker

    def __init__(self, model: VideoModel) -> None:
        self._stacks: list[BlockStack] = list(_stacks(model))

    def join(self, port: int, seat: _Seat) -> None:
        """Meet the rest of the group."""
        with ending_on_failure():
            free_memory()  # text encoder and autoencoder, which only the worker needs
            _join(port, seat, next(self._stacks[0].parameters()).device)
            split_attention(self._stacks)

    @torch.inference_mode()
    def compute(self, index: int, forms: tuple[Form, ...]) -> None:
        """Run one of the block stacks on this process's share of what the worker gives."""
        with ending_on_failure():
            compute_share(self._stacks[index], forms)


def _join(port: int, seat: _Seat, device: torch.device, listener: int | None = None) -> None:
    """Make the process group; all of it is on this machine, so nothing of it listens on a network."""
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")
    timeout = timedelta(seconds=seat.timeout_s + _MEETING_S)  # the engine's own limit comes first
    store = dist.TCPStore(  # type: ignore[attr-defined]  # the annotations of torch leave it out
        _HOST, port, is_master=seat.rank == 0, timeout=timeout, wait_for_workers=False, master_listen_fd=listener
    )
    place: dict[str, Any] = {"rank": seat.rank, "world_size": seat.size, "timeout": timeout}
    if device.type != "cuda":
        dist.init_process_group("gloo", store=store, **place)
        return
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", store=store, device_id=device, **place)


def _end_with(other: Child, device: str) -> None:
    """End this process when another one of its group has ended; it may be waiting for that one for ever."""
    code = other.process.wait()
    _log.critical("the process of %s ended with exit code %d, and so does its group", device, code)
    os._exit(FAILED)


def _stacks(model: Any) -> Sequence[BlockStack]:
    stacks: Sequence[BlockStack] = getattr(getattr(model, "base", model), "stacks", ())
    return stacks


def require_gpus(devices: Sequence[str]) -> None:
    """Refuse GPUs that are not there; raises `ModelLoadError`."""
    count = torch.cuda.device_count()
    for device in devices:
        kind, _, index = device.partition(":")
        if kind == "cuda" and int(index) >= count:
            raise ModelLoadError(
                f"model.json, devices: got {device!r}, and the GPUs that are seen here number {count}, from cuda:0 on: "
                "name those, or take a smaller context_parallel"
            )


def require_shareable(model: Any, count: int) -> None:
    """Refuse a model that cannot be shared out among so many; raises `ModelLoadError`."""
    stacks = _stacks(model)
    if not stacks or not all(stack.token_attentions for stack in stacks):
        raise ModelLoadError(
            f"model.json, context_parallel: got {count}, and family {model.info.family!r} takes 1: leave it out "
            f"(families that take more: {_SERVED})"
        )
    for stack in stacks:
        _require_even(stack, count)
        _require_backend(stack)


def _require_even(stack: BlockStack, count: int) -> None:
    tokens, heads = stack.served[TOKENS].most, int(stack.token_attentions[0].heads)
    common = math.gcd(tokens, heads)
    if common % count:
        allowed = ", ".join(str(each) for each in range(1, common + 1) if common % each == 0)
        raise ModelLoadError(
            f"model.json, context_parallel: got {count}, which must divide the {tokens} tokens of a video of this size "
            f"and the {heads} heads of attention: take one of {allowed}, or another size"
        )


def _require_backend(stack: BlockStack) -> None:
    """Refuse an attention backend that diffusers cannot split."""
    from diffusers.models.attention_dispatch import (  # noqa: PLC0415 - only where it is wanted
        AttentionBackendName,
        _AttentionBackendRegistry,
    )

    own = stack.token_attentions[0].processor._attention_backend
    name = AttentionBackendName(own) if own else _AttentionBackendRegistry.get_active_backend()[0]
    if not _AttentionBackendRegistry._is_context_parallel_available(name):
        served = ", ".join(sorted(_AttentionBackendRegistry._supports_context_parallel))
        raise ModelLoadError(
            f"model.json, attention_backend: {name.value!r} cannot be split, with context_parallel take one of {served}"
        )
