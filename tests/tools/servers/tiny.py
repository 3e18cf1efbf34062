"""An MCP server of the standard library alone, `tiny.py NAME TOOL...`, up in no time; each tool says whose it is.

A file `NAME.broken` in its working directory keeps it from starting.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def answer(method: str, params: dict[str, Any], name: str, tools: list[str]) -> dict[str, Any] | None:
    """Return the result of a request, None for a method it does not know."""
    match method:
        case "initialize":
            version = params["protocolVersion"]
            about = {"name": name, "version": "0"}
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
        case "tools/list":
            return {"tools": [{"name": tool, "inputSchema": {"type": "object"}} for tool in tools]}
        case "tools/call":
            return {"content": [{"type": "text", "text": f"{params['name']} of {name}"}]}
        case _:
            return None


def main(name: str, *tools: str) -> None:
    if Path(f"{name}.broken").exists():
        sys.exit("broken")
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answer(message["method"], message.get("params") or {}, name, list(tools))
        error = {"error": {"code": -32601, "message": "Method not found"}}
        reply = {"jsonrpc": "2.0", "id": message["id"], **(error if result is None else {"result": result})}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
