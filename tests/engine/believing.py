"""Engines that believe what they were told of costs, models that wait, and who waits for answers."""

import threading

from lemica_backend.config import ModelConfig
from lemica_backend.cost_model import CostModel, Work
from lemica_backend.types import GenerationRequest

STEPS = 6


class Told(CostModel):
    """Believes what it was told, whatever it measures: a computed step takes a second, sharing pays or not."""

    def __init__(self, seconds_of_rows):
        super().__init__()
        for _ in range(3):
            for rows, seconds in seconds_of_rows.items():
                super().observe([Work("compute", rows)], seconds)
                super().observe([Work("residual", rows)], seconds / 1000)

    def observe(self, works, seconds):
        pass


def alone():
    return Told({1: 0.5, 2: 1.0, 4: 2.0, 8: 4.0})


def shared():
    return Told({1: 0.9, 2: 1.0, 4: 1.1, 8: 1.2})


def config_of(**sections):
    defaults = {"num_inference_steps": STEPS, "guidance_scale": 4.0}
    return ModelConfig.model_validate({"defaults": defaults} | sections)


def request(prompt="a cat", **options):
    return GenerationRequest(prompt, **{"seed": 1, **options})


class Held:
    """A model that waits at one of its stems until it is released, and then runs."""

    def __init__(self, model):
        self._model = model
        self.stems_before = 0
        self.released = threading.Event()
        self.reached = threading.Event()

    def __getattr__(self, name):
        return getattr(self._model, name)

    def stem(self, *inputs):
        self.stems_before -= 1
        if self.stems_before < 0:
            self.reached.set()
            assert self.released.wait(60)
        return self._model.stem(*inputs)


class Answers:
    def __init__(self):
        self.outcomes = {}
        self._changed = threading.Condition()

    def of(self, name):
        def take(outcome):
            with self._changed:
                assert name not in self.outcomes
                self.outcomes[name] = outcome
                self._changed.notify_all()

        return take

    def wait(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.outcomes) >= count, 60)
        return self.outcomes
