"""Tools that a model could not be offered are refused by `check`, at their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import compare, plant

from llmling.manifest import check

TOOLS = """\
from llmling import tool
from llmling.protocols import ToolSpec


def count(text: str) -> int: ...


def also(text: str) -> int: ...


also.__name__ = "count"


@tool(name="ask_b")
def asks(text: str) -> str: ...


@tool(name="two words")
def misnamed() -> str: ...


def starred(**texts: str) -> None: ...


def undefined(text: "Missing") -> None: ...


def attribute(text: "ToolSpec.Missing") -> None: ...


def broken(text: "str |") -> None: ...


def unknown(text: 7) -> None: ...


class Whole:
    repeatable = True
    destructive = False
    approval = None
    timeout_s = None

    def __init__(self, name):
        self.spec = ToolSpec(name, "", {"type": "object"})

    async def call(self, arguments):
        return ""


class Handle:
    def call(self): ...


whole, misnamed_whole, handle, number = Whole("whole"), Whole("two words"), Handle(), 7
"""

CASES: dict[str, dict[str, str]] = {
    "names that are taken": {
        "m.yml": """\
agents:
  a:
    tools:
      - planted_names:count
      - ⟦LL312 tools[0] has the name "count" too (agents.a.tools); give one of them another⟧planted_names:also
      - {type: function, function: planted_names:also, name: also}
      - {type: function, function: planted_names:count, name: ⟦LL312 tools[2] has the name "also" too⟧also}
      - {type: agent, name: b}
      - ⟦LL312 tools[4] has the name "ask_b" too⟧planted_names:asks
      - {type: agent, name: ⟦LL312 tools[4] has the name "ask_b" too (agents.a.tools[6]); remove one⟧b}
      - planted_names:whole
      - {type: function, function: planted_names:count, name: ⟦LL312 tools[7]⟧whole}
  b: {tools: [planted_names:count, {type: function, function: planted_names:also, name: also}]}
  c: {extends: a}
  d:
    memory: {facts: true}
    tools: [{type: function, function: planted_names:count, name: ⟦LL312 has a tool "recall" too⟧recall}]
  e:
    tools: [{type: function, function: planted_names:count, name: recall}]
""",
        "planted_names.py": TOOLS,
    },
    "what cannot be described": {
        "m.yml": """\
agents:
  a:
    tools:
      - ⟦LL309 takes **texts, which cannot be described to a model⟧planted_kinds:starred
      - ⟦LL309 name 'Missing' is not defined⟧planted_kinds:undefined
      - ⟦LL309 an annotation cannot be read⟧planted_kinds:attribute
      - ⟦LL309 an annotation cannot be read⟧planted_kinds:broken
      - ⟦LL309 a parameter cannot be described to a model⟧planted_kinds:unknown
      - ⟦LL309 'two words' is no name for a tool⟧planted_kinds:misnamed
      - ⟦LL309 'two words' is no name for a tool⟧planted_kinds:misnamed_whole
      - {type: function, function: ⟦LL309 a whole tool and says idempotent⟧planted_kinds:whole, idempotent: true}
      - ⟦LL309 planted_kinds:handle is not callable; name a function⟧planted_kinds:handle
      - ⟦LL309 planted_kinds:number is not callable; name a function⟧planted_kinds:number
    connections: [{to: b, transform: ⟦LL309 is not callable⟧planted_kinds:handle}]
  b: {}
""",
        "planted_kinds.py": TOOLS,
    },
}


@pytest.mark.parametrize("name", CASES)
def test_every_tool_has_its_place(name: str, tmp_path: Path) -> None:
    expected = plant(tmp_path, CASES[name])
    compare(check(tmp_path / "m.yml"), expected, tmp_path)
