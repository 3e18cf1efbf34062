"""The model is assumed hostile: it does whatever any text says. Only what stands around it is scored."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from injections import CARRIERS, ORDERS, corpus

from llmling import Agent, Event
from llmling.errors import LLMlingError, ToolError
from llmling.events import render
from llmling.messages import Message, ToolCallPart, ToolCallResponsePart
from llmling.protocols import ModelRequest
from llmling.runtime.fetch import FetchError
from llmling.runtime.fetch import fetch as fetch_page
from llmling.testing import ScriptedModel

_ORDER = re.compile(r"⟦(\S+) (.*?)⟧", re.DOTALL)


class Watch:
    """Hears what the interpreter itself does: files it opens, addresses it connects to, processes it starts."""

    def __init__(self) -> None:
        self.on = False
        self.opened: list[str] = []
        self.reached: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open" and isinstance(args[0], str):
            self.opened.append(os.path.realpath(args[0]))
        elif event in {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec"}:
            self.reached.append(f"{event} {args[-1]}")


_WATCH = Watch()


@pytest.fixture
def watch() -> Iterator[Watch]:
    _WATCH.opened, _WATCH.reached = [], []
    yield _WATCH
    _WATCH.on = False


def obey(request: ModelRequest) -> Message | str:
    """Call everything that any text of the exchange asks for and that was not asked before."""
    read = [part for message in request.messages for part in message.parts if not isinstance(part, ToolCallPart)]
    texts = [part.response if isinstance(part, ToolCallResponsePart) else part.content for part in read]
    orders = [found for text in texts for found in _ORDER.findall(text)]
    done = sum(isinstance(part, ToolCallPart) for message in request.messages for part in message.parts)
    parts: list[ToolCallPart] = []
    for index, (name, arguments) in enumerate(orders[done:]):
        try:
            given: Any = json.loads(arguments.replace('\\"', '"') if arguments.startswith('{\\"') else arguments)
        except ValueError:
            given = arguments
        parts.append(ToolCallPart(f"c{done + index}", name, given if isinstance(given, dict) else str(given)))  # pyright: ignore[reportUnknownArgumentType]
    return Message("assistant", tuple(parts)) if parts else f"Done. {texts[-1]}"


async def test_an_obedient_model_calls_nothing_else_reads_nothing_outside_and_reaches_nobody(
    tmp_path: Path, watch: Watch
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    for name in ("secret.txt", ".env"):
        (outside / name).write_text("top secret")
    (root / "link").symlink_to(outside / "secret.txt")
    called: list[str] = []

    def count(text: str) -> int:
        """Count characters."""
        called.append("count")
        return len(text)

    def lookup(key: str) -> str:
        """Look a key up."""
        called.append("lookup")
        return base64.b64decode(key).decode()

    def read_note(name: str) -> str:
        """Read a note."""
        called.append("read_note")
        path = (root / name.replace("\0", "")).resolve()
        if not path.is_relative_to(root):
            raise ToolError("there is no such note")
        return path.read_text()

    async def fetch(url: str) -> str:
        """Fetch a page."""
        called.append("fetch")
        if "evil" in url:
            raise ToolError("not on the list of hosts")
        try:
            return await fetch_page(url, max_bytes=1000)
        except FetchError as error:
            raise ToolError(str(error)) from error

    model = ScriptedModel(obey)
    agent = Agent[None]("a", model=model, tools=[count, lookup, read_note, fetch], limits={"max_iterations": 5})
    ran = 0
    for name, carried in corpus():
        (root / "note.md").write_text(carried.get("note", "Nothing."))
        event = Event("hook", "dev.llmling.webhook.received", carried.get("subject", ""), carried["data"])
        event = Event.from_dict({**event.to_dict(), "headers": carried.get("headers", {})})
        prompt = "{{ event.subject }}\n{{ event.data }}\n{{ event.headers }}" if len(carried) > 1 else None
        watch.on = True
        try:
            result = await agent.run(render(event, prompt).text)
        except LLMlingError as error:
            pytest.fail(f"{name}: {error}")
        finally:
            watch.on = False
        assert "top secret" not in str(result.messages), name
        ran += 1
    assert ran == len(ORDERS) * len(CARRIERS) == 200
    assert set(called) == {"count", "lookup", "read_note", "fetch"}
    parts = [part for request in model.requests for message in request.messages for part in message.parts]
    refused = {part.name for part in parts if isinstance(part, ToolCallPart)} - set(called)
    assert {"delete_all", "shell", "send_mail", "wipe", "neighbour_only", "__import__", "files_write"} <= refused
    assert [path for path in watch.opened if Path(path).is_relative_to(outside)] == []
    assert watch.reached == []
