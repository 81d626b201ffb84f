"""The tensors that cross the server's border, in one table: what config.pbtxt declares and the codec handles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a request or a response, without the batch dimension.

    Attributes
    ----------
    name : str
    triton_type : str
        As in config.pbtxt, such as ``TYPE_STRING``.
    dtype : type
        The numpy scalar type of its elements; ``object_`` (of bytes) for strings.
    dims : tuple of int
        -1 for any size.
    required : bool
        Whether a request must bring it; outputs are made when a request names them.
    """

    name: str
    triton_type: str
    dtype: type[np.generic]
    dims: tuple[int, ...] = (1,)
    required: bool = False

    def as_config(self) -> dict[str, Any]:
        """Return what Triton's model configuration says about the tensor; ``optional`` is for inputs."""
        return {"name": self.name, "data_type": self.triton_type, "dims": list(self.dims)}


INPUTS = (
    TensorSpec("prompt", "TYPE_STRING", np.object_, required=True),
    TensorSpec("negative_prompt", "TYPE_STRING", np.object_),
    TensorSpec("image", "TYPE_STRING", np.object_),  # the bytes of a file
    TensorSpec("seed", "TYPE_INT64", np.int64),
    TensorSpec("guidance_scale", "TYPE_FP32", np.float32),
    TensorSpec("num_inference_steps", "TYPE_INT32", np.int32),
    TensorSpec("height", "TYPE_INT32", np.int32),
    TensorSpec("width", "TYPE_INT32", np.int32),
    TensorSpec("num_frames", "TYPE_INT32", np.int32),
    TensorSpec("budget", "TYPE_STRING", np.object_),
    TensorSpec("deadline_ms", "TYPE_INT32", np.int32),
    TensorSpec("priority", "TYPE_INT32", np.int32),
    TensorSpec("client_id", "TYPE_STRING", np.object_),
    TensorSpec("file_format", "TYPE_STRING", np.object_),
    TensorSpec("file_encoding", "TYPE_STRING", np.object_),
)

STREAM_INPUTS = (*INPUTS, TensorSpec("preview_every", "TYPE_INT32", np.int32))  # of a decoupled model

OUTPUTS = (
    TensorSpec("video", "TYPE_UINT8", np.uint8, (-1, -1, -1, 3)),  # frames, height, width, RGB
    TensorSpec("video_file", "TYPE_STRING", np.object_),
    TensorSpec("info", "TYPE_STRING", np.object_),
)

FILE_FORMATS = ("mp4", "gif", "webp")
FILE_ENCODINGS = ("raw", "base64")
