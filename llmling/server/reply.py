"""What a listener answers: JSON, or a refusal that says what to do next."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from llmling.errors import LLMlingError

# No answer is for a cache or for guessing at its type, and none tells which software gave it.
_COMMON = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Server": "llmling"}


def text_reply(status: int, text: str, *, content_type: str = "text/plain") -> web.Response:
    """Return an answer of plain text in UTF-8."""
    return web.Response(status=status, text=text, content_type=content_type, charset="utf-8", headers=_COMMON)


def json_reply(status: int, value: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer that holds `value` as JSON."""
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    return web.Response(
        status=status, body=body, content_type="application/json", headers={**_COMMON, **(headers or {})}
    )


class Refused(LLMlingError):
    """Raised by a handler to answer with an error status; `message` is read by whoever sent the request.

    `linger` false closes the connection soon, whatever is left of the request.
    """

    def __init__(
        self, status: int, message: str, *, headers: Mapping[str, str] | None = None, linger: bool = True
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.linger = linger

    def reply(self) -> web.Response:
        """Return the answer: the status and `{"error": message}`."""
        return json_reply(self.status, {"error": self.message}, self.headers)


def retry_after(seconds: float) -> dict[str, str]:
    """Return the header that asks for a pause, in whole seconds, at least one."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
