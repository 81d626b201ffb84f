"""The page of `lemica ui`: its logic against a real server, and the page itself in a headless Chromium."""

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest

from lemica_client import AsyncClient
from lemica_client.ui_compare import compare, facts
from tests.client.browser import Browser, find_chromium

pytestmark = pytest.mark.server


async def run_comparison(url, prompt, model="toy", budgets=("full", "fast")):
    async with AsyncClient(url, model=model, timeout_s=60) as client:
        return [sides async for sides in compare(client, prompt, budgets, 7)]


def test_both_sides_are_followed_to_their_videos(stand_in_url):
    changes = asyncio.run(run_comparison(stand_in_url, "x"))
    left, right = changes[-1]
    assert [side.text for side in changes[-1]] == ["done", "done"]
    assert b"ftyp" in left.video.file_bytes[:16]
    assert (facts(left)[0], facts(left)[2:]) == ("full", ["4 of 10", "0.125"])
    assert [sides[1].step for sides in changes] == sorted(sides[1].step for sides in changes)
    assert right.preview.startswith(b"\xff\xd8")


def test_an_error_of_a_side_is_said_there(stand_in_url):
    left, right = asyncio.run(run_comparison(stand_in_url, "fail"))[-1]
    assert (left.text, right.text) == ("error: out of luck", "error: out of luck")
    assert facts(left)[2] == "error: out of luck"


def test_a_page_that_is_left_cancels_both(stand_in_url, stand_in):
    log = stand_in.model_repository / "toy_stream" / "ends.log"
    before = len(log.read_text().splitlines()) if log.exists() else 0

    async def leave():
        async with AsyncClient(stand_in_url, model="toy") as client:
            sides = compare(client, "x", ("full", "fast"), 7)
            async for left, right in sides:
                if left.step and right.step:
                    break
            await sides.aclose()
        for _ in range(600):
            if len(ends := log.read_text().splitlines()[before:]) == 2:
                return ends
            await asyncio.sleep(0.1)
        return ends

    assert asyncio.run(leave()) == ["cancelled", "cancelled"]


@pytest.fixture
def page_url(stand_in):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "lemica_client", "ui", "--url", stand_in.grpc_url, "--model", "toy", "--port", str(port)]
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL) as process:
        yield f"http://127.0.0.1:{port}"
        os.kill(process.pid, signal.SIGINT)
        process.wait(60)


def test_a_person_compares_two_budgets(page_url, tmp_path):
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here to open the page with: apt-get install chromium")

    async def use_the_page():
        async with Browser(program) as browser:
            for _ in range(600):  # until the page is served
                await browser.call("Page.navigate", url=page_url)
                await asyncio.sleep(0.5)
                if await browser.ask("document.querySelector('#compare') !== null"):
                    break
            await browser.ask("document.querySelector('#compare').click()")
            await browser.wait_for("document.querySelector('#preview-left img') !== null")
            for side in ("left", "right"):
                await browser.wait_for(f"document.querySelector('#progress-{side}').innerText.includes('done')")
                await browser.wait_for(f"document.querySelector('#video-{side} video')?.videoWidth === 64")
            await browser.picture(tmp_path / "page.png")
            return await browser.ask("document.querySelector('#facts').innerText")

    text = asyncio.run(use_the_page())
    assert all(words in text for words in ("full", "fast", "4 of 10", "0.125"))
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
