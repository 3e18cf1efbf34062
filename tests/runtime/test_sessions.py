"""Sessions in Python: histories that are kept, turns that queue up, ids that stay where they belong."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmling import Agent, AgentPool, Event, tool
from llmling.errors import ManifestError, ModelError, RunError, StartupError
from llmling.messages import Message, ToolCallPart, ToolCallResponsePart
from llmling.protocols import ModelRequest
from llmling.runtime.history import LONGEST_NAME, named
from llmling.runtime.stores import MemoryStore
from llmling.testing import ScriptedModel


def echo(request: ModelRequest) -> str:
    """Answer with how many messages were sent, and the last of them."""
    return f"{len(request.messages)}: {request.messages[-1].text}"


def model(answer: Callable[[ModelRequest], Any] = echo) -> ScriptedModel:
    return ScriptedModel([answer] * 200)


def roles(messages: tuple[Message, ...]) -> str:
    return "".join(message.role[0] for message in messages)


# --- histories -------------------------------------------------------------------------------------------------------


async def test_three_turns_have_one_system_message_and_alternate() -> None:
    scripted = model()
    agent = Agent("a", model=scripted, instructions="Be kind.")
    for prompt in ("one", "two", "three"):
        await agent.run(prompt, session="user-7")
    assert [roles(request.messages) for request in scripted.requests] == ["su", "suau", "suauau"]
    assert roles(agent.session("user-7").messages) == "uauaua"


async def test_without_a_session_nothing_is_remembered_and_nothing_is_stored() -> None:
    store = MemoryStore()
    agent = Agent("a", model=model(), store=store)
    assert (await agent.run("one")).content == "1: one"
    assert (await agent.run("two")).content == "1: two"
    assert vars(store)["_spaces"] == {}


async def test_a_session_of_any_run_is_the_session_of_that_id() -> None:
    agent = Agent("a", model=model())
    chat = agent.session("s")
    await chat.run("one")
    async with agent.run_stream("two", session="s") as stream:
        events = [event async for event in stream]
    assert (events[0].type, events[0].data["session"]) == ("run_started", "s")
    assert events[-1].message == "3: two"
    assert (await chat.run("three")).content == "5: three"
    assert (await agent.run("other", session="t")).content == "1: other"
    assert roles(agent.session("s").messages) == "uauaua"


async def test_a_turn_with_tools_is_kept_whole() -> None:
    @tool
    def look() -> str:
        """Look."""
        return "seen"

    call = Message("assistant", (ToolCallPart("c1", "look", {}),))
    agent = Agent("a", model=ScriptedModel([call, "I saw it.", "Yes."]), tools=[look])
    chat = agent.session("s")
    await chat.run("Look!")
    await chat.run("Really?")
    assert roles(chat.messages) == "uataua"


async def test_a_failed_turn_leaves_the_history_alternating(tmp_path: Path) -> None:
    def answer(request: ModelRequest) -> str:
        if request.messages[-1].text == "bad":
            raise ModelError("no", status=400)
        return echo(request)

    async with Agent("a", model=model(answer), store=tmp_path / "chats.db") as agent:
        chat = agent.session("s")
        await chat.run("one")
        with pytest.raises(ModelError):
            await chat.run("bad")
        assert (await chat.run("two")).content == "3: two"
        assert [turn.text for turn in await chat.load()] == ["one", "1: one", "two", "3: two"]


async def test_a_cancelled_turn_is_not_in_the_history() -> None:
    asked = asyncio.Event()

    async def answer(request: ModelRequest) -> str:
        if request.messages[-1].text == "slow":
            asked.set()
            await asyncio.Event().wait()
        return echo(request)

    agent = Agent("a", model=model(answer))
    task = asyncio.create_task(agent.run("slow", session="s"))
    await asked.wait()
    waiting = asyncio.create_task(agent.run("next", session="s"))
    task.cancel()
    assert (await waiting).content == "1: next"
    assert task.cancelled()


async def test_leaving_a_streamed_turn_leaves_the_history() -> None:
    async def answer(request: ModelRequest) -> str:
        if request.messages[-1].text == "one":
            await asyncio.Event().wait()
        return echo(request)

    agent = Agent("a", model=model(answer))
    chat = agent.session("s")
    async with chat.run_stream("one") as stream:
        async for event in stream:
            if event.type == "model_request":
                break
    assert chat.messages == ()
    async with chat.run_stream("two") as stream:
        assert [event.type async for event in stream][-1] == "run_completed"
    assert [turn.text for turn in chat.messages] == ["two", "1: two"]


# --- turns -----------------------------------------------------------------------------------------------------------


async def test_turns_at_once_all_stay_in_their_order() -> None:
    running = 0

    async def answer(request: ModelRequest) -> str:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        running -= 1
        return echo(request)

    agent = Agent("a", model=model(answer))
    await asyncio.gather(*(agent.run(str(number), session="s") for number in range(10)))
    asked = [turn.text for turn in agent.session("s").messages if turn.role == "user"]
    assert asked == [str(number) for number in range(10)]
    assert roles(agent.session("s").messages) == "ua" * 10


async def test_other_sessions_and_other_agents_do_not_wait() -> None:
    inside = 0
    together = asyncio.Event()

    async def answer(request: ModelRequest) -> str:
        nonlocal inside
        inside += 1
        if inside == 4:
            together.set()
        await asyncio.wait_for(together.wait(), 30)
        return echo(request)

    agents = [Agent(name, model=model(answer)) for name in "ab"]
    await asyncio.gather(*(agent.run("x", session=id_) for agent in agents for id_ in "st"))
    assert roles(agents[0].session("s").messages) == "ua"


async def test_two_agents_on_one_file_lose_no_turn(tmp_path: Path) -> None:
    async with (
        Agent("a", model=model(), store=str(tmp_path / "chats.db")) as one,
        Agent("a", model=model(), store=str(tmp_path / "chats.db")) as other,
        Agent("b", model=model(), store=str(tmp_path / "chats.db")) as stranger,
    ):
        await asyncio.gather(*(agent.run(f"{n}", session="s") for n in range(3) for agent in (one, other)))
        assert roles(await one.session("s").load()) == "ua" * 6
        assert await stranger.session("s").load() == ()


async def test_a_turn_inside_a_turn_of_the_same_session_is_refused() -> None:
    agents: list[Agent] = []

    @tool
    async def ask_again() -> str:
        """Ask."""
        inner = await agents[0].run("inner", session="other")
        with pytest.raises(RunError, match=r"session 's' of agent 'a' is in the middle of the turn"):
            await agents[0].run("inner", session="s")
        return inner.content

    call = Message("assistant", (ToolCallPart("c1", "ask_again", {}),))
    agent = Agent("a", model=ScriptedModel([call, "inner answer", "outer answer"]), tools=[ask_again])
    agents.append(agent)
    assert (await agent.run("outer", session="s")).content == "outer answer"


def test_a_session_goes_on_in_another_loop() -> None:
    agent = Agent("a", model=model())
    chat = agent.session("s")
    asyncio.run(chat.run("one"))
    assert asyncio.run(chat.run("two")).content == "3: two"
    assert roles(chat.messages) == "uaua"


# --- the key ---------------------------------------------------------------------------------------------------------


async def test_an_agent_with_a_shared_session_has_one_conversation() -> None:
    agent = Agent("a", model=model(), session="shared")
    await agent.run("one")
    assert (await agent.run("two")).content == "3: two"
    assert (await agent.run("aside", session="aside")).content == "1: aside"
    assert roles(agent.session("shared").messages) == "uaua"


async def test_the_key_is_rendered_for_each_event() -> None:
    agent = Agent("a", model=model(), session="{{ event.data.user }}")

    def event(user: object) -> Event:
        return Event("test", "test", data={"user": user})

    await agent.run("one", event=event("ada"))
    await agent.run("one", event=event("bob"))
    assert (await agent.run("two", event=event("ada"))).content == "3: two"
    assert roles(agent.session("ada").messages) == "uaua"
    for data, why in [({}, "no attribute 'user'"), ({"user": None}, "null"), ({"user": " "}, "is empty")]:
        with pytest.raises(RunError, match=rf"agent 'a', session: .*{why}"):
            await agent.run("x", event=Event("test", "test", data=data))


def test_another_word_is_no_key() -> None:
    with pytest.raises(ManifestError, match="should be event, shared, or a template"):
        Agent("a", model="demo", session="everybody")


# --- ids -------------------------------------------------------------------------------------------------------------

ODD = ["../../evil", "a/b", "b", "/etc/passwd", "x" * 100_000, "é\udce9", "'; drop table store; --", "%2F", "\x00", "."]


async def test_ids_cannot_leave_their_store(tmp_path: Path) -> None:
    file = tmp_path / "inside" / "chats.db"
    async with Agent("a/b", model=model(), store=file) as agent, Agent("a", model=model(), store=file) as other:
        for id_ in ODD:
            await agent.run(id_[:10], session=id_)
        for id_ in ODD:
            assert [turn.text for turn in await agent.session(id_).load()] == [id_[:10], f"1: {id_[:10]}"]
        # An agent `a` with a session `b/b` is not an agent `a/b` with a session `b`.
        assert await other.session("b/b").load() == ()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["chats.db"]
    spaces = [row[0] for row in sqlite3.connect(file).execute("select space from store")]
    assert len(spaces) == len(ODD)
    assert max(map(len, spaces)) < 2 * LONGEST_NAME + 20


@given(st.text(), st.text())
def test_different_ids_have_different_names(one: str, other: str) -> None:
    assert (named(one) == named(other)) == (one == other)
    long = "/" * 300
    assert named(one) != named(long)
    assert named(named(long)) != named(long)


async def test_an_empty_id_is_refused() -> None:
    with pytest.raises(ValueError, match="id of a session is empty"):
        Agent("a", model=model()).session(" ")


# --- forks and the end of it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
async def test_a_fork_goes_its_own_way(kept: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"store": tmp_path / "chats.db"} if kept else {}
    async with Agent("a", model=model(), **options) as agent:
        chat = agent.session("s")
        fresh = chat.fork("fresh")
        await chat.run("one")
        fork, second = chat.fork("fork"), chat.fork()
        await chat.run("two")
        assert (await fork.run("other")).content == "3: other"
        assert (await second.run("third")).content == "3: third"
        assert [turn.text for turn in fork.messages] == ["one", "1: one", "other", "3: other"]
        assert (await fresh.run("x")).content == ("1: x" if not kept else "5: x")
        # The fork is a session like others now.
        assert await agent.session("fork").load() == fork.messages
        assert (await fork.fork("of fork").run("more")).content == "5: more"
        with pytest.raises(RunError, match="has a history already"):
            await chat.fork("fork").run("again")


async def test_a_fork_of_what_was_not_read_yet_starts_from_what_is_kept(tmp_path: Path) -> None:
    async with Agent("a", model=model(), store=tmp_path / "chats.db") as agent:
        await agent.session("s").run("one")
    async with Agent("a", model=model(), store=tmp_path / "chats.db") as agent:
        assert (await agent.session("s").fork("f").run("two")).content == "3: two"


async def test_a_session_can_be_forgotten(tmp_path: Path) -> None:
    async with Agent("a", model=model(), store=tmp_path / "chats.db") as agent:
        chat = agent.session("s")
        await chat.run("one")
        await agent.session("t").run("one")
        await chat.clear()
        assert chat.messages == await chat.load() == ()
        assert (await chat.run("anew")).content == "1: anew"
        assert roles(await agent.session("t").load()) == "ua"


# --- where it is kept ------------------------------------------------------------------------------------------------


async def test_a_session_goes_on_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "chats.db"
    async with Agent("a", model=model(), store=str(file)) as agent:
        await agent.run("stateless")
        assert not file.exists()
        await agent.session("s").run("one")
    async with Agent("a", model=model(), store={"type": "sqlite", "path": str(file)}) as agent:
        async with agent.session("s") as chat:
            assert [turn.text for turn in chat.messages] == ["one", "1: one"]
        assert (await agent.run("two", session="s")).content == "3: two"


async def test_a_store_needs_async_with(tmp_path: Path) -> None:
    agent = Agent("a", model=model(), store=tmp_path / "chats.db")
    await agent.run("stateless")
    with pytest.raises(StartupError, match="use `async with`"):
        await agent.run("x", session="s")


async def test_an_agent_of_a_file_keeps_sessions_beside_it(tmp_path: Path) -> None:
    (tmp_path / "clerk.yml").write_text("model: demo\n")
    for count in (2, 4):
        async with Agent(tmp_path / "clerk.yml") as agent:
            await agent.run("stateless")
            await agent.session("s").run("hello")
            assert len(agent.session("s").messages or await agent.session("s").load()) == count
    assert (tmp_path / ".llmling" / "pool.db").exists()


async def test_a_pool_without_triggers_opens_its_engine_only_for_sessions(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text("agents: {a: {model: demo}, b: {model: demo}}\n")
    for count in (2, 4):
        async with AgentPool(tmp_path / "agents.yml") as pool:
            await pool.get_agent("a").run("stateless")
            assert (tmp_path / ".llmling").exists() == (count == 4)
            chat = pool.get_agent("a").session("s")
            await chat.run("hello")
            assert len(chat.messages) == count
            assert await pool.get_agent("b").session("s").load() == ()


async def test_two_that_ask_each_other_in_the_middle_of_their_turns_do_not_wait_for_ever() -> None:
    both = asyncio.Barrier(2)
    call = Message("assistant", (ToolCallPart("c", "ask", {}),))
    agents: dict[str, Agent[Any]] = {}

    def asking(other: str) -> Agent[Any]:
        async def ask() -> str:
            """Ask the other one."""
            await both.wait()
            return (await agents[other].run("help", session="s")).response

        return Agent(f"asks {other}", model=ScriptedModel([call, "without help"]), tools=[ask])

    agents |= {"a": asking("b"), "b": asking("a")}
    runs = await asyncio.gather(*(agent.run("start", session="s") for agent in agents.values()))
    assert [run.response for run in runs] == ["without help"] * 2
    failed = [part for run in runs for part in run.messages[-2].parts if isinstance(part, ToolCallResponsePart)]
    assert all("two such agents may be waiting for each other" in part.response for part in failed)
