"""An MCP server of a few lines: searches the text files in notes/."""

from pathlib import Path

from mcp.server import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("shelf", log_level="WARNING")
NOTES = Path(__file__).parent / "notes"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))  # else a person is asked before each call
def search_notes(question: str) -> str:
    """Search the notes for the words of a question and return the lines that have one of them."""
    words = {word.strip("?.,!").lower() for word in question.split() if len(word) > 3}
    lines = [line for file in sorted(NOTES.glob("*.md")) for line in file.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if words & {word.strip("?.,!").lower() for word in line.split()}]
    return "\n".join(found) or "nothing found"


if __name__ == "__main__":
    server.run()
