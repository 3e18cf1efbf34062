"""The file a recording is written to: readable YAML that is whole at every moment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llmling.errors import StartupError
from llmling.manifest.cassettes import FORMAT
from llmling.manifest.nodes import core_value
from llmling.models.cassettes.exchange import identity
from llmling.runtime.threads import run_in_thread

_HEAD = "# Recorded by llmling; `model: replay:{name}` gives these answers again.\nversion: {version}\n"
_CLOSED = "\n...\n"
_ODD = frozenset("\r\t\x85\u2028\u2029\ufeff")
_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):
    """Writes what `manifest.parse` reads back as it was, long texts as blocks, nothing folded."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: every value is written out."""
        return True


def _text(dumper: Any, text: str) -> Any:
    # YAML 1.2 has numbers that the dumper, of YAML 1.1, takes for texts.
    style = None if text and core_value(text) is text else '"'
    if "\n" in text and text.strip() and not _ODD & set(text):
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)


class CassetteFile:
    """Takes exchanges in any order and keeps the file up to date; the first one replaces an older file.

    A request that is asked again gets its new reply where it stands. Each one is in the file when `add` returns; the
    file is replaced as a whole, so a process that is killed never leaves half of one. A failure to write is kept in
    `fault` and mended by a later write.

    Raises:
        StartupError: Its folder is missing or cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fault: OSError | None = None
        self._tools: dict[str, Any] = {}
        self._exchanges: dict[str, _Exchange] = {}
        self._added = self._written = 0
        self._turn = asyncio.Lock()
        # Beside the turn: a write whose caller was cancelled goes on in its thread.
        self._writing = threading.Lock()
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            reason = "is a folder" if path.is_dir() else "its folder is missing or cannot be written to"
            raise StartupError(f"cassette {path}: {reason}; name another file with --record", usage=True)

    @property
    def empty(self) -> bool:
        """Whether nothing was added."""
        return not self._exchanges

    async def add(self, agent: str, request: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        """Take a reply to a request, in the form of `exchange.request_data`."""
        # Through JSON, so that only what a cassette can hold is left.
        asked, replied = json.loads(json.dumps([request, reply], default=str))
        if tools := asked.get("tools"):
            asked["tools"] = [self._named(tool) for tool in tools]
        exchange = self._exchanges.setdefault(f"{agent}\n{identity(asked)}", _Exchange(agent, asked))
        exchange.replies.append(replied)
        self._added += 1
        await self.flush()

    async def flush(self) -> None:
        """Write what is not in the file yet; several that wait are written at once."""
        wanted = self._added
        async with self._turn:
            if self._written < wanted:
                await run_in_thread(self._write)

    def _named(self, tool: dict[str, Any]) -> str:
        """Return the name a tool has in this file: its own, with a number when another one has it already."""
        name, number = tool["name"], 1
        while self._tools.setdefault(name, tool) != tool:
            number += 1
            name = f"{tool['name']}~{number}"
        return name

    def _write(self) -> None:
        with self._writing:
            added = self._added
            head = _HEAD.format(name=self.path.name, version=FORMAT)
            tools = _dumped({"tools": dict(self._tools)}) if self._tools else ""
            texts = [exchange.entry() for exchange in tuple(self._exchanges.values())]
            try:
                _replace(self.path, "".join([head, tools, "exchanges:\n", *texts]))
            except OSError as error:
                self.fault = error
            else:
                self._written, self.fault = added, None


@dataclass(slots=True)
class _Exchange:
    """A request with its replies; `made` is the entry of the file they last became, and of how many replies."""

    agent: str
    request: Mapping[str, Any]
    replies: list[Any] = field(default_factory=list[Any])
    made: tuple[int, str] = (0, "")

    def entry(self) -> str:
        """Return the exchange as an entry of the file; called in a thread while the loop may add replies."""
        replies = tuple(self.replies)
        count, text = self.made
        if count != len(replies):
            text = _dumped([{"agent": self.agent, "request": self.request, "replies": list(replies)}])
            self.made = (len(replies), text)
        return text


def _dumped(data: Any) -> str:
    text: str = yaml.dump(data, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=1_000_000)
    # Where a text with blank lines at its end was written the dumper closes the document, and here more follows.
    return text[: 1 - len(_CLOSED)] if text.endswith(_CLOSED) else text


def _replace(path: Path, text: str) -> None:
    # Not forced to the disk: a killed process leaves what it has written, and this happens once per model request.
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fresh.write_text(text, encoding="utf-8", newline="")
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
