"""An MCP server over streamable HTTP: `http_server.py PORT [TOKEN]`."""

from __future__ import annotations

import os
import sys

import uvicorn
from mcp.server import MCPServer
from mcp.types import ToolAnnotations
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

server = MCPServer("over http", log_level="WARNING")


@server.tool()
def hello(name: str) -> str:
    """Say hello."""
    return f"hello {name} from {os.getpid()}"


@server.tool()
def big(characters: int) -> str:
    return "x" * characters


@server.tool(annotations=ToolAnnotations(idempotent_hint=True))
def process() -> int:
    return os.getpid()


def guarded(app: ASGIApp, token: str) -> ASGIApp:
    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", []))
        if scope["type"] == "http" and headers.get(b"authorization") != f"Bearer {token}".encode():
            await PlainTextResponse("who are you?", 401)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return guard


if __name__ == "__main__":
    app: ASGIApp = server.streamable_http_app()
    if len(sys.argv) > 2:
        app = guarded(app, sys.argv[2])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
