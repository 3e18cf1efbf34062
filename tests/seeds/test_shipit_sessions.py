"""Seed 001 and 003: conversations, over OpenAI's wire format."""

from __future__ import annotations

import asyncio

import pytest
from llm_server import Call, LLMServer, Reply, Request

from llmling import Agent
from llmling.errors import ModelError


def assistant() -> Agent[None]:
    return Agent("assistant", model="openai/gpt-4o-mini", instructions="Be kind.", retries={"attempts": 1})


def turns(request: Request) -> list[str]:
    return [f"{message['role']}: {message['content']}" for message in request.body["messages"]]


async def test_three_turns_have_one_system_message_and_alternate(server: LLMServer) -> None:
    chat = assistant().session("user-7")
    for number in range(3):
        await chat.run(f"q{number}")
    assert turns(server.requests[2]) == [
        "system: Be kind.",
        "user: q0",
        "assistant: echo: q0",
        "user: q1",
        "assistant: echo: q1",
        "user: q2",
    ]


async def test_turns_that_come_at_once_queue_up_and_all_stay(server: LLMServer) -> None:
    agent = assistant()
    await asyncio.gather(*[agent.session("one").run(f"q{number}") for number in range(3)])
    assert server.peak == 1
    said = turns(server.requests[2])
    assert [line.partition(":")[0] for line in said] == ["system", "user", "assistant", "user", "assistant", "user"]
    for question, answer in zip(said[1::2], said[2::2], strict=False):
        assert answer == f"assistant: echo: {question.removeprefix('user: ')}"
    assert [turn.role for turn in agent.session("one").messages] == ["user", "assistant"] * 3


async def test_other_conversations_do_not_wait(server: LLMServer) -> None:
    gate = asyncio.Event()
    server.answer = lambda request: Reply("ok", gate=gate)
    agent = assistant()
    asked = asyncio.gather(*[agent.session(f"user-{number}").run("Hello") for number in range(5)])
    await server.wait_for_requests(5)
    gate.set()
    await asked
    assert server.peak == 5


@pytest.mark.parametrize("reply", [Reply(status=500), Reply("half", cut=True), Reply(calls=[Call("nothing")])])
async def test_a_failed_turn_leaves_the_history_alternating(server: LLMServer, reply: Reply) -> None:
    chat = assistant().session("user-7")
    await chat.run("q0")
    server.replies += [reply, Reply(status=400)]
    with pytest.raises(ModelError):
        await chat.run("q1")
    server.replies.clear()
    await chat.run("q2")
    assert turns(server.requests[-1]) == ["system: Be kind.", "user: q0", "assistant: echo: q0", "user: q2"]
