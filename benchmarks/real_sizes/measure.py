"""Take videos at every budget in turn, by the eager engine and by another one, and say what they cost."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.real_sizes.cases import Case, Place
from benchmarks.real_sizes.filling import META
from lemica_backend.blocks.installing import build_engine, install_engine
from lemica_backend.blocks.stack import ROWS
from lemica_backend.config import Blocks, ModelConfig
from lemica_backend.engine import Engine
from lemica_backend.planned import FULL
from lemica_backend.replay import EngineReplayer
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan

__all__ = ["EAGER", "Turn", "Video", "figures", "ideal", "measure", "outlined", "spread"]

EAGER = "eager"
_BRANCHES = 2
_LONG_S = 7200.0
PROMPT = "a red circle moving right on a navy background"


class Turn(NamedTuple):
    """One video: who runs the block stack, and how many steps compute."""

    engine: str
    computed: int


class Video(NamedTuple):
    """What a video cost; memory is None where there is no GPU."""

    seconds: float
    step_s: float
    peak_bytes: int | None


class Measured(NamedTuple):
    """What a model cost.

    Attributes
    ----------
    videos : mapping of Turn to sequence of Video
        One for each round.
    steps : int
        T.
    flops : int
        See `Outlined`.
    """

    videos: Mapping[Turn, Sequence[Video]]
    steps: int
    flops: int


class Outlined(NamedTuple):
    """What is known of a model without its weights: parameters of the transformer, and FLOPs of a computed step.

    The operations are those of the block stack, for both branches of guidance and the longest text; a multiplication
    and an addition are two. Stem, head and sampler are small beside them.
    """

    parameters: int
    flops: int


@torch.inference_mode()
def outlined(case: Case, place: Place) -> Outlined:
    """Count on torch's meta device, which computes nothing."""
    model: Any = case.make(place._replace(device=META))
    stack = model.stacks[0]
    sizes = {axis: served.most for axis, served in stack.served.items()} | {ROWS: _BRANCHES}
    inputs = [torch.empty(each.sized(sizes), dtype=each.dtype, device=META) for each in stack.inputs]
    with FlopCounterMode(display=False) as counter:
        stack(*inputs)
    parameters = sum(weight.numel() for network in model.networks for weight in network.parameters())
    return Outlined(parameters, int(counter.get_total_flops()))


def spread(steps: int, computed: int) -> tuple[int, ...]:
    """Return so many steps at even distances, first and last among them: speed does not depend on which."""
    return tuple(round(each * (steps - 1) / (computed - 1)) for each in range(computed))


def measure(case: Case, place: Place, engine: str, rounds: int, folder: Path) -> Measured:
    """Make a model and take every turn once a round, in an order drawn anew."""
    model: Any = case.make(place)
    config = _config(case, place)
    plan = _plan(model, config, case)
    stacks = {EAGER: model.stacks}
    if engine != EAGER:
        stacks[engine] = _engine_stacks(model, config, engine, folder)
    turns = [Turn(name, computed) for name in stacks for computed in (case.steps, *case.budgets)]
    served = Engine(model, config, plan)

    def take(turn: Turn) -> Video:
        model.stacks = stacks[turn.engine]
        return _take(lambda budget: served.generate(GenerationRequest(PROMPT, seed=0, budget=budget)), turn, case.steps)

    try:
        return Measured(_interleave(turns, take, rounds), case.steps, outlined(case, place).flops)
    finally:
        served.close()


def _config(case: Case, place: Place) -> ModelConfig:
    return ModelConfig.model_validate(
        {
            "dtype": str(place.dtype).removeprefix("torch."),
            "device": place.device,
            "defaults": {"num_inference_steps": case.steps, "guidance_scale": case.guidance_scale},
            "limits": {"max_active": 1, "timeout_s": _LONG_S, "worker_timeout_s": _LONG_S},
            "scheduling": {"warm_up_s": 0.0},
        }
    )


def _plan(model: Any, config: ModelConfig, case: Case) -> CachePlan:
    provenance = EngineReplayer(model, config, "real sizes").provenance()
    return CachePlan.from_steps(provenance, {computed: spread(case.steps, computed) for computed in case.budgets})


def _engine_stacks(model: Any, config: ModelConfig, engine: str, folder: Path) -> Any:
    """Return the stacks of another engine, whose artifact is built in `folder`; the model keeps its own."""
    eager, info = model.stacks, model.info
    own = config.model_copy(update={"blocks": Blocks.model_validate({"engine": engine, "artifacts": str(folder)})})
    build_engine(model, folder, own, own.blocks.engine)
    install_engine(model, folder, own)
    found, model.stacks, model.info = model.stacks, eager, info
    return found


def _interleave(turns: Sequence[Turn], take: Callable[[Turn], Video], rounds: int) -> dict[Turn, list[Video]]:
    found: dict[Turn, list[Video]] = defaultdict(list)
    for turn in {each.engine: each for each in turns}.values():  # not counted
        take(turn)
    for seed in range(rounds):
        for turn in random.Random(seed).sample(list(turns), len(turns)):  # noqa: S311
            found[turn].append(take(turn))
    return dict(found)


def _take(generate: Callable[[str], Any], turn: Turn, steps: int) -> Video:
    with _peak() as peak:
        began = time.perf_counter()
        result = generate(FULL if turn.computed == steps else str(turn.computed))
        seconds = time.perf_counter() - began
    computed_ms = [ms for ms, is_computed in result.info["step_ms"] if is_computed]
    return Video(seconds, median(computed_ms) / 1e3, peak())


@contextmanager
def _peak() -> Iterator[Callable[[], int | None]]:
    """Yield what tells the most memory of the GPU that was in use, weights included."""
    if not torch.cuda.is_available():
        yield lambda: None
        return
    torch.cuda.reset_peak_memory_stats()
    yield torch.cuda.max_memory_allocated


def figures(name: str, measured: Measured, turn: Turn, peak_tflops: float | None) -> dict[str, Any]:
    """Return one row of the table."""
    own, full = measured.videos[turn], measured.videos[turn._replace(computed=measured.steps)]
    eager = measured.videos[turn._replace(engine=EAGER)]
    ideals = [ideal(each, measured.steps, turn.computed) for each in full]
    speed_ups = [whole.seconds / part.seconds for whole, part in zip(full, own, strict=True)]
    step_s, seconds = median(each.step_s for each in full), median(each.seconds for each in full)
    achieved = measured.flops / step_s / 1e12
    return {
        "model": name,
        "engine": turn.engine,
        "computed": turn.computed,
        "steps": measured.steps,
        "seconds": median(each.seconds for each in own),
        "seconds_lowest": min(each.seconds for each in own),
        "seconds_highest": max(each.seconds for each in own),
        "f_s": step_s,
        "c_s": seconds - measured.steps * step_s,
        "speed_up": median(speed_ups),
        "ideal": median(ideals),
        "of_ideal": median(up / best for up, best in zip(speed_ups, ideals, strict=True)),
        "times_eager": median(theirs.seconds / ours.seconds for theirs, ours in zip(eager, own, strict=True)),
        "peak_gib": max((each.peak_bytes or 0) for each in own) / 2**30 or None,
        "step_tflop": measured.flops / 1e12,
        "tflops": achieved,
        "of_peak": achieved / peak_tflops if peak_tflops else None,
    }


def ideal(full: Video, steps: int, computed: int) -> float:
    """Return (T f + c) / (B f + c), from a video with every step computed."""
    rest = full.seconds - steps * full.step_s
    return full.seconds / (computed * full.step_s + rest)
