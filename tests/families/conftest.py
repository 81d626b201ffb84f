"""Every family at tiny size, with the engine's own steps without the engine's thread."""

import dataclasses
import hashlib

import pytest
import torch

from lemica_backend.config import ModelConfig, Size
from lemica_backend.denoise import denoise
from lemica_backend.engine import Engine
from lemica_backend.job import start_job
from lemica_backend.models import load_model
from lemica_backend.planned import plan_request
from lemica_backend.replay import EngineReplayer
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, Fill, Sample
from tests.tiny.families import FAMILIES
from tests.tiny.family import COMPUTED, STEPS


@dataclasses.dataclass
class Loaded:
    """A tiny family: its pipeline, its adapter, and the engine's own steps without the engine's thread."""

    tiny: object
    folder: object
    pipeline: object
    model: object
    config: ModelConfig = dataclasses.field(
        default_factory=lambda: ModelConfig.model_validate({"defaults": {"num_inference_steps": STEPS}})
    )

    def in_dtype(self, dtype):
        return open_folder(self.tiny, self.folder, dtype)

    def theirs(self, prompt, **options):
        return torch.as_tensor(self.tiny.generate(self.pipeline, prompt, **options))

    def engine(self, budget=3):
        """Return an engine with a plan of one budget."""
        provenance = EngineReplayer(self.model, self.config, "tiny").provenance()
        return Engine(self.model, self.config, CachePlan.from_steps(provenance, {budget: COMPUTED}))

    def job(self, prompt, *, computed=None, operator="residual", seed=7, guidance_scale=4.0, steps=STEPS, **options):
        given = {"seed": seed, "guidance_scale": guidance_scale, "num_inference_steps": steps, "budget": "full"}
        request = GenerationRequest(prompt, **given | self.tiny.shown() | options)
        planned = plan_request(request, info=self.model.info, config=self.config, plan=None)
        computed = range(steps) if computed is None else computed
        reuse = {step: Fill(operator) for step in range(steps) if step not in computed}
        with torch.inference_mode():
            return start_job(self.model, dataclasses.replace(planned, computed=frozenset(computed), reuse=reuse))

    def ours(self, prompt, **options):
        return self.run([self.job(prompt, **options)])[0]

    def sample(self, prompt, seed):
        if not self.tiny.takes_image:
            return Sample(prompt, seed)
        data = self.tiny.shown()["image"].data
        path = self.folder.with_suffix(".png")
        path.write_bytes(data)
        return Sample(prompt, seed, str(path), hashlib.sha256(data).hexdigest())

    def run(self, jobs, starts=None):
        """Take all jobs to their ends, each from its own tick on, so that they are at different steps."""
        for tick in range(max(job.planned.num_inference_steps for job in jobs) + len(jobs)):
            begun = starts or [0] * len(jobs)
            due = [job for job, start in zip(jobs, begun, strict=True) if start <= tick and not job.is_finished]
            denoise(self.model, due)
        return [job.latents for job in jobs]


@pytest.fixture(scope="session")
def load(tmp_path_factory):
    known = {}

    def load(tiny):
        if id(tiny) not in known:
            known[id(tiny)] = build(tiny)
        return known[id(tiny)]

    def build(tiny):
        folder = tmp_path_factory.mktemp(tiny.name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            tiny.build().save_pretrained(folder)
        return open_folder(tiny, folder, torch.float32)

    return load


def open_folder(tiny, folder, dtype):
    model = load_model(None, folder, dtype=dtype, device="cpu", size=Size(**tiny.size), options=tiny.options)
    return Loaded(tiny, folder, tiny.open(folder, dtype, model), model)


@pytest.fixture(scope="session", params=FAMILIES)
def family(request, load):
    return load(FAMILIES[request.param])


@pytest.fixture(scope="session", params=[name for name, tiny in FAMILIES.items() if tiny.family != "open_sora"])
def piped(request, load):
    """A family whose pipeline is one of diffusers'."""
    return load(FAMILIES[request.param])
