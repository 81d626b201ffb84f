"""Text encoders that wait in the CPU's memory, and are on the model's device only while they encode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from lemica_backend.config import Offload

__all__ = ["offload_between_uses", "place", "require_room_elsewhere", "text_encoders"]

Slot = tuple[dict[str, Any], str, Tensor]


def place(pipeline: Any, device: str, offload: Offload) -> None:
    """Put a pipeline's modules onto a device, but for those that wait elsewhere."""
    if not offload.text_encoders:
        pipeline.to(device)
        return
    require_room_elsewhere(device)
    waiting = text_encoders(pipeline.components)
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module) and name not in waiting:
            part.to(device)
    for encoder in waiting.values():
        offload_between_uses(encoder, device)


def text_encoders(parts: Mapping[str, Any]) -> dict[str, nn.Module]:
    """Return those of a pipeline's parts that encode texts."""
    return {
        name: part for name, part in parts.items() if name.startswith("text_encoder") and isinstance(part, nn.Module)
    }


def require_room_elsewhere(device: str) -> None:
    """Refuse a device from which there is nowhere to go; raises ValueError."""
    if torch.device(device).type == "cpu":
        raise ValueError(
            "model.json: offload.text_encoders: the device is the CPU, where they wait anyway: leave it out"
        )


def offload_between_uses(module: nn.Module, device: torch.device | str) -> None:
    """Keep a module on the CPU; each of its forwards runs on `device`, with copies that are dropped after it.

    What comes out stays on `device`. Nothing is copied back: weights do not change.
    """
    home = list(_slots([module.to("cpu")]))

    def bring(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        moved = {id(tensor): _moved(tensor, device) for _, _, tensor in home}  # tied weights stay tied
        for slots, name, tensor in home:
            slots[name] = moved[id(tensor)]
        return send_to_device(args, device), send_to_device(kwargs, device)

    def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
        for slots, name, tensor in home:
            slots[name] = tensor

    module.register_forward_pre_hook(bring, with_kwargs=True)
    module.register_forward_hook(leave, always_call=True)  # also after one that failed


def _slots(modules: Iterable[nn.Module]) -> Iterator[Slot]:
    """Yield where the modules and those inside of them keep tensors."""
    for module in modules:
        for each in module.modules():
            for slots in (each._parameters, each._buffers):
                yield from ((slots, name, tensor) for name, tensor in slots.items() if tensor is not None)


def _moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    moved = tensor.to(device)
    return nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved
