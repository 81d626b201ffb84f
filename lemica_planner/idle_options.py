"""Options that would do nothing without others: refused, because who gives them expects something of them."""

from __future__ import annotations

from lemica_planner.errors import CalibrationError

__all__ = ["refuse_idle", "refuse_idle_seed"]


def refuse_idle(option: str, needs: str, *, is_idle: bool) -> None:
    """Raise `CalibrationError` if `option` was given and does nothing for lack of what it needs."""
    if is_idle:
        raise CalibrationError(f"{option} does nothing without {needs}; give that as well, or leave {option} out")


def refuse_idle_seed(seed: int, sample: int | None, prompts: str) -> None:
    """Refuse the seed of a draw where nothing is drawn."""
    draws = sample is not None or prompts.startswith("paper:")
    refuse_idle("--sample-seed", "--sample (or prompts of paper:FOLDER)", is_idle=bool(seed) and not draws)
