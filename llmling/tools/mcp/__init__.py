"""MCP servers as providers of tools; importing this does not load the SDK."""

from __future__ import annotations

from llmling.tools.mcp.server import McpServer

__all__ = ["McpServer"]
