"""The page of `lemica ui`: a prompt, two budgets, progress with previews, and what each cost. Needs the extra `ui`."""

from __future__ import annotations

import html
import io
import os
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read at import: the page tells nobody that it is there

import gradio as gr
from PIL import Image

from lemica_client.async_client import AsyncClient
from lemica_client.ui_compare import Side, compare, facts

NAMES = ("left", "right")
KEPT_S = 3600  # videos and pictures in Gradio's cache
HEADERS = ["budget", "seconds", "computed steps", "predicted error"]
SYSTEM_FONTS = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # nothing from the network
PIXELS = ".preview img { width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated }"
MAX_WAITING = 16


def serve(make_client: Callable[[], AsyncClient], budgets: list[str], host: str, port: int) -> None:
    """Serve the page until Ctrl-C.

    Parameters
    ----------
    make_client : callable
        Returns a client for one comparison.
    budgets : list of str
        To choose from; others may be typed.
    host : str
        Address to listen on.
    port : int
        Its port.
    """
    page = build_page(make_client, budgets)
    page.queue(max_size=MAX_WAITING).launch(
        server_name=host, server_port=port, share=False, theme=SYSTEM_FONTS, footer_links=[], css=PIXELS
    )


def build_page(make_client: Callable[[], AsyncClient], budgets: list[str]) -> Any:
    """Return the page, a ``gradio.Blocks``; nothing is served yet."""
    with gr.Blocks(title="lemica", analytics_enabled=False, delete_cache=(KEPT_S, KEPT_S)) as page:
        gr.Markdown("# lemica\nOne prompt, one seed, two budgets: what skipping steps costs and saves.")
        with gr.Row():
            prompt = gr.Textbox(
                label="Prompt", value="a red circle moving right on a navy background", scale=4, elem_id="prompt"
            )
            seed = gr.Number(label="Seed", value=7, precision=0, minimum=0, scale=1)
        with gr.Row():
            chosen = [_budget_choice(side, budgets) for side in NAMES]
        with gr.Row():
            start = gr.Button("Compare", variant="primary", elem_id="compare")
            stop = gr.Button("Stop", elem_id="stop")
        table = gr.Dataframe(headers=HEADERS, label="Comparison", interactive=False, elem_id="facts")
        with gr.Row():
            shown = [output for side in NAMES for output in _side(side)]
        running = start.click(_handler(make_client), [prompt, seed, *chosen], [*shown, table], concurrency_limit=4)
        stop.click(None, cancels=[running])
    return page


def _budget_choice(side: str, budgets: list[str]) -> gr.Dropdown:
    value = budgets[0] if side == "left" else budgets[-1]
    return gr.Dropdown(budgets, value=value, allow_custom_value=True, label=f"Budget {side}", elem_id=f"budget-{side}")


def _side(side: str) -> list[Any]:
    with gr.Column():
        return [
            gr.HTML(elem_id=f"progress-{side}"),
            gr.Image(
                label="Preview",
                height=160,
                buttons=[],
                elem_id=f"preview-{side}",
                elem_classes="preview",
                interactive=False,
            ),
            gr.Video(label="Video", height=320, autoplay=True, loop=True, elem_id=f"video-{side}", interactive=False),
        ]


def _handler(make_client: Callable[[], AsyncClient]) -> Callable[..., AsyncGenerator[list[Any], None]]:
    async def run(prompt: str, seed: float | None, left: str, right: str) -> AsyncGenerator[list[Any], None]:
        number = None if seed is None else int(seed)
        with tempfile.TemporaryDirectory(prefix="lemica_ui_") as folder:  # Gradio copies what it shows
            async with make_client() as client, aclosing(compare(client, prompt, (left, right), number)) as changes:
                async for sides in changes:
                    parts = [_show(side, Path(folder) / f"{name}.mp4") for name, side in zip(NAMES, sides, strict=True)]
                    yield [*parts[0], *parts[1], [facts(side) for side in sides]]

    return run


def _show(side: Side, file: Path) -> list[Any]:
    """Return what the three parts of a side show; its video is written to the file."""
    picture = None if side.preview is None else Image.open(io.BytesIO(side.preview))
    if side.video is not None and not file.exists():
        file.write_bytes(side.video.file_bytes or b"")
    return [_progress(side), picture, str(file) if file.exists() else None]


def _progress(side: Side) -> str:
    bar = f'<progress value="{side.step}" max="{side.num_steps or 1}" style="width: 100%"></progress>'
    steps = f"step {side.step} of {side.num_steps}: " if side.num_steps else ""
    return f"{bar}<div>{html.escape(side.budget)}: {steps}{html.escape(side.text)}</div>"
