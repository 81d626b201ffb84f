"""What the demo measures: plain records that the table, the page and the JSON file are made from."""

from __future__ import annotations

from dataclasses import dataclass

from demo.metrics import Quality

FULL = "full"


@dataclass(frozen=True)
class Measurement:
    """One answered request.

    Attributes
    ----------
    prompt : str
    seed : int
    budget : str
        ``full``, a name in the plan, or a number of computed steps.
    repeat : int
        Round of the measurement, from 0.
    seconds : float
        From sending the request to holding its frames, seen by the client.
    denoise_ms : float
        The part of it that the server spent in denoising steps.
    num_steps : int
        Denoising steps of the sampler (T).
    computed_steps : tuple of int
        Those that ran the transformer; the others reused.
    predicted_error : float or None
        What the plan promises, in units of the latents.
    """

    prompt: str
    seed: int
    budget: str
    repeat: int
    seconds: float
    denoise_ms: float
    num_steps: int
    computed_steps: tuple[int, ...]
    predicted_error: float | None


@dataclass(frozen=True)
class Clip:
    """One video, measured against the `full` video of the same prompt and seed.

    Attributes
    ----------
    prompt : str
    seed : int
    budget : str
    file : str
        Relative to the page.
    quality : Quality
    is_warned_of : bool
        Whether the server's info has a `quality_warning`: the prompt may lose more than the plan predicts.
    """

    prompt: str
    seed: int
    budget: str
    file: str
    quality: Quality
    is_warned_of: bool = False


@dataclass(frozen=True)
class Facts:
    """Under which conditions the records came about.

    Attributes
    ----------
    model, server, machine, date : str
    plan_id : str
    repeats : int
    """

    model: str
    server: str
    machine: str
    date: str
    plan_id: str
    repeats: int


@dataclass(frozen=True)
class Record:
    """Everything that one run of the demo found out.

    Attributes
    ----------
    facts : Facts
    measurements : tuple of Measurement
        Every request, in the order in which they were sent; every round holds `full`.
    clips : tuple of Clip
        One video for each prompt and budget.
    """

    facts: Facts
    measurements: tuple[Measurement, ...]
    clips: tuple[Clip, ...]
