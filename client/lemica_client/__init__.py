"""Client of a Triton server that runs the `lemica` backend.

>>> from lemica_client import Client
>>> with Client("grpc://127.0.0.1:8001") as client:  # doctest: +SKIP
...     video = client.generate("a red circle moving right on a black background", seed=7, budget="fast")
...     video.save("circle.mp4")

Importing this package loads numpy and nothing heavier: tritonclient is imported when a `Client` is made, PyAV when
a video is encoded here rather than on the server.
"""

from lemica_client.async_client import AsyncClient
from lemica_client.client import Client
from lemica_client.connection import Tls
from lemica_client.errors import (
    ClientClosedError,
    InvalidRequestError,
    LemicaClientError,
    MissingDependencyError,
    ModelNotFoundError,
    RequestCancelledError,
    RequestTimeoutError,
    ServerError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from lemica_client.events import Accepted, Progress
from lemica_client.requests import GenerateOptions, StreamOptions
from lemica_client.video import Video

__all__ = [
    "Accepted",
    "AsyncClient",
    "Client",
    "ClientClosedError",
    "GenerateOptions",
    "InvalidRequestError",
    "LemicaClientError",
    "MissingDependencyError",
    "ModelNotFoundError",
    "Progress",
    "RequestCancelledError",
    "RequestTimeoutError",
    "ServerError",
    "ServerUnavailableError",
    "ServerUnreachableError",
    "StreamOptions",
    "Tls",
    "Video",
]
