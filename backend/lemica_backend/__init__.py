"""The serving engine of lemica: usable in process, without Triton (see `lemica_backend.engine.Engine`)."""

import logging
import os

# ONNX Runtime reports its use unless told so before its first import, and diffusers imports it unasked.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# So it does torchao, where that is installed, whose warnings are of GPU libraries and of torch's next versions.
for _name in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer"):
    logging.getLogger(_name).setLevel(logging.ERROR)
