"""Reads Agent Spec documents with pyagentspec and nothing of ours: a JSON line in for each, a JSON line out."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def read(text: str, stand_ins: dict[str, Any]) -> dict[str, Any]:
    """Return what a document is, and how pyagentspec writes it again."""
    library: Any = importlib.import_module("pyagentspec.serialization")
    reader = library.AgentSpecDeserializer()
    read_text = reader.from_json if text.startswith("{") else reader.from_yaml
    component = read_text(text, components_registry=stand_ins)
    written = json.loads(library.AgentSpecSerializer().to_json(component))
    return {"type": type(component).__name__, "version": written["agentspec_version"], "document": written}


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = read(asked["text"], asked["stand_ins"])
        except Exception as error:  # noqa: BLE001 - told to the test that asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
