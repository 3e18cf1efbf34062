"""Conversations over events: by key, shared, over restarts, over retries, and between processes."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from stage import Stage, eventually

from llmling import Agent, AgentPool, Message
from llmling.protocols import Store

# The hook answers instead of a model, with what it was sent.
RULES = """
import asyncio
from pathlib import Path

class Answer:
    def before_model(self, request, run):
        text = request.messages[-1].text
        if text == "fail":
            raise RuntimeError("no")
        return f"{len(request.messages)}: {text}"
"""

MANIFEST = """
server: false
agents:
  clerk:
    model: demo
    hooks: [session_rules:Answer]
    session: SESSION
    redelivery: {attempts: 2, backoff_s: 0}
    triggers: [{type: webhook, port: PORT, prompt: "{{ event.data.text }}"}]
"""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(tmp_path)
    stage.write("session_rules.py", RULES)
    return stage


def pool(stage: Stage, session: str, more: str = "") -> AgentPool[None]:
    return stage.pool(MANIFEST.replace("SESSION", session) + more)


def said(messages: tuple[Message, ...]) -> list[str]:
    return [message.text for message in messages]


async def test_events_of_one_key_are_one_conversation_also_after_a_restart(stage: Stage) -> None:
    key = '"{{ event.data.user }}"'
    async with pool(stage, key):
        for count, (user, text) in enumerate([("ada", "one"), ("bob", "uno"), ("ada", "two")], start=1):
            await stage.post({"user": user, "text": text})
            await stage.settled(count)
    async with pool(stage, key) as opened:
        await stage.post({"user": "ada", "text": "three"})
        record = (await stage.settled(4))[-1]
        assert await stage.content(opened, record) == "5: three"
        # Python code finds the same conversation, and goes on with it.
        chat = opened.get_agent("clerk").session("ada")
        assert said(await chat.load()) == ["one", "1: one", "two", "3: two", "three", "5: three"]
        assert (await chat.run("four")).content == "7: four"
        await stage.post({"user": "ada", "text": "five"})
        await stage.settled(5)
        assert said(chat.messages)[-2:] == ["five", "9: five"]
        assert said(await opened.get_agent("clerk").session("bob").load()) == ["uno", "1: uno"]


async def test_an_event_without_the_key_is_dead_and_says_why(stage: Stage) -> None:
    async with pool(stage, '"{{ event.data.user }}"') as opened:
        for body in ({"text": "x"}, {"text": "x", "user": ""}, {"text": "x", "user": None}):
            await stage.post(body)
        errors = [record.error or "" for record in await stage.settled(3)]
        assert all("agent 'clerk', session: " in error for error in errors), errors
        (record, *_) = stage.done
        assert [event.type for event in await opened.trace(record.id)] == ["run_failed"]


async def test_events_of_a_shared_session_come_one_after_the_other(stage: Stage) -> None:
    async with pool(stage, "shared") as opened:
        for number in range(8):
            await stage.post({"text": str(number)})
        await stage.settled(8)
        history = said(await opened.get_agent("clerk").session("shared").load())
        assert history == [text for n in range(8) for text in (str(n), f"{2 * n + 1}: {n}")]


async def test_a_failed_event_leaves_the_history(stage: Stage) -> None:
    async with pool(stage, "shared") as opened:
        for count, text in enumerate(("one", "fail", "two"), start=1):
            await stage.post({"text": text})
            await stage.settled(count)
        assert [record.status for record in stage.done] == ["done", "dead", "done"]
        assert said(await opened.get_agent("clerk").session("shared").load()) == ["one", "1: one", "two", "3: two"]


async def test_a_turn_that_is_written_is_not_written_again_by_the_next_try(stage: Stage) -> None:
    sink = "    sinks: [{type: file, path: out/answer.txt}]\n"
    # The folder of the sink is a file: the turn is complete, and the delivery fails all the same.
    stage.write("out", "in the way")
    async with pool(stage, "shared", sink) as opened:
        await stage.post({"text": "one"})
        record = (await stage.settled(1))[0]
        assert record.status == "dead"
        chat = opened.get_agent("clerk").session("shared")
        assert said(await chat.load()) == ["one", "1: one"]
        await stage.post({"text": "two"})
        await stage.settled(2)
        (stage.folder / "out").unlink()
        assert opened.engine is not None
        for number, dead in enumerate(tuple(stage.done)):
            assert await opened.engine.retry(dead.id) == 1
            await stage.settled(3 + number)
        # Each saw what it had seen at first.
        assert [await stage.content(opened, record) for record in stage.done[2:]] == ["1: one", "3: two"]
        assert said(await chat.load()) == ["one", "1: one", "two", "3: two"]


async def test_without_the_key_no_store_is_touched(stage: Stage) -> None:
    async with pool(stage, "event") as opened:
        for _ in range(2):
            await stage.post({"text": "x"})
        contents = [await stage.content(opened, record) for record in await stage.settled(2)]
        assert contents == ["1: x", "1: x"]
        assert opened.engine is not None
        assert await opened.engine.store.items("leases") == {}
        assert await opened.get_agent("clerk").session("shared").load() == ()


CHILD = """
import asyncio, sys
from llmling import Agent
from llmling.testing import ScriptedModel

async def answer(request):
    text = request.messages[-1].text
    if text == "hang":
        print("hanging", flush=True)
        await asyncio.Event().wait()
    return f"{len(request.messages)}: {text}"

async def main():
    async with Agent("a", model=ScriptedModel([answer] * 10), store=sys.argv[1]) as agent:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(4):
            await agent.run(f"child {number}", session="s")
        sys.stdin.readline()
        await agent.run("hang", session="s")

asyncio.run(main())
"""


async def test_two_processes_share_a_session_and_one_is_killed_in_its_turn(tmp_path: Path) -> None:
    file = tmp_path / "chats.db"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(file), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        async with asyncio.timeout(60), Agent("a", model="demo", store=file) as agent:
            assert await child.stdout.readline() == b"ready\n"
            child.stdin.write(b"go\n")
            for number in range(4):
                await agent.run(f"parent {number}", session="s")
            # Not before: the parent would wait for its own turn as long as the child hangs.
            child.stdin.write(b"hang\n")
            assert await child.stdout.readline() == b"hanging\n"
            waiting = asyncio.create_task(agent.run("last", session="s"))
            await eventually(lambda: _has_next(agent.keep), "the parent to stand in line")
            child.send_signal(signal.SIGKILL)
            await waiting
            history = await agent.session("s").load()
            assert await agent.keep.items("leases") == {}
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
    assert [message.role for message in history] == ["user", "assistant"] * 9
    asked = said(history[::2])
    assert sorted(asked[:8]) == sorted(f"{who} {n}" for who in ("child", "parent") for n in range(4))
    assert asked[8] == "last"
    # Every turn of the child has seen all that came before it.
    for place, text in enumerate(asked):
        if text.startswith("child"):
            assert history[2 * place + 1].text == f"{2 * place + 1}: {text}"


async def _has_next(store: Store) -> bool:
    return any(value["next"] for value in (await store.items("leases")).values())
