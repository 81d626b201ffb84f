"""Random-weight pipelines of diffusers' own classes, fed with text embeddings, and a step cache made by hand.

They have no text encoder and no autoencoder: nothing here encodes or decodes.
"""

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)

from lemica_planner import CachePlan, Provenance

STEPS = 6
LISTS = {6: range(6), 4: (0, 1, 3, 5), 3: (0, 2, 5)}
NAMES = {"slow": 4, "fast": 3}
WAN_SIZES = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}


def make_plan(**stated):
    return CachePlan.from_steps(Provenance(num_inference_steps=STEPS, **stated), LISTS, names=NAMES)


def _unipc():
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def tiny_wan(scheduler=None, dtype=torch.float32):
    """Two calls of the transformer a step; by default the multistep scheduler that Wan 2.1 is published with."""
    net = WanTransformer3DModel(
        **WAN_SIZES, patch_size=(1, 2, 2), cross_attn_norm=True, qk_norm="rms_norm_across_heads"
    )
    pipeline = WanPipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=_scaled(net).to(dtype), scheduler=scheduler or _unipc()
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_wan_euler():
    return tiny_wan(FlowMatchEulerDiscreteScheduler(shift=3.0))


def tiny_wan_half():
    return tiny_wan(dtype=torch.bfloat16)


def skyreels_diffusion_forcing():
    """It steps copies of its scheduler, one a frame."""
    net = SkyReelsV2Transformer3DModel(**WAN_SIZES)
    pipeline = SkyReelsV2DiffusionForcingPipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=net.eval(), scheduler=_unipc()
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_cogvideox():
    """Both branches in one batch, and blocks that return two streams."""
    net = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=16,
        text_embed_dim=32,
        num_layers=2,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
        max_text_seq_length=7,
    )
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing")
    pipeline = CogVideoXPipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=_scaled(net), scheduler=scheduler
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline, **options):
    """Return the final latents of one generation; the same options always give the same."""
    texts = torch.randn((2, 1, 7, 32), generator=torch.Generator().manual_seed(1)).to(pipeline.transformer.dtype)
    defaults = {
        "num_inference_steps": STEPS,
        "guidance_scale": 4.0,
        "num_frames": 9,
        "height": 64,
        "width": 64,
        "generator": torch.Generator().manual_seed(7),
        "output_type": "latent",
    }
    return pipeline(prompt_embeds=texts[0], negative_prompt_embeds=texts[1], **defaults | options).frames


def latte_latents(pipeline, **options):
    """Return the final latents of a Latte pipeline; the same options always give the same."""
    defaults = {
        "num_inference_steps": STEPS,
        "guidance_scale": 4.0,
        "generator": torch.Generator().manual_seed(7),
        "output_type": "latent",
        "clean_caption": False,
        "height": None,  # the model's own size, not 512
        "width": None,
    }
    return pipeline("a red circle", **defaults | options).frames


def count_blocks(pipeline):
    """Count how often the second block really runs; its own hooks fire when it is skipped, too."""
    ran = []
    pipeline.transformer.blocks[1].attn1.register_forward_hook(lambda *_: ran.append(1))
    return ran


class ByHand:
    """Residual reuse by plain torch hooks: all blocks run, and what they made is thrown away at skipped steps.

    The step comes from the pipeline's callback, the branch from the order of calls in a step.
    """

    def __init__(self, pipeline, steps):
        self.steps, self.step, self.call, self.start, self.residuals = steps, 0, 0, None, {}
        net = pipeline.transformer
        blocks, end = (net.blocks, net.norm_out) if hasattr(net, "blocks") else (net.transformer_blocks, net.norm_final)
        blocks[0].register_forward_pre_hook(self._enter, with_kwargs=True)
        end.register_forward_pre_hook(self._leave)

    def generate(self, pipeline, **options):
        return generate(pipeline, callback_on_step_end=self._advance, **options)

    def _enter(self, _module, args, kwargs):
        self.start = (kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]).clone()

    def _leave(self, _module, args):
        hidden = args[0]
        if self.step in self.steps:
            self.residuals[self.call] = hidden.to(self.start.dtype) - self.start
        else:
            hidden = (self.start + self.residuals[self.call]).to(hidden.dtype)
        self.call += 1
        return (hidden, *args[1:])

    def _advance(self, _pipeline, step, _timestep, tensors):
        self.step, self.call = step + 1, 0
        return tensors


def _scaled(net):
    """Fresh diffusion transformers are almost the identity, which would hide errors of a cache."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            is_matrix = parameter.ndim >= 2 and "table" not in name
            parameter.normal_(0, parameter[0].numel() ** -0.5 if is_matrix else 0.1, generator=generator)
    return net.eval()
