"""Open a model folder for a benchmark: the engine's own model, with the parameters that its videos are made with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lemica_backend.config import MODEL_FILE, Blocks, ModelConfig, load_config
from lemica_backend.models import VideoModel
from lemica_backend.opening import open_model
from lemica_backend.replay import EngineReplayer, newest_version
from lemica_planner import Replayer

__all__ = ["OpenModel", "open_folder", "open_folders", "open_paper_replayer"]

_PAPER_METRIC = "latents_l1"  # arXiv 2511.00090, equation 4


@dataclass(frozen=True, eq=False)
class OpenModel:
    """A loaded model, and the defaults of its requests.

    Attributes
    ----------
    folder : Path
        The one with ``config.pbtxt``.
    model : VideoModel
    config : ModelConfig
    called : str
        Its name where that of the folder is another one's, too; empty for the folder's.
    """

    folder: Path
    model: VideoModel
    config: ModelConfig
    called: str = ""

    @property
    def name(self) -> str:
        """What tables and files call it: the folder's name, with as many of the folders around it as tell it apart."""
        return self.called or self.folder.resolve().name

    @property
    def num_steps(self) -> int:
        """Denoising steps T."""
        return self.config.defaults.num_inference_steps

    @property
    def guidance_scale(self) -> float:
        """Classifier-free guidance."""
        return self.config.defaults.guidance_scale

    @property
    def key(self) -> str:
        """What decides a video besides prompt, seed and plan, as a short text: weights, sampler, T, guidance, size."""
        facts = self.replayer().provenance().to_dict()
        for name in ("model", "operator", "metric", "calibration", "tool_version", "source", "calibrated"):
            del facts[name]
        return hashlib.sha256(json.dumps([facts, self.config.dtype], sort_keys=True).encode()).hexdigest()[:16]

    def with_defaults(self, *, num_steps: int | None = None, guidance_scale: float | None = None) -> OpenModel:
        """Return the same model with other defaults; what the model does not allow is refused at the first video."""
        given = {"num_inference_steps": num_steps, "guidance_scale": guidance_scale}
        known = {name: value for name, value in given.items() if value is not None}
        defaults = self.config.defaults.model_copy(update=known)
        return replace(self, config=self.config.model_copy(update={"defaults": defaults}))

    def replayer(self) -> EngineReplayer:
        """Return what calibrates with the paper's metric."""
        return EngineReplayer(self.model, self.config, self.name, _PAPER_METRIC)


def open_folder(folder: Path, *, eager: bool = True) -> OpenModel:
    """Load the newest version in a model folder; raises `ModelLoadError`.

    Parameters
    ----------
    folder : Path
    eager : bool
        Whether torch runs the block stack, whatever ``model.json`` says: others' caches hook into torch modules. If
        not, the engine that it names runs it, which is faster, and torch where there is no artifact for that engine.
    """
    version = newest_version(folder)
    config = load_config(version / MODEL_FILE)
    if eager:
        config = config.model_copy(update={"blocks": Blocks()})
    return OpenModel(folder, open_model(version, config), config)


def open_folders(folders: Sequence[Path], *, eager: bool = True) -> list[OpenModel]:
    """Load several model folders, each with a name of its own; raises `ModelLoadError`."""
    return [
        replace(open_folder(folder, eager=eager), called=name)
        for folder, name in zip(folders, _distinct_names(folders), strict=True)
    ]


def open_paper_replayer(folder: Path, num_steps: int, guidance_scale: float, *, eager: bool) -> Replayer:
    """Open a model folder in a worker for calibration with the paper's metric."""
    opened = open_folder(folder, eager=eager)
    return opened.with_defaults(num_steps=num_steps, guidance_scale=guidance_scale).replayer()


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that no two different folders share."""
    every = [folder.resolve().parts for folder in folders]

    def name(parts: tuple[str, ...]) -> str:
        others = [other for other in every if other != parts]
        lengths = range(1, len(parts) + 1)
        length = next((at for at in lengths if all(other[-at:] != parts[-at:] for other in others)), len(parts))
        return "/".join(parts[-length:])

    return [name(parts) for parts in every]
