"""The text encoder first learns to read: every token must know the caption's four attributes.

Large models get a text encoder that was trained before. One that starts from nothing learns colours from videos at
once, but not directions: without them all four look alike on average, and the average of opposites is no motion.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from shapes.scene import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Scene, paraphrase, split_scenes

CLASSES = (tuple(COLOURS), SHAPES, MOTIONS, tuple(BACKGROUNDS))  # in the order of Scene's fields
BATCH = 96
LR = 1e-3


def teach_reading(text: T5EncoderModel, tokenizer: PreTrainedTokenizerFast, *, iterations: int, seed: int = 0) -> float:
    """Train `text` in place; return the share of attributes read right at the tokens of held-out captions."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    head = nn.Linear(text.config.d_model, sum(map(len, CLASSES))).to(text.device)
    optimizer = torch.optim.AdamW([*text.parameters(), *head.parameters()], lr=LR, weight_decay=0.01)
    trained, held_out = split_scenes()
    bar = tqdm(range(iterations), desc="text", mininterval=5)
    for iteration in bar:
        optimizer.param_groups[0]["lr"] = LR * min(1, (iteration + 1) / 50, 3 * (1 - iteration / iterations))
        logits, labels = _read(text, head, tokenizer, rng.choices(trained, k=BATCH), rng)
        loss = torch.stack([nn.functional.cross_entropy(*pair) for pair in zip(logits, labels, strict=True)]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    with torch.no_grad():
        logits, labels = _read(text, head, tokenizer, held_out, rng)
    right = [(part.argmax(1) == wanted).float().mean() for part, wanted in zip(logits, labels, strict=True)]
    return torch.stack(right).mean().item()


def _read(
    text: T5EncoderModel, head: nn.Linear, tokenizer: PreTrainedTokenizerFast, scenes: list[Scene], rng: random.Random
) -> tuple[list[Tensor], list[Tensor]]:
    """Return what each token says about each attribute, shapes (tokens, classes), and the truth, shapes (tokens,)."""
    inputs = tokenizer([paraphrase(scene, rng) for scene in scenes], padding=True, return_tensors="pt").to(text.device)
    states = text(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).last_hidden_state
    shown = inputs.attention_mask.bool()
    logits = head(states[shown]).split([len(names) for names in CLASSES], dim=1)
    rows = [[names.index(value) for names, value in zip(CLASSES, scene, strict=True)] for scene in scenes]
    labels = torch.tensor(rows, device=text.device)[:, None, :].expand(-1, shown.shape[1], -1)[shown]
    return list(logits), list(labels.unbind(1))
