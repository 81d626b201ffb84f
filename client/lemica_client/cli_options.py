"""The options that every command of `lemica` shares: which server, and how to speak to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from lemica_client.client import Client
from lemica_client.connection import connection_from_environment, make_tls, parse_headers
from lemica_client.errors import LemicaClientError, ModelNotFoundError, ServerUnreachableError

Url = Annotated[
    str,
    typer.Option(
        envvar="LEMICA_URL",
        help="grpc://HOST:PORT, http://HOST:PORT, grpcs:// and https:// with TLS.",
    ),
]
Model = Annotated[str, typer.Option(envvar="LEMICA_MODEL", help="Model on the server.")]
TimeoutS = Annotated[float, typer.Option(help="Seconds to wait for the answer; the server then stops too.")]
Retries = Annotated[
    int, typer.Option(min=0, max=100, help="Times to try again while the server says UNAVAILABLE or cannot be reached.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header", help="Sent along, as 'Name: value'; may be repeated. [env var: LEMICA_HEADERS, one a line]"
    ),
]
TlsRoot = Annotated[str | None, typer.Option(envvar="LEMICA_TLS_ROOT", help="Certificates to trust, a PEM file.")]
TlsKey = Annotated[str | None, typer.Option(envvar="LEMICA_TLS_KEY", help="Private key of this client, a PEM file.")]
TlsCert = Annotated[str | None, typer.Option(envvar="LEMICA_TLS_CERT", help="Its certificate chain, a PEM file.")]
TlsInsecure = Annotated[
    bool, typer.Option(envvar="LEMICA_TLS_INSECURE", help="Trust whatever certificate the server shows: for tests.")
]


def connection_settings(
    headers: list[str] | None,
    tls_root: str | None,
    tls_key: str | None,
    tls_cert: str | None,
    tls_insecure: bool,
) -> dict[str, Any]:
    """Return the `Client`'s settings for these options; headers given here replace those of the environment."""
    given = parse_headers(headers) if headers else connection_from_environment()[1]
    return {"headers": given, "tls": make_tls(tls_root, tls_key, tls_cert, tls_insecure)}


@contextmanager
def open_client(url: str, model: str, timeout_s: float, retries: int, connection: dict[str, Any]) -> Iterator[Client]:
    """Lend a client for these options; where there is no server or no such model, the error says what to do."""
    with Client(url, model=model, timeout_s=timeout_s, retries=retries, **connection) as client:
        try:
            yield client
        except ModelNotFoundError as exc:
            raise ModelNotFoundError(f"{exc}{_models_of(client)}", status=exc.status) from exc
        except ServerUnreachableError as exc:
            hint = _UNTRUSTED if "CERTIFICATE_" in str(exc) else _WITHOUT_SERVER
            raise ServerUnreachableError(f"{exc}; {hint}", status=exc.status) from exc


def _models_of(client: Client) -> str:
    """Return what to choose from in words; none where the server does not tell."""
    try:
        names = client.models(_ASIDE_S)
    except LemicaClientError:
        return ""
    return f"; the server has {', '.join(names) or 'no model ready'}: see --model"


_WITHOUT_SERVER = "start one with `lemica serve`, or give another's address with --url or LEMICA_URL"
_UNTRUSTED = "see --tls-root and --tls-insecure for certificates, --url or LEMICA_URL for another address"
_ASIDE_S = 5.0  # what is asked only to word an error better
