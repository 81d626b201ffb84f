"""Plans with forecasts in real, tiny pipelines of diffusers: against the engine, and against a cache made by hand."""

from dataclasses import replace

import pytest
import torch

from lemica_backend.config import ModelConfig
from lemica_backend.engine import Engine
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, PlanEntry, PlanFormatError, PlanMismatchError, Provenance
from lemica_planner.integrations.diffusers import PipelineError, apply
from lemica_planner.operators import OPERATORS
from tests.planner.tiny_diffusers import (
    NAMES,
    STEPS,
    ByHand,
    generate,
    latte_latents,
    tiny_cogvideox,
    tiny_wan,
    tiny_wan_half,
)

PATHS = {3: (0, 2, 5), 4: (0, 1, 3, 5)}
FORECASTS = [name for name, operator in OPERATORS.items() if operator.source == "residual"]
FEW = {"residual-fitted": (0.9,), "residual-split": (0.9, 1.1)}
MANY = {"residual-fitted": (-0.7, 1.6), "residual-split": (-0.7, 1.6, -0.4, 1.5)}


def entry(steps, operator):
    """Return a path of one operator; a fitted one gets weights for as many computed steps as there are."""
    skipped = sorted(set(range(STEPS)) - set(steps))
    known = {step: (FEW if step < steps[1] else MANY).get(operator) for step in skipped}
    fitted = {step: weights for step, weights in known.items() if weights}
    return PlanEntry(steps, operators=(operator,) * (len(steps) - 1), weights=fitted)


def plan_of(operator, **stated):
    entries = {budget: entry(steps, operator) for budget, steps in PATHS.items()}
    provenance = Provenance(num_inference_steps=STEPS, operator=operator, **stated)
    return CachePlan(provenance=provenance, entries=entries, names=NAMES)


@pytest.mark.parametrize("budget", [3, 4])
@pytest.mark.parametrize("operator", FORECASTS)
def test_latte_equals_the_engine(latte, latte_model, latte_plan, operator, budget):
    plan = replace(latte_plan, provenance=replace(latte_plan.provenance, operator=operator))
    plan = replace(plan, entries=plan_of(operator).entries)
    expected = by_the_engine(latte_model, plan, budget)
    plain = latte_latents(latte)[0]
    with apply(latte, plan, budget) as installed:
        ours, again = latte_latents(latte)[0], latte_latents(latte)[0]
        assert installed.computed_steps == PATHS[budget]
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)
    assert (ours - plain).abs().max() > 1e-3
    assert torch.equal(again, ours)


def test_without_guidance_only_the_conditional_half_of_split_weights_counts(latte, latte_model, latte_plan):
    stated = replace(latte_plan.provenance, operator="residual-split", guidance_scale=1.0)
    plan = replace(latte_plan, provenance=stated, entries=plan_of("residual-split").entries)
    expected = by_the_engine(latte_model, plan, 3)
    with apply(latte, plan, 3):
        ours = latte_latents(latte, guidance_scale=1.0)[0]
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)


def by_the_engine(model, plan, budget):
    """Return the latents that the server makes for the same prompt, seed and plan."""
    defaults = {"num_inference_steps": STEPS, "guidance_scale": plan.provenance.guidance_scale}
    engine = Engine(model, ModelConfig.model_validate({"defaults": defaults}), plan)
    try:
        request = GenerationRequest("a red circle", seed=7, budget=str(budget))
        return torch.from_numpy(engine.generate(request).latents)
    finally:
        engine.close()


class ForecastByHand(ByHand):
    """The fitted forecast of every call, or the split one of two calls of which the first is the conditional one."""

    def __init__(self, pipeline, operator, steps):
        super().__init__(pipeline, steps)
        self.operator, self.known = operator, {}

    def _leave(self, module, args):
        hidden = args[0]
        if self.step in self.steps:
            self.known.setdefault(self.call, []).append(hidden.to(self.start.dtype) - self.start)
        else:
            hidden = (self.start + self._forecast()).to(hidden.dtype)
        self.call += 1
        return (hidden, *args[1:])

    def _forecast(self):
        weights = (FEW if self.step < self.steps[1] else MANY)[self.operator]
        if self.operator == "residual-fitted":
            return self._sum(self.known[self.call], weights)
        cond, guidance = weights[: len(weights) // 2], weights[len(weights) // 2 :]
        differences = [ours - theirs for ours, theirs in zip(self.known[0], self.known[1], strict=True)]
        forecast = self._sum(self.known[0], cond)
        return forecast if self.call == 0 else forecast - self._sum(differences, guidance)

    @staticmethod
    def _sum(values, weights):
        return sum(weight * value for weight, value in zip(weights, values[-len(weights) :], strict=True))


@pytest.mark.parametrize("budget", [3, 4])
@pytest.mark.parametrize(
    ("build", "operator"),
    [(tiny_wan, "residual-fitted"), (tiny_wan, "residual-split"), (tiny_cogvideox, "residual-fitted")],
)
def test_it_equals_a_cache_made_by_hand(build, operator, budget):
    by_hand = build()
    expected = ForecastByHand(by_hand, operator, PATHS[budget]).generate(by_hand)
    pipeline = build()
    with apply(pipeline, plan_of(operator), budget):
        ours = generate(pipeline)
    assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize("operator", FORECASTS)
@pytest.mark.parametrize("build", [tiny_wan_half, tiny_cogvideox])
def test_every_forecast_runs_and_skips(build, operator):
    """Both branches in one batch, and half precision."""
    pipeline = build()
    with apply(pipeline, plan_of(operator), "fast") as installed:
        latents = generate(pipeline)
        assert installed.computed_steps == PATHS[3]
        assert installed.nbytes > 0
    assert torch.isfinite(latents).all()


def test_guidance_that_begins_later_computes_until_it_can_be_forecast():
    """The unconditional call begins at step 3, which is skipped, so it computes there; at step 5 all do."""
    pipeline = tiny_wan()
    scales = {}

    def begin(running, step, _timestep, tensors):
        scales[step] = running._guidance_scale
        running._guidance_scale = 4.0 if step >= 2 else 1.0
        return tensors

    plan = plan_of("residual-split")
    with apply(pipeline, plan, 3) as installed:
        assert torch.isfinite(generate(pipeline, guidance_scale=1.0, callback_on_step_end=begin)).all()
        assert set(installed.computed_steps) >= {0, 2, 5}


@pytest.mark.parametrize("operator", ["output", "output-linear", "noise"])
def test_outputs_and_noise_are_refused(operator):
    with pytest.raises(PlanMismatchError, match=f"operator: plan '{operator}', served 'residual, residual-linear"):
        apply(tiny_wan(), plan_of(operator), 3)


def test_weights_that_do_not_fit_are_refused():
    broken = entry(PATHS[3], "residual-fitted")
    plan = replace(plan_of("residual-fitted"), entries={3: replace(broken, weights={1: (0.5, 0.5)})}, names={})
    with pytest.raises(PlanFormatError, match=r"at step 1 of budget 3, 'residual-fitted' has 2 weights; allowed are 1"):
        apply(tiny_wan(), plan, 3)


def test_another_path_needs_plain_reuse():
    with pytest.raises(PipelineError, match="may_change is for plans of the operator residual"):
        apply(tiny_wan(), plan_of("residual-linear"), 3, may_change=True)


def test_calls_that_cannot_be_told_apart_are_refused(monkeypatch):
    pipeline = tiny_cogvideox()
    monkeypatch.setattr(type(pipeline), "guidance_scale", property(lambda _: None))
    with apply(pipeline, plan_of("residual-split"), 3), pytest.raises(PipelineError, match="residual-fitted for it"):
        generate(pipeline)
