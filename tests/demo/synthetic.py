"""Small synthetic videos and a record made from them: what a run of the demo would find, without a server."""

import av
import numpy as np

from demo.metrics import compare
from demo.records import FULL, Clip, Facts, Measurement, Record

NUM_STEPS = 20
BUDGETS = {FULL: 20, "slow": 12, "10": 10, "medium": 8, "fast": 5}
PROMPTS = ("a red circle moving right on a navy background", "a <b>bold</b> & cyan square growing")
FACTS = Facts("synthetic", "a server", "a machine", "today", "plan-1", repeats=2)


def moving_square(seed: int, noise: int = 0, size: int = 64) -> np.ndarray:
    """16 frames of a square that moves right, with noise of an amplitude."""
    rng = np.random.default_rng(seed)
    frames = np.zeros((16, size, size, 3), np.int16)
    frames[..., 2] = 112
    for index in range(16):
        left = 2 * index + 4
        frames[index, 20:40, left : left + 16] = rng.integers(100, 256, 3) if index == 0 else frames[0, 20, 4]
    frames += rng.integers(-noise, noise + 1, frames.shape, dtype=np.int16)
    return np.clip(frames, 0, 255).astype(np.uint8)


def spread_steps(budget: int, num_steps: int = NUM_STEPS) -> tuple[int, ...]:
    return tuple(round(index * (num_steps - 1) / (budget - 1)) for index in range(budget))


class SyntheticVideo:
    def __init__(self, frames, info):
        self.frames, self.info = frames, info

    def save(self, path):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=8, options={"crf": "12"})
            stream.height, stream.width = self.frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            for frame in self.frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            container.mux(stream.encode(None))


class SyntheticClient:
    """Answers as the server does: fewer computed steps, more noise and less time."""

    def __init__(self):
        self.sent = []

    def generate(self, prompt, *, seed, budget):
        self.sent.append((prompt, seed, budget))
        forwards = BUDGETS[budget]
        info = {
            "timings_ms": {"denoise": 10.0 * forwards, "total": 10.0 * forwards + 2},
            "num_inference_steps": NUM_STEPS,
            "computed_steps": list(spread_steps(forwards)),
            "predicted_error": None if budget == FULL else 0.1 / forwards,
            "plan_id": "plan-1",
            "quality_warning": forwards <= BUDGETS["fast"],
        }
        return SyntheticVideo(moving_square(seed, noise=3 * (NUM_STEPS - forwards)), info)


def synthetic_weights(num_steps: int = NUM_STEPS, longest: int = 12) -> np.ndarray:
    """An error graph in which reuse costs more the longer it is, and most at the start."""
    i, j = np.indices((num_steps, num_steps))
    span = np.maximum(j - i - 1, -1)
    weights = 0.01 * np.abs(span) ** 1.5 * (1 + 4 * np.exp(-i / 4))
    return np.where((span < 0) | (span >= longest), np.inf, weights)


def synthetic_record(prompts=PROMPTS, budgets=BUDGETS, num_steps=NUM_STEPS) -> Record:
    """Requests of 10 ms a computed step and 40 ms for the rest; the second round is slower by a tenth."""
    measurements = tuple(
        _measurement(prompt, seed, budget, repeat=repeat, forwards=forwards, num_steps=num_steps)
        for repeat in range(2)
        for seed, prompt in enumerate(prompts)
        for budget, forwards in budgets.items()
    )
    clips = tuple(
        Clip(
            prompt,
            seed,
            budget,
            f"videos/{seed + 1}-{budget}.mp4",
            compare(moving_square(seed, noise=2 * (num_steps - forwards)), moving_square(seed)),
        )
        for seed, prompt in enumerate(prompts)
        for budget, forwards in budgets.items()
    )
    return Record(FACTS, measurements, clips)


def _measurement(prompt, seed, budget, *, repeat, forwards, num_steps):
    slow_down = 1.1 if repeat else 1.0
    return Measurement(
        prompt=prompt,
        seed=seed,
        budget=budget,
        repeat=repeat,
        seconds=slow_down * (10 * forwards + 40) / 1e3,
        denoise_ms=slow_down * 10 * forwards,
        num_steps=num_steps,
        computed_steps=spread_steps(forwards, num_steps),
        predicted_error=None if budget == FULL else 0.1 / forwards,
    )
