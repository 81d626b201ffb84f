# A stock Triton Inference Server with the lemica backend and its embedded model.
#
#   docker build --tag lemica .
#   docker run --rm --shm-size=1g --publish 127.0.0.1:8001:8001 lemica
#
# --shm-size matters: the server and its Python processes hand tensors over in /dev/shm, and Docker's 64 MB hold not
# even one large video. docs/docker.md has the details: GPUs, own models, Kubernetes, weights from the hub.

ARG TRITON_VERSION=26.11

FROM nvcr.io/nvidia/tritonserver:${TRITON_VERSION}-py3 AS build
# Where pip finds a torch for another device, such as the index of builds without CUDA; empty: the default one.
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /src
COPY LICENSE README.md pyproject.toml ./
COPY scripts scripts
COPY lemica_planner lemica_planner
COPY client client
COPY backend backend
RUN scripts/install_backend.sh /opt/lemica

FROM nvcr.io/nvidia/tritonserver:${TRITON_VERSION}-py3
ARG TRITON_VERSION
ARG LEMICA_VERSION=0.1.0
ARG LEMICA_REVISION=unknown
LABEL org.opencontainers.image.title="lemica" \
      org.opencontainers.image.description="Triton Inference Server with LeMiCa-cached video diffusion" \
      org.opencontainers.image.version="${LEMICA_VERSION}" \
      org.opencontainers.image.revision="${LEMICA_REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="nvcr.io/nvidia/tritonserver:${TRITON_VERSION}-py3"

# Everything belongs to root and the server runs as another user: neither code nor weights can be changed from inside.
COPY --from=build /opt/lemica/venv /opt/lemica/venv
COPY --from=build /opt/lemica/backends/lemica /opt/tritonserver/backends/lemica
COPY model_repository /models

# The server's Python stub takes the environment whose python3 is first on PATH. Bytecode written into a model's folder
# would look like a change of the model. Nothing is fetched from a hub unless an operator says so twice:
# HF_HUB_OFFLINE=0 here, and "allow_hub" in the model's model.json.
ENV PATH=/opt/lemica/venv/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    ORT_DISABLE_TELEMETRY=1

# The stock image makes the user triton-server with this number; a number lets Kubernetes verify runAsNonRoot.
USER 1000:1000
VOLUME /models
# HTTP, gRPC, metrics
EXPOSE 8000 8001 8002

HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]

# The stock entrypoint stays. One broken model must not take the others down; each model's own readiness still tells.
CMD ["tritonserver", "--model-repository=/models", "--exit-on-error=false", "--strict-readiness=false"]
