"""One video on several devices: processes on this CPU that share its tokens, over gloo."""

import signal
import threading
import time
from concurrent.futures import Future

import psutil
import pytest
import torch
from diffusers.models.attention_dispatch import attention_backend

from lemica_backend.config import ModelConfig
from lemica_backend.context_parallel import require_gpus, require_shareable
from lemica_backend.engine import load_engine
from lemica_backend.errors import EngineUnavailableError, ModelLoadError
from lemica_backend.process_worker import ProcessSource, Recipe
from lemica_backend.types import GenerationRequest
from lemica_backend.worker import WorkerLostError
from tests.tiny.families import FAMILIES
from tests.tiny.family import COMPUTED, STEPS, assert_close

OPEN = ("lemica_backend.opening", "open_worker", ())
LONG_S = 240.0


def config_of(loaded, **sections):
    tiny = loaded.tiny
    given = {
        "weights": str(loaded.folder),
        "family": tiny.family,
        "size": dict(tiny.size),
        "options": dict(tiny.options),
        "threads": 1,
        "devices": ["cpu", "cpu"],
        "context_parallel": 2,
        "defaults": {"num_inference_steps": STEPS, "guidance_scale": 4.0},
        "scheduling": {"warm_up_s": 0},
    }
    return ModelConfig.model_validate(given | sections)


@pytest.fixture
def open_group():
    """Return the worker of a group of two, and the processes of both."""
    opened = []

    def open_group(loaded, opening=OPEN):
        module, function, before = opening
        place = (loaded.folder.parent, config_of(loaded), "cpu", None, ("cpu",))
        source = ProcessSource(Recipe(module, function, (*before, *place)), "cpu,cpu", LONG_S)
        opened.append(source.open(lambda: None, measures=False))
        return opened[-1], processes_of(source)

    yield open_group
    for worker in opened:
        worker.close()


def processes_of(source):
    worker = psutil.Process(source.pid)
    (other,) = worker.children()
    return worker, other


def is_gone(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # nobody here collects orphans
    except psutil.NoSuchProcess:
        return True


def wait_gone(processes):
    deadline = time.monotonic() + LONG_S
    while not all(map(is_gone, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def take(worker, numbers, steps=1):
    for _ in range(steps):
        assert worker.step(numbers).failures == {}


@pytest.mark.parametrize("name", ["wan-2.2", "wan_i2v-2.1", "wan_i2v-2.2-5b", "ltx-rescaled"])
def test_latents_are_those_of_one_process_whoever_else_is_in_the_batch(name, load, open_group):
    loaded = load(FAMILIES[name])
    jobs = [
        loaded.job("a red cube falls", seed=3),
        loaded.job("a blue ball", seed=4, computed=COMPUTED),
        loaded.job("nobody waits for this", seed=5),
        loaded.job("a cat", seed=6, guidance_scale=1.0, computed=COMPUTED),
    ]
    worker, processes = open_group(loaded)
    for number in range(3):
        worker.start(number, jobs[number].planned)
    take(worker, [0, 2])
    take(worker, [0, 1, 2], 2)
    worker.drop(2)  # what a cancel does
    take(worker, [0, 1], STEPS - 3)
    take(worker, [1])
    worker.start(3, jobs[3].planned)
    take(worker, [3], STEPS)
    for number in (0, 1, 3):
        (alone,) = loaded.run([jobs[number]])
        assert_close(torch.from_numpy(worker.decode(number).latents), alone.float())
    worker.close()
    wait_gone(processes)


@pytest.fixture
def engine(load):
    loaded = load(FAMILIES["wan-unipc"])
    engine = load_engine(loaded.folder.parent, config_of(loaded, limits={"worker_timeout_s": 5.0}), None)
    yield engine
    last = processes_of(engine._supervisors[0].source)
    engine.close()
    wait_gone(last)


def lose(engine, sent):
    """Send a signal to the second process of the group while a request is computed; return the request's error."""
    processes, outcome, stepped = processes_of(engine._supervisors[0].source), Future(), threading.Event()
    long = GenerationRequest("a cat", seed=1, budget="full", num_inference_steps=900)
    engine.submit(long, on_done=outcome.set_result, on_step=lambda _: stepped.set())
    assert stepped.wait(LONG_S)
    processes[1].send_signal(sent)
    error = outcome.result(LONG_S)
    wait_gone(processes)
    return error


def test_a_process_that_dies_or_hangs_ends_its_group_and_the_next_one_serves(engine, load):
    alone = load(FAMILIES["wan-unipc"]).ours("a cat", seed=7)
    for sent, said in ((signal.SIGKILL, "exit code 1"), (signal.SIGSTOP, "did not answer within 5 s")):
        error = lose(engine, sent)
        assert isinstance(error, EngineUnavailableError)
        assert said in str(error)
        result = engine.generate(GenerationRequest("a cat", seed=7, guidance_scale=4.0, budget="full"))
        assert_close(torch.from_numpy(result.latents), alone)
    (state,) = engine.workers()
    assert (state.device, state.down) == ("cpu,cpu", None)
    assert state.restarts >= 2


@pytest.mark.parametrize("who", ["worker", "other"])
def test_where_one_process_fails_in_its_share_none_waits_for_it(who, load, open_group, tmp_path):
    loaded, flag = load(FAMILIES["ltx-rescaled"]), tmp_path / "fail"
    worker, processes = open_group(loaded, ("tests.families.breaking", "open_breaking", (flag, who)))
    worker.start(0, loaded.job("a cat").planned)
    take(worker, [0])
    flag.touch()
    with pytest.raises(WorkerLostError, match="exit code 1"):
        worker.step([0])
    wait_gone(processes)


@pytest.mark.parametrize("name", ["latte-plain", "open_sora-1.2", "cogvideox-2b", "hunyuan_video-embedded", "mochi-1"])
def test_families_that_cannot_be_shared_are_refused(name, load):
    with pytest.raises(ModelLoadError, match=r"context_parallel: got 2, and family '\w+' takes 1: leave it out"):
        require_shareable(load(FAMILIES[name]).model, 2)


def test_tokens_and_heads_have_to_be_shared_out_evenly(load):
    model = load(FAMILIES["wan-unipc"]).model
    require_shareable(model, 2)
    with pytest.raises(
        ModelLoadError, match=r"divide the 12 tokens .* and the 2 heads of attention: take one of 1, 2,"
    ):
        require_shareable(model, 3)


def test_attention_backends_that_cannot_be_split_are_refused(load):
    model = load(FAMILIES["ltx-rescaled"]).model
    with (
        attention_backend("_native_math"),
        pytest.raises(ModelLoadError, match=r"'_native_math' cannot be split.*native"),
    ):
        require_shareable(model, 2)


def test_gpus_that_are_not_there_are_refused():
    count = torch.cuda.device_count()
    with pytest.raises(ModelLoadError, match=f"got 'cuda:{count}', and the GPUs that are seen here number {count}"):
        require_gpus([f"cuda:{number}" for number in range(count + 1)])


def test_a_refusal_comes_out_of_the_workers_process(load):
    loaded = load(FAMILIES["latte-plain"])
    with pytest.raises(ModelLoadError, match="family 'latte' takes 1: leave it out"):
        load_engine(loaded.folder.parent, config_of(loaded), None)
