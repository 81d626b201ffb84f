"""What a loaded model can serve: a plain value, which also those know who load no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelInfo:
    """What a loaded model can serve, and what a cache plan for it depends on."""

    family: str
    max_steps: int  # the scheduler has no more timesteps
    weights_hash: str
    scheduler: str
    scheduler_config: dict[str, Any]  # its parameters, and the family's options that are not their defaults
    num_frames: int
    height: int
    width: int
    latents_shape: tuple[int, ...]  # of one request, as the pipeline itself holds them
    block_engine: str = "eager"  # what runs the block stack
    makes_schedule: bool = False  # the family's pipeline sets the noise levels, which another sampler would not get
    takes_image: bool = False  # a video begins with an image, and every request must bring one
    stem_sees_text: bool = True  # False: `VideoModel.stem` makes the same of every branch of a request

    @property
    def plan_facts(self) -> dict[str, Any]:
        """What a cache plan must have been made for, by the fields of `lemica_planner.Provenance`."""
        names = ("weights_hash", "scheduler", "scheduler_config", "num_frames", "height", "width")
        return {name: getattr(self, name) for name in names}
