"""Names of tools: no two the same, whoever offers them; and how long their answers may be."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmling import Agent, AgentPool, Message
from llmling.errors import LLMlingError, StartupError, ToolError
from llmling.messages import ToolCallPart, ToolCallResponsePart
from llmling.protocols import ToolSpec
from llmling.testing import ScriptedModel

SERVER = """
import sys
from mcp.server import MCPServer

server = MCPServer("named", log_level="WARNING")
for name in sys.argv[2:]:
    server.add_tool(lambda name=name: f"{name} of {sys.argv[1]}", name=name)
server.run()
"""


def word_count(text: str) -> int:
    """Count words."""
    return len(text.split())


def max_by(text: str) -> str:
    return max(text)


def words(*texts: str) -> int:
    return len(texts)


def other() -> Any:
    def word_count(text: str) -> str:
        return text

    return word_count


def calling(*names: str) -> Message:
    return Message("assistant", tuple(ToolCallPart(name, name, {}) for name in names))


def answers(message: Message) -> list[str]:
    return [part.response for part in message.parts if isinstance(part, ToolCallResponsePart)]


class Answering:
    """A tool that answers with what it was given, whatever that is."""

    repeatable = True
    destructive = False
    approval = None
    timeout_s = None

    def __init__(self, name: str, answer: Any) -> None:
        self.spec = ToolSpec(name, "", {"type": "object", "properties": {}})
        self._answer = answer

    async def call(self, arguments: Mapping[str, Any]) -> str:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


CASES: list[tuple[list[Any], str]] = [
    ([word_count, word_count], r"agent 'a', tools\[1\]: tools\[0\] is a tool named 'word_count' too"),
    ([max], r"agent 'a', tools\[0\]: tool 'max' has no readable signature"),
    ([max_by, other(), word_count], r"tools\[2\]: tools\[1\] is a tool named 'word_count' too"),
    ([word_count, lambda: 1], r"tools\[1\]: '<lambda>' is no name for a tool"),
    ([words], r"tools\[0\]: tool 'words' takes \*texts"),
    ([Answering("two words", "")], r"tools\[0\]: 'two words' is no name for a tool"),
    (["word_count"], r"tools\[0\]: 'word_count' is no tool: give a function"),
]


@pytest.mark.parametrize(
    ("tools", "reason"),
    CASES,
)
def test_what_cannot_be_offered_names_agent_and_tool(tools: list[Any], reason: str) -> None:
    with pytest.raises(StartupError, match=reason) as caught:
        Agent("a", model="demo", tools=tools)
    assert caught.value.usage


async def test_a_pool_names_agent_and_tool_too(tmp_path: Path) -> None:
    module = tmp_path / "tools_that_change.py"
    module.write_text("class Words:\n    @staticmethod\n    def count(text: str) -> int:\n        return 1\n")
    tree = {"agents": {"analyzer": {"model": "demo", "tools": ["tools_that_change:Words.count"]}}}
    (tmp_path / "m.yml").write_text(str(tree))
    pool = AgentPool(tmp_path / "m.yml")
    sys.modules["tools_that_change"].Words.count = max
    with pytest.raises(LLMlingError, match=r"agent 'analyzer', tools\[0\]: tool 'max'") as caught:
        async with pool:
            pass
    assert isinstance(caught.value, StartupError)
    assert caught.value.usage


async def test_tools_of_servers_that_share_a_name_are_told_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "own_tools_of_a_test.py").write_text("def x_z(): return 'own z'\n")

    def server(*args: str) -> dict[str, Any]:
        return {"type": "stdio", "command": sys.executable, "args": ["server.py", *args]}

    tree = {
        "mcp_servers": {"x": server("x", "y_t", "z", "z_2"), "x_y": server("x_y", "t")},
        "agents": {"a": {"model": "demo:s.yml", "tools": ["own_tools_of_a_test:x_z"], "mcp_servers": ["x", "x_y"]}},
    }
    (tmp_path / "m.yml").write_text(str(tree))
    names = ["x_z", "x_y_t", "x_z_3", "x_z_2", "x_y_t_2"]
    (tmp_path / "s.yml").write_text(str([{"match": "^go", "tool_calls": [{"name": n} for n in names]}, {"reply": "."}]))
    with caplog.at_level(logging.WARNING, "llmling"):
        async with AgentPool(tmp_path / "m.yml") as pool:
            agent = pool.get_agent("a")
            assert [tool.spec.name for tool in agent.parts.tools()] == names
            for _ in range(2):
                exchange = (await agent.run("go")).messages
                assert answers(exchange[-2]) == ["own z", "y_t of x", "z of x", "z_2 of x", "t of x_y"]
    told = [record.message for record in caplog.records if "both have a tool" in record.message]
    assert told == [
        "agent 'a': the agent itself and MCP server 'x' both have a tool 'x_z'; the second is now 'x_z_3'",
        "agent 'a': MCP server 'x' and MCP server 'x_y' both have a tool 'x_y_t'; the second is now 'x_y_t_2'",
    ]


async def test_answers_of_tools_are_cut_with_a_note() -> None:
    tools = [
        Answering("fits", "x" * 200_000),
        Answering("long", "x" * 200_001),
        Answering("fails", ToolError("x" * 5_000_000)),
        Answering("none", None),
    ]
    model = ScriptedModel([calling("fits", "long", "fails", "none"), "done"])
    await Agent("a", model=model, tools=tools).run("go")
    fits, cut, failed, none = answers(model.requests[1].messages[-1])
    assert fits == "x" * 200_000
    assert cut.endswith("x\n[cut after 199,940 of 200,001 characters]")
    assert failed.endswith("x\n[cut after 199,940 of 5,000,000 characters]")
    assert max(len(cut), len(failed)) <= 200_000
    assert none == "TypeError: `call` of a tool should return text, not NoneType"
