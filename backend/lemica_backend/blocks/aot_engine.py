"""AOTInductor: torch's compiler, ahead of time. The artifact is compiled code, which runs on the loaded weights."""

from __future__ import annotations

import hashlib
import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lemica_backend.blocks.engine_stack import Run
from lemica_backend.blocks.engines import Place
from lemica_backend.blocks.stack import BlockStack
from lemica_backend.blocks.tracing import traced
from lemica_backend.errors import ModelLoadError

__all__ = ["AotEngine"]

_SETTINGS = {
    "aot_inductor.package_constants_in_so": False,  # a second copy of the weights would be as large as the model
    "cpp.dynamic_threads": True,  # or the code would hold the number of threads of the machine that built it
}
_CPU_INFO = Path("/proc/cpuinfo")


class AotEngine:
    """See `lemica_backend.blocks.engines.BlockEngine`. Building on a CPU takes a C++ compiler; running takes none."""

    name = "aot"
    packages = ("torch",)
    suffix = ".pt2"
    ranges_matter = False
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    precisions = ("dtype",)
    devices = ("cpu", "cuda")
    builds_anywhere = False

    def device_key(self, device: torch.device) -> str:
        """Return the kind of GPU or of processor, whose instructions the code uses."""
        return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()

    def build(self, stack: BlockStack, place: Place, path: Path) -> None:
        """Compile the graph.

        Raises
        ------
        ModelLoadError
            If torch cannot compile it, or finds no compiler; the message is torch's.
        """
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the compiler's own libraries
                program = traced(stack, place.device)
                torch._inductor.aoti_compile_and_package(
                    program, package_path=str(path), inductor_configs=dict(_SETTINGS)
                )
        except Exception as error:  # whatever the compiler raises
            raise ModelLoadError(f"{self.name} cannot compile the block stack: {error}") from error

    def load(self, stack: BlockStack, place: Place, path: Path) -> Run:
        """Load the code, and give it the weights of the stack, without a copy.

        Raises
        ------
        ModelLoadError
            If it computes with tensors that the stack does not have.
        """
        compiled = torch._inductor.aoti_load_package(str(path), device_index=_index(place.device))
        tensors = (*stack.named_parameters(remove_duplicate=False), *stack.named_buffers(remove_duplicate=False))
        own, names = {name: each.detach() for name, each in tensors}, compiled.get_constant_fqns()
        if missing := sorted(set(names) - own.keys()):
            raise ModelLoadError(f"{self.name}: the compiled code has constants of its own: {', '.join(missing)}")
        weights = {name: own[name] for name in names}
        compiled.load_constants(weights, check_full_update=True, user_managed=True)
        return _Runner(compiled, weights)


@dataclass(frozen=True)
class _Runner:
    """Calls compiled code, and keeps the weights alive that it only has the addresses of."""

    compiled: Any
    weights: Mapping[str, Tensor]

    def __call__(self, tensors: tuple[Tensor, ...]) -> Tensor:
        output: Tensor = self.compiled(*(each.contiguous() for each in tensors))
        return output


def _index(device: torch.device) -> int:
    """Return the device as the loader counts it; -1 is the current one."""
    return -1 if device.index is None else device.index


def _processor() -> str:
    """Return the processor's model, with a hash of its instruction sets, which a virtual machine may not show all."""
    told = _CPU_INFO.read_text(encoding="utf-8") if _CPU_INFO.is_file() else ""
    first = dict(line.split(":", 1) for line in told.split("\n\n", maxsplit=1)[0].splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in first.items()}
    sets = fields.get("flags") or fields.get("Features") or ""  # x86, ARM
    named = fields.get("model name") or platform.machine()
    return f"cpu, {named}, {hashlib.sha256(' '.join(sorted(sets.split())).encode()).hexdigest()[:8]}"
