"""How well each signal foretells a request's final error, compared with what calibration saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.far_prompts.plans import Rivals
from benchmarks.far_prompts.runs import METRICS, Runs
from benchmarks.far_prompts.signals import Usual, text_distance
from benchmarks.far_prompts.statistics import area_under_curve, by_prompt, rank_correlation
from benchmarks.far_prompts.survey import Finding
from lemica_backend.models import VideoModel

__all__ = ["judge_signals"]

Row = dict[str, Any]
_TOO_MUCH = 2.0
_SURE = 8  # signals with intervals


class _Table(NamedTuple):
    """One row a video under the shared plan at one budget.

    `ratios` are final errors over the mean of the calibration samples', by metric; `predicted` those of the plan's own
    metric over its predicted error.
    """

    metric: str

    prompts: list[str]
    halves: NDArray[np.bool_]
    signals: dict[str, NDArray[np.float64]]
    ratios: dict[str, NDArray[np.float64]]
    predicted: NDArray[np.float64]


def judge_signals(findings: Sequence[Finding], rivals: Rivals, runs: Runs, model: VideoModel) -> dict[str, Any]:
    """Return every signal's scores as JSON values, and those of the signal that half of the prompts would choose."""
    rows, chosen = [], []
    texts = _texts(findings, rivals, model)
    for budget in rivals.shared:
        table = _table(findings, rivals, runs, budget, texts)
        rows += list(_scores(table, budget))
        chosen += list(_chosen(table, budget))
    return {"signals": rows, "chosen_on_half": chosen}


def _texts(findings: Sequence[Finding], rivals: Rivals, model: VideoModel) -> dict[str, float]:
    """Return every prompt's distance to the calibration prompts."""

    def pooled(prompt: str) -> NDArray[np.float64]:
        return np.asarray(model.encode_text(prompt, "", ("cond",))["cond"].mean(dim=0).detach().cpu().numpy(), float)

    usual = np.stack([pooled(sample.prompt) for sample in rivals.graph.samples])
    return {prompt: text_distance(pooled(prompt), usual) for prompt in {each.case.sample.prompt for each in findings}}


def _table(findings: Sequence[Finding], rivals: Rivals, runs: Runs, budget: int, texts: dict[str, float]) -> _Table:
    way = rivals.shared[budget]
    calibration = [runs.results(sample, list(rivals.shared.values())) for sample in rivals.graph.samples]
    at = list(rivals.shared).index(budget)
    known = [results[at] for results in calibration]
    usual = Usual(rivals.graph, way.entry, [result.seen for result in known])
    mine = [finding.results["shared", budget] for finding in findings]
    signals = [{"text distance": texts[each.case.sample.prompt]} for each in findings]
    signals = [text | usual.signals(result.seen) for text, result in zip(signals, mine, strict=True)]
    errors = {metric: np.array([result.errors[metric] for result in mine]) for metric in METRICS}
    means = {metric: np.mean([result.errors[metric] for result in known]) for metric in METRICS}
    metric = rivals.graph.provenance.metric or METRICS[0]
    return _Table(
        metric=metric,
        prompts=[finding.case.sample.prompt for finding in findings],
        halves=np.array([finding.case.number % 2 == 0 for finding in findings]),
        signals={name: np.array([each[name] for each in signals]) for name in signals[0]},
        ratios={metric: errors[metric] / means[metric] for metric in METRICS},
        predicted=errors[metric] / (way.entry.predicted_error or np.nan),
    )


def _scores(table: _Table, budget: int) -> Iterator[Row]:
    """Yield every signal's scores, the best first; intervals, which take longer, of the first few."""
    ranked = {name: rank_correlation(table.signals[name], table.ratios[table.metric]) for name in table.signals}
    for place, name in enumerate(sorted(ranked, key=lambda name: -ranked[name])):
        scores = {metric: _score(table, name, metric, sure=place < _SURE) for metric in METRICS}
        above = (table.predicted > _TOO_MUCH).astype(float)
        auc = area_under_curve(table.signals[name], above)
        yield {"budget": budget, "signal": name, **scores, "auc_above_predicted": auc, "above": int(above.sum())}


def _score(table: _Table, name: str, metric: str, *, sure: bool) -> Row:
    signal, ratio = table.signals[name], table.ratios[metric]
    bad = (ratio > _TOO_MUCH).astype(float)
    row: Row = {
        "rank_correlation": rank_correlation(signal, ratio),
        "auc": area_under_curve(signal, bad),
        "bad": int(bad.sum()),
    }
    if sure:
        row["rank_correlation_interval"] = by_prompt(rank_correlation, signal, ratio, table.prompts)
        row["auc_interval"] = by_prompt(area_under_curve, signal, bad, table.prompts)
    return row


def _chosen(table: _Table, budget: int) -> Iterator[Row]:
    """Yield what one half of the prompts would choose by rank correlation, and its scores on the other half."""
    for metric, ratio in table.ratios.items():
        for half in (table.halves, ~table.halves):
            best = max(table.signals, key=lambda name: rank_correlation(table.signals[name][half], ratio[half]))
            signal, truth = table.signals[best][~half], ratio[~half]
            bad = (truth > _TOO_MUCH).astype(float)
            scores = {"rank_correlation": rank_correlation(signal, truth), "auc": area_under_curve(signal, bad)}
            yield {"budget": budget, "metric": metric, "signal": best, **scores}
