"""What an engine serves and what is left to the eager one, on a stack of a few numbers."""

import logging

import pytest
import torch

from lemica_backend.blocks.engine_stack import EngineStack, RecompileError, take_fallbacks
from tests.blocks.conftest import RANGES, WIDTH


class Model:
    def __init__(self, *stacks):
        self.stacks = list(stacks)


class Engine:
    """Runs the eager stack, and takes note of what it was given."""

    def __init__(self, stack, error=None):
        self.stack, self.error, self.calls = stack, error, []

    def __call__(self, tensors):
        self.calls.append(tensors)
        if self.error:
            raise self.error
        return self.stack(*tensors)


def inputs(rows, text):
    torch.manual_seed(rows * 10 + text)
    return torch.randn(rows, 5, WIDTH), torch.randn(rows, text, WIDTH), None


def test_what_a_call_leaves_out_is_filled_in(toy):
    engine = Engine(toy)
    output = EngineStack(toy, engine, RANGES)(*inputs(2, 3))
    assert torch.equal(engine.calls[0][2], torch.ones(2, 3, 1))
    assert torch.allclose(output, toy(*inputs(2, 3)), atol=1e-6)


@pytest.mark.parametrize(("rows", "text"), [(4, 3), (2, 7)])
def test_sizes_out_of_range_run_eagerly_and_are_counted(toy, caplog, rows, text):
    engine = Engine(toy)
    stack = EngineStack(toy, engine, RANGES)
    with caplog.at_level(logging.WARNING):
        outputs = [stack(*inputs(rows, text)) for _ in range(2)]
    assert torch.equal(outputs[0], toy(*inputs(rows, text)))
    assert not engine.calls
    assert take_fallbacks(Model(stack)) == {"out_of_range": 2 * rows}
    assert take_fallbacks(Model(stack)) == {}
    assert len([each for each in caplog.records if "run eagerly" in each.getMessage()]) == 1


def test_a_recompile_is_an_error_in_the_log_and_runs_eagerly(toy, caplog):
    stack = EngineStack(toy, Engine(toy, RecompileError("a new size")), RANGES)
    output = stack(*inputs(2, 3))
    assert torch.equal(output, toy(*inputs(2, 3)))
    assert take_fallbacks(Model(toy, stack)) == {"recompile": 2}
    assert [each.levelno for each in caplog.records] == [logging.ERROR]


def test_other_faults_of_an_engine_are_raised(toy):
    stack = EngineStack(toy, Engine(toy, MemoryError("no memory")), RANGES)
    with pytest.raises(MemoryError):
        stack(*inputs(2, 3))
