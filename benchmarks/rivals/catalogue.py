"""All rivals of one run, by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.rivals import cachedit, plans, recut_caches, stock, taylorseer
from benchmarks.rivals.calibration import calibrate
from benchmarks.rivals.magcache import mag_cache
from benchmarks.rivals.measure import full_rival
from benchmarks.rivals.rival import OpenLatte, Rival
from benchmarks.rivals.rows import FactsRow, Store
from benchmarks.rivals.teacache import tea_cache
from lemica_backend.config import ModelConfig
from lemica_planner.graph_file import load_graph

Facts = Callable[[], FactsRow]


def rivals(
    sources: Sequence[str], *, naive: Path, num_steps: int, pairs: int, budgets: Sequence[int], facts: Facts
) -> Iterator[Rival]:
    """Yield everything, the plans of `sources` first; `facts` is called only if somebody gets that far."""
    graph = plans.naive_graph(naive)
    yield full_rival()
    yield from plans.planned(sources, budgets)
    yield from plans.from_paper(graph, budgets)
    yield from plans.mean_cache(graph, budgets)
    yield from plans.uniform(num_steps, budgets)
    yield from plans.fewer_steps(budgets)
    yield from taylorseer.on_residual(num_steps)
    yield from stock.caches()
    yield from recut_caches.caches(pairs)
    if cachedit.is_installed():
        yield from cachedit.caches(num_steps, pairs)
    known = facts()
    yield from mag_cache(known.mag_ratios)
    yield from tea_cache(known.polynomial)


def chosen(every: Iterable[Rival], methods: Collection[str], always: Collection[str]) -> list[Rival]:
    """Return the rivals of `methods`, all if there are none, and those of `always`.

    Raises
    ------
    ValueError
        If a name is no method's; the message lists them.
    """
    known = list(every)
    names = list(dict.fromkeys(rival.method for rival in known))
    unknown = sorted(set(methods) - set(names))
    if unknown:
        raise ValueError(f"no such methods: {', '.join(unknown)}; there are: {', '.join(names)}")
    return [rival for rival in known if not methods or rival.method in {*methods, *always}]


def calibrated_facts(model: OpenLatte, config: ModelConfig, source: str, store: Store) -> FactsRow:
    """Return what MagCache and TeaCache need, from the samples of the graph ``NAME=GRAPH.npz``; measured once.

    Raises
    ------
    ValueError
        If the graph does not say which samples it was measured on.
    """
    samples = load_graph(source.partition("=")[2]).samples
    if not samples:
        raise ValueError(f"{source}: the graph names no samples, and rivals are calibrated on those of the base")
    listed = [sample.to_list() for sample in samples]
    weights = model.info.weights_hash
    row = store.facts(weights, listed)
    if row is None:
        facts = calibrate(model, config, samples)
        row = FactsRow(weights, listed, list(facts.mag_ratios), list(facts.polynomial))
        store.add(row)
    return row
