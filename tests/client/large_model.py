"""A unary model whose frames are as large as a request says: height x width x num_frames, at once or after a delay.

Triton's Python backend runs this file as ``model.py``. ``seed`` is the colour, ``num_inference_steps`` the delay in
steps of 30 ms.
"""

import json
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            options = {tensor.name(): tensor.as_numpy().item() for tensor in request.inputs()}
            arguments = (options, request.get_response_sender(), set(request.requested_output_names()))
            threading.Thread(target=self._serve, args=arguments).start()

    def _serve(self, options, sender, wanted):
        time.sleep(0.03 * options.get("num_inference_steps", 0))
        shape = tuple(options.get(name, 8) for name in ("num_frames", "height", "width"))
        frames = np.full((*shape, 3), options.get("seed", 0) % 256, np.uint8)
        frames[-1, -1, -1] = (1, 2, 3)
        info = np.array([json.dumps({"seed": options.get("seed")}).encode()], dtype=np.object_)
        file = np.array([b"GIF89a"], dtype=np.object_)
        made = {"video": frames, "info": info, "video_file": file}
        tensors = [pb_utils.Tensor(name, array) for name, array in made.items() if name in wanted]
        sender.send(pb_utils.InferenceResponse(tensors), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
