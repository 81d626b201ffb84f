"""A headless Chromium driven over its DevTools protocol, with aiohttp alone."""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Return the program, or None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page of a Chromium of its own: go somewhere, ask JavaScript, take a picture."""

    def __init__(self, program: str, size: tuple[int, int] = (1200, 1100)) -> None:
        self._program, self._size, self._numbers = program, size, itertools.count(1)

    async def __aenter__(self):
        self._profile = tempfile.TemporaryDirectory(prefix="chromium_", ignore_cleanup_errors=True)
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        flags += ["--remote-debugging-port=0", f"--window-size={self._size[0]},{self._size[1]}"]
        flags += [f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen([self._program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._session = aiohttp.ClientSession()
        port = await self._read_port()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as answer:
            page = next(target for target in await answer.json() if target["type"] == "page")
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
        return self

    async def __aexit__(self, *_):
        await self._session.close()
        self._process.terminate()
        self._process.wait(30)
        self._profile.cleanup()

    async def _read_port(self):
        file, give_up_at = Path(self._profile.name) / "DevToolsActivePort", time.monotonic() + 120
        while time.monotonic() < give_up_at:
            if file.exists() and (match := re.match(r"(\d+)\n", file.read_text())):
                return int(match[1])
            await asyncio.sleep(0.1)
        raise TimeoutError("Chromium did not say where it listens")

    async def call(self, method, **params):
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json(timeout=120)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def ask(self, script):
        """Return the value of a JavaScript expression."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait_for(self, script, timeout_s=120):
        """Wait until an expression is true, and return its value."""
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at:
            if value := await self.ask(script):
                return value
            await asyncio.sleep(0.1)
        raise TimeoutError(f"never true: {script}; the page says: {await self.ask('document.body.innerText')}")

    async def picture(self, path):
        path.write_bytes(base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"]))
