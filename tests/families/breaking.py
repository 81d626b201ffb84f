"""A group of processes in which one fails on purpose, for tests to open in a child."""

import torch

from lemica_backend.opening import open_worker


class ShortOfMemory:
    """A block stack that has too little memory while there is a file."""

    def __init__(self, stack, flag):
        self._stack, self._flag = stack, flag

    def __getattr__(self, name):
        return getattr(self._stack, name)

    def __call__(self, *tensors):
        if self._flag.exists():
            raise torch.OutOfMemoryError("out of memory on purpose")
        return self._stack(*tensors)


def open_breaking(flag, who, *place, measures):
    """Run in the child: the worker fails in its share, or has the other process fail, once there is the file."""
    worker = open_worker(*place, measures=measures)
    shared = worker._model.stacks[0]
    if who == "worker":
        shared.stack = ShortOfMemory(shared.stack, flag)
    else:
        tell = shared._tell
        no_stack = len(worker._model.stacks)
        shared._tell = lambda forms: tell.func(no_stack if flag.exists() else 0, forms)
    return worker
