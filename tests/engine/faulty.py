"""Models that fail on purpose, and workers of them in processes."""

import contextlib
import os
import signal
import time
from pathlib import Path

import torch

from lemica_backend.opening import open_worker
from lemica_backend.process_worker import ProcessSource, Recipe

BROKEN, NAN = "a broken prompt", "a prompt that is not finite"


class Faulty:
    """Fails for the prompts above, and where one forward has more than `most_rows` rows."""

    def __init__(self, model, most_rows=None):
        self._model = model
        self.most_rows = most_rows
        self.rows = []  # of every try
        self._texts = {}

    def __getattr__(self, name):
        return getattr(self._model, name)

    def encode_text(self, prompt, *others):
        texts = self._model.encode_text(prompt, *others)
        self._texts[prompt] = list(texts.values())
        return texts

    def blocks(self, stem, texts):
        self.rows.append(len(texts))
        if self.most_rows is not None and len(texts) > self.most_rows:
            raise torch.OutOfMemoryError("out of memory on purpose")
        if any(self._is_of(BROKEN, text) for text in texts):
            raise RuntimeError("broken on purpose")
        hidden = self._model.blocks(stem, texts)
        for row, text in enumerate(texts):
            if self._is_of(NAN, text):
                hidden[row] = torch.nan
        return hidden

    def _is_of(self, prompt, text):
        return any(text is each for each in self._texts.get(prompt, ()))


class Slow:
    """A model that waits a little in every stem, for ever while there is a file ``hang``."""

    def __init__(self, model, folder, seconds):
        self._model, self._folder, self._seconds = model, folder, seconds

    def __getattr__(self, name):
        return getattr(self._model, name)

    def stem(self, *inputs):
        time.sleep(self._seconds)
        while (self._folder / "hang").exists():
            time.sleep(0.01)
        return self._model.stem(*inputs)


def open_slow(folder, model_dir, config, plan_json, seconds, *, measures):
    """Run in the child: count itself in ``loads``, die while loading where there is a file ``die``."""
    with (folder / "loads").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if (folder / "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    worker = open_worker(model_dir, config, "cpu", plan_json, measures=measures)
    worker._model = Slow(worker._model, folder, seconds)
    return worker


def slow_source(folder, model_dir, config, plan, seconds=0.02):
    """Return what starts such workers."""
    arguments = (Path(folder), Path(model_dir), config, plan.to_json(), seconds)
    recipe = Recipe("tests.engine.faulty", "open_slow", arguments)
    return ProcessSource(recipe, "cpu", config.limits.worker_timeout_s, keeps_spare=config.spare_worker)


def kill(source):
    with contextlib.suppress(ProcessLookupError):
        os.kill(source.pid, signal.SIGKILL)
