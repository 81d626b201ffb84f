"""Train the Latte transformer on encoded clips."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import torch
from diffusers import DDIMScheduler, LatteTransformer3DModel
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from shapes.batches import Batch, Clips
from shapes.checkpoint import load_checkpoint, save_checkpoint
from shapes.model import TextToVideo, make_scheduler
from shapes.pool import Pool
from shapes.tokenizer import build_tokenizer

EMA_DECAY = 0.995
MUON_LR, ADAM_LR = 2e-3, 1e-3
BLIND = 920  # from this timestep on (alpha_bar < 2e-4), noisy latents show next to nothing of the clip
IMAGES_BELOW = 750  # single frames teach to draw; where things are at higher noise, only whole clips tell


def train_latte(
    folder: Path,
    pool: Pool,
    *,
    iterations: int,
    layout_iterations: int,
    batch: int,
    device: str,
    image_share: float,
    start: TextToVideo,
) -> TextToVideo:
    """Train from `start`, or carry on from `folder`'s checkpoint, and return the averaged model.

    The first `layout_iterations` see clips at blind timesteps only: there a model learns within minutes where things
    are and how they move, which the noise of everything else hides for hours.
    """
    model = start.to(device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    _compile(model.denoiser)
    muon, adam = _optimizers(model.denoiser)
    state = {"model": model, "average": average, "muon": muon, "adam": adam}
    path = folder / "latte.pt"
    done = load_checkpoint(path, **state)
    torch.manual_seed(done)  # of the noise and of the clips: going on must not repeat them
    clips = Clips(pool, build_tokenizer(), seed=done)
    scheduler = make_scheduler()
    bar = tqdm(range(done, iterations), initial=done, total=iterations, desc="latte", mininterval=10)
    for iteration in bar:
        _set_lr(muon, adam, _schedule(iteration, iterations))
        layout = iteration < layout_iterations
        drawn = clips.draw(batch, as_images=not layout and bool(torch.rand(()) < image_share))
        loss = _loss(model, scheduler, Batch(*(part.to(device) for part in drawn)), layout=layout)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step()
        adam.step()
        average.update_parameters(model)
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
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


def _optimizers(denoiser: LatteTransformer3DModel) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    """Muon for the matrices inside the blocks, AdamW for everything else."""
    blocks = (denoiser.transformer_blocks, denoiser.temporal_transformer_blocks)
    matrices = [p for stack in blocks for p in stack.parameters() if p.ndim == 2 and min(p.shape) > 6]
    chosen = {id(p) for p in matrices}
    rest = [p for p in denoiser.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(matrices, lr=MUON_LR, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return muon, torch.optim.AdamW(rest, lr=ADAM_LR, betas=(0.9, 0.99), weight_decay=0.01)


def _schedule(iteration: int, iterations: int) -> float:
    """Warm up over 50 iterations, hold, and fall linearly to 3 % over the second half."""
    return min(1.0, (iteration + 1) / 50, 0.03 + 0.97 * 2 * (1 - iteration / iterations))


def _set_lr(muon: torch.optim.Optimizer, adam: torch.optim.Optimizer, share: float) -> None:
    muon.param_groups[0]["lr"] = MUON_LR * share
    adam.param_groups[0]["lr"] = ADAM_LR * share


def _loss(model: TextToVideo, scheduler: DDIMScheduler, batch: Batch, *, layout: bool) -> Tensor:
    """Return the mean squared error of the velocity.

    Where a model is blind, the best it can do is the mean of all clips with that caption. To have that as the target
    in place of one clip changes no expected gradient and takes most of its noise away.
    """
    timestep = _timesteps(*batch.latents.shape[:3:2], layout=layout).to(batch.latents.device)
    noise = torch.randn_like(batch.latents)
    noisy = scheduler.add_noise(batch.latents, noise, timestep)
    target = scheduler.get_velocity(_aim(batch, timestep), noise, timestep)
    with torch.autocast(noise.device.type, torch.bfloat16):
        output = model(noisy, timestep, batch)
    return nn.functional.mse_loss(output.float(), target)


def _timesteps(size: int, frames: int, *, layout: bool) -> Tensor:
    low, high = (BLIND, 1000) if layout else (0, 1000 if frames > 1 else IMAGES_BELOW)
    strata = (torch.arange(size) + torch.rand(size)) / size
    return (low + strata * (high - low)).long().clamp(max=high - 1)


def _aim(batch: Batch, timestep: Tensor) -> Tensor:
    blind = (timestep >= BLIND)[:, None, None, None, None]
    return torch.where(blind, batch.means, batch.latents)
