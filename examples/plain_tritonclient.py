"""The same with NVIDIA's tritonclient alone (pip install 'tritonclient[grpc]'): no code of this project.

python examples/plain_tritonclient.py "a red circle moving right on a black background" --budget fast -o circle.mp4
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("prompt")
parser.add_argument("--url", default="127.0.0.1:8001", help="HOST:PORT of the server's gRPC endpoint")
parser.add_argument("--budget", default="full", help="full, a name in the model's plan, or a number of computed steps")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("-o", "--output", default="video.mp4", help="an MP4 file")
options = parser.parse_args()


def tensor(name: str, value: object, datatype: str, dtype: type) -> triton.InferInput:
    """Return an input of shape (1, 1): one request in the batch, one value."""
    made = triton.InferInput(name, [1, 1], datatype)
    return made.set_data_from_numpy(np.array([[value]], dtype=dtype))


inputs = [
    tensor("prompt", options.prompt.encode(), "BYTES", np.object_),
    tensor("seed", options.seed, "INT64", np.int64),
    tensor("budget", options.budget.encode(), "BYTES", np.object_),
    tensor("file_format", b"mp4", "BYTES", np.object_),
]
outputs = [triton.InferRequestedOutput(name) for name in ("video_file", "info")]  # what is not named is not made
with triton.InferenceServerClient(options.url) as client:
    # A request that runs into its time limit, in seconds, is cancelled on the server as well.
    try:
        result = client.infer("latte_shapes", inputs, outputs=outputs, client_timeout=600)
    except InferenceServerException as error:
        sys.exit(f"error: {error.message()}")
Path(options.output).write_bytes(result.as_numpy("video_file").item())
info = json.loads(result.as_numpy("info").item())
info.pop("step_ms", None)  # the time of every step
print(json.dumps(info, indent=2))
