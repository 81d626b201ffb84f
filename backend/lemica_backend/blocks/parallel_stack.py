"""A block stack over several processes: each runs the blocks on its share of the tokens (context parallelism).

Tokens only see each other in the attention among them, where the processes exchange heads for tokens and back (Ulysses,
arXiv 2309.14509); diffusers' attention does that once its processors have a configuration. All else of a block concerns
one token, and the text, which every process has whole.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from lemica_backend.blocks.stack import TOKENS, BlockStack, StackInput

__all__ = ["Form", "ParallelStack", "compute_share", "ending_on_failure", "split_attention"]

FAILED = 1  # exit code
_log = logging.getLogger(__name__)


class Form(NamedTuple):
    """What is known of a whole input before it comes."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class ParallelStack:
    """Takes the place of a `BlockStack` in the first process, which alone holds requests; whole tensors in and out.

    Parameters
    ----------
    stack : BlockStack
        Whose attention is split (`split_attention`).
    tell : callable
        Lets the other processes call `compute_share` with their stack and these forms.
    """

    def __init__(self, stack: BlockStack, tell: Callable[[tuple[Form, ...]], None]) -> None:
        self.stack = stack
        self._tell = tell

    def __call__(self, *tensors: Tensor | None) -> Tensor:
        """Return the hidden states after the last block."""
        whole = self.stack.complete(tensors)
        forms = tuple(Form(tuple(each.shape), each.dtype) for each in whole)
        with ending_on_failure():
            self._tell(forms)
            hidden = compute_share(self.stack, forms, whole)
        assert hidden is not None
        return hidden


def compute_share(stack: BlockStack, forms: Sequence[Form], whole: Sequence[Tensor] | None = None) -> Tensor | None:
    """Run the blocks on this process's share of the tokens; all processes of the group call it at the same time.

    Parameters
    ----------
    stack : BlockStack
    forms : sequence of Form
        Of the whole inputs.
    whole : sequence of Tensor, optional
        The inputs; the first process gives them.

    Returns
    -------
    Tensor or None
        In the first process the whole hidden states after the last block, in the others nothing.
    """
    device = next(stack.parameters()).device
    given: Sequence[Tensor | None] = whole or (None,) * len(forms)
    shares = [_share(*each, device) for each in zip(stack.inputs, forms, given, strict=True)]
    hidden = stack(*shares).contiguous()
    gathered = None if whole is None else [torch.empty_like(hidden) for _ in range(dist.get_world_size())]
    dist.gather(hidden, gathered, dst=0)
    return None if gathered is None else torch.cat(gathered, dim=stack.inputs[0].shape.index(TOKENS))


def _share(each: StackInput, form: Form, whole: Tensor | None, device: torch.device) -> Tensor:
    """Return this process's tokens of an input, or all of one that has no tokens."""
    if TOKENS not in each.shape:
        value = torch.empty(form.shape, dtype=form.dtype, device=device) if whole is None else whole.contiguous()
        dist.broadcast(value, src=0)
        return value
    axis, count = each.shape.index(TOKENS), dist.get_world_size()
    shape = [size // count if at == axis else size for at, size in enumerate(form.shape)]
    parts = None if whole is None else [part.contiguous() for part in whole.chunk(count, axis)]
    share = torch.empty(shape, dtype=form.dtype, device=device)
    dist.scatter(share, parts, src=0)
    return share


def split_attention(stacks: Sequence[BlockStack]) -> None:
    """Let the attention among tokens be computed by all processes of the group, each with its share of the heads.

    It does by hand what `enable_parallelism` of diffusers 0.42 does to attention. That one fails without an accelerator
    (``integer modulo by zero``), so it cannot be tested on a CPU; it also configures the attention over text of
    LTX-Video, whose mask it then does not fit, and its plans cut a transformer's forward, which is not called here.
    """
    from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig  # noqa: PLC0415

    count, device = dist.get_world_size(), next(stacks[0].parameters()).device
    mesh = init_device_mesh(device.type, (1, count), mesh_dim_names=("ring", "ulysses"))
    config = ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=count, mesh=mesh))
    config.setup(dist.get_rank(), count, device, mesh=mesh)
    for stack in stacks:
        for attention in stack.token_attentions:
            attention.processor._parallel_config = config


@contextmanager
def ending_on_failure() -> Iterator[None]:
    """End this process if the body fails, and so its group: the others would wait for it in a collective."""
    try:
        yield
    except BaseException:
        _log.critical("a share of the block stack failed; all processes of its group end", exc_info=True)
        os._exit(FAILED)
