"""A denoiser of twelve numbers with the parts of a diffusion transformer, and its replayer.

`slow_errors` computes an edge's error from its definition: the whole trajectory, one row, a mask of computed steps.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lemica_planner import ErrorGraph, Fill, OperatorFacts, PlanEntry, Provenance, Sample, Segment
from lemica_planner.replayer import KnownNames, knows

WIDTH = 12
OPENED: list["ToyReplayer"] = []
INTERRUPT_AFTER: int | None = None


class ToyModel:
    """One denoising step: block stack (counted), then a head and an Euler step that depend on time."""

    def __init__(self, num_steps: int = 9) -> None:
        rng = np.random.default_rng(0)
        self.num_steps = num_steps
        self.mix = rng.normal(size=(WIDTH, WIDTH)) / 3
        self.times = rng.normal(size=(num_steps, WIDTH))
        self.forwards = 0

    def noise(self, sample: Sample) -> np.ndarray:
        return np.random.default_rng([sample.seed, len(sample.prompt)]).normal(size=WIDTH)

    def blocks(self, states: np.ndarray, step: int) -> np.ndarray:
        self.forwards += len(states)
        return np.tanh(states @ self.mix + self.times[step])

    def advance(self, states: np.ndarray, residual: np.ndarray, step: int) -> np.ndarray:
        return states + (np.cos(self.times[step]) * (states + residual)) / self.num_steps


OPERATORS = {
    "residual": OperatorFacts(0),
    "residual-linear": OperatorFacts(1),
    "residual-quadratic": OperatorFacts(2),
    "residual-fitted": OperatorFacts(1, ("residual",)),
    "noise": OperatorFacts(0),  # the name that the search knows; here plain reuse
}


class ToySession:
    def __init__(self, model: ToyModel, sample: Sample) -> None:
        self.model = model
        self.states = [model.noise(sample)[None]]
        self.residuals = []
        self.is_closed = False
        for step in range(model.num_steps):
            self.residuals.append(model.blocks(self.states[-1], step))
            self.states.append(model.advance(self.states[-1], self.residuals[-1], step))

    def errors(self, segments: Sequence[Segment]) -> np.ndarray:
        (end,) = {segment.end for segment in segments}
        rows = np.concatenate([self._skip(segment) for segment in segments])
        for step in range(end, self.model.num_steps):
            rows = self.model.advance(rows, self.model.blocks(rows, step), step)
        return np.abs(rows - self.states[-1]).mean(axis=1)

    def drifts(self, segments: Sequence[Segment]) -> np.ndarray:
        return np.array([np.abs(self._skip(segment) - self.states[segment.end]).mean() for segment in segments])

    def outcomes(self, paths: Sequence[PlanEntry]) -> np.ndarray:
        first = self.states[0][0]
        finals = [final_state(self.model, first, path.reuse("residual")) for path in paths]
        return np.array([np.abs(final - self.states[-1][0]).mean() for final in finals])

    def grams(self) -> dict[str, np.ndarray]:
        rows = np.concatenate(self.residuals)
        return {"residual": rows @ rows.T / WIDTH}

    def close(self) -> None:
        self.is_closed = True

    def _skip(self, segment: Segment) -> np.ndarray:
        known = {step: self.residuals[step] for step in (*segment.history, segment.start)}
        state = self.states[segment.start + 1]
        for step, fill in segment.fills.items():
            state = self.model.advance(state, forecast(known, step, fill), step)
        return state


def forecast(known: dict[int, np.ndarray], step: int, fill: Fill) -> np.ndarray:
    """Return the last computed residual, the straight line through the last two, or a given mean of the last few."""
    *before, last = sorted(known)
    if fill.weights:
        values = [known[at] for at in sorted(known)[-len(fill.weights) :]]
        return sum(weight * value for weight, value in zip(fill.weights, values, strict=True))
    if not OPERATORS[fill.operator].looks_back or not before:
        return known[last]
    return known[last] + (known[last] - known[before[-1]]) * (step - last) / (last - before[-1])


class ToyReplayer:
    """Opens sessions and remembers them; `interrupt_after` calls of `errors` it is interrupted like by Ctrl-C."""

    switched: tuple[int, ...] = ()

    def __init__(
        self,
        num_steps: int = 9,
        interrupt_after: int | None = None,
        fault: BaseException | None = None,
        **stated: object,
    ) -> None:
        self.model = ToyModel(num_steps)
        self.sessions: list[ToySession] = []
        self.calls: list[list[Segment]] = []
        self._interrupt_after = interrupt_after
        self._fault = fault or KeyboardInterrupt()
        self._stated = stated

    def provenance(self) -> Provenance:
        return toy_provenance(num_inference_steps=self.model.num_steps, **self._stated)

    def switches(self) -> tuple[int, ...]:
        return self.switched

    def operators(self) -> dict[str, OperatorFacts]:
        return OPERATORS

    def open(self, sample: Sample) -> ToySession:
        session = ToySession(self.model, sample)
        measure = session.errors

        def errors(segments):
            if len(self.calls) == self._interrupt_after:
                raise self._fault
            self.calls.append(list(segments))
            return measure(segments)

        session.errors = errors
        self.sessions.append(session)
        return session


def toy_provenance(**stated: object) -> Provenance:
    known = {
        "model": "toy",
        "weights_hash": "sha256:0",
        "scheduler": "Euler",
        "scheduler_config": {"shift": 3.0},
        "num_inference_steps": 9,
        "guidance_scale": 1.0,
        "num_frames": 1,
        "height": 3,
        "width": 4,
    }
    return Provenance(**(known | stated))


@knows(KnownNames(tuple(OPERATORS), ("latents_l1", "frames_l2")))
def open_toy(model_dir: Path, metric: str) -> ToyReplayer:
    """Open a replayer as an entry point does, and remember it."""
    OPENED.append(ToyReplayer(interrupt_after=INTERRUPT_AFTER))
    return OPENED[-1]


def open_telling(model_dir: Path, metric: str) -> ToyReplayer:
    """Open a replayer that writes down on which Ray cluster its trajectories run."""
    import ray

    replayer = ToyReplayer()
    opened = replayer.open

    def telling(sample: Sample) -> ToySession:
        where = ray.get_runtime_context().gcs_address if ray.is_initialized() else "no cluster"
        (model_dir / f"ran-{os.getpid()}").write_text(where)
        return opened(sample)

    replayer.open = telling
    return replayer


def open_broken(model_dir: Path, metric: str) -> ToyReplayer:
    raise RuntimeError("weights of another model")


def toy_graph(num_steps=9, max_span=4):
    rng = np.random.default_rng(1)
    weights = rng.random((num_steps, num_steps)) / 3
    weights[np.subtract.outer(np.arange(num_steps), np.arange(num_steps)) < -max_span] = np.inf
    weights[np.arange(num_steps - 1), np.arange(1, num_steps)] = 0
    return ErrorGraph(weights, provenance=toy_provenance(num_inference_steps=num_steps))


def slow_errors(sample: Sample, num_steps: int, edge: tuple[int, int], operator: str = "residual") -> float:
    model = ToyModel(num_steps)
    reuse = {step: Fill(operator) for step in range(edge[0] + 1, edge[1])}
    full, cached = (final_state(model, model.noise(sample), skipped) for skipped in ({}, reuse))
    return float(np.abs(full - cached).mean())


def final_state(model: ToyModel, state: np.ndarray, reuse: Mapping[int, Fill]) -> np.ndarray:
    known: dict[int, np.ndarray] = {}
    for step in range(model.num_steps):
        if step in reuse:
            residual = forecast(known, step, reuse[step])
        else:
            residual = known[step] = model.blocks(state[None], step)[0]
        state = model.advance(state, residual, step)
    return state
