"""Connections between nodes: channels, fans, conditions, hop limits, teams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from llmling.errors import EngineError, Full, RunError
from llmling.manifest.agents import InboxConfig
from llmling.messages import Message, RunResult, Usage
from llmling.runtime.context import RunContext
from llmling.runtime.team import Member, Team


class Echo(Member):
    """Answers `name(text)`; waits for `gate` and fails with `error` when given."""

    def __init__(
        self,
        name: str,
        *,
        gate: asyncio.Event | None = None,
        error: Exception | None = None,
        concurrency: int = 4,
        inbox: InboxConfig | None = None,
    ) -> None:
        super().__init__(name, concurrency=concurrency, inbox=inbox or InboxConfig())
        self.gate = gate
        self.error = error
        self.seen: list[str] = []
        self.active = 0
        self.peak = 0

    async def answer(self, message: Message, context: RunContext) -> RunResult:
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            if self.gate is not None:
                await self.gate.wait()
            self.seen.append(message.text)
            if self.error is not None:
                raise self.error
            answer = Message.assistant(f"{self.name}({message.text})", name=self.name)
            return RunResult(answer.text, answer, (message, answer), Usage(1, 1, 1), "none", self.name, "run")
        finally:
            self.active -= 1


async def test_a_chain_reads_left_to_right() -> None:
    a, b, c = Echo("a"), Echo("b"), Echo("c")
    a >> b >> c
    result = await a.run("hi", wait_for_connections=True)
    assert result.content == "a(hi)"
    assert b.seen == ["a(hi)"]
    assert c.seen == ["b(a(hi))"]


async def test_run_returns_before_its_targets_unless_asked_to_wait() -> None:
    gate = asyncio.Event()
    a, b = Echo("a"), Echo("b", gate=gate)
    a >> b
    await a.run("hi", wait_for_connections=False)
    assert b.seen == []
    gate.set()
    await b.complete_tasks()
    assert b.seen == ["a(hi)"]


async def test_an_edge_that_waits_holds_run_back() -> None:
    a, b, c = Echo("a"), Echo("b"), Echo("c", gate=asyncio.Event())
    a.connect_to(b, wait=True)
    a.connect_to(c)
    await a.run("hi")
    assert b.seen == ["a(hi)"]
    assert c.seen == []
    await c.close_channels()
    await a.close_channels()


async def test_fan_out_and_fan_in() -> None:
    a, b, c, d = Echo("a"), Echo("b"), Echo("c"), Echo("d")
    a >> [b, c] >> d
    await a.run("x", wait_for_connections=True)
    assert sorted(d.seen) == ["b(a(x))", "c(a(x))"]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_callable_takes_answers_and_may_pass_them_on(kind: str) -> None:
    got: list[str] = []

    def shout(message: Message) -> str:
        return message.text.upper()

    async def shout_later(message: Message) -> str:
        await asyncio.sleep(0)
        return message.text.upper()

    a, b = Echo("a"), Echo("b")
    function: Callable[[Message], object] = shout if kind == "sync" else shout_later

    def hear(message: Message) -> None:
        got.append(message.text)

    a >> function >> b >> hear
    await a.run("x", wait_for_connections=True)
    assert b.seen == ["A(X)"]
    assert got == ["b(A(X))"]


async def test_when_and_transform_shape_the_message() -> None:
    a, b, c, d = Echo("a"), Echo("b"), Echo("c"), Echo("d")
    a.connect_to(b, when="'urgent' in message.text")
    a.connect_to(c, transform=lambda message: f"short: {message.text[:6]}")
    a.connect_to(d, transform=lambda _: None)
    await a.run("calm", wait_for_connections=True)
    await a.run("urgent", wait_for_connections=True)
    assert b.seen == ["a(urgent)"]
    assert c.seen == ["short: a(calm", "short: a(urge"]
    assert d.seen == []


async def test_a_failing_target_never_fails_its_source() -> None:
    a, bad, good = Echo("a"), Echo("bad", error=RuntimeError("boom")), Echo("good")
    a >> [bad, good]
    result = await a.run("x", wait_for_connections=True)
    assert result.content == "a(x)"
    assert good.seen == ["a(x)"]
    assert [failure.reason for failure in bad.failures] == ["RuntimeError: boom"]


async def test_a_failing_transform_is_recorded_at_the_target() -> None:
    def broken(message: Message) -> str:
        raise KeyError("nope")

    a, b = Echo("a"), Echo("b")
    a.connect_to(b, transform=broken)
    await a.run("x", wait_for_connections=True)
    assert b.seen == []
    assert "channel a >> b" in b.failures[0].reason
    assert "KeyError" in b.failures[0].reason


async def test_a_cycle_ends_with_a_record() -> None:
    a, b = Echo("a"), Echo("b")
    a >> b
    b >> a
    a.max_hops = b.max_hops = 4
    await a.run("x", wait_for_connections=True)
    assert len(a.seen) + len(b.seen) == 5
    reasons = [failure.reason for node in (a, b) for failure in node.failures]
    assert len(reasons) == 1
    assert "raise limits.max_hops" in reasons[0]


async def test_a_full_cycle_does_not_deadlock() -> None:
    one = InboxConfig(size=1)
    a, b = Echo("a", concurrency=1, inbox=one), Echo("b", concurrency=1, inbox=one)
    a >> [b, b]
    b >> [a, a]
    for connection in (*a.connections, *b.connections):
        connection.channel._size = 1  # pyright: ignore[reportPrivateUsage]
    a.max_hops = b.max_hops = 8
    async with asyncio.timeout(20):
        await asyncio.gather(*(a.run(str(number), wait_for_connections=True) for number in range(5)))
    assert any("part of a cycle" in failure.reason for failure in (*a.failures, *b.failures))


async def test_fan_out_stops_at_the_message_limit() -> None:
    a, b, targets = Echo("a"), Echo("b"), [Echo(f"t{n}") for n in range(10)]
    a >> [b, b, b] >> targets
    for node in (a, b, *targets):
        node.max_messages = 20
    await a.run("x", wait_for_connections=True)
    # Each message is counted in the channel and in the inbox of its target.
    assert sum(len(target.seen) for target in targets) < 30
    assert any("max_messages_per_event" in f.reason for target in targets for f in target.failures)


async def test_a_full_inbox_refuses_or_drops_the_oldest() -> None:
    gate = asyncio.Event()
    refusing = Echo("r", gate=gate, concurrency=1, inbox=InboxConfig(size=1, overflow="reject"))
    dropping = Echo("d", gate=gate, concurrency=1, inbox=InboxConfig(size=1, overflow="drop_oldest"))
    for node in (refusing, dropping):
        await node.submit("first")
        await asyncio.sleep(0)
        await node.submit("second")
    with pytest.raises(Full, match="overflow: reject"):
        await refusing.submit("third")
    await dropping.submit("third")
    gate.set()
    await refusing.complete_tasks()
    await dropping.complete_tasks()
    assert refusing.seen == ["first", "second"]
    assert dropping.seen == ["first", "third"]
    assert "drop_oldest" in dropping.failures[0].reason


async def test_a_slow_consumer_holds_its_source_back() -> None:
    gate = asyncio.Event()
    a, b = Echo("a"), Echo("b", gate=gate, concurrency=1, inbox=InboxConfig(size=1))
    connection = a.connect_to(b)
    connection.channel._size = 1  # pyright: ignore[reportPrivateUsage]
    runs = [asyncio.ensure_future(a.run(str(number))) for number in range(8)]
    await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
    for _ in range(20):
        await asyncio.sleep(0)
    assert sum(run.done() for run in runs) < 8
    gate.set()
    await asyncio.gather(*runs)
    await b.complete_tasks()
    assert len(b.seen) == 8


async def test_closing_lets_go_of_a_source_that_waits_for_room() -> None:
    a, b = Echo("a"), Echo("b", gate=asyncio.Event(), concurrency=1, inbox=InboxConfig(size=1))
    connection = a.connect_to(b)
    connection.channel._size = 1  # pyright: ignore[reportPrivateUsage]
    runs = [asyncio.ensure_future(a.run(str(number))) for number in range(8)]
    await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
    await a.close_channels()
    await b.close_channels()
    async with asyncio.timeout(20):
        assert [result.content for result in await asyncio.gather(*runs)] == [f"a({number})" for number in range(8)]
    assert "channel a >> b was closed" in {failure.reason for failure in b.failures}
    assert not b.busy


async def test_concurrency_bounds_what_is_submitted() -> None:
    gate = asyncio.Event()
    node = Echo("n", gate=gate, concurrency=3)
    for number in range(9):
        await node.submit(str(number))
    for _ in range(5):
        await asyncio.sleep(0)
    assert node.active == 3
    gate.set()
    await node.complete_tasks()
    assert node.peak == 3
    assert len(node.seen) == 9


async def test_no_task_is_left_when_the_work_is_done() -> None:
    before = asyncio.all_tasks()
    a, b = Echo("a"), Echo("b")
    a >> b
    await a.run("x", wait_for_connections=True)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_empty_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        await Echo("a").run("  ")


async def test_a_parallel_team_answers_with_every_member() -> None:
    team = Echo("a") & Echo("b") & Echo("c")
    assert len(team.members) == 3
    result = await team.run("x")
    assert result.content == "## a\n\na(x)\n\n## b\n\nb(x)\n\n## c\n\nc(x)"
    assert result.usage == Usage(3, 3, 3)


async def test_a_sequential_team_hands_the_answer_on() -> None:
    result = await (Echo("a") | Echo("b") | Echo("c")).run("x")
    assert result.content == "c(b(a(x)))"


async def test_a_parallel_team_lives_with_failing_members_until_all_fail() -> None:
    bad = Echo("bad", error=RunError("no"))
    result = await Team([bad, Echo("a")]).run("x")
    assert result.content == "## bad\n\n(failed: no)\n\n## a\n\na(x)"
    with pytest.raises(RunError, match="no"):
        await Team([bad, bad]).run("x")


async def test_callables_in_a_parallel_team_may_drop_and_fail() -> None:
    heard: list[str] = []

    def drop(message: Message) -> None:
        heard.append(message.text)

    def fail(message: Message) -> str:
        raise KeyError("nope")

    result = await Team([Echo("a"), drop, fail]).run("x")
    assert result.content == "## a\n\na(x)\n\n## fail\n\n(failed: KeyError: 'nope')"
    a, b = Echo("a"), Echo("b")
    a >> Team([drop, drop], name="drops") >> b
    await a.run("y", wait_for_connections=True)
    assert (heard, b.seen) == (["x", "a(y)", "a(y)"], [])


async def test_a_team_streams_what_its_members_do() -> None:
    team = Team([Echo("a"), Echo("b", error=RunError("no"))], name="desk")
    async with team.run_stream("x") as stream:
        types = [(event.type, event.agent) async for event in stream]
    assert types == [("run_started", "desk"), ("run_completed", "desk")]
    assert stream.result.content == "## a\n\na(x)\n\n## b\n\n(failed: no)"


async def test_a_team_stands_where_an_agent_may() -> None:
    a, b, team = Echo("a"), Echo("b"), Team([Echo("m"), Echo("n")], name="desk")
    a >> team >> b
    await a.run("x", wait_for_connections=True)
    assert b.seen == ["## m\n\nm(a(x))\n\n## n\n\nn(a(x))"]


async def test_a_team_fails_where_the_engine_does() -> None:
    def unwritable(message: Message) -> str:
        raise EngineError("the disk is full")

    team = Team([lambda message: "fine", unwritable], mode="parallel")
    with pytest.raises(EngineError, match="the disk is full"):
        await team.run("go")
