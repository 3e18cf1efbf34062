"""The transport to an MCP server over streamable HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client

from llmling.runtime.lifespan import leaf, reason
from llmling.tools.mcp.tool import current_attempt

LONGEST_SSE_EVENT = 16 * 1024 * 1024

_CONNECT_S = 30.0
_READ_S = 300.0


class _HttpClient(httpx2.AsyncClient):
    """Remembers what the SDK does not pass on: the status of a refusal, and that nothing was sent."""

    refusal: str = ""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            response = await super().send(request, **options)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            # The SDK carries the caller's context variables into the task that posts.
            if (attempt := current_attempt.get()) is not None:
                attempt.refused = True
            raise
        status = response.status_code
        self.refusal = f"it answered HTTP {status} {response.reason_phrase}" if status >= 400 else ""
        return response


class HttpTransport:
    """Reaches a server at a URL; `read_s` is the longest silence of one answer, in seconds, at least 300."""

    def __init__(self, url: str, headers: Mapping[str, str], *, read_s: float) -> None:
        self._url = httpx2.URL(url)
        self._headers = dict(headers)
        self._read_s = max(_READ_S, read_s)
        self._stack = AsyncExitStack()
        self._client: _HttpClient | None = None
        self._listener: Callable[[str], None] | None = None

    def on_end(self, ended: Callable[[str], None]) -> None:
        """Call `ended` with the reason when this is left; that the server is gone shows at the next request."""
        self._listener = ended

    def kill(self) -> None:
        """Do nothing: cancelling the owner closes every request at once."""

    def explain(self, error: BaseException) -> str:
        """Say in one line why the server cannot be used, without what may be secret in its URL."""
        inner = leaf(error)
        port = f":{self._url.port}" if self._url.port else ""
        host = f"{self._url.scheme}://{self._url.host}{port}"
        if isinstance(inner, httpx2.ConnectError | httpx2.ConnectTimeout):
            return f"cannot connect to {host}: {reason(inner)}"
        if self._client is not None and self._client.refusal:
            return f"{host}: {self._client.refusal}"
        if isinstance(inner, httpx2.NetworkError | httpx2.RemoteProtocolError):
            return f"the connection to {host} was lost: {reason(inner)}"
        return f"{host}: {reason(inner)}"

    async def __aenter__(self) -> tuple[Any, Any]:
        timeout = httpx2.Timeout(_CONNECT_S, read=self._read_s)
        async with AsyncExitStack() as stack:
            self._client = _HttpClient(headers=self._headers, timeout=timeout)
            await stack.enter_async_context(self._client)
            streams = await stack.enter_async_context(
                streamable_http_client(str(self._url), http_client=self._client, max_sse_event_size=LONGEST_SSE_EVENT)
            )
            self._stack = stack.pop_all()
        return streams

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._listener is not None:
            self._listener("the connection was closed")
        return await self._stack.__aexit__(kind, error, trace)
