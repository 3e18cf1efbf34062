"""The command line: a command parses, calls one public function, prints."""

from llmling_cli.app import main

__all__ = ["main"]
