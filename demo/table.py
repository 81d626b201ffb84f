"""The table of a run, for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table

from demo.records import FULL
from demo.summary import MOST_OF_IDEAL, MOST_SPREAD, Row, Summary

_COLUMNS = (
    "budget",
    "forwards",
    "seconds",
    "speed-up",
    "ideal",
    "of ideal",
    "LPIPS ↓",
    "SSIM ↑",
    "PSNR ↑",
)


def make_table(summary: Summary) -> Table:
    """Return the table, with a caption that says what its columns mean."""
    table = Table(title="What the cache saves, and what it costs", caption=explain(summary), caption_justify="left")
    table.box, table.padding, table.show_edge = box.SIMPLE_HEAD, (0, 0, 0, 0), False  # fits into 80 columns
    for index, name in enumerate(_COLUMNS):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in summary.rows:
        table.add_row(*_cells(row, summary.num_steps))
    return table


def explain(summary: Summary) -> str:
    """Say in sentences what the columns mean and what the ideal speed-up rests on."""
    return (
        f"Seconds: median over all requests. Speed-up: median of the ratios to the neighbouring request at full "
        f"budget, which need not be the ratio of the seconds. Ideal: (T f + c) / (B f + c), with "
        f"T = {summary.num_steps} steps, B = forwards, "
        f"f = {summary.step_ms:.1f} ms for a computed step, c = {summary.other_ms:.1f} ms for all that is not "
        f"denoising. LPIPS, SSIM and PSNR (dB): means against the full video of the same prompt and seed."
    )


def describe_noise(summary: Summary) -> str | None:
    """Return a line that says by what signs the machine was busy, or None where the times give none."""
    signs = []
    if summary.full_spread > MOST_SPREAD:
        signs.append(f"The requests at full budget differ by {summary.full_spread:.0%} of their median.")
    if summary.most_of_ideal > MOST_OF_IDEAL:
        signs.append(f"A speed-up of {summary.most_of_ideal:.0%} of the ideal is impossible.")
    if not signs:
        return None
    return " ".join(
        ("The machine was busy: do not trust these times.", *signs, "Run it again where nothing else runs.")
    )


def _cells(row: Row, num_steps: int) -> tuple[str, ...]:
    cost = (row.budget, f"{row.forwards}/{num_steps}", f"{row.seconds:.2f}")
    if row.budget == FULL:
        return (*cost, "1.00x", *["-"] * 5)
    return (
        *cost,
        f"{row.speedup:.2f}x",
        f"{row.ideal_speedup:.2f}x",
        f"{row.share_of_ideal:.0%}",
        f"{row.quality.lpips:.4f}",
        f"{row.quality.ssim:.4f}",
        f"{row.quality.psnr:.2f}",
    )
