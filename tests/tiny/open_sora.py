"""A random-weight Open-Sora, whose pipeline is here the plain sampler that its own tests have."""

from dataclasses import dataclass

import torch

from lemica_backend.models.open_sora import OpenSoraPipeline
from tests.open_sora import reference
from tests.tiny.family import STEPS, Tiny
from tests.tiny_open_sora import make_tiny_open_sora


@dataclass(frozen=True)
class TinyOpenSora(Tiny):
    """What differs from a pipeline of diffusers: how it is read, and how it generates."""

    def open(self, folder, dtype, model):
        return OpenSoraPipeline.from_pretrained(folder, dtype=dtype)

    def generate(self, pipeline, prompt, *, seed=7, guidance_scale=4.0, steps=STEPS, negative_prompt="", kind="latent"):
        assert not negative_prompt, "it has none"
        latents = reference.sample(pipeline, prompt, seed=seed, guidance_scale=guidance_scale, steps=steps)
        return torch.as_tensor(latents if kind == "latent" else reference.decode(pipeline, latents))


TINY = TinyOpenSora("open_sora", "1.2", make_tiny_open_sora, {}, takes_negative_prompts=False)
