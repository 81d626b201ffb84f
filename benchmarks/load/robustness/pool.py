"""Many at a time, never more than so many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator


async def for_each(count: int, at_once: int, work: Callable[[int], Awaitable[None]]) -> None:
    """Await ``work(number)`` for each number below `count`, `at_once` of them at any time."""
    numbers: Iterator[int] = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
