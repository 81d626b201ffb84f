"""Where the block stack of a diffusers transformer begins and ends, and what flows through it. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from lemica_planner.integrations.errors import PipelineError

__all__ = ["Stack", "find_stack", "find_transformer", "hidden_states", "with_hidden_states"]


class Stack(NamedTuple):
    """The block stack of a transformer."""

    blocks: tuple[nn.Module, ...]
    end: nn.Module  # the first module after them


def find_transformer(pipeline: Any) -> nn.Module:
    """Return the one diffusion transformer of a pipeline; raises `PipelineError` if there is none, or a second."""
    transformer, scheduler = getattr(pipeline, "transformer", None), getattr(pipeline, "scheduler", None)
    name = type(pipeline).__name__
    if not isinstance(transformer, nn.Module) or not hasattr(scheduler, "set_timesteps"):
        raise PipelineError(
            f"{name} cannot be cached: looked for a `transformer` that is a torch module and a `scheduler` with "
            f"set_timesteps; got {type(transformer).__name__} and {type(scheduler).__name__}; "
            "give a pipeline with both, such as LattePipeline or WanPipeline"
        )
    if getattr(pipeline, "transformer_2", None) is not None:
        raise PipelineError(f"{name} has a second transformer, transformer_2; a plan is for one: use a model with one")
    return transformer


def find_stack(transformer: nn.Module) -> Stack:
    """Find the block lists, and the module that is declared, and so in diffusers runs, right after them.

    Raises `PipelineError` if there is no such thing.
    """
    children = dict(transformer.named_children())
    lists = [name for name, child in children.items() if _is_block_list(name, child)]
    later = list(children)[list(children).index(lists[-1]) + 1 :] if lists else []
    ends = [children[name] for name in later if not isinstance(children[name], nn.ModuleList)]
    if not ends:
        raise PipelineError(
            f"{type(transformer).__name__} has no block stack: looked for torch.nn.ModuleList children whose names end "
            f"in 'blocks' (found {lists or 'none'}), and for the first module declared after them, such as norm_out "
            f"(found none); its children are {list(children)}; use a diffusers video transformer"
        )
    return Stack(tuple(block for name in lists for block in children[name].children()), ends[0])


def _is_block_list(name: str, child: nn.Module) -> bool:
    # blocks over text alone, as in Kandinsky 5, come before the stack
    return isinstance(child, nn.ModuleList) and len(child) > 0 and name.endswith("blocks") and name[:4] != "text"


def hidden_states(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """Return the hidden states among a module's arguments; raises `PipelineError` if there are none."""
    found = kwargs.get("hidden_states", args[0] if args else None)
    if not isinstance(found, Tensor):
        raise PipelineError(
            f"{type(module).__name__} got no hidden states: looked for a tensor in the argument hidden_states, or the "
            f"first one; got {type(found).__name__}; this transformer cannot be cached"
        )
    return found


def with_hidden_states(hidden: Tensor, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return a module's arguments with other hidden states."""
    return (args, kwargs | {"hidden_states": hidden}) if "hidden_states" in kwargs else ((hidden, *args[1:]), kwargs)
