"""Two budgets of one prompt at the same time: what the page of `lemica ui` shows, without the page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from lemica_client.async_client import AsyncClient
from lemica_client.errors import LemicaClientError, ModelNotFoundError
from lemica_client.events import Accepted, Progress
from lemica_client.progress import describe
from lemica_client.requests import GenerateOptions
from lemica_client.video import Video

PREVIEW_EVERY = 2


@dataclass(frozen=True)
class Side:
    """How far one of the two is.

    Attributes
    ----------
    budget : str
    text : str
        What is going on, in a few words.
    step, num_steps : int
        Steps taken and in all; 0 before they are known.
    preview : bytes or None
        The newest small picture.
    video : Video or None
        The result.
    elapsed_s : float
        Seconds since the request was sent.
    """

    budget: str
    text: str = "waiting"
    step: int = 0
    num_steps: int = 0
    preview: bytes | None = None
    video: Video | None = None
    elapsed_s: float = 0.0


async def compare(
    client: AsyncClient, prompt: str, budgets: tuple[str, str], seed: int | None
) -> AsyncGenerator[tuple[Side, Side], None]:
    """Make one video with each budget, with the same seed, and yield both sides whenever one changed.

    Leaving the generator cancels both on the server. An error of one side is said in its text and leaves the other.
    """
    sides = [Side(budget) for budget in budgets]
    changes: asyncio.Queue[tuple[int, Side | None]] = asyncio.Queue()

    async def follow(index: int, side: Side) -> None:
        try:
            async with aclosing(_changes(client, prompt, side, seed)) as found:
                async for change in found:
                    changes.put_nowait((index, change))
        finally:
            changes.put_nowait((index, None))

    tasks = [asyncio.create_task(follow(index, side)) for index, side in enumerate(sides)]
    open_sides = len(tasks)
    try:
        yield sides[0], sides[1]
        while open_sides:
            index, side = await changes.get()
            if side is None:
                open_sides -= 1
                continue
            sides[index] = side
            yield sides[0], sides[1]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _changes(client: AsyncClient, prompt: str, side: Side, seed: int | None) -> AsyncGenerator[Side, None]:
    """Yield one side after every event; an error of the request is its last text."""
    started_s = time.monotonic()
    options: GenerateOptions = {"budget": side.budget, "seed": seed, "file_format": "mp4", "want_frames": False}
    try:
        async with aclosing(_events(client, prompt, options)) as events:
            async for event in events:
                side = replace(_after(side, event), elapsed_s=time.monotonic() - started_s)
                yield side
    except LemicaClientError as exc:
        yield replace(side, text=f"error: {exc}")


async def _events(
    client: AsyncClient, prompt: str, options: GenerateOptions
) -> AsyncGenerator[Accepted | Progress | Video, None]:
    """Yield the stream's events; only the video where the server has no streaming model."""
    try:
        async with aclosing(client.stream(prompt, preview_every=PREVIEW_EVERY, **options)) as events:
            async for event in events:
                yield event
    except ModelNotFoundError:
        yield await client.generate(prompt, **options)


def _after(side: Side, event: Accepted | Progress | Video) -> Side:
    if isinstance(event, Video):
        return replace(side, text="done", step=side.num_steps, video=event)
    if isinstance(event, Accepted):
        return replace(side, text=describe(event))
    preview = event.preview or side.preview
    return replace(side, text=describe(event), step=event.step, num_steps=event.num_steps, preview=preview)


def facts(side: Side) -> list[str]:
    """Return a side's row of the comparison: budget, seconds, computed steps, predicted error."""
    if side.video is None:
        return [side.budget, f"{side.elapsed_s:.1f}", side.text, ""]
    info = side.video.info
    computed = info.get("computed_steps")
    steps = "?" if computed is None else f"{len(computed)} of {info.get('num_inference_steps', '?')}"
    error = info.get("predicted_error")
    shown = "not measured" if error is None else f"{error:.4g}"
    return [side.budget, f"{side.elapsed_s:.2f}", steps, shown]
