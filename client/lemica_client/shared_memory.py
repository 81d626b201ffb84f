"""Frames through system shared memory: on one machine a large video need not cross a socket.

The server copies the frames into a region that this client made; the client copies them out and gives the region back.
Its size is that of the last video of the same height, width and frames, so the first of each comes over the wire.
"""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lemica_client.errors import InvalidRequestError, LemicaClientError

if TYPE_CHECKING:
    from lemica_client.connection import Address
    from lemica_client.transport import Transport

Mode = Literal["auto"] | bool
_POLL_S = 0.05
_CLOSE_S = 3.0  # a cancelled request ends within one step
WORTH_BYTES = {"grpc": 4 << 20, "http": 32 << 20}  # smaller frames gain nothing: benchmarks/bench_shared_memory.py


class Region:
    """A region of POSIX shared memory of this process; `name` is what the server calls it."""

    def __init__(self, byte_size: int) -> None:
        from tritonclient.utils import shared_memory  # noqa: PLC0415  (imported only when used)

        self.name = f"lemica_{uuid.uuid4().hex}"
        self.key = f"/{self.name}"
        self.byte_size = byte_size
        self._memory = shared_memory
        self._handle = shared_memory.create_shared_memory_region(self.name, self.key, byte_size, create_only=True)

    def read(self, shape: list[int]) -> NDArray[np.uint8]:
        """Return a copy of the pixels."""
        pixels: NDArray[np.uint8] = self._memory.get_contents_as_numpy(self._handle, np.uint8, shape)
        return pixels.copy()

    def free(self) -> None:
        """Free this side's mapping and the name; the server's mapping goes when it forgets the region."""
        self._memory.destroy_shared_memory_region(self._handle)


class SharedFrames:
    """Lends regions to requests, and sees to it that each is given back.

    Parameters
    ----------
    transport : Transport
    mode : "auto", True or False
        ``"auto"``: where the server is on the loopback, the frames are large, and it takes the region. True: always,
        and what stands in the way is raised. False: never.
    address : Address
        Of the server.
    """

    def __init__(self, transport: Transport, mode: Mode, address: Address) -> None:
        if mode not in ("auto", True, False):
            raise InvalidRequestError(f"shared_memory: got {mode!r}; allowed are 'auto', True and False")
        self._transport = transport
        self._mode = mode
        self._is_on = mode is True or (mode == "auto" and address.is_loopback)
        self._worth_bytes = WORTH_BYTES[address.scheme]
        self._sizes: dict[object, int] = {}
        self._leftovers: list[Region] = []

    def learn(self, key: object, frames: NDArray[Any] | None) -> None:
        """Remember how large the frames of such a request are."""
        if frames is not None:
            self._sizes[key] = math.prod(frames.shape)

    def forget(self, key: object) -> None:
        """Forget it again: the model now makes larger ones."""
        self._sizes.pop(key, None)

    async def lend(self, key: object) -> Region | None:
        """Return a registered region for such a request, or None where the frames are to come inline."""
        await self._give_back_leftovers()
        size = self._sizes.get(key)
        if not self._is_on or size is None or (self._mode == "auto" and size < self._worth_bytes):
            return None
        try:
            return await self._make(size)
        except Exception:
            # A server in a container does not see this memory, a Triton may have the extension off, /dev/shm be full.
            if self._mode is True:
                raise
            self._is_on = False
            return None

    async def take_back(self, region: Region) -> None:
        """Free a region; one that an abandoned request still writes to is unregistered later."""
        region.free()
        self._leftovers.append(region)
        await self._give_back_leftovers()

    async def _make(self, size: int) -> Region:
        region = Region(size)
        try:
            await self._transport.register(region)
        except BaseException:
            await self.take_back(region)
            raise
        return region

    async def _give_back_leftovers(self) -> None:
        pending, self._leftovers = self._leftovers, []
        for region in pending:
            try:
                await self._transport.unregister(region)
            except LemicaClientError:  # refused while in use: tried again before the next request and at `close`
                self._leftovers.append(region)

    async def close(self) -> None:
        """Give back what is left; what the server still writes to gets a moment."""
        for _ in range(round(_CLOSE_S / _POLL_S)):
            await self._give_back_leftovers()
            if not self._leftovers:
                return
            await self._transport.sleep(_POLL_S)
