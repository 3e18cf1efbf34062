"""A real browser without a window, driven by its own protocol: https://chromedevtools.github.io/devtools-protocol/."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from serving import eventually, until

_PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tab:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)

    async def call(self, method: str, **params: Any) -> Any:
        """Return what the browser answers to one command."""
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = json.loads(await self._socket.receive_str(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def run(self, script: str) -> Any:
        """Return the value of an expression of JavaScript, awaited."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def shows(self, text: str, element: str = "body") -> str:
        """Return the visible text of an element once `text` is in it."""
        script = f"document.querySelector({json.dumps(element)})?.innerText ?? ''"

        async def look() -> str | None:
            seen: str = await self.run(script)
            return seen if text in seen else None

        return await eventually(look, f"{text!r} in {element}")

    async def hides(self, text: str, element: str = "body") -> None:
        """Return once `text` is no longer in the visible text of an element."""
        script = f"document.querySelector({json.dumps(element)}).innerText"

        async def look() -> bool | None:
            return True if text not in await self.run(script) else None

        await eventually(look, f"no {text!r} in {element}")

    async def click(self, text: str, element: str = "button") -> None:
        """Click on the first element of a kind that holds `text`."""
        script = f"""(() => {{
            const found = [...document.querySelectorAll({json.dumps(element)})].find(
                node => node.innerText.includes({json.dumps(text)}) && node.checkVisibility());
            if (found) found.click();
            return Boolean(found);
        }})()"""

        async def try_it() -> bool | None:
            return await self.run(script) or None

        await eventually(try_it, f"{element} with {text!r}")

    async def screenshot(self, path: Path) -> None:
        """Write what a person would see."""
        path.write_bytes(base64.b64decode((await self.call("Page.captureScreenshot"))["data"]))


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncGenerator[Tab]:
    """Open a page in a browser of its own; skips the test where there is none, but under CI there has to be."""
    if _PROGRAM is None:
        assert os.environ.get("CI") != "true", "no browser: apt-get install chromium"
        pytest.skip("no browser is installed (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory(prefix="llmling-browser-", ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            _PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-extensions", "--disable-background-networking", "--window-size=1280,900",
            "--remote-debugging-port=0", f"--user-data-dir={folder}", url,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            place = Path(folder) / "DevToolsActivePort"
            await until(lambda: place.exists() and place.read_text().count("\n") >= 1, "the browser is up", 60)
            port = place.read_text().splitlines()[0]
            async with aiohttp.ClientSession() as session:
                socket_url = await eventually(lambda: _page_of(session, port), "a page", 60)
                async with session.ws_connect(socket_url, max_msg_size=0) as socket:
                    yield Tab(socket)
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            process.kill()
            await process.wait()


async def _page_of(session: aiohttp.ClientSession, port: str) -> str | None:
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        targets = await answer.json(content_type=None)
    return next((target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page"), None)
