"""A model of Triton's Python backend that runs every batch it is given from the first step to the last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

from benchmarks.load.peers.whole_batch import WholeBatches
from lemica_backend.config import load_config
from lemica_backend.errors import LemicaError
from lemica_backend.opening import open_model
from lemica_backend.planned import PlannedRequest
from lemica_backend.types import GenerationRequest, GenerationResult
from lemica_planner.config_writer import read_plan


class TritonPythonModel:
    """The peer; `peers.repository` writes its configuration."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model that the configuration points to, with its plan."""
        parameters = json.loads(args["model_config"])["parameters"]
        version = Path(parameters["version_dir"]["string_value"])
        config = load_config(version / "model.json")
        plan = read_plan(version.parent / "config.pbtxt")
        model = open_model(version, config)
        one_plan = json.loads(parameters["one_plan"]["string_value"])
        self._batches = WholeBatches(model, config, plan, one_plan=one_plan)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the batch and answer all of it at once; Triton brings the next batch afterwards."""
        answers: list[Any] = [None] * len(requests)
        batch: dict[int, PlannedRequest] = {}
        for index, request in enumerate(requests):
            try:
                batch[index] = self._planned(request)
            except Exception as error:
                answers[index] = _error(error)
        for index, result in zip(batch, self._batches.run(list(batch.values())), strict=True):
            answers[index] = _response(result)
        return answers

    def _planned(self, request: Any) -> PlannedRequest:
        values = {tensor.name(): tensor.as_numpy().ravel()[0] for tensor in request.inputs()}
        prompt, budget, seed = (values.get(name) for name in ("prompt", "budget", "seed"))
        return self._batches.planned(
            GenerationRequest(
                prompt.decode() if prompt else "",
                budget=budget.decode() if budget else None,
                seed=None if seed is None else int(seed),
            )
        )


def _response(result: GenerationResult) -> Any:
    info = np.array([[json.dumps(result.info).encode()]], dtype=np.object_)
    return pb_utils.InferenceResponse([pb_utils.Tensor("video", result.frames[None]), pb_utils.Tensor("info", info)])


def _error(error: Exception) -> Any:
    code = pb_utils.TritonError.INVALID_ARG if isinstance(error, LemicaError) else pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)[:2000], code))
