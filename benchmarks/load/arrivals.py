"""When requests arrive and what they ask for: drawn from a seed, before anything runs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from demo.measure import PROMPTS_FILE, read_prompts


@dataclass(frozen=True)
class Ask:
    """One request of a load.

    Attributes
    ----------
    at_s : float
        When it arrives, in seconds from the beginning of the load.
    prompt : str
    seed : int
    budget : str
    deadline_ms : int or None
        What the server is told.
    queue_timeout_us : int or None
        Triton's own ``timeout`` parameter: after so many microseconds in Triton's queue the request is refused.
    """

    at_s: float
    prompt: str
    seed: int
    budget: str
    deadline_ms: int | None = None
    queue_timeout_us: int | None = None


@dataclass(frozen=True)
class Mix:
    """Budgets with the share of each.

    Attributes
    ----------
    budgets : tuple of str
    weights : tuple of float
        Above 0; they need not add up to 1.
    """

    budgets: tuple[str, ...]
    weights: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``fast=2,slow=1,full``; a budget without a weight has 1."""
        pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
        budgets = tuple(budget.strip() for budget, _, _ in pairs)
        weights = tuple(float(weight) if weight else 1.0 for _, _, weight in pairs)
        if not budgets or not all(budgets) or min(weights) <= 0:
            raise ValueError(f"mix is {text!r}; allowed are budgets with weights above 0, such as fast=2,slow=1,full")
        return cls(budgets, weights)

    def draw(self, count: int, rng: random.Random) -> list[str]:
        """Return `count` budgets, in random order, whose shares are those of the mix as near as whole numbers allow.

        Independent draws would give the servers' rounds different amounts of work, and so only noise.
        """
        total = sum(self.weights)
        exact = [count * weight / total for weight in self.weights]
        counts = [int(value) for value in exact]
        by_rest = sorted(range(len(exact)), key=lambda index: counts[index] - exact[index])
        for index in by_rest[: count - sum(counts)]:
            counts[index] += 1
        drawn = [budget for budget, times in zip(self.budgets, counts, strict=True) for _ in range(times)]
        rng.shuffle(drawn)
        return drawn


def at_once(mix: Mix, count: int, seed: int) -> list[Ask]:
    """Return requests without times: a closed loop sends each when an earlier one is answered."""
    rng = random.Random(f"{seed} at once")  # noqa: S311 - no secret
    prompts = read_prompts(PROMPTS_FILE)
    budgets = mix.draw(count, rng)
    return [Ask(0.0, prompts[number % len(prompts)], number, budget) for number, budget in enumerate(budgets)]


def poisson(mix: Mix, rate_per_s: float, count: int, seed: int) -> list[Ask]:
    """Return requests that arrive at random: the gaps are exponential, of mean 1 / `rate_per_s` seconds."""
    if not rate_per_s > 0:
        raise ValueError(f"rate is {rate_per_s:g} requests a second; it has to be above 0")
    rng = random.Random(f"{seed} poisson")  # noqa: S311 - no secret
    asks, at_s = [], 0.0
    for ask in at_once(mix, count, seed):
        at_s += rng.expovariate(rate_per_s)
        asks.append(replace(ask, at_s=at_s))
    return asks


def changed(asks: Sequence[Ask], **fields: Any) -> list[Ask]:
    """Return the same arrivals with other fields."""
    return [replace(ask, **fields) for ask in asks]
