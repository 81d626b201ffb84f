"""Where the block stack of a diffusers transformer begins and ends, and what flows through it. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from lemica_planner.integrations.errors import PipelineError

__all__ = ["Stack", "find_stack", "find_transformer", "hidden_states", "latents_shape", "with_hidden_states"]


class Stack(NamedTuple):
    """The block stack of a transformer.

    Attributes
    ----------
    blocks : tuple of Module
    end : Module or None
        The first module that is declared after them.
    last : Module or None
        The last block, where all of them are of one list, so that each gets what the one before it returned.
    """

    blocks: tuple[nn.Module, ...]
    end: nn.Module | None
    last: nn.Module | None


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

    Raises `PipelineError` if there are none, or there is more than one list and nothing after them.
    """
    children = dict(transformer.named_children())
    lists = _block_lists(children)
    later = list(children)[list(children).index(lists[-1]) + 1 :] if lists else []
    ends = [children[name] for name in later if not isinstance(children[name], nn.ModuleList)]
    if not lists or (len(lists) > 1 and not ends):
        raise PipelineError(
            f"{type(transformer).__name__} has no block stack: looked for torch.nn.ModuleList children whose names end "
            f"in 'blocks', or named 'layers' (found {lists or 'none'}), and for the first module declared after them, "
            f"such as norm_out (found none), which only one list can do without; its children are {list(children)}; "
            "use a diffusers video transformer"
        )
    blocks = tuple(block for name in lists for block in children[name].children())
    return Stack(blocks, ends[0] if ends else None, blocks[-1] if len(lists) == 1 else None)


def _block_lists(children: Mapping[str, nn.Module]) -> list[str]:
    lists = {name: child for name, child in children.items() if isinstance(child, nn.ModuleList) and len(child) > 0}
    # blocks over text alone, as in Kandinsky 5, come before the stack
    named = [name for name in lists if name.endswith("blocks") and not name.startswith("text")]
    return named or [name for name in lists if name == "layers"]


def latents_shape(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of what a transformer denoises; () where it is no tensor, as Z-Image's list of images."""
    found = kwargs.get("hidden_states", args[0] if args else None)
    return tuple(found.shape) if isinstance(found, Tensor) else ()


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
