"""A tiny pipeline, how its own code generates, and residual reuse made by hand around that code."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lemica_backend.image_file import open_image, read_image
from lemica_backend.png import encode_png

STEPS = 6
COMPUTED = (0, 3, 5)  # the second transformer of Wan 2.2 takes over at 3


@dataclass(frozen=True)
class Tiny:
    """A family's pipeline with random weights.

    Attributes
    ----------
    family : str
        As in model.json.
    variant : str
    build : callable
        Returns the pipeline.
    size : mapping
        Of its videos.
    options : mapping
        In model.json.
    arguments : mapping
        What the pipeline itself is called with for these options.
    set_guidance : callable
        Returns the pipeline's arguments for a guidance scale; gets the pipeline and the scale.
    shrink : callable
        Changes what no file says of a pipeline that has loaded.
    takes_negative_prompts, takes_image : bool
    """

    family: str
    variant: str
    build: Callable[[], Any]
    size: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    set_guidance: Callable[[Any, float], dict[str, Any]] = lambda _pipeline, scale: {"guidance_scale": scale}
    shrink: Callable[[Any], None] = lambda _pipeline: None
    takes_negative_prompts: bool = True
    takes_image: bool = False

    @property
    def name(self):
        return f"{self.family}-{self.variant}"

    def shown(self, number=0):
        """Return what a request says beside its prompt: a picture of its own for each number, if it takes any."""
        if not self.takes_image:
            return {}
        return {"image": read_image(noise_png(self.size["height"], self.size["width"], number), max_pixels=10**6)}

    def open(self, folder, dtype, model):
        """Return the pipeline of a folder, in the precision that the adapter asks for."""
        pipeline = type(model._pipeline).from_pretrained(folder, local_files_only=True, dtype=model._dtypes(dtype))
        pipeline.set_progress_bar_config(disable=True)
        self.shrink(pipeline), self.shrink(model._pipeline)
        return pipeline

    def generate(
        self,
        pipeline,
        prompt,
        *,
        seed=7,
        guidance_scale=4.0,
        steps=STEPS,
        negative_prompt="",
        kind="latent",
        image=None,
        **others,
    ):
        """Return what the pipeline makes of one prompt: its final latents, or its frames in [0, 1]."""
        return pipeline(
            prompt=prompt,
            negative_prompt=negative_prompt,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
            output_type=kind,
            **self.size,
            **self.set_guidance(pipeline, guidance_scale),
            **({"image": open_image(image or self.shown()["image"])} if self.takes_image else {}),
            **self.arguments | others,
        ).frames[0]


def noise_png(height, width, number=0, scale=1):
    """Return a PNG file of coloured squares, `scale` pixels wide."""
    colours = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return encode_png(colours.repeat(scale, 0).repeat(scale, 1))


def assert_close(ours, theirs):
    """Within 1e-5, or of the largest latent where that is above 1."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, theirs.abs().max())


@contextlib.contextmanager
def reused_by_hand(pipeline, steps):
    """Reuse residuals in the pipeline at all but the given steps, by plain torch hooks.

    All blocks run, and what they made is thrown away at skipped steps. A step ends when the scheduler steps after calls
    of the transformer (Cosmos steps it once more); the branch is the order of these calls in a step.
    """
    at = {"step": 0, "call": 0}
    residuals, started = {}, {}

    def enter(_module, args, kwargs):
        started["hidden"] = (kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]).clone()

    def replaced(hidden):
        if at["step"] in steps:
            residuals[at["call"]] = hidden - started["hidden"]
        else:
            hidden = started["hidden"] + residuals[at["call"]]
        at["call"] += 1
        return hidden

    inner = pipeline.scheduler.step

    @functools.wraps(inner)  # pipelines look at its parameters
    def step(*args, **kwargs):
        if at["call"]:
            at.update(step=at["step"] + 1, call=0)
        return inner(*args, **kwargs)

    nets = [net for net in (pipeline.transformer, getattr(pipeline, "transformer_2", None)) if net is not None]
    hooks = [first_block(net).register_forward_pre_hook(enter, with_kwargs=True) for net in nets]
    hooks += [hook_end(net, replaced) for net in nets]
    pipeline.scheduler.step = step
    try:
        yield
    finally:
        del pipeline.scheduler.step
        for hook in hooks:
            hook.remove()


def first_block(net):
    return block_list(net)[0]


def block_list(net):
    lists = ("blocks", "transformer_blocks", "spatial_blocks", "visual_transformer_blocks", "layers")
    return next(getattr(net, name) for name in lists if hasattr(net, name))


@contextlib.contextmanager
def counted(model):
    """Count the runs of the block stack: those of the first block of the transformer, or of each of the two."""
    runs = []
    nets = [net for net in getattr(model, "_nets", (model._net,)) if net is not None]
    hooks = [first_block(net).register_forward_hook(lambda *_: runs.append(1)) for net in nets]
    yield runs
    for hook in hooks:
        hook.remove()


def hook_end(net, replaced):
    """Put something in the place of what leaves the block stack: before the next module, or behind the last block."""
    if hasattr(net, "visual_transformer_blocks") or hasattr(net, "layers"):  # Kandinsky 5 and Z-Image
        return block_list(net)[-1].register_forward_hook(lambda _module, _args, output: replaced(output))
    end = net.norm_final if hasattr(net, "norm_final") else net.norm_out
    return end.register_forward_pre_hook(lambda _module, args: (replaced(args[0]), *args[1:]))
