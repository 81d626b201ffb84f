"""Sends every prompt at every budget, round after round, and writes down what came back.

Knows a client that generates videos; nothing about how the server was started.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from rich.progress import Progress, TaskID

from demo.metrics import Frames, compare
from demo.records import FULL, Clip, Measurement

PROMPTS_FILE = Path(__file__).with_name("prompts.txt")
VIDEO_FOLDER = "videos"


class Video(Protocol):
    """What a client's `generate` returns."""

    @property
    def frames(self) -> Frames:
        """Pixels, shape (frames, height, width, 3)."""
        ...

    @property
    def info(self) -> Mapping[str, Any]:
        """The server's account of the request."""
        ...

    def save(self, path: Path) -> object:
        """Write the video to a file."""
        ...


class VideoClient(Protocol):
    """What the demo needs of a client."""

    def generate(self, prompt: str, *, seed: int, budget: str) -> Video:
        """Make one video."""
        ...


@dataclass(frozen=True)
class Schedule:
    """Which requests to send.

    Attributes
    ----------
    prompts : tuple of str
    budgets : tuple of str
        `full` first. One round sends a prompt at each of them, so that budgets alternate and a machine that
        slows down for a while slows all of them.
    seed : int
        Of the first prompt; each further prompt takes the next number.
    repeats : int
        Rounds for each prompt.
    """

    prompts: tuple[str, ...]
    budgets: tuple[str, ...]
    seed: int
    repeats: int

    def __post_init__(self) -> None:
        if not self.prompts or self.repeats < 1:
            raise ValueError("The demo needs at least one prompt and one round.")
        if self.budgets[:1] != (FULL,):
            raise ValueError(f"The first budget must be `{FULL}`, which all others are compared with.")

    def __len__(self) -> int:
        return len(self.prompts) * len(self.budgets) * self.repeats

    def place_of(self, prompt: str) -> str:
        """Say in words which of the prompts this one is."""
        return f"prompt {self.prompts.index(prompt) + 1} of {len(self.prompts)}"

    def __iter__(self) -> Iterator[tuple[int, str, int, str]]:
        """Yield (repeat, prompt, seed, budget) in the order of sending."""
        for repeat in range(self.repeats):
            for number, prompt in enumerate(self.prompts):
                for budget in self.budgets:
                    yield repeat, prompt, self.seed + number, budget


def warm_up(client: VideoClient, prompt: str, seed: int) -> int:
    """Send one request whose time does not count; return the sampler's number of steps."""
    return int(client.generate(prompt, seed=seed, budget=FULL).info["num_inference_steps"])


def send_all(
    client: VideoClient, schedule: Schedule, progress: Progress
) -> tuple[list[Measurement], dict[tuple[str, str], Video]]:
    """Send every request of the schedule, one after the other.

    Returns
    -------
    list of Measurement
    dict
        The first round's videos by (prompt, budget); later rounds give the same ones.
    """
    measurements: list[Measurement] = []
    videos: dict[tuple[str, str], Video] = {}
    task = progress.add_task("Sending requests", total=len(schedule))
    for repeat, prompt, seed, budget in schedule:
        a_round = f"Round {repeat + 1} of {schedule.repeats}"
        progress.update(task, description=f"{a_round}, budget {budget}")
        _log(progress, task, f"{a_round}, {schedule.place_of(prompt)}", budget)
        measurement, video = _send(client, prompt, seed, budget, repeat)
        measurements.append(measurement)
        videos.setdefault((prompt, budget), video)
        progress.advance(task)
    return measurements, videos


def judge_all(
    videos: Mapping[tuple[str, str], Video], schedule: Schedule, folder: Path, progress: Progress
) -> list[Clip]:
    """Save every video under `folder` and compare it with the `full` one of its prompt."""
    (folder / VIDEO_FOLDER).mkdir(parents=True, exist_ok=True)
    task = progress.add_task("Comparing videos", total=len(videos))
    clips = []
    for (prompt, budget), video in videos.items():
        _log(progress, task, f"Comparing videos, {schedule.place_of(prompt)}", budget)
        number = schedule.prompts.index(prompt)
        file = f"{VIDEO_FOLDER}/{number + 1}-{budget}.mp4"
        video.save(folder / file)
        quality = compare(video.frames, videos[prompt, FULL].frames)
        clips.append(Clip(prompt, schedule.seed + number, budget, file, quality, _is_warned_of(video)))
        progress.advance(task)
    return clips


def read_prompts(path: Path) -> tuple[str, ...]:
    """Read one prompt a line; empty lines and lines that start with ``#`` do not count, nor do repetitions."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    prompts = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not prompts:
        raise ValueError(f"{path} holds no prompt.")
    return prompts


def choose_budgets(planned: Mapping[str | int, Sequence[int]], num_steps: int, *, numbers: int = 3) -> tuple[str, ...]:
    """Return `full`, every named budget and a few numbers, from most to fewest computed steps.

    Parameters
    ----------
    planned : mapping
        The plan's budgets: computed steps by name or by number.
    num_steps : int
        T.
    numbers : int
        How many budgets that are given as a number; they fill the widest gaps that the names leave.

    Examples
    --------
    >>> steps = {"fast": range(4), "slow": range(8), 4: range(4), 6: range(6), 8: range(8)}
    >>> choose_budgets(steps, 10, numbers=1)
    ('full', 'slow', '6', 'fast')
    """
    chosen = {name: len(steps) for name, steps in planned.items() if isinstance(name, str) and name != FULL}
    for _ in range(numbers):
        taken = {num_steps, *chosen.values()}
        free = [number for number in planned if isinstance(number, int) and number not in taken]
        if free:
            number = max(free, key=lambda candidate: (_distance(candidate, taken), candidate))
            chosen[str(number)] = number
    return (FULL, *sorted(chosen, key=lambda name: -chosen[name]))


def _distance(number: int, taken: Iterable[int]) -> float:
    """Return how far a budget is from the nearest one taken, as a ratio: speed-ups are ratios, too."""
    return round(min(max(number, other) / min(number, other) for other in taken), 9)


def _is_warned_of(video: Video) -> bool:
    return bool(video.info.get("quality_warning"))


def _log(progress: Progress, task: TaskID, words: str, budget: str) -> None:
    """Print once a prompt how far a task is where no bar can be drawn, so that a log is not silent for minutes."""
    if progress.console.is_interactive or budget != FULL:
        return
    state, since_first = progress.tasks[task], progress.tasks[0].elapsed or 0.0
    so_far = timedelta(seconds=round(since_first))
    progress.console.print(f"{words}: {state.completed:.0f} of {state.total:.0f} done, {so_far} so far", soft_wrap=True)


def _send(client: VideoClient, prompt: str, seed: int, budget: str, repeat: int) -> tuple[Measurement, Video]:
    started = time.perf_counter()
    video = client.generate(prompt, seed=seed, budget=budget)
    seconds = time.perf_counter() - started
    info = video.info
    measurement = Measurement(
        prompt=prompt,
        seed=seed,
        budget=budget,
        repeat=repeat,
        seconds=seconds,
        denoise_ms=float(info["timings_ms"]["denoise"]),
        num_steps=int(info["num_inference_steps"]),
        computed_steps=tuple(info["computed_steps"]),
        predicted_error=info["predicted_error"],
    )
    return measurement, video
