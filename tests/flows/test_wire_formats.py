"""One pool, answered over real sockets in the wire format its `model:` and the base-URL variables choose."""

from __future__ import annotations

from pathlib import Path

import pytest
from llm_server import Call, LLMServer, Reply

from llmling import AgentPool
from llmling.errors import ModelError, StartupError

MANIFEST = """
defaults:
  retries: {attempts: 3, backoff_s: 0}
agents:
  analyst:
    model: %s
    instructions: You add numbers.
    tools: [tools:add]
    connections: [{to: editor, wait: true}]
  editor:
    model: %s
"""

WIRES = {"openai": "openai/gpt-4o-mini", "anthropic": "anthropic/claude-haiku-4-5"}


def project(folder: Path, model: str) -> Path:
    (folder / "tools.py").write_text('def add(x: int, y: int) -> int:\n    """Add two numbers."""\n    return x + y\n')
    path = folder / "agents.yml"
    path.write_text(MANIFEST % (model, model))
    return path


def point(monkeypatch: pytest.MonkeyPatch, server: LLMServer) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-loopback")


@pytest.mark.parametrize("wire", WIRES)
async def test_tools_streams_and_chains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: str) -> None:
    async with LLMServer() as server:
        point(monkeypatch, server)
        async with AgentPool(project(tmp_path, WIRES[wire])) as pool:
            analyst = pool.get_agent("analyst")
            server.replies += [
                Reply("Let me see.", calls=[Call("add", {"x": 1, "y": 2}), Call("add", {"x": 3, "y": 4})]),
                Reply("Three and seven."),
                Reply("Edited: 3, 7."),
            ]
            result = await analyst.run("1+2? 3+4?")
            assert result.content == "Three and seven."
            assert result.usage.requests == 2
            assert result.usage.input_tokens == 22
            assert result.usage.output_tokens == 14
            assert result.cost_usd is not None
            assert result.cost_usd > 0

            server.replies += [Reply(calls=[Call("add", {"x": 1, "y": 2})]), Reply("It is three."), Reply("ok")]
            async with analyst.run_stream("1+2?") as stream:
                events = [event async for event in stream]
            assert "".join(event.text for event in events if event.type == "text_delta") == "It is three."
            assert [event.data["tool"] for event in events if event.type == "tool_called"] == ["add"]
            assert stream.result.content == "It is three."
    assert {request.wire for request in server.requests} == {wire}
    editor = server.requests[2]
    assert "Three and seven." in editor.last_text
    streamed = [request.stream for request in server.requests]
    assert streamed == [False, False, False, True, True, False]
    second = str(server.requests[1].body["messages"])
    assert "3" in second
    assert "7" in second


@pytest.mark.parametrize("wire", WIRES)
async def test_faults_are_tried_again_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: str) -> None:
    async with LLMServer() as server:
        point(monkeypatch, server)
        async with AgentPool(project(tmp_path, WIRES[wire])) as pool:
            editor = pool.get_agent("editor")
            server.replies += [Reply(status=429, retry_after="0"), Reply(status=500), Reply("at last")]
            assert (await editor.run("hello")).content == "at last"
            assert len(server.requests) == 3
            server.replies += [Reply(status=401)]
            with pytest.raises(ModelError) as caught:
                await editor.run("hello")
            assert caught.value.status == 401
            assert caught.value.provider == wire
            assert caught.value.attempts == 1
            assert len(server.requests) == 4


async def test_a_missing_key_is_named_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    path = project(tmp_path, WIRES["openai"])
    with pytest.raises(StartupError) as caught:
        async with AgentPool(path):
            pass
    assert caught.value.usage
    assert "OPENAI_API_KEY" in str(caught.value)
    assert "agent 'analyst'" in str(caught.value)
    assert f"{path.name}:6:5" in str(caught.value) or f"{path.name}:6:12" in str(caught.value)


async def test_a_missing_key_of_the_model_for_all_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    with pytest.raises(StartupError, match="MISTRAL_API_KEY"):
        async with AgentPool(project(tmp_path, "demo"), model="mistral/mistral-small-latest"):
            pass
