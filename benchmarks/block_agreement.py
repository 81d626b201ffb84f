"""How far block engines are from torch's eager mode, by family, engine and precision.

``python -m benchmarks.block_agreement [--families latte-plain,...] [--engines onnxruntime,openvino,aot]
[--precisions float32,float16,bfloat16,int8]``

On the random-weight models of the tests, whose hidden states have the spread of real ones; every figure is the largest
difference of a hidden state, over the largest one, at 1, 2 and 4 rows and the shortest and longest texts. The column
`dtype itself` compares torch's eager mode with itself in float32, on the same weights and inputs: what the precision
costs before any engine. The last line is the table as JSON.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table

from lemica_backend.blocks.agreement import largest_difference
from lemica_backend.blocks.engines import Place, engine_named
from lemica_backend.blocks.stack import ROWS, TEXT, BlockStack, Range
from lemica_backend.config import EngineName, Precision, Size
from lemica_backend.errors import ModelLoadError
from lemica_backend.models import load_model

NAMES = "latte-plain,open_sora-1.2,wan-2.2,cogvideox-5b,hunyuan_video-true-cfg,hunyuan_video_15-guider,ltx-0.9,mochi-1"
KINDS: dict[str, tuple[str, Precision]] = {
    "float32": ("float32", "dtype"),
    "float16": ("float16", "dtype"),
    "bfloat16": ("bfloat16", "dtype"),
    "int8": ("float32", "int8"),
}
FAMILIES: Any = import_module("tests.tiny.families").FAMILIES  # tests have no types
CPU = torch.device("cpu")
MOST_TEXT = 32  # of families that take any length, as tiny blocks need no more


class Row(NamedTuple):
    """One cell's figure, or the reason why there is none."""

    family: str
    kind: str
    engine: str
    difference: float | None
    reason: str = ""


def open_stack(folder: Path, name: str, dtype: str) -> BlockStack:
    """Return the block stack of a tiny model that was saved there."""
    tiny = FAMILIES[name]
    settings = {"size": Size(**tiny.size), "options": tiny.options}
    model: Any = load_model(None, folder, dtype=getattr(torch, dtype), device="cpu", **settings)
    stack: BlockStack = model.stacks[0]
    return stack


def place_of(stack: BlockStack, dtype: str, precision: Precision) -> Place:
    """Return the sizes at which results are compared."""
    text = stack.served[TEXT]
    text = text if text.least == text.most else Range(text.least, min(text.most, MOST_TEXT))
    return Place(CPU, getattr(torch, dtype), {**stack.served, ROWS: Range(1, 4), TEXT: text}, precision)


def engine_difference(stack: BlockStack, place: Place, engine: EngineName, built: Path) -> float:
    """Build, load and compare; raises ModelLoadError where the engine does not serve that.

    Engines with the same artifact find it in `built`.
    """
    served = engine_named(engine, place.device, place.dtype, place.precision)
    path = built / f"{place.dtype}-{place.precision}{served.suffix}"
    if not path.exists():
        served.build(stack, place, path)
    return largest_difference(stack, served.load(stack, place, path), place)


def own_difference(stack: BlockStack, whole: BlockStack, place: Place) -> float:
    """Return what the precision changes in torch itself."""

    def run(tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        converted = [
            each.to(own.dtype) if each.is_floating_point() else each
            for each, own in zip(tensors, stack.inputs, strict=True)
        ]
        output: torch.Tensor = stack(*converted)
        return output

    return largest_difference(whole, run, place)


def measure(folder: Path, name: str, engines: list[EngineName], kinds: list[str]) -> Iterator[Row]:
    """Yield the figures of a family."""
    whole = open_stack(folder, name, "float32")
    for kind in kinds:
        dtype, precision = KINDS[kind]
        try:
            stack = open_stack(folder, name, dtype)
            place = place_of(stack, dtype, precision)
            if dtype != "float32":
                yield Row(name, kind, "dtype itself", own_difference(stack, whole, place))
        except (ModelLoadError, RuntimeError, ValueError) as error:
            yield Row(name, kind, "dtype itself", None, str(error))
            continue
        for engine in engines:
            try:
                yield Row(name, kind, engine, engine_difference(stack, place, engine, folder))
            except ModelLoadError as error:
                yield Row(name, kind, engine, None, str(error))


def show(rows: list[Row], engines: list[EngineName]) -> None:
    """Print the table, the reasons, and the rows as JSON."""
    columns = ["dtype itself", *engines]
    table = Table("family", "precision", *columns)
    found = {(row.family, row.kind, row.engine): row.difference for row in rows}
    for family, kind in dict.fromkeys((row.family, row.kind) for row in rows):
        cells = [found.get((family, kind, column)) for column in columns]
        table.add_row(family, kind, *("" if cell is None else f"{cell:.1e}" for cell in cells))
    Console(width=120).print(table)
    for row in rows:
        if row.reason:
            print(f"{row.family}, {row.kind}, {row.engine}: {row.reason[:300]}")
    print(json.dumps([row._asdict() for row in rows]))


def main(
    families: Annotated[str, typer.Option(help="Of tests/tiny.")] = NAMES,
    engines: str = "onnxruntime,openvino,aot",
    precisions: str = ",".join(KINDS),
) -> None:
    """Measure and print."""
    names: Any = engines.split(",")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in families.split(","):
            torch.manual_seed(0)
            tiny = FAMILIES[name]
            tiny.build().save_pretrained(Path(folder) / name)
            for row in measure(Path(folder) / name, name, names, precisions.split(",")):
                rows.append(row)
                print(row, flush=True)
    show(rows, names)


if __name__ == "__main__":
    typer.run(main)
