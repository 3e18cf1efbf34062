"""An MCP server over streamable HTTP, `http_server.py PORT [--token TOKEN] [--legacy]`; a line of input starts it."""

from __future__ import annotations

import argparse
import json
import os
import sys

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import ToolAnnotations
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


@server.tool()
async def grow(context: Context[object]) -> str:
    """Add a tool while running."""

    def grown() -> str:
        return "grown"

    server.add_tool(grown)
    # One for clients of 2025, one for newer ones.
    await context.session.send_tool_list_changed()
    await context.notify_tools_changed()
    return "ok"


def guarded(app: ASGIApp, token: str) -> ASGIApp:
    """Let only requests with the token pass."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", []))
        if scope["type"] == "http" and headers.get(b"authorization") != f"Bearer {token}".encode():
            await PlainTextResponse("who are you?", 401)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return guard


def legacy(app: ASGIApp) -> ASGIApp:
    """Know no `server/discover`, as the servers of 2025: clients fall back to a session."""

    async def old(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await app(scope, receive, send)
            return
        body = await Request(scope, receive).body()
        message = json.loads(body)
        if message.get("method") == "server/discover":
            error = {"code": -32601, "message": "Method not found"}
            reply = {"jsonrpc": "2.0", "id": message["id"], "error": error}
            await JSONResponse(reply)(scope, receive, send)
            return
        replay: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return replay.pop() if replay else await receive()

        await app(scope, again, send)

    return old


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--token")
    parser.add_argument("--legacy", action="store_true")
    options = parser.parse_args()
    app: ASGIApp = server.streamable_http_app()
    app = legacy(app) if options.legacy else app
    app = guarded(app, options.token) if options.token else app
    # Loading takes long on a busy machine; from here on it does not.
    sys.stdout.write("prepared\n")
    sys.stdout.flush()
    sys.stdin.readline()
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")
