"""The video that a folder of weights is served for, as ``video`` in its ``model_index.json`` says."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lemica_backend.models.open_sora.scheduler import timestep_shift

_IMAGE_FPS = 120.0  # the rate that stands for a single image

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]


class VideoSettings(BaseModel):
    """What the transformer is told of every video; the defaults are Open-Sora's 2 s at 480p.

    Attributes
    ----------
    num_frames : int
    height, width : int
        In pixels. What is more than whole latent cells of 8 pixels conditions the model and is not drawn.
    fps : float
        Frames a second that motion is made for; the rate of files is another setting, of ``model.json``.
    aesthetic_score : float or None
        Written after the prompt, as in training; None leaves the prompt alone.
    clean_caption : bool
        Whether prompts lose what the training captions had lost: links, markup, odd signs.
    shift : float or None
        Of the timesteps; None for the one that follows from the size.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    num_frames: PositiveInt = 51
    height: PositiveInt = 480
    width: PositiveInt = 854
    fps: PositiveFloat = 24.0
    aesthetic_score: float | None = 6.5
    clean_caption: bool = True
    shift: PositiveFloat | None = None

    @property
    def conditioning_fps(self) -> float:
        """The frame rate that the model is told."""
        return _IMAGE_FPS if self.num_frames == 1 else self.fps

    @property
    def timestep_shift(self) -> float:
        """The shift of the timesteps; see `lemica_backend.models.open_sora.scheduler.timestep_shift`."""
        if self.shift is not None:
            return self.shift
        return timestep_shift(num_frames=self.num_frames, height=self.height, width=self.width)
