"""What a user writes: frozen models of the manifest, and the loader that keeps every line and column."""

from __future__ import annotations

from llmling.manifest.importing import ImportFailed, import_object
from llmling.manifest.root import Manifest
from llmling.manifest.schema import json_schema

load = Manifest.load
load_agent = Manifest.load_agent
load_engine = Manifest.load_engine
check = Manifest.check

__all__ = ["ImportFailed", "Manifest", "check", "import_object", "json_schema", "load", "load_agent", "load_engine"]
