"""Train the text encoder and the Latte transformer together on encoded clips."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import torch
from diffusers import DDIMScheduler, LatteTransformer3DModel
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from shapes.checkpoint import load_checkpoint, save_checkpoint
from shapes.pool import Pool
from shapes.scene import paraphrase, split_scenes
from shapes.tokenizer import VOCABULARY, build_tokenizer

FRAMES = 16
CAPTION_CHANNELS = 128
DROP_CAPTION = 0.1  # share of captions replaced by the empty prompt, for guidance
EMA_DECAY = 0.997
MUON_LR, ADAM_LR = 1e-3, 1e-3
MIN_TOKENS = 24  # captions are padded to at least this, so that the compiled blocks see one shape


class Batch(NamedTuple):
    """Latents (B, 4, F, 20, 20), F = 16 or 1; token ids and mask (B, L); bias (B * F, 1, L) for cross-attention."""

    latents: Tensor
    ids: Tensor
    mask: Tensor
    bias: Tensor


class TextToVideo(nn.Module):
    """The two trained parts: text encoder and denoiser."""

    def __init__(self) -> None:
        super().__init__()
        self.text = T5EncoderModel(
            T5Config(
                vocab_size=VOCABULARY,
                d_model=CAPTION_CHANNELS,
                d_kv=32,
                d_ff=256,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
                pad_token_id=0,
                eos_token_id=1,
                decoder_start_token_id=0,
            )
        )
        self.denoiser = LatteTransformer3DModel(
            sample_size=20,
            patch_size=4,
            in_channels=4,
            out_channels=8,  # the standard layout: the second half, the variance, is never used
            num_layers=4,
            num_attention_heads=4,
            attention_head_dim=56,
            cross_attention_dim=224,
            caption_channels=CAPTION_CHANNELS,
            attention_bias=True,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            video_length=FRAMES,
        )
        _quiet_start(self.denoiser)

    def forward(self, noisy: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
        """Predict the velocity, shape of `noisy`."""
        states = self.text(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        output = self.denoiser(noisy, timestep, states, encoder_attention_mask=batch.bias, return_dict=False)[0]
        velocity: Tensor = output.chunk(2, dim=1)[0]
        return velocity


def _quiet_start(denoiser: LatteTransformer3DModel) -> None:
    """Start near the identity (DiT, section 3.2): branches that write to the stream begin at zero."""
    nn.init.zeros_(denoiser.proj_out.weight)
    nn.init.zeros_(denoiser.proj_out.bias)
    nn.init.normal_(denoiser.adaln_single.linear.weight, std=0.02)
    for block in denoiser.transformer_blocks:
        nn.init.zeros_(block.attn2.to_out[0].weight)


def make_scheduler() -> DDIMScheduler:
    """Latte's linear betas; the model predicts the velocity (Salimans and Ho, 2022)."""
    return DDIMScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type="v_prediction",
    )


def load_trained(weights: Path) -> TextToVideo:
    """Read both parts from a folder in the diffusers layout, in float32."""
    model = TextToVideo()
    model.text.load_state_dict(T5EncoderModel.from_pretrained(weights / "text_encoder").float().state_dict())
    denoiser = LatteTransformer3DModel.from_pretrained(weights / "transformer")
    model.denoiser.load_state_dict(denoiser.float().state_dict())
    return model


def train_latte(
    folder: Path,
    pool: Pool,
    *,
    iterations: int,
    batch: int,
    device: str,
    image_share: float,
    start: TextToVideo | None = None,
) -> TextToVideo:
    """Train, or carry on from `folder`'s checkpoint, and return the averaged model.

    Without a checkpoint, training begins with the weights of `start` where it is given.
    """
    torch.manual_seed(0)  # of the weights
    model = (start or TextToVideo()).to(device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    _compile(model.denoiser)
    muon, adam = _optimizers(model)
    state = {"model": model, "average": average, "muon": muon, "adam": adam}
    path = folder / "latte.pt"
    done = load_checkpoint(path, **state)
    torch.manual_seed(done)  # of the noise: going on must not repeat it
    batches = _batches(pool, build_tokenizer(), size=batch, device=device, seed=done, image_share=image_share)
    scheduler = make_scheduler()
    bar = tqdm(range(done, iterations), initial=done, total=iterations, desc="latte", mininterval=10)
    running = 0.2
    for iteration in bar:
        _set_lr(muon, adam, _schedule(iteration, iterations))
        loss = _loss(model, scheduler, next(batches))
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step()
        adam.step()
        average.update_parameters(model)
        running += 0.02 * (loss.item() - running)
        bar.set_postfix(loss=f"{running:.4f}")
        if iteration % 100 == 99 or iteration == iterations - 1:
            save_checkpoint(path, iteration + 1, **state)
    return cast(TextToVideo, average.module).eval()


def _compile(denoiser: LatteTransformer3DModel) -> None:
    """Compile block by block: the same code serves all blocks of a kind, and elementwise work is fused."""
    if shutil.which("g++") is None:
        print("g++ was not found, so nothing is compiled: training takes about a third longer")
        return
    for block in (*denoiser.transformer_blocks, *denoiser.temporal_transformer_blocks):
        block.compile(dynamic=False)


def _optimizers(model: TextToVideo) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    """Muon for the matrices inside the blocks, AdamW for everything else."""
    blocks = (model.denoiser.transformer_blocks, model.denoiser.temporal_transformer_blocks)
    matrices = [p for stack in blocks for p in stack.parameters() if p.ndim == 2 and min(p.shape) > 6]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(matrices, lr=MUON_LR, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return muon, torch.optim.AdamW(rest, lr=ADAM_LR, betas=(0.9, 0.99), weight_decay=0.01)


def _schedule(iteration: int, iterations: int) -> float:
    """Warm up over 100 iterations, hold, and fall linearly to 5 % over the last third."""
    return min(1.0, (iteration + 1) / 100, 0.05 + 0.95 * 3 * (1 - iteration / iterations))


def _set_lr(muon: torch.optim.Optimizer, adam: torch.optim.Optimizer, share: float) -> None:
    muon.param_groups[0]["lr"] = MUON_LR * share
    adam.param_groups[0]["lr"] = ADAM_LR * share


def _loss(model: TextToVideo, scheduler: DDIMScheduler, batch: Batch) -> Tensor:
    size = len(batch.latents)
    strata = (torch.arange(size) + torch.rand(size)) / size
    timestep = (strata * 1000).long().clamp(max=999).to(batch.latents.device)
    noise = torch.randn_like(batch.latents)
    noisy = scheduler.add_noise(batch.latents, noise, timestep)
    target = scheduler.get_velocity(batch.latents, noise, timestep)
    with torch.autocast(noise.device.type, torch.bfloat16):
        output = model(noisy, timestep, batch)
    return nn.functional.mse_loss(output.float(), target)


def _batches(
    pool: Pool, tokenizer: PreTrainedTokenizerFast, *, size: int, device: str, seed: int, image_share: float
) -> Iterator[Batch]:
    """Yield batches of `size` clips or, in a share of the iterations, of as many single frames at the same cost.

    Frames of one clip resemble each other, so single frames teach shapes and places many times faster.
    """
    rng = random.Random(seed)
    scenes = split_scenes()[0]
    while True:
        as_images = rng.random() < image_share
        picks = rng.choices(range(len(pool.scenes)), k=size * FRAMES if as_images else size)
        captions = [paraphrase(scenes[pool.scenes[pick]], rng) for pick in picks]
        dropped = [rng.random() < DROP_CAPTION for _ in picks]
        latents = _frames(pool.latents, picks, rng) if as_images else pool.latents[picks]
        batch = _tokenise(latents.float(), captions, dropped, tokenizer)
        yield Batch(*(part.to(device) for part in batch))


def _frames(latents: Tensor, picks: list[int], rng: random.Random) -> Tensor:
    """Return one random frame of each picked clip, shape (len(picks), 4, 1, 20, 20)."""
    frames = [rng.randrange(FRAMES) for _ in picks]
    return latents[picks, :, frames].unsqueeze(2)


def _tokenise(latents: Tensor, captions: list[str], dropped: list[bool], tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Make a batch; a dropped caption keeps its length, because LattePipeline crops the negative prompt to it."""
    longest = max(len(ids) for ids in tokenizer(captions).input_ids)
    pad = {"padding": "max_length", "max_length": max(longest, MIN_TOKENS), "return_tensors": "pt"}
    full = tokenizer(captions, **pad)
    kept = ["" if drop else caption for caption, drop in zip(captions, dropped, strict=True)]
    shown = tokenizer(kept, **pad)
    bias = (full.attention_mask[:, None, :].float() - 1) * 10_000.0
    return Batch(latents, shown.input_ids, shown.attention_mask, bias.repeat_interleave(latents.shape[2], dim=0))
