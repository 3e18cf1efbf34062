"""An MCP server of the standard library alone, `tiny.py NAME TOOL...`, up in no time; each tool says whose it is.

A tool may have a description, `TOOL=TEXT`. A file `NAME.broken` in the working directory keeps it from starting. Some
tools do more: `junk` prints what is no message before it answers, `flood` a line of 50 MB instead, `grow` adds a tool
`grown`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def act(tool: str, tools: list[str]) -> None:
    """Do what a tool does beside its answer."""
    match tool:
        case "junk":
            sys.stdout.buffer.write(b'no JSON\n\xff\xfe\xc3\x28\n\n{"jsonrpc": 7}\n[]\nnull\n')
        case "flood":
            sys.stdout.write("x" * 50_000_000)
            sys.stdout.flush()
            time.sleep(600)
        case "grow":
            tools.append("grown")
            say({"method": "notifications/tools/list_changed"})
        case _:
            pass


def answer(method: str, params: dict[str, Any], name: str, tools: list[str]) -> dict[str, Any] | None:
    """Return the result of a request, None for a method it does not know."""
    match method:
        case "initialize":
            about = {"name": name, "version": "0"}
            able = {"tools": {"listChanged": True}}
            return {"protocolVersion": params["protocolVersion"], "capabilities": able, "serverInfo": about}
        case "tools/list":
            parts = [tool.partition("=") for tool in tools]
            schema = {"type": "object"}
            return {"tools": [{"name": name, "description": text, "inputSchema": schema} for name, _, text in parts]}
        case "tools/call":
            act(params["name"], tools)
            return {"content": [{"type": "text", "text": f"{params['name']} of {name}"}]}
        case _:
            return None


def main(name: str, *tools: str) -> None:
    if Path(f"{name}.broken").exists():
        sys.exit("broken")
    offered = list(tools)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answer(message["method"], message.get("params") or {}, name, offered)
        error = {"error": {"code": -32601, "message": "Method not found"}}
        say({"id": message["id"], **(error if result is None else {"result": result})})


if __name__ == "__main__":
    main(*sys.argv[1:])
