"""The error graph: what the final video loses when steps reuse an earlier one.

Knows nothing about models, budgets or plans.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemica_planner.atomic import atomic_write
from lemica_planner.errors import InvalidGraphError, PlannerError
from lemica_planner.provenance import Provenance, Sample

_FILE_VERSION = 1
_FILE_KEYS = {"file_version", "weights", "metadata"}


@dataclass(frozen=True, eq=False)
class ErrorGraph:
    """The DAG whose nodes are denoising steps and whose edges weigh reuse (arXiv 2511.00090, section 3).

    Attributes
    ----------
    weights : ndarray of float64, shape (T, T)
        ``weights[i, j]``, i < j: mean error of the final video when steps i and j are computed and steps i+1..j-1
        reuse step i (eq. 4; >= 0, the smaller the better). ``inf`` means not allowed. ``weights[i, i+1]`` reuses
        nothing and must be 0. The diagonal and the lower triangle are ignored. A read-only copy of what was given.
    sample_errors : ndarray of float32, shape (samples, T, T), or None
        The same per calibration sample, in the order of `samples`; `weights` is their mean.
    provenance : Provenance or None
        What the errors are valid for.
    samples : tuple of Sample
        The calibration samples, empty if not known.

    Raises
    ------
    InvalidGraphError
        If `weights` is no square array of T >= 2 real numbers, has a NaN or negative entry above the diagonal or a
        direct edge other than 0, or if the other fields do not fit it.

    Examples
    --------
    >>> graph = ErrorGraph([[0, 0, 0.5], [0, 0, 0], [0, 0, 0]])
    >>> graph.num_steps, graph.max_span
    (3, 2)
    """

    weights: NDArray[np.float64]
    sample_errors: NDArray[np.float32] | None = None
    provenance: Provenance | None = None
    samples: Sequence[Sample] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _valid_weights(self.weights))
        object.__setattr__(self, "samples", tuple(Sample(*sample) for sample in self.samples))
        if self.sample_errors is not None:
            object.__setattr__(self, "sample_errors", _valid_samples(self.sample_errors, self.num_steps))
        self._check_belongings()

    @property
    def num_steps(self) -> int:
        """Number of denoising steps T."""
        return int(self.weights.shape[0])

    @property
    def max_span(self) -> int:
        """Largest j - i of an allowed edge; 1 when nothing may be reused."""
        starts, ends = np.nonzero(np.isfinite(self.weights) & _upper(self.num_steps))
        return int((ends - starts).max())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph as a compressed ``.npz`` without pickles, whole or not at all."""
        arrays: dict[str, Any] = {"file_version": np.array(_FILE_VERSION), "weights": self.weights}
        arrays["metadata"] = np.array(json.dumps(self._metadata()))
        if self.sample_errors is not None:
            arrays["sample_errors"] = self.sample_errors
        with atomic_write(path) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ErrorGraph:
        """Read what `save` wrote.

        Raises
        ------
        InvalidGraphError
            If the file is no error graph.
        OSError
            If it cannot be read.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file.items())
        except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as exc:
            raise InvalidGraphError(
                f"{os.fspath(path)} is no error graph: {exc}; give a graph.npz that `lemica-planner calibrate` wrote"
            ) from exc
        return cls._from_arrays(arrays, os.fspath(path))

    @classmethod
    def _from_arrays(cls, arrays: dict[str, NDArray[Any]], path: str) -> ErrorGraph:
        if set(arrays) - {"sample_errors"} != _FILE_KEYS or arrays["file_version"] != _FILE_VERSION:
            raise InvalidGraphError(
                f"{path} is no error graph of version {_FILE_VERSION}: it holds {sorted(arrays)}; "
                f"expected {sorted(_FILE_KEYS)} and maybe sample_errors"
            )
        try:
            known = json.loads(str(arrays["metadata"]))
            provenance = None if known["provenance"] is None else Provenance.from_dict(known["provenance"])
            samples = [Sample(*sample) for sample in known["samples"]]
        except (PlannerError, ValueError, KeyError, TypeError) as exc:
            raise InvalidGraphError(f"{path}: its metadata cannot be read: {exc}; calibrate again") from exc
        return cls(arrays["weights"], arrays.get("sample_errors"), provenance, samples)

    def _metadata(self) -> dict[str, Any]:
        return {
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "samples": [sample.to_list() for sample in self.samples],
        }

    def _check_belongings(self) -> None:
        if self.provenance is not None and self.provenance.num_inference_steps != self.num_steps:
            raise InvalidGraphError(
                f"the provenance is for {self.provenance.num_inference_steps} steps, the weights for {self.num_steps}"
            )
        if self.sample_errors is not None and self.samples and len(self.samples) != len(self.sample_errors):
            raise InvalidGraphError(f"{len(self.samples)} samples, but errors of {len(self.sample_errors)} samples")


def _upper(num_steps: int) -> NDArray[np.bool_]:
    return np.triu(np.ones((num_steps, num_steps), bool), 1)


def _valid_weights(weights: object) -> NDArray[np.float64]:
    """Return a read-only float64 copy of valid weights: the one place where a graph is validated."""
    array = np.asarray(weights)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] < 2 or array.dtype.kind not in "fiu":
        raise InvalidGraphError(
            "weights must be a square array of real numbers for at least 2 steps; "
            f"got shape {array.shape} of {array.dtype}"
        )
    array = array.astype(np.float64) + 0.0  # -0.0 becomes 0.0: one zero only
    _refuse(array, _upper(len(array)) & ~(array >= 0), "must be a number >= 0, or inf where reuse is not allowed")
    _refuse(
        array, np.eye(len(array), k=1, dtype=bool) & (array != 0), "must be 0, because a direct edge reuses nothing"
    )
    array.setflags(write=False)
    return array


def _refuse(array: NDArray[np.float64], wrong: NDArray[np.bool_], rule: str) -> None:
    if wrong.any():
        start, end = map(int, np.argwhere(wrong)[0])
        raise InvalidGraphError(
            f"weights[{start}, {end}] {rule}; got {array[start, end]} ({int(wrong.sum())} such edges)"
        )


def _valid_samples(errors: object, num_steps: int) -> NDArray[np.float32]:
    array = np.array(errors, np.float32)
    if array.ndim != 3 or array.shape[1:] != (num_steps, num_steps):
        raise InvalidGraphError(f"sample_errors must have shape (samples, {num_steps}, {num_steps}); got {array.shape}")
    array.setflags(write=False)
    return array
