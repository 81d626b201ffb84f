"""Where a server is and how it is spoken to: address, TLS, headers; from arguments or from the environment."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from lemica_client.errors import InvalidRequestError

_URL = re.compile(
    r"(?:(?P<scheme>grpcs?|https?)://)?(?P<host>[\w.-]+|\[[0-9a-f:.]+\]):(?P<port>[0-9]{1,5})/?", re.IGNORECASE
)
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|\[::1\]", re.IGNORECASE)
_HEADER = re.compile(r"\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*:\s*(.*?)\s*")
DEFAULT_URL = "grpc://127.0.0.1:8001"


class Address(NamedTuple):
    """Where a server is and what it speaks; `netloc` is ``host:port``, `is_tls` whether it is encrypted."""

    scheme: Literal["grpc", "http"]
    netloc: str
    is_tls: bool = False

    @property
    def host(self) -> str:
        """Name or address without the port; an IPv6 address without its brackets."""
        return self.netloc.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port."""
        return int(self.netloc.rpartition(":")[2])

    @property
    def is_loopback(self) -> bool:
        """Whether the server is reached through this machine's own loopback."""
        return _LOOPBACK.fullmatch(self.netloc.rpartition(":")[0]) is not None

    def __str__(self) -> str:
        return f"{self.scheme}{'s' if self.is_tls else ''}://{self.netloc}"


@dataclass(frozen=True)
class Tls:
    """How a ``grpcs://`` or ``https://`` server is checked, and what this client shows it. Files are PEM.

    Attributes
    ----------
    root_certificates : str, optional
        Certificates to trust; by default those of the system (HTTP) or of gRPC.
    private_key, certificate_chain : str, optional
        The client's own key and certificates, for a server that asks for them; both or none.
    is_insecure : bool
        Trust whatever certificate the server shows. For tests: anybody between the two can read and change all.
    """

    root_certificates: str | None = None
    private_key: str | None = None
    certificate_chain: str | None = None
    is_insecure: bool = False

    def __post_init__(self) -> None:
        if (self.private_key is None) != (self.certificate_chain is None):
            raise InvalidRequestError("tls: private_key and certificate_chain go together; one of them is missing")

    def ssl_context(self, library: Any = ssl) -> Any:
        """Return the context for HTTP, of `ssl` or of `gevent.ssl`; unreadable files raise `InvalidRequestError`."""
        try:
            context = library.create_default_context(cafile=self.root_certificates)
            if self.certificate_chain is not None:
                context.load_cert_chain(self.certificate_chain, self.private_key)
        except (OSError, ssl.SSLError) as exc:
            raise InvalidRequestError(f"tls: a certificate or key cannot be read: {exc} ({self})") from exc
        if self.is_insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True)
class Connection:
    """All that a transport needs to reach a server; `headers` go along with every request."""

    address: Address
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: Tls | None = None

    def __post_init__(self) -> None:
        if self.tls is not None and not self.address.is_tls:
            raise InvalidRequestError(
                f"tls: {self.address} is not encrypted; write grpcs:// or https://, or leave tls out"
            )
        for name, value in self.headers.items():
            check_header(name, value)


def parse_url(url: str) -> Address:
    """Read ``grpc://host:port``, ``http://host:port``, their TLS forms, or a plain ``host:port`` (gRPC).

    Raises
    ------
    InvalidRequestError
        For every other form; nothing is guessed but the scheme.

    Examples
    --------
    >>> parse_url("localhost:8001")
    Address(scheme='grpc', netloc='localhost:8001', is_tls=False)
    >>> parse_url("https://[::1]:8000/")
    Address(scheme='http', netloc='[::1]:8000', is_tls=True)
    """
    match = _URL.fullmatch(url)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise InvalidRequestError(
            f"url: got {url!r}; allowed are grpc://HOST:PORT, http://HOST:PORT and HOST:PORT (gRPC), with TLS "
            "grpcs:// and https://; such as grpc://127.0.0.1:8001"
        )
    scheme = (match["scheme"] or "grpc").lower()
    netloc = f"{match['host']}:{match['port']}"
    return Address("http" if scheme.startswith("http") else "grpc", netloc, scheme.endswith("s"))


def parse_headers(lines: list[str]) -> dict[str, str]:
    """Read ``Name: value`` lines.

    Examples
    --------
    >>> parse_headers(["Authorization: Bearer abc"])
    {'authorization': 'Bearer abc'}
    """
    headers = {}
    for line in lines:
        if (match := _HEADER.fullmatch(line)) is None:
            raise InvalidRequestError("header: got a line without 'Name: value'; such as 'Authorization: Bearer TOKEN'")
        headers[match[1].lower()] = match[2]  # gRPC takes lower case only; HTTP does not care
        check_header(match[1], match[2])
    return headers


def check_header(name: str, value: str) -> None:
    """Refuse what would break out of a header; the value is not repeated, as it may be a secret."""
    if _HEADER.fullmatch(f"{name}:") is None or not (value.isascii() and value.isprintable()):
        raise InvalidRequestError(f"header {name!r}: allowed are printable ASCII characters on one line")


def connection_from_environment() -> tuple[str, dict[str, str], Tls | None]:
    """Return url, headers and TLS settings as the variables ``LEMICA_*`` give them.

    ``LEMICA_URL``; ``LEMICA_HEADERS``, one ``Name: value`` a line; ``LEMICA_TLS_ROOT``, ``LEMICA_TLS_KEY``,
    ``LEMICA_TLS_CERT``: files; ``LEMICA_TLS_INSECURE``: 1 to trust every certificate.
    """
    read = os.environ.get
    headers = parse_headers([line for line in read("LEMICA_HEADERS", "").splitlines() if line.strip()])
    tls = make_tls(
        read("LEMICA_TLS_ROOT"),
        read("LEMICA_TLS_KEY"),
        read("LEMICA_TLS_CERT"),
        read("LEMICA_TLS_INSECURE", "").lower() in {"1", "true", "yes", "on"},
    )
    return read("LEMICA_URL") or DEFAULT_URL, headers, tls


def make_tls(root: str | None, key: str | None, certificate: str | None, is_insecure: bool) -> Tls | None:
    """Return the settings, or None where nothing is set; an empty file name counts as not set."""
    tls = Tls(root or None, key or None, certificate or None, is_insecure)
    return None if tls == Tls() else tls
