"""What both gRPC transports share: channel options, credentials, and what a failed call means."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import grpc
from tritonclient.utils import InferenceServerException

from lemica_client.connection import Address, Connection, Tls
from lemica_client.errors import (
    InvalidRequestError,
    LemicaClientError,
    RequestTimeoutError,
    ServerUnavailableError,
    ServerUnreachableError,
    error_from_status,
)

# Given a list, tritonclient sets no options of its own, so its message limits are repeated here. The reconnect limits
# are ours: by default gRPC waits up to two minutes between attempts, long after a booting server became ready.
_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# Without it Triton reports the errors of a stream as a text without their code.
STREAM_HEADERS = {"triton_grpc_error": "true"}
# UNAVAILABLE is both what the server says and what gRPC says of a broken connection; only the words differ. These are
# gRPC's own for a connection that never came about, and for one that broke after the request was sent.
_NEVER = ("failed to connect to all addresses", "errors resolving", "DNS resolution failed")
_LOST = (
    "Stream removed",
    "Socket closed",
    "Connection reset",
    "Broken pipe",
    "recvmsg",
    "sendmsg",
    "GOAWAY",
    "keepalive",
)
_CERTIFICATE_TIMEOUT_S = 10.0


def channel_settings(connection: Connection) -> dict[str, Any]:
    """Return the arguments of tritonclient's clients; fetches a certificate for `Tls.is_insecure`, and blocks then."""
    if not connection.address.is_tls:
        return {"channel_args": _OPTIONS}
    tls = connection.tls or Tls()
    root, options = _read(tls.root_certificates), list(_OPTIONS)
    if tls.is_insecure:
        root, name = _shown_certificate(connection.address)
        options.append(("grpc.ssl_target_name_override", name))
    credentials = grpc.ssl_channel_credentials(root, _read(tls.private_key), _read(tls.certificate_chain))
    return {"channel_args": options, "creds": credentials}


def to_error(exc: Exception, address: Address) -> LemicaClientError:
    """Return our error for what tritonclient or gRPC raised."""
    status, text = _status_and_text(exc)
    error = error_from_status(status, text)
    if isinstance(error, RequestTimeoutError):
        text = f"no answer from {address} within timeout_s; the request was cancelled"
        return RequestTimeoutError(text, status=error.status)
    if isinstance(error, ServerUnavailableError) and text.startswith(_NEVER):
        # Before the reason come addresses as gRPC writes them; of a TLS handshake it may be "OK" all the same.
        reason = text if address.is_tls else _reason(text)
        return ServerUnreachableError(f"no server can be reached at {address}: {reason}", status=error.status)
    if isinstance(error, ServerUnavailableError):
        error.may_be_running = any(words in text for words in _LOST)
    return error


def _status_and_text(exc: Exception) -> tuple[str | None, str]:
    if isinstance(exc, InferenceServerException):
        return exc.status(), exc.message() or str(exc)
    if isinstance(exc, grpc.RpcError):
        return str(exc.code()), exc.details() or str(exc)
    return None, str(exc)


def _read(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise InvalidRequestError(f"tls: a certificate or key cannot be read: {exc}") from exc


def _reason(text: str) -> str:
    _, found, reason = text.partition("Failed to connect to remote host: ")
    return (reason.removeprefix("connect: ") if found else text.rpartition(": ")[2]).rstrip("]")


def _shown_certificate(address: Address) -> tuple[bytes, str]:
    """Return the certificate that the server shows, and a name in it: gRPC has no switch to check neither."""
    place = (address.host, address.port)
    try:
        certificate = ssl.get_server_certificate(place, timeout=_CERTIFICATE_TIMEOUT_S)
        context = ssl.create_default_context(cadata=certificate)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
        with socket.create_connection(place, _CERTIFICATE_TIMEOUT_S) as plain, context.wrap_socket(plain) as encrypted:
            shown = encrypted.getpeercert() or {}
    except OSError as exc:
        raise ServerUnreachableError(f"no server can be reached at {address}: no certificate: {exc}") from exc
    return certificate.encode(), _a_name(shown, address.host)


def _a_name(certificate: Any, host: str) -> str:
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    names += [value for group in certificate.get("subject", ()) for key, value in group if key == "commonName"]
    return names[0] if names else host
