"""The offline demo model: honest about what it is, and good enough to see a pool at work."""

from llmling.models.demo.model import DemoModel

__all__ = ["DemoModel"]
