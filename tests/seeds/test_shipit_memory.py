"""Seed 001: sessions, facts and traces that outlive their process, over OpenAI's wire format."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from llm_server import Call, LLMServer, Reply, Request

from llmling import Agent, AgentPool
from llmling.protocols import EventRecord
from llmling.runtime.stream import RunEvent

MODEL = "openai/gpt-4o-mini"


def keeper(store: Path, **options: Any) -> Agent[None]:
    return Agent("keeper", model=MODEL, instructions="Be kind.", store=store, retries={"attempts": 1}, **options)


def turns(request: Request) -> list[str]:
    return [f"{message['role']}: {message['content']}" for message in request.body["messages"]]


async def test_another_object_on_the_same_store_remembers(server: LLMServer, tmp_path: Path) -> None:
    for question in ("I am Ada.", "Who am I?"):
        async with keeper(tmp_path / "chats.db") as agent:
            await agent.run(question, session="user-7")
    assert turns(server.requests[1]) == [
        "system: Be kind.",
        "user: I am Ada.",
        "assistant: echo: I am Ada.",
        "user: Who am I?",
    ]


async def test_turns_of_two_objects_on_one_store_all_stay(server: LLMServer, tmp_path: Path) -> None:
    async with keeper(tmp_path / "chats.db") as left, keeper(tmp_path / "chats.db") as right:
        asked = [agent.run(f"q{number}", session="one") for number, agent in enumerate((left, right) * 2)]
        await asyncio.gather(*asked)
        await left.run("last", session="one")
    assert server.peak == 1
    said = turns(server.requests[-1])
    assert sorted(line for line in said if line.startswith("user: q")) == [f"user: q{number}" for number in range(4)]
    assert [line.partition(":")[0] for line in said[1:]] == ["user", "assistant"] * 4 + ["user"]


@pytest.mark.parametrize("id", ["../../evil", "/etc/evil", "a\x00b", "c:\\evil", "." * 300])
async def test_an_id_does_not_lead_out_of_the_store(server: LLMServer, tmp_path: Path, id: str) -> None:  # noqa: A002
    folder = tmp_path / "deep" / "er" / "store"
    folder.mkdir(parents=True)
    async with keeper(folder / "chats.db") as agent:
        await agent.run("I am Ada.", session=id)
        await agent.run("Who am I?", session=id)
    assert "user: I am Ada." in turns(server.requests[1])
    there = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.name.partition("-")[0] for path in there} == {"chats.db"}
    assert {path.parent for path in there} == {folder}


async def test_facts_are_found_by_their_words_and_survive(server: LLMServer, tmp_path: Path) -> None:
    async with keeper(tmp_path / "facts.db") as agent:
        await agent.memory.remember("Ada drinks tea.")
        await agent.memory.remember("The bridge opens in May.")
    async with keeper(tmp_path / "facts.db", memory={"facts": True}) as agent:
        assert await agent.memory.recall("Who drinks tea?") == ["Ada drinks tea."]
        server.replies += [
            Reply(calls=[Call("recall", {"query": "bridge"}), Call("remember", {"fact": "Bob drinks coffee."})]),
            Reply("In May."),
        ]
        assert (await agent.run("When does the bridge open?")).content == "In May."
        offered = {tool["function"]["name"] for tool in server.requests[0].body["tools"]}
        assert offered == {"recall", "remember"}
        assert "The bridge opens in May." in str(server.requests[1].body["messages"])
        assert await agent.memory.recall("coffee") == ["Bob drinks coffee."]


async def trace(server: LLMServer, folder: Path, *replies: Reply) -> list[RunEvent]:
    """Return the trace of an event whose requests are answered like this, as another pool reads it."""
    (folder / "inbox").mkdir()
    (folder / "inbox" / "note.txt").write_text("Where is the report?")
    manifest = {
        "server": False,
        "engine": {"type": "sqlite", "path": str(folder / "pool.db")},
        "agents": {
            "clerk": {
                "model": MODEL,
                "tools": [],
                "retries": {"attempts": 1},
                "redelivery": {"attempts": 1},
                "triggers": [{"type": "file", "paths": [str(folder / "inbox")], "settle_s": 0}],
            }
        },
    }
    server.replies += replies
    settled = asyncio.get_running_loop().create_future()

    def done(record: EventRecord) -> None:
        settled.set_result(record.id)

    async with AgentPool[None](manifest, on_event=done):
        event_id = await asyncio.wait_for(settled, 60)
    async with AgentPool[None](manifest) as reopened:
        return await reopened.trace(event_id)


async def test_a_trace_is_read_back_from_start_to_end(server: LLMServer, tmp_path: Path) -> None:
    events = await trace(server, tmp_path, Reply(calls=[Call("look", {"where": "desk"})]), Reply("On the desk."))
    assert [event.type for event in events] == [
        "run_started",
        "model_request",
        "tool_called",
        "tool_failed",
        "model_request",
        "run_completed",
    ]
    assert {event.agent for event in events} == {"clerk"}
    assert events[-1].message == "On the desk."


async def test_the_trace_of_a_failed_run_says_so(server: LLMServer, tmp_path: Path) -> None:
    events = await trace(server, tmp_path, Reply(status=401))
    assert events[0].type == "run_started"
    assert events[-1].type == "run_failed"
    assert "401" in events[-1].message
