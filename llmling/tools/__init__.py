"""Tools: Python callables, MCP servers and other agents."""
