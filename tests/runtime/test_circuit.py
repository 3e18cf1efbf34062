"""What is down is left alone: by runs of Python at once, by deliveries with patience, and never for one bad request."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Any

import pytest

from llmling import Agent, AgentPool, Event, RunResult
from llmling.errors import ModelError
from llmling.manifest.agents import AgentConfig
from llmling.messages import Message
from llmling.models.fallback import FallbackModel
from llmling.protocols import Model, ModelRequest
from llmling.runtime.circuit import CircuitOpen
from llmling.runtime.context import RunContext
from llmling.runtime.gate import Bounds
from llmling.runtime.services import Services
from llmling.testing import FakeClock, ScriptedModel, until


def down(status: int | None = 500, retry_after_s: float | None = None) -> ModelError:
    return ModelError("no luck", status=status, retryable=True, retry_after_s=retry_after_s)


class Provider:
    """Fails with `error` while there is one, and knows when it was asked."""

    def __init__(self, clock: FakeClock, error: ModelError | None = None, name: str = "openai/mine") -> None:
        self.error = error
        self.asked: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._clock = clock
        self.model = ScriptedModel(self._answer, name=name)

    async def _answer(self, request: ModelRequest) -> str:
        self.asked.append(self._clock.monotonic())
        error = self.error
        await self.gate.wait()
        if error is not None:
            raise error
        return "ok"


def agent(clock: FakeClock, model: Model, bounds: Bounds, **config: Any) -> Agent[Any]:
    config = {"retries": {"attempts": 1}, **config}
    services = Services(clock=clock, bounds=bounds)
    return Agent[Any].from_config("a", AgentConfig.model_validate(config), services, model=model)


def deliver(to: Agent[Any], count: int = 1) -> list[asyncio.Task[RunResult]]:
    """Run as deliveries of a trigger do."""

    async def one() -> RunResult:
        return await to.answer(Message.user("x"), RunContext(Event("hook", "dev.llmling.webhook")))

    return [asyncio.create_task(one()) for _ in range(count)]


async def fail(to: Agent[Any], count: int) -> None:
    for _ in range(count):
        with pytest.raises(ModelError, match="no luck"):
            await to.run("x")


async def test_five_failures_in_a_row_open_it_and_a_probe_closes_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llmling.circuit")
    clock = FakeClock()
    provider, bounds = Provider(clock, down()), Bounds(clock)
    a = agent(clock, provider.model, bounds)
    await fail(a, 5)
    with pytest.raises(
        CircuitOpen, match=r"openai/mine is not asked \(5 requests .* no luck\); the next try is in 30"
    ) as no:
        await a.run("x")
    assert (no.value.retry_after_s, no.value.attempts, no.value.retryable) == (30.0, 0, True)
    assert len(provider.asked) == 5
    await clock.advance(30.0)
    await fail(a, 1)
    with pytest.raises(CircuitOpen, match="in 30"):
        await a.run("x")
    await clock.advance(30.0)
    provider.error = None
    assert (await a.run("x")).content == "ok"
    assert (await a.run("x")).content == "ok"
    assert provider.asked == [0.0] * 5 + [30.0] + [60.0] * 2
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]
    assert [(circuit.name, circuit.open, circuit.opened) for circuit in bounds.circuits] == [("openai/mine", False, 1)]


@pytest.mark.parametrize(
    ("error", "opens"),
    [
        (down(503), True),
        (down(408), True),
        (down(None), True),
        (ModelError("no luck", status=400), False),
        (down(429), False),
        (ModelError("no luck", attempts=0), False),
    ],
)
async def test_only_failures_that_mean_it_is_down_count(error: ModelError, opens: bool) -> None:
    clock = FakeClock()
    provider, bounds = Provider(clock, error), Bounds(clock)
    await fail(agent(clock, provider.model, bounds), 5)
    assert [circuit.open for circuit in bounds.circuits] == [opens]


async def test_an_answer_in_between_begins_anew_and_models_do_not_share_a_circuit() -> None:
    clock = FakeClock()
    provider, other, bounds = Provider(clock, down()), Provider(clock, None, "openai/other"), Bounds(clock)
    a, b = agent(clock, provider.model, bounds), agent(clock, other.model, bounds)
    await fail(a, 4)
    provider.error = None
    await a.run("x")
    provider.error = down()
    await fail(a, 5)
    with pytest.raises(CircuitOpen):
        await a.run("x")
    assert (await b.run("x")).content == "ok"


async def test_the_tries_of_one_run_are_no_outage() -> None:
    clock = FakeClock()
    provider, bounds = Provider(clock, down()), Bounds(clock)
    a = agent(clock, provider.model, bounds, retries={"attempts": 8, "backoff_s": 0.0})
    poison = asyncio.create_task(a.run("x"))
    with pytest.raises(ModelError, match="after 8 tries"):
        await poison
    assert len(provider.asked) == 8
    provider.error = None
    assert (await a.run("x")).content == "ok"


async def test_deliveries_wait_for_the_probe_and_all_go_on_when_it_is_answered() -> None:
    clock = FakeClock()
    provider, bounds = Provider(clock, down()), Bounds(clock)
    a = agent(clock, provider.model, bounds)
    await fail(a, 5)
    provider.error = None
    waiting = deliver(a, 20)
    await clock.asleep(20)
    assert len(provider.asked) == 5
    provider.gate.clear()
    await clock.advance(30.0)
    await until(lambda: len(provider.asked) > 5)
    assert len(provider.asked) == 6
    provider.gate.set()
    assert {result.content for result in await asyncio.gather(*waiting)} == {"ok"}
    assert provider.asked[5:] == [30.0] * 20


async def test_deliveries_fail_after_one_probe_that_failed() -> None:
    clock = FakeClock()
    provider, bounds = Provider(clock, down()), Bounds(clock)
    a = agent(clock, provider.model, bounds)
    await fail(a, 5)
    waiting = deliver(a, 20)
    await clock.asleep(20)
    await clock.advance(30.0)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert len(provider.asked) == 6
    assert sum(isinstance(outcome, CircuitOpen) for outcome in outcomes) == 19


async def test_a_delivery_waits_no_longer_than_it_may_run() -> None:
    clock = FakeClock()
    provider, bounds = Provider(clock, down()), Bounds(clock)
    a = agent(clock, provider.model, bounds, limits={"timeout_s": 20})
    await fail(a, 5)
    with pytest.raises(CircuitOpen, match="in 30"):
        await deliver(a)[0]


async def test_a_probe_that_is_cancelled_leaves_its_place_to_another() -> None:
    clock = FakeClock()
    provider, bounds = Provider(clock, down()), Bounds(clock)
    a = agent(clock, provider.model, bounds)
    await fail(a, 5)
    provider.error = None
    provider.gate.clear()
    await clock.advance(30.0)
    probe = deliver(a)[0]
    await until(lambda: len(provider.asked) == 6)
    other = deliver(a)[0]
    probe.cancel()
    await until(lambda: len(provider.asked) == 7)
    provider.gate.set()
    assert (await other).content == "ok"


async def test_a_fallback_model_goes_on_to_the_next_at_once() -> None:
    clock = FakeClock()
    first, second = Provider(clock, down(), "openai/first"), Provider(clock, None, "openai/second")
    bounds = Bounds(clock)
    a = agent(clock, FallbackModel.of([first.model, second.model], clock, "both"), bounds)
    for _ in range(8):
        assert (await a.run("x")).content == "ok"
    assert (await deliver(a)[0]).content == "ok"
    assert (len(first.asked), len(second.asked)) == (5, 9)
    assert clock.monotonic() == 0.0


@pytest.mark.parametrize("as_delivery", [True, False])
async def test_a_storm_of_429_gets_one_request_in_a_window(as_delivery: bool) -> None:
    clock = FakeClock()
    provider, bounds = Provider(clock, down(429, 5.0)), Bounds(clock)
    a = agent(clock, provider.model, bounds, retries={"attempts": 40}, concurrency=50)
    runs = deliver(a) if as_delivery else [asyncio.create_task(a.run("x"))]
    await until(lambda: len(provider.asked) == 1)
    runs += deliver(a, 30) if as_delivery else [asyncio.create_task(a.run("x")) for _ in range(30)]
    await clock.asleep(31)
    for _ in range(120):
        await clock.advance(0.5)
        for _ in range(30):
            await asyncio.sleep(0)
    storm = list(provider.asked)
    provider.error = None
    while not all(run.done() for run in runs):
        await clock.advance(0.5)
        await asyncio.sleep(0)
    assert {run.result().content for run in runs} == {"ok"}
    assert 10 <= len(storm) <= 13
    assert min(later - earlier for earlier, later in itertools.pairwise(storm)) >= 5.0


@pytest.mark.parametrize("failures", [2, None])
async def test_a_pool_says_what_is_left_alone_and_when(failures: int | None) -> None:
    clock = FakeClock()
    provider = Provider(clock, down())
    agents = {"a": Agent[Any]("a", model=provider.model, retries={"attempts": 1})}
    manifest: dict[str, Any] = {"limits": {"circuit_failures": failures, "circuit_s": 7}, "agents": {"a": {}}}
    async with AgentPool[None](manifest, agents=agents) as pool:
        outcomes = await pool.get_agent("a").run_many(["x"] * 5, max_concurrency=1, return_exceptions=True)
        samples = {sample.name: sample.value for sample in pool.metrics() if sample.labels.get("name")}
    if failures is None:
        assert (len(provider.asked), samples) == (5, {})
    else:
        assert len(provider.asked) == failures
        assert "the next try is in" in str(outcomes[-1])
        assert samples == {"llmling_circuit_open": 1.0, "llmling_circuit_opened_total": 1}
