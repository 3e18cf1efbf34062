"""The webhook trigger in front of a real engine: replays, full inboxes, and answers that are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from llmling.engines.memory import MemoryEngine
from llmling.events import Event, render
from llmling.manifest.pool import MemoryEngineConfig
from llmling.manifest.triggers import WebhookTriggerConfig
from llmling.messages import Message
from llmling.protocols import Dead, Delivery, Done, Policy, Receipt, Settlement, Waiting, Work
from llmling.runtime.services import Services
from llmling.server.listener import Listeners
from llmling.triggers.webhook import WebhookTrigger

HOST = "127.0.0.1"


@dataclass
class Pool:
    """An engine with two agents, `first` and the one behind it, and a webhook in front of `first`."""

    engine: MemoryEngine
    session: aiohttp.ClientSession
    url: str
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    behind: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    ran: list[str] = field(default_factory=list[str])
    settlement: Settlement | None = None

    async def post(self, data: str = '"hi"', **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        headers = {"Content-Type": "application/json", **{name.replace("_", "-"): v for name, v in headers.items()}}
        async with self.session.post(self.url, data=data, headers=headers) as response:
            return response.status, await response.json(), dict(response.headers)

    async def run(self, work: Work) -> Settlement:
        if work.delivery.agent == "behind":
            await self.behind.wait()
            return Done("late")
        self.began.set()
        await self.gate.wait()
        self.ran.append(work.event.id)
        if self.settlement is not None:
            return self.settlement
        follower = Delivery(f"{work.delivery.id}/behind", work.event.id, "behind", Message.user("x"), hops=1)
        return Done(f"answer to {work.delivery.message.text}", (follower,))


@asynccontextmanager
async def pool(tmp_path: Path, *, inbox_size: int = 1000, **config: Any) -> AsyncGenerator[Pool]:
    engine = MemoryEngine(MemoryEngineConfig(), tmp_path)
    await engine.open()

    def emit(
        event: Event, *, key: str | None = None, keep_key_s: float | None = None, dead: str | None = None
    ) -> Awaitable[Receipt]:
        delivery = Delivery(f"{event.id}/first", event.id, "first", render(event))
        filtered = event.data == "filtered"
        return engine.accept(
            event, None if filtered else delivery, trigger="hook", agent="first", key=key, keep_key_s=keep_key_s,
            outcome="filtered" if filtered else None, dead=dead,
        )  # fmt: skip

    async with Listeners() as listeners, aiohttp.ClientSession() as session:
        port = await listeners.bind(HOST, 0, owner="test")
        settings = WebhookTriggerConfig.model_validate({"name": "hook", "port": port, **config})
        trigger = WebhookTrigger(settings, Services(engine=engine, listeners=listeners), "first")
        started = asyncio.Event()
        task = asyncio.create_task(trigger.run(emit, started.set))
        await started.wait()
        running = Pool(engine, session, trigger.place)
        policies = {"first": Policy(inbox_size=inbox_size), "behind": Policy()}
        await engine.start(running.run, policies)
        try:
            yield running
        finally:
            task.cancel()
            await asyncio.wait({task})
            await engine.stop(0.1)


async def test_a_replay_storm_is_one_run(tmp_path: Path) -> None:
    async with pool(tmp_path) as running:
        running.gate.set()
        limit = asyncio.Semaphore(50)

        async def once() -> tuple[int, str]:
            async with limit:
                status, body, _ = await running.post(webhook_id="m1")
                return status, body["event_id"]

        answers = await asyncio.gather(*(once() for _ in range(1000)))
        assert sorted(status for status, _ in answers) == [200] * 999 + [202]
        (event_id,) = {event_id for _, event_id in answers}
        running.behind.set()
        assert await running.engine.wait(event_id, 5) is not None
        assert running.ran == [event_id]


async def test_a_full_inbox_is_a_quick_503_and_all_that_was_taken_runs(tmp_path: Path) -> None:
    async with pool(tmp_path, inbox_size=100) as running:
        running.behind.set()
        taken: list[str] = []
        while True:  # those running are out of the inbox already
            status, body, headers = await running.post()
            if status != 202:
                break
            taken.append(body["event_id"])
        assert status == 503
        assert int(headers["Retry-After"]) >= 1
        assert 100 <= len(taken) <= 110
        running.gate.set()
        for event_id in taken:
            record = await running.engine.wait(event_id, 10)
            assert record is not None
            assert record.status == "done"
        assert sorted(running.ran) == sorted(taken)
        assert (await running.post())[0] == 202


async def test_what_a_sender_has_sent_before_it_hung_up_is_run(tmp_path: Path) -> None:
    async with pool(tmp_path) as running:
        _, writer = await asyncio.open_connection(HOST, URL(running.url).port)
        writer.write(
            b'POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n"hi"'
        )
        writer.close()
        await asyncio.wait_for(running.began.wait(), 10)
        running.gate.set()
        running.behind.set()
        (record,) = [record async for record in running.engine.runs()]
        settled = await running.engine.wait(record.id, 10)
        assert settled is not None
        assert settled.status == "done"


async def test_a_store_that_cannot_be_written_is_a_503_either_way(tmp_path: Path) -> None:
    async with pool(tmp_path) as running:
        await running.engine.stop(0.1)
        for headers in ({}, {"webhook_id": "m1"}):
            status, body, headers_back = await running.post(**headers)
            assert (status, headers_back["Retry-After"]) == (503, "5")
            assert body == {"error": "events cannot be stored right now; send this again later"}


async def test_the_reply_is_the_first_agents_and_waits_for_nobody_behind(tmp_path: Path) -> None:
    async with pool(tmp_path, reply="result", timeout_s=10) as running:
        running.gate.set()
        status, body, _ = await running.post(Idempotency_Key="k")
        assert status == 200
        assert body == {"event_id": running.ran[0], "content": "answer to hi"}
        assert not running.behind.is_set()
        status, again, _ = await running.post(Idempotency_Key="k")
        assert (status, again) == (200, body)
        assert len(running.ran) == 1


async def test_an_answer_that_takes_too_long_is_a_202_and_a_repeat_a_200(tmp_path: Path) -> None:
    async with pool(tmp_path, reply="result", timeout_s=0.1) as running:
        status, body, _ = await running.post(Idempotency_Key="k")
        assert status == 202
        assert body == {"event_id": body["event_id"], "status_url": None}
        status, again, _ = await running.post(Idempotency_Key="k")
        assert (status, again) == (200, body)


async def test_a_dead_answer_is_a_502_with_its_reason(tmp_path: Path) -> None:
    async with pool(tmp_path, reply="result") as running:
        running.gate.set()
        running.settlement = Dead("the model is gone")
        status, body, _ = await running.post(Idempotency_Key="k")
        assert (status, body["error"]) == (502, "the model is gone")
        status, again, _ = await running.post(Idempotency_Key="k")
        assert (status, again) == (200, body)


async def test_filtered_and_waiting_events_are_accepted_not_answered(tmp_path: Path) -> None:
    async with pool(tmp_path, reply="result", timeout_s=0.2) as running:
        running.gate.set()
        assert (await running.post('"filtered"'))[0] == 202
        running.settlement = Waiting("a person decides")
        assert (await running.post())[0] == 202


async def test_a_stopping_engine_answers_those_who_wait_with_202(tmp_path: Path) -> None:
    async with pool(tmp_path, reply="result", timeout_s=30) as running:
        waiting = asyncio.create_task(running.post())
        async with asyncio.timeout(30):
            while not await running.engine.counts():
                pass
        await running.engine.stop(0)
        status, body, _ = await asyncio.wait_for(waiting, 30)
        assert status == 202
        assert body["event_id"]
        assert (await running.post())[0] == 503


async def test_a_delivery_id_is_forgotten_after_the_window(tmp_path: Path) -> None:
    async with pool(tmp_path, dedupe_window_s=0.2) as running:
        assert (await running.post(webhook_id="m"))[0] == 202
        assert (await running.post(webhook_id="m"))[0] == 200
        async with asyncio.timeout(30):
            while (await running.post(webhook_id="m"))[0] == 200:
                pass
