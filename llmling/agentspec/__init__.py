"""Oracle Agent Spec: pools and agents as portable documents, and back."""

from __future__ import annotations

from llmling.agentspec.exchange import Translation, dump, load, translate

__all__ = ["Translation", "dump", "load", "translate"]
