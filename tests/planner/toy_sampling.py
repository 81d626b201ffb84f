"""A toy replayer that can change its sampler: a better one makes smaller errors, and so does every step more."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lemica_planner import OperatorFacts, Sample
from lemica_planner.samplers import Sampler, Way
from tests.planner.toy_replayer import ToyReplayer

ORDER = {"own": 1, "ddim-trailing": 1, "unipc": 2}
MADE: list[tuple[Sample, str]] = []


class ToyYardstick:
    def __init__(self, sample: Sample, references: Mapping[str, Way]) -> None:
        self.sample, self.references = sample, references

    def measure(self, way: Way) -> dict[str, dict[str, float]]:
        MADE.append((self.sample, way.key))
        order = ORDER.get(way.sampler.name, 1)
        error = (1 + self.sample.seed % 2) * way.num_steps**-order + 0.1 / way.cost * (way.entry is not None)
        measured = {name: {"latents_l1": error, "psnr_db": -error} for name in self.references}
        return measured | {"run": {"time_in_forwards": float(way.cost)}}


class ToySamplingReplayer(ToyReplayer):
    def __init__(self, num_steps: int = 9, scheduler: str = "Euler", **options: object) -> None:
        super().__init__(num_steps, scheduler=scheduler, **options)

    def resampled(self, sampler: Sampler, num_steps: int) -> ToyReplayer:
        return ToyReplayer(num_steps, scheduler=sampler.scheduler or "Euler")

    def leaps(self, sampler: Sampler, num_steps: int) -> ToyReplayer:
        replayer = self.resampled(sampler, num_steps)
        replayer.operators = lambda: {"residual": OperatorFacts(0)}
        return replayer

    def timesteps(self, sampler: Sampler, num_steps: int) -> tuple[float, ...]:
        return tuple(float(1000 - 1000 // num_steps * (at + 1)) for at in range(num_steps))

    def measures(self) -> Sequence[str]:
        return ["latents_l1", "psnr_db"]

    def yardstick(self, sample: Sample, references: Mapping[str, Way]) -> ToyYardstick:
        return ToyYardstick(sample, references)


def open_sampling(model_dir: Path, metric: str) -> ToySamplingReplayer:
    """Open a replayer by ``MODULE:FUNCTION``."""
    return ToySamplingReplayer()
