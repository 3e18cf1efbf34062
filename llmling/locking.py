"""Accepting the tools of MCP servers: the servers are asked once, and a lock file remembers what they said."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import yaml

from llmling import plugins
from llmling.errors import StartupError
from llmling.manifest.pins import pins_path
from llmling.manifest.root import Manifest
from llmling.runtime.lifespan import Lifespans, reason
from llmling.runtime.services import Services
from llmling.tools.mcp.tool import McpTool

What: TypeAlias = Literal["new", "changed", "gone"]


@dataclass(frozen=True, slots=True)
class Change:
    """One tool that is not as the lock file says; `description` is what a model would read now."""

    what: What
    server: str
    tool: str
    description: str = ""


async def lock(manifest: Manifest, *, write: bool = True) -> list[Change]:
    """Start every MCP server of a manifest, write what its tools are like to the lock file, and return what changed.

    With `write` false nothing is written. Servers that an agent names inline are called `<agent>_<number>`.

    Raises:
        StartupError: The manifest is no file, or a server did not start; nothing is written then.
    """
    if manifest.path is None:
        raise StartupError("only the manifest of a file can be locked", usage=True)
    tools = await _offered(manifest)
    before: Mapping[str, Mapping[str, str]] = manifest.pins.servers if manifest.pins else {}
    changes: list[Change] = []
    for server in sorted({*before, *tools}):
        old, new = before.get(server, {}), tools.get(server, {})
        for name in sorted({*old, *new}):
            if name not in new:
                changes.append(Change("gone", server, name))
            elif old.get(name) != new[name].digest:
                what: What = "changed" if name in old else "new"
                changes.append(Change(what, server, name, new[name].spec.description))
    if write and (changes or manifest.pins is None):
        digests = {server: {name: tool.digest for name, tool in found.items()} for server, found in tools.items()}
        _write(manifest, digests)
    return changes


async def _offered(manifest: Manifest) -> dict[str, dict[str, McpTool]]:
    """Return the tools of each server by the server's own names for them."""
    services = Services(folder=manifest.folder)
    configs: dict[str, Any] = dict(manifest.mcp_servers)
    for name, agent in manifest.agents.items():
        configs |= {f"{name}_{i}": server for i, server in enumerate(agent.mcp_servers) if not isinstance(server, str)}
    servers: dict[str, Any] = {
        name: plugins.create("mcp_servers", config.model_copy(update={"required": True}), services, name)
        for name, config in configs.items()
    }
    async with AsyncExitStack() as stack:
        spans = await stack.enter_async_context(Lifespans())
        started = await spans.enter_all(servers, parallel=True)
        failed = [reason(start.error) for start in started.values() if start.error is not None]
        if failed:
            raise StartupError("\n".join(failed))
        return {
            name: {tool.original_name: tool for tool in server.tools() if isinstance(tool, McpTool)}
            for name, server in servers.items()
        }


def _write(manifest: Manifest, digests: Mapping[str, Mapping[str, str]]) -> None:
    assert manifest.path is not None  # noqa: S101
    path = pins_path(manifest.path)
    head = (
        f"# Tools of MCP servers as they were accepted, written by `llmling lock {manifest.named}`.\n"
        "# What a server changes or adds is refused until this file is written again; without this file nothing is.\n"
    )
    text = head + yaml.safe_dump({"version": 1, "mcp_servers": digests}, sort_keys=True, width=200)
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
