"""A block stack of a few numbers, and tiny models of the families whose stacks engines can run."""

import pytest
import torch
from torch import nn

from lemica_backend.blocks.engines import Place
from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, BlockStack, Range, StackInput
from lemica_backend.config import Size
from lemica_backend.models import load_model
from tests.tiny.families import FAMILIES

WIDTH = 4
RANGES = {ROWS: Range(1, 3), TOKENS: Range(5, 5), TEXT: Range(1, 6)}


class ToyStack(BlockStack):
    """Each token is mapped, and gets the mean of the text that is shown."""

    def __init__(self):
        inputs = (
            StackInput("hidden", (ROWS, TOKENS, WIDTH), torch.float32),
            StackInput("text", (ROWS, TEXT, WIDTH), torch.float32),
            StackInput("shown", (ROWS, TEXT, 1), torch.float32, default=1.0),
        )
        super().__init__(inputs, {TOKENS: RANGES[TOKENS], TEXT: RANGES[TEXT]})
        torch.manual_seed(0)
        self.map = nn.Linear(WIDTH, WIDTH)

    def forward(self, *tensors):
        hidden, text, shown = tensors
        text = text if shown is None else text * shown
        return hidden + self.map(hidden) + text.mean(1, keepdim=True)


@pytest.fixture
def toy():
    return ToyStack().eval()


@pytest.fixture
def place():
    return Place(torch.device("cpu"), torch.float32, RANGES)


@pytest.fixture(scope="session")
def open_tiny(tmp_path_factory):
    """Return a function that gives a fresh model of a tiny family; its weights are made once."""
    folders = {}

    def open_tiny(name, dtype=torch.float32):
        tiny = FAMILIES[name]
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name) / "weights"
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                tiny.build().save_pretrained(folders[name])
        return load_model(None, folders[name], dtype=dtype, device="cpu", size=Size(**tiny.size), options=tiny.options)

    return open_tiny
