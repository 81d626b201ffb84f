"""A decoupled model that speaks the streaming contract without a diffusion model: delays, events, and a log of ends.

Triton's Python backend runs this file as ``model.py``. Prompts that start with "refuse", "busy" or "fail" end in
errors; every request that ended is a line of ``ends.log`` in the model's folder.
"""

import base64
import io
import json
import threading
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image

from lemica_client.encode import encode

STEP_S = 0.03
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


def text_tensor(name, value):
    return pb_utils.Tensor(name, np.array([value], dtype=np.object_))


def budget_of(options):
    return options.get("budget", b"fast").decode()


def preview(step):
    file = io.BytesIO()
    Image.new("RGB", (16, 12), (8 * step % 256, 90, 160)).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


class TritonPythonModel:
    def initialize(self, args):
        self._log = Path(args["model_repository"]) / "ends.log"
        self._busy_left = 1

    def execute(self, requests):
        for request in requests:
            options = {tensor.name(): tensor.as_numpy().item() for tensor in request.inputs()}
            sender = request.get_response_sender()
            threading.Thread(target=self._serve, args=(options, sender, set(request.requested_output_names()))).start()

    def _serve(self, options, sender, wanted):
        prompt = options["prompt"].decode()
        if prompt.startswith("refuse"):
            return self._fail(sender, "prompt: refused", pb_utils.TritonError.INVALID_ARG)
        if prompt.startswith("busy") and self._busy_left > 0:
            self._busy_left -= 1
            return self._fail(sender, "queue full", pb_utils.TritonError.UNAVAILABLE)
        self._busy_left = 1
        return self._run(options, sender, wanted)

    def _run(self, options, sender, wanted):
        total = int(options.get("num_inference_steps", 10))
        self._send(sender, {"event": "accepted", "budget": budget_of(options), "eta_ms": total * STEP_S * 1e3})
        for step in range(1, total + 1):
            time.sleep(STEP_S)
            if sender.is_cancelled():
                return self._fail(sender, "cancelled", pb_utils.TritonError.CANCELLED)
            if step == 3 and options["prompt"].startswith(b"fail"):
                return self._fail(sender, "out of luck", pb_utils.TritonError.INTERNAL)
            self._send(sender, self._progress(step, total, options))
        return self._finish(options, sender, wanted, total)

    def _progress(self, step, total, options):
        event = {"event": "progress", "step": step, "num_steps": total, "computed": step % 3 == 1, "eta_ms": None}
        every = int(options.get("preview_every", 0))
        return {**event, "preview": preview(step)} if every and step % every == 0 else event

    def _finish(self, options, sender, wanted, total):
        steps = list(range(0, total, 3))
        info = {"event": "result", "seed": int(options.get("seed", 7)), "budget": budget_of(options), "fps": 8}
        info |= {"computed_steps": steps, "num_inference_steps": total, "predicted_error": 0.125}
        info["timings_ms"] = {"total": total * STEP_S * 1e3}
        tensors = [text_tensor("info", json.dumps(info).encode())]
        file = b"GIF89a" + options["prompt"]
        if options.get("file_format") == b"mp4":
            file = encode(np.full((8, 64, 64, 3), info["seed"] % 256, np.uint8), 8, "mp4")
        if options.get("file_encoding") == b"base64":
            tensors.append(text_tensor("video_file", base64.b64encode(file)))
        elif "video_file" in wanted:
            tensors.append(text_tensor("video_file", file))
        if "video" in wanted and options.get("file_encoding") != b"base64":
            tensors.append(pb_utils.Tensor("video", np.full((4, 6, 8, 3), info["seed"] % 256, np.uint8)))
        self._note("done")
        sender.send(pb_utils.InferenceResponse(tensors), flags=FINAL)

    def _send(self, sender, event):
        sender.send(pb_utils.InferenceResponse([text_tensor("info", json.dumps(event).encode())]))

    def _fail(self, sender, text, code):
        self._note(text)
        sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(text, code)), flags=FINAL)

    def _note(self, text):
        with self._log.open("a") as log:
            log.write(text + "\n")
