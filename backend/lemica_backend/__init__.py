"""The serving engine of lemica: usable in process, without Triton (see `lemica_backend.engine.Engine`)."""

import os

# ONNX Runtime reports its use unless told so before its first import, and diffusers imports it unasked.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
