"""The library of the format's authors, in a process of its own: a document in, what it is out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from spec_pools import stand_ins

READER = Path(__file__).parent / "pyagentspec_reader.py"
LIBRARY = Path(__file__).parents[2] / ".venv" / "agentspec"
"""It asks for an older pydantic than users of ours get, so it lies in a folder of its own."""


@dataclass(frozen=True)
class Read:
    """What pyagentspec made of a document: the class, and what it would write, in which version."""

    type: str
    version: str
    document: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False, repr=False)


ReadSpec: TypeAlias = Callable[[str], Read]


class SpecReader:
    """Reads documents with pyagentspec alone."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, READER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(LIBRARY)},
        )

    def __call__(self, text: str) -> Read:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        document: dict[str, Any] = json.loads(text) if text.startswith("{") else yaml.safe_load(text)
        process.stdin.write(json.dumps({"text": text, "stand_ins": stand_ins(document)}) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return Read(**answer)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
