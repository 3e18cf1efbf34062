"""The short way of a request that is all there: answered from where it is read, without a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from llmling.server.reply import JsonReply


class Direct(Protocol):
    """Answers requests that are all there; it may raise `Refused` like a handler."""

    def suits(self, headers: Mapping[str, str], length: int) -> bool:
        """Whether a request with these headers and a body of so many bytes can be answered without its handler."""
        ...

    def begin(self, headers: Mapping[str, str], body: bytes) -> asyncio.Future[Any]:
        """Take a request; the future is done when it can be answered, and is cancelled when nobody waits any more."""
        ...

    def answer(self, done: asyncio.Future[Any]) -> JsonReply:
        """Return the answer to a request of which the future is done."""
        ...
