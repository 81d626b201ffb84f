"""What watchers of the engine hear: every request once, its stages, what is held, and drift of quality."""

import pickle
import threading
from functools import partial

import numpy as np
import pytest
import torch

from lemica_backend.caller import Caller, Submission
from lemica_backend.config import ModelConfig
from lemica_backend.cost_model import CostModel, Work
from lemica_backend.drift import PSNR_CAP_DB, DriftChecks, psnr_db
from lemica_backend.engine import Engine
from lemica_backend.errors import EngineUnavailableError, InvalidRequestError, of_row
from lemica_backend.full_run import run_while_idle
from lemica_backend.load_reporter import LoadReporter
from lemica_backend.local_worker import LocalWorker
from lemica_backend.opening import facts_of
from lemica_backend.planned import plan_request
from lemica_backend.profile import Profile
from lemica_backend.row_group import RowGroup
from lemica_backend.types import GenerationRequest
from lemica_backend.watch import EngineLoad, Watcher, WorkerRestarted, tell

STEPS = 6


class Notes:
    """Keeps every event, through pickle and back, as one that crosses processes would come."""

    def __init__(self):
        self.events = []
        self.changed = threading.Condition()

    def __getattr__(self, name):
        if name in vars(Watcher):
            return self._take
        raise AttributeError(name)

    def _take(self, event):
        with self.changed:
            self.events.append(pickle.loads(pickle.dumps(event)))
            self.changed.notify_all()

    def of(self, name):
        return [event for event in self.events if type(event).__name__ == name]

    def wait_for(self, name, count=1):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.of(name)) >= count, timeout=120)
        return self.of(name)


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def make_engine(model, plan, notes):
    engines = []

    def make(**sections):
        defaults = {"num_inference_steps": STEPS, "guidance_scale": 4.0}
        config = ModelConfig.model_validate({"defaults": defaults} | sections)
        engines.append(Engine(model, config, plan, watcher=notes))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def planned(model, plan, config):
    return lambda budget: plan_request(request(budget=budget), info=model.info, config=config, plan=plan)


def request(**options):
    return GenerationRequest("a cat", **{"seed": 1, **options})


def test_a_served_request_is_told_of_with_all_its_stages(make_engine, notes):
    engine = make_engine()
    engine.generate(request())  # so that an ETA can be given
    info = engine.generate(request(budget="fast", request_id="one", client_id="me")).info
    answered = notes.wait_for("Answered", 2)[-1]
    assert answered[:4] == ("ok", "fast", STEPS, 3)
    assert (answered.request_id, answered.client, answered.seed, answered.message) == ("one", "me", 1, "")
    assert set(answered.stages_s) == {"queue", "encode_text", "denoise", "paused", "decode"}
    assert sum(answered.stages_s.values()) == pytest.approx(info["timings_ms"]["total"] / 1e3, abs=0.001)
    assert answered.eta_s == pytest.approx(info["eta_ms"] / 1e3, abs=0.001)
    started = notes.of("Started")[-1]
    assert started.budget == "fast"
    assert started.queue_s == answered.stages_s["queue"] < started.first_step_s < answered.total_s
    kinds = [work for ticked in notes.of("Ticked") for work in ticked.works * ticked.steps]
    assert kinds[-STEPS:] == [Work("compute" if step in (0, 2, 5) else "residual", 2) for step in range(STEPS)]


@pytest.mark.parametrize(
    ("options", "outcome", "reason"),
    [
        ({"budget": "unheard of"}, "invalid", "invalid"),
        ({"budget": "fast", "deadline_ms": 1}, "unavailable", "deadline"),
    ],
)
def test_a_refused_request_is_told_of_with_the_reason(make_engine, notes, options, outcome, reason):
    engine = make_engine()
    engine.generate(request())
    with pytest.raises((InvalidRequestError, EngineUnavailableError)) as caught:
        engine.submit(request(**options, request_id="two"), on_done=print)
    assert [each[:4] for each in notes.of("Refused")] == [(outcome, reason, str(caught.value), options["budget"])]
    assert notes.of("Refused")[0].request_id == "two"


def test_every_row_of_a_refused_request_is_told_of(make_engine, notes):
    engine = make_engine(limits={"max_queue": 1})
    rows = [Submission(request(budget="fast"), Caller(print)) for _ in range(2)]
    with pytest.raises(InvalidRequestError):
        engine.submit_all(rows)
    assert [each.reason for each in notes.of("Refused")] == ["invalid"] * 2


def test_reasons_stay_with_errors_that_name_their_row_or_cross_processes():
    error = of_row(EngineUnavailableError("too many", reason="queue_full"), 1, 2)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.reason, again.kind) == ("row 1: too many", "queue_full", "unavailable")


def test_a_request_that_the_server_gave_up_is_not_told_of_as_cancelled_by_its_client(make_engine, notes):
    group = RowGroup(1, reply=lambda reply: None, is_cancelled=lambda: False)
    group.hear(
        lambda accepted: None, lambda progress: group.refuse(EngineUnavailableError("the server is shutting down"))
    )
    group.submit(make_engine(), [request(budget="fast")])
    (answered,) = notes.wait_for("Answered")
    assert (answered.outcome, answered.message) == ("unavailable", "the server is shutting down")
    assert answered.computed_steps < 3  # of which it had the first


def test_errors_are_told_of_by_their_kind(make_engine, notes):
    engine = make_engine()
    done = threading.Event()
    engine.submit(request(), on_done=lambda outcome: done.set(), is_cancelled=lambda: True)
    assert done.wait(60)
    engine.submit(request(timeout_ms=1, num_inference_steps=900), on_done=lambda outcome: None)
    answered = notes.wait_for("Answered", 2)
    assert [each.outcome for each in answered] == ["cancelled", "deadline"]
    assert answered[0].message == "cancelled by the client"


def test_what_is_held_is_told_of_while_nothing_ticks(notes):
    load = EngineLoad(1, 0, 0, 0, None, 2.5)
    reporter = LoadReporter(lambda: load, notes, period_s=0.01)
    assert notes.wait_for("EngineLoad", 3)[2] == load
    reporter.close()


def test_what_is_held_ends_with_nothing(make_engine, notes):
    engine = make_engine()
    engine.generate(request(budget="fast"))
    engine.close()
    assert notes.of("EngineLoad")[-1] == EngineLoad(0, 0, 0, 0, None, 0)


def test_a_load_that_cannot_be_found_out_does_not_end_the_reports(notes):
    reporter = LoadReporter(iter([EngineLoad(1, 0, 0, 0, None, 0)]).__next__, notes, period_s=0.01)
    notes.wait_for("EngineLoad")
    assert reporter._thread.is_alive()
    reporter.close()


def test_every_event_reaches_its_method(notes):
    tell(notes, WorkerRestarted("cuda:0", "killed"))
    assert notes.events == [WorkerRestarted("cuda:0", "killed")]


def test_drift_is_what_the_full_computation_says(make_engine, notes):
    engine = make_engine(scheduling={"drift_share": 1.0})
    fast = engine.generate(request(budget="fast"))
    drifted = notes.wait_for("Drifted")[0]
    full = engine.generate(request())
    assert drifted[:2] == ("measured", "fast")
    assert drifted.psnr_db == pytest.approx(psnr_db(fast.frames, full.frames))
    assert drifted.psnr_db < PSNR_CAP_DB
    again = engine.generate(request(budget="fast"))
    assert np.array_equal(fast.frames, again.frames)
    notes.wait_for("Drifted", 2)
    assert len(notes.of("Answered")) == 3  # the full copies are nobody's requests


def computing(model):
    return partial(run_while_idle, LocalWorker(model, facts_of(model, ModelConfig(), None, Profile(CostModel()))))


def test_full_requests_are_not_checked(model, planned, notes):
    checks = DriftChecks(computing(model), 1.0, notes)
    checks.offer(planned("full"), np.zeros((1, 8, 8, 3), np.uint8))
    checks.run(while_idle=lambda: True)
    assert notes.events == []


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_the_share_is_kept_exactly(model, planned, notes, share, kept):
    checks = DriftChecks(computing(model), share, notes)
    for _ in range(8):
        checks.offer(planned("fast"), served(model))
        checks.run(while_idle=lambda: True)
    assert [each.result for each in notes.of("Drifted")] == ["measured"] * kept


def test_real_work_drops_what_is_under_way(model, planned, notes):
    checks = DriftChecks(computing(model), 1.0, notes)
    for budget in ("slow", "fast", "slow"):  # one more than is kept
        checks.offer(planned(budget), served(model))
    idle = iter([True] * 4 + [False] * 2)
    checks.run(while_idle=idle.__next__)
    assert [each[:3] for each in notes.of("Drifted")] == [("dropped", "slow", None)] * 2
    checks.run(while_idle=lambda: True)
    assert [each[:2] for each in notes.of("Drifted")][2:] == [("measured", "fast")]


def test_a_check_that_fails_is_told_of(model, planned, notes):
    checks = DriftChecks(computing(model), 1.0, notes)
    checks.offer(planned("fast"), np.zeros((3, 5, 7, 3), np.uint8))
    checks.run(while_idle=lambda: True)
    assert [each[:2] for each in notes.events] == [("failed", "fast")]


def test_a_waiting_request_comes_before_a_check(model, plan, notes):
    class Held:
        """Stands still in the first stem of a request's text that asks for it, until it is released."""

        def __init__(self):
            self.is_armed, self.reached, self.released = False, threading.Event(), threading.Event()

        def __getattr__(self, name):
            return getattr(model, name)

        def stem(self, *inputs):
            if self.is_armed:
                self.is_armed = False
                self.reached.set()
                assert self.released.wait(60)
            return model.stem(*inputs)

        def decode(self, latents, seed=0):
            self.is_armed = True  # the next stem is that of the check
            return model.decode(latents, seed)

    held = Held()
    config = ModelConfig.model_validate(
        {"defaults": {"num_inference_steps": STEPS, "guidance_scale": 4.0}, "scheduling": {"drift_share": 1.0}}
    )
    engine = Engine(held, config, plan, profile=Profile(CostModel()), watcher=notes)
    engine.generate(request(budget="fast"))
    assert held.reached.wait(60)  # the check takes its first step
    done = threading.Event()
    engine.submit(request(), on_done=lambda outcome: done.set())
    held.released.set()
    assert done.wait(60)
    engine.close()
    names = [type(event).__name__ for event in notes.events if type(event).__name__ in ("Drifted", "Answered")]
    assert names[:3] == ["Answered", "Drifted", "Answered"]
    assert notes.of("Drifted")[0].result == "dropped"


def served(model):
    info = model.info
    with torch.inference_mode():
        return np.zeros((info.num_frames, info.height, info.width, 3), np.uint8)
