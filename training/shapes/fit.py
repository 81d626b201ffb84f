"""The training loop that all denoisers share: what differs is their network and their loss."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from shapes.batches import Batch, Clips
from shapes.checkpoint import load_checkpoint, save_checkpoint
from shapes.pool import Pool
from shapes.tokenizer import build_tokenizer

EMA_DECAY = 0.995
MUON_LR, ADAM_LR = 2e-3, 1e-3
CHECKPOINT_EVERY = 100

Model = TypeVar("Model", bound=nn.Module)


class Loss(Protocol):
    """What a batch costs."""

    def __call__(self, batch: Batch, *, layout: bool) -> Tensor:
        """Return the loss; with `layout`, at timesteps only where the noise hides the clip."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long to train, and on what.

    Attributes
    ----------
    iterations : int
    layout_iterations : int
        The first ones, which see clips at blind timesteps only: there a model learns within minutes where things are
        and how they move, which the noise of everything else hides for hours.
    batch : int
        Clips an iteration.
    image_share : float
        Share of the other iterations that see single frames.
    """

    iterations: int
    layout_iterations: int
    batch: int
    image_share: float


def fit(
    path: Path,
    model: Model,
    *,
    network: nn.Module,
    blocks: Sequence[nn.Module],
    loss: Loss,
    pool: Pool,
    schedule: Schedule,
) -> Model:
    """Train from `model`, or carry on from the checkpoint at `path`, and return the averaged model.

    Parameters
    ----------
    path : Path
        The checkpoint.
    model : nn.Module
        On its device.
    network : nn.Module
        The part of it that is trained.
    blocks : sequence of nn.Module
        The network's blocks.
    loss : Loss
        Of `model`.
    pool : Pool
    schedule : Schedule
    """
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    _compile(blocks)
    muon, adam = _optimizers(network, blocks)
    state = {"model": model, "average": average, "muon": muon, "adam": adam}
    done = load_checkpoint(path, **state)
    torch.manual_seed(done)  # of the noise and of the clips: going on must not repeat them
    clips = Clips(pool, build_tokenizer(), seed=done)
    device = next(model.parameters()).device
    total = schedule.iterations
    bar = tqdm(range(done, total), initial=done, total=total, desc=path.stem, mininterval=10)
    for iteration in bar:
        _set_lr(muon, adam, _warm_and_cool(iteration, total))
        layout = iteration < schedule.layout_iterations
        drawn = clips.draw(schedule.batch, as_images=not layout and bool(torch.rand(()) < schedule.image_share))
        cost = loss(Batch(*(part.to(device) for part in drawn)), layout=layout)
        model.zero_grad(set_to_none=True)
        cost.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step()
        adam.step()
        average.update_parameters(model)
        bar.set_postfix(loss=f"{cost.item():.3f}", refresh=False)
        if (iteration + 1) % CHECKPOINT_EVERY == 0 or iteration == total - 1:
            save_checkpoint(path, iteration + 1, **state)
    return cast(Model, average.module.eval())


def _compile(blocks: Iterable[nn.Module]) -> None:
    """Compile block by block: the same code serves all blocks of a kind, and elementwise work is fused."""
    if shutil.which("g++") is None:
        print("g++ was not found, so nothing is compiled: training takes about a third longer")
        return
    for block in blocks:
        block.compile(dynamic=False)


def _optimizers(network: nn.Module, blocks: Iterable[nn.Module]) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    """Muon for the matrices inside the blocks, AdamW for everything else."""
    matrices = [p for block in blocks for p in block.parameters() if p.ndim == 2 and min(p.shape) > 6]
    chosen = {id(p) for p in matrices}
    rest = [p for p in network.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(matrices, lr=MUON_LR, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return muon, torch.optim.AdamW(rest, lr=ADAM_LR, betas=(0.9, 0.99), weight_decay=0.01)


def _warm_and_cool(iteration: int, iterations: int) -> float:
    """Warm up over 50 iterations, hold, and fall linearly to 3 % over the second half."""
    return min(1.0, (iteration + 1) / 50, 0.03 + 0.97 * 2 * (1 - iteration / iterations))


def _set_lr(muon: torch.optim.Optimizer, adam: torch.optim.Optimizer, share: float) -> None:
    muon.param_groups[0]["lr"] = MUON_LR * share
    adam.param_groups[0]["lr"] = ADAM_LR * share
