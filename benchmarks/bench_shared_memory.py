"""How long a large video takes from a real server to this process: through shared memory, and inline.

The model does no work but to fill its frames, so what is measured is their way. Interleaved rounds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from lemica_backend.triton_server import TritonServer
from lemica_client import Client
from tests.client.stand_in import add_stand_in

SIZES = {"4 MiB": (16, 296, 296), "16 MiB": (16, 592, 592), "64 MiB": (64, 592, 592)}  # frames, height, width
ROUNDS = 15


def main() -> int:
    """Print one row for each protocol and size: medians in milliseconds, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        add_stand_in(models, "large", program="large_model.py", is_decoupled=False)
        with TritonServer(models, log=Path(folder) / "server.log") as server:
            server.wait_ready(timeout_s=300)
            print("| protocol | frames | shared memory (ms) | inline (ms) | ratio | its quartiles |")
            print("|---|---|---|---|---|---|")
            for url in (f"grpc://{server.grpc_url}", f"http://{server.http_url}"):
                for name, shape in SIZES.items():
                    _print_row(url, name, shape)
    return 0


def _print_row(url: str, name: str, shape: tuple[int, int, int]) -> None:
    with (
        Client(url, model="large", shared_memory=True) as shared,
        Client(url, model="large", shared_memory=False) as inline,
    ):
        _measure_s(shared, shape), _measure_s(inline, shape)  # the first one learns the size
        times = [(_measure_s(shared, shape), _measure_s(inline, shape)) for _ in range(ROUNDS)]
    shared_ms, inline_ms = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    low, middle, high = statistics.quantiles([inline_s / shared_s for shared_s, inline_s in times], n=4)
    figures = f"{shared_ms:.0f} | {inline_ms:.0f} | {middle:.2f} | {low:.2f} to {high:.2f}"
    print(f"| {url.split(':', maxsplit=1)[0]} | {name} | {figures} |", flush=True)


def _measure_s(client: Client, shape: tuple[int, int, int]) -> float:
    start_s = time.perf_counter()
    frames = client.generate("x", num_frames=shape[0], height=shape[1], width=shape[2]).frames
    assert frames.shape[:3] == shape
    return time.perf_counter() - start_s


if __name__ == "__main__":
    sys.exit(main())
