"""Self-signed certificates made by openssl, and a proxy that ends TLS in front of a plain server."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple


class TlsFiles(NamedTuple):
    """PEM files."""

    certificate: str
    key: str


def make_certificate(folder: Path, name: str) -> TlsFiles:
    """Make a certificate for localhost that signs itself."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [*command, *subject, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return TlsFiles(str(certificate), str(key))


class TlsProxy:
    """Ends TLS on a port of its own and passes bytes on to a plain server, in a thread with an event loop.

    With `client_certificate` it takes only clients that show that one. `seen` is what clients sent first.
    """

    def __init__(self, target: str, server: TlsFiles, client_certificate: str | None = None) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_certificate)
        self._context.load_cert_chain(*server)
        self._context.set_alpn_protocols(["h2", "http/1.1"])  # gRPC insists on the first
        if client_certificate:
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.seen: list[bytes] = []

    def __enter__(self):
        self._thread.start()
        self._listener = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context))
        self.url = f"localhost:{self._listener.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._listener.close)  # a loop's things are touched in its thread only
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _serve(self, reader, writer):
        there, back = await asyncio.open_connection(self._host, int(self._port))
        await asyncio.gather(self._pass_on(reader, back, self.seen), self._pass_on(there, writer, []))

    async def _pass_on(self, reader, writer, seen):
        try:
            while data := await reader.read(1 << 16):
                seen.append(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()
