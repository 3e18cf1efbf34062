"""Teams that map: every item of a list is a message of its own, in order, bounded, and paid once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel
from team_world import KeptJournal, echo, paid, surroundings

from llmling import Agent, Message, Team
from llmling.errors import LimitExceeded, ModelError, TeamError
from llmling.messages import Usage
from llmling.protocols import ModelRequest
from llmling.testing import ScriptedModel


def each(*members: Any, **options: Any) -> Team:
    """Return a team that maps."""
    return Team(members or [echo("m")], mode="map", name="each", **options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["a", "b"]', ["a", "b"]),
        ('```json\n["a", "b"]\n```', ["a", "b"]),
        ('{"topics": ["a", "b"]}', ["a", "b"]),
        ('[{"n": 1}, 2]', ['{"n": 1}', "2"]),
        ("a\n\n  b  \n", ["a", "b"]),
        ("- a\n* b\n1. c\n2) d", ["a", "b", "c", "d"]),
        ("one line", ["one line"]),
        ('{"a": 1, "b": [2]}', ['{"a": 1, "b": [2]}']),
    ],
)
async def test_without_over_it_is_the_list_in_the_text_or_its_lines(text: str, expected: list[str]) -> None:
    seen: list[str] = []

    def answer(request: ModelRequest) -> str:
        seen.append(request.messages[-1].text)
        return "x"

    await each(Agent("m", model=ScriptedModel(answer)), max_concurrency=1).run(text)
    assert seen == expected


async def test_over_reads_the_event_the_message_and_its_json() -> None:
    context = surroundings(KeptJournal(), {"items": ["a", "b"]})
    result = await each(over="event.data.items").answer(Message.user("x"), context)
    assert result.content == "## 1. a\n\nm(a)\n\n## 2. b\n\nm(b)"
    assert result.usage == Usage(20, 0, 2)
    assert result.cost_usd == 0.02
    context = surroundings(KeptJournal(), {"people": {"Ada": 1}})
    result = await each(over="event.data.people.keys()").answer(Message.user("x"), context)
    assert result.content == "## 1. Ada\n\nm(Ada)"
    result = await each(over="data.people").run('{"people": ["Ada"], "places": ["Oslo"]}')
    assert result.content == "## 1. Ada\n\nm(Ada)"


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        ("event.data.nothing", "has no list to map over: `over: event.data.nothing` gives nothing"),
        ("message.text", "gives a text"),
        ("event.data", "gives a mapping"),
    ],
)
async def test_without_a_list_it_fails_with_the_reason(over: str, reason: str) -> None:
    with pytest.raises(TeamError, match="team 'each'") as caught:
        await each(over=over).answer(Message.user("x"), surroundings(KeptJournal(), {"some": 1}))
    assert reason in str(caught.value)
    assert not caught.value.retryable


async def test_nothing_to_do_is_no_failure_and_goes_no_further() -> None:
    team, heard = each(over="data.people"), echo("next")
    team >> heard
    result = await team.run('{"people": []}', wait_for_connections=True)
    assert (result.content, result.response, result.usage) == ([], "", Usage())
    assert isinstance(heard.parts.model, ScriptedModel)
    assert heard.parts.model.requests == []


async def test_the_items_are_bounded_by_the_messages_an_event_may_cause() -> None:
    team = each()
    team.max_messages = 3
    with pytest.raises(LimitExceeded, match=r"4 items, allowed are 3: raise limits.max_messages_per_event"):
        await team.run("1\n2\n3\n4")


async def test_lists_of_lists_are_bounded_together() -> None:
    inner = Team([echo("m")], mode="map", name="inner")
    outer = Team([inner], mode="map", name="outer", max_concurrency=1)
    inner.max_messages = outer.max_messages = 6
    result = await outer.run('[["a", "b"], ["c", "d"], ["e"]]')
    assert result.usage.requests == 3
    assert "(failed: team 'inner' would map over 2 items, with 5 of other teams, allowed are 6: raise" in result.content
    # The next message counts anew.
    assert (await outer.run('[["a", "b"]]')).usage.requests == 2


async def test_at_most_so_many_items_are_at_work_and_answers_come_in_order() -> None:
    active = peak = 0
    gates = [asyncio.Event() for _ in range(6)]
    full = asyncio.Event()

    async def answer(request: ModelRequest) -> str:
        nonlocal active, peak
        active += 1
        peak = max(peak, active)
        if active == 2:
            full.set()
        await gates[int(request.messages[-1].text)].wait()
        active -= 1
        return "done " + request.messages[-1].text

    team = each(Agent("m", model=ScriptedModel(answer)), max_concurrency=2)
    task = asyncio.create_task(team.run("[0, 1, 2, 3, 4, 5]"))
    await asyncio.wait_for(full.wait(), 30)
    for gate in reversed(gates):
        gate.set()
    result = await asyncio.wait_for(task, 30)
    assert peak == 2
    assert result.content.split("\n\n")[1::2] == [f"done {n}" for n in range(6)]


async def test_several_members_are_a_chain_for_each_item() -> None:
    result = await each(echo("a"), echo("b")).run("x\ny")
    assert result.content == "## 1. x\n\nb(a(x))\n\n## 2. y\n\nb(a(y))"
    assert result.usage.requests == 4


class Person(BaseModel):
    name: str


async def test_structured_answers_are_a_list_that_names_what_failed() -> None:
    def answer(request: ModelRequest) -> object:
        name = request.messages[-1].text
        return ModelError("refused", status=400) if name == "Bob" else json.dumps({"name": name})

    team = each(Agent("m", model=ScriptedModel(answer), output=Person))
    result = await team.run("Ada\nBob\nCy")
    failed = {"item": "Bob", "failed": "refused"}
    assert result.content == [Person(name="Ada"), failed, Person(name="Cy")]
    assert json.loads(result.response) == [{"name": "Ada"}, failed, {"name": "Cy"}]


async def test_a_failing_item_leaves_the_others_alone_until_all_fail() -> None:
    def answer(request: ModelRequest) -> object:
        bad = request.messages[-1].text != "good"
        return ModelError("refused", status=400) if bad else "fine"

    team = each(Agent("m", model=ScriptedModel(answer)))
    result = await team.run('["bad", "good", " "]')
    assert (
        result.content
        == "## 1. bad\n\n(failed: refused)\n\n## 2. good\n\nfine\n\n## 3. \n\n(failed: the item is empty)"
    )
    with pytest.raises(ModelError, match="refused"):
        await team.run("bad\nworse")


async def test_what_failed_items_cost_is_counted() -> None:
    wrong = Agent(
        "m",
        model=ScriptedModel(lambda r: paid("no json" if r.messages[1].text == "bad" else '{"name": "x"}')),
        output=Person,
        retries={"attempts": 1},
    )
    result = await each(wrong).run("bad\ngood")
    assert result.usage.requests == 2
    assert result.cost_usd == 0.02


async def test_a_resumed_delivery_asks_only_for_what_is_missing() -> None:
    journal = KeptJournal()
    stop = asyncio.Event()

    async def dies_at_c(request: ModelRequest) -> object:
        if request.messages[-1].text == "c":
            stop.set()
            await asyncio.Event().wait()
        return paid("first " + request.messages[-1].text)

    team = each(Agent("m", model=ScriptedModel(dies_at_c)), max_concurrency=1)
    task = asyncio.create_task(team.answer(Message.user("a\nb\nc"), surroundings(journal)))
    await asyncio.wait_for(stop.wait(), 30)
    task.cancel()
    await asyncio.wait({task})
    model = ScriptedModel(lambda request: paid("second " + request.messages[-1].text))
    context = surroundings(journal)
    result = await each(Agent("m", model=model)).answer(Message.user("a\nb\nc"), context)
    assert [request.messages[-1].text for request in model.requests] == ["c"]
    assert result.content.split("\n\n")[1::2] == ["first a", "first b", "second c"]
    assert (context.meter.usage.requests, result.usage.requests) == (1, 3)


async def test_the_stream_has_every_item_under_its_members_name() -> None:
    async with each(echo("a"), echo("b")).run_stream("x\ny") as stream:
        heard = [event.agent async for event in stream if event.type == "run_completed"]
    assert sorted(heard) == ["a", "a", "b", "b", "each"]
    assert heard[-1] == "each"


async def test_leaving_the_stream_ends_every_item() -> None:
    cancelled: list[str] = []
    begun = asyncio.Semaphore(0)

    async def hang(request: ModelRequest) -> str:
        try:
            begun.release()
            await asyncio.Event().wait()
        finally:
            cancelled.append(request.messages[-1].text)
        raise AssertionError

    before = asyncio.all_tasks()
    team = each(Agent("m", model=ScriptedModel(hang)), max_concurrency=2)
    async with team.run_stream("x\ny\nz"):
        async with asyncio.timeout(30):
            await begun.acquire()
            await begun.acquire()
    assert sorted(cancelled) == ["x", "y"]
    assert asyncio.all_tasks() == before
