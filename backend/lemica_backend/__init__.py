"""The serving engine of lemica: usable in process, without Triton (see `lemica_backend.engine.Engine`)."""
