"""Open-Sora 1.2 (arXiv 2412.20404), written from its mathematics; weights are compatible with the published ones.

`OpenSoraModel` is what the engine uses, `OpenSoraPipeline` the folder, `read_official` the way from the published
files; ``python -m lemica_backend.models.open_sora`` converts them.
"""

from lemica_backend.models.open_sora.model import OpenSoraModel
from lemica_backend.models.open_sora.official import read_official
from lemica_backend.models.open_sora.pipeline import OpenSoraPipeline
from lemica_backend.models.open_sora.settings import VideoSettings

__all__ = ["OpenSoraModel", "OpenSoraPipeline", "VideoSettings", "read_official"]
