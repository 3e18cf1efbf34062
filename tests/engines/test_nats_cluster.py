"""Three servers that keep every event three times; the one that leads is killed."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import nats
import nats.errors
import pytest
from chaos import Trial
from engine_worker import CHAIN
from engine_world import World, to
from nats_server import NatsServer, need_nats
from serving import eventually, free_port, until

from llmling.errors import EngineError, Full
from llmling.protocols import Done, Policy, Settlement, Step, Work

EVENTS, KILLS = (1_200, 6) if os.environ.get("CHAOS") else (500, 5)
CONCURRENCY = 8


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[list[NatsServer]]:
    need_nats()
    ports = [free_port() for _ in range(3)]
    routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
    servers: list[NatsServer] = []
    for number, port in enumerate(ports):
        folder = tmp_path / f"server{number}"
        folder.mkdir()
        place = f"nats://127.0.0.1:{port}"
        options = ("-n", f"n{number}", "-cluster_name", "three", "-cluster", place, "-routes", routes)
        servers.append(NatsServer(folder, options=options))
    await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
    yield servers
    for server in servers:
        server.end()


async def opened(folder: Path, servers: list[NatsServer]) -> World:
    """Return a world once the servers have found one another."""

    async def attempt() -> World | None:
        world = World("nats", folder, url=",".join(server.url for server in servers), lease_s=5, replicas=3)
        try:
            await world.engine.open()
        except EngineError:
            await world.engine.stop(0)
            return None
        return world

    return await eventually(attempt, "the cluster to take streams", 60)


@asynccontextmanager
async def asking(servers: list[NatsServer]) -> AsyncGenerator[Any]:
    """Give JetStream as its own client shows it."""
    client: Any = await cast("Any", nats).connect([server.url for server in servers])
    try:
        yield client.jetstream(timeout=1)
    finally:
        await client.close()


async def in_step(servers: list[NatsServer]) -> None:
    """Return once each server has what the others have: three live without one, and one that catches up is missing."""
    async with asking(servers) as jetstream:

        async def look() -> bool | None:
            try:
                streams = await jetstream.streams_info()
                queue = next(info.config.name for info in streams if info.config.name.endswith("-queue"))
                # Not as a list, which waits for those that were lost with a server.
                consumers = [await jetstream.consumer_info(queue, agent) for agent in CHAIN]
            except nats.errors.Error:
                return None
            peers = [peer for info in (*streams, *consumers) if info.cluster for peer in info.cluster.replicas or ()]
            return all(peer.current and not peer.offline for peer in peers) or None

        await eventually(look, "three servers in step", 120)


async def leader(servers: list[NatsServer], name: str) -> int:
    """Return the number of the server that leads the stream whose name has this in it."""
    async with asking(servers) as jetstream:

        async def look() -> int | None:
            try:
                for info in await jetstream.streams_info():
                    if name in info.config.name and info.cluster.leader:
                        return int(info.cluster.leader.removeprefix("n"))
            except nats.errors.Error:
                return None
            return None

        return await eventually(look, "a leader", 60)


class Seen:
    """What two processes did to the same events."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.recorded: set[str] = set()

    async def step(self, work: Work) -> Settlement:
        delivery = work.delivery
        if work.journal.recorded("1") is None:
            assert delivery.id not in self.recorded, "a step that was recorded is repeated"
            self.asked.append(delivery.id)
            await work.journal.record(Step("1", "reply", {"text": delivery.agent}), committed=True)
            self.recorded.add(delivery.id)
        place = CHAIN.index(delivery.agent) + 1
        return Done(delivery.agent, to(work, *CHAIN[place : place + 1]))


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_the_leader_of_a_cluster_is_killed_under_load(servers: list[NatsServer], tmp_path: Path) -> None:
    trial, seen = Trial("NATS: the leader of three servers killed"), Seen()
    worlds = [await opened(tmp_path, servers) for _ in range(2)]
    one, other = worlds
    policies = {agent: Policy(concurrency=CONCURRENCY, inbox_size=100, attempts=100) for agent in CHAIN}
    for world in worlds:
        world.answers.update(dict.fromkeys(CHAIN, seen.step))
        await world.start(policies)
    accepted: dict[int, str] = {}
    slowest_s = 0.0

    async def send(numbers: range) -> None:
        for number in numbers:
            while number not in accepted:
                try:
                    accepted[number] = (await one.accept(key=str(number))).event_id
                except Full:
                    await asyncio.sleep(0.05)

    for kill in range(KILLS):
        part = EVENTS // KILLS
        half = kill * part + part // 2
        await in_step(servers)
        sending = [asyncio.create_task(send(range(kill * part + first, (kill + 1) * part, 4))) for first in range(4)]
        await until(functools.partial(reached, accepted, half), "half of the events to be accepted", 60)
        server = servers[await leader(servers, "-queue" if kill % 2 == 0 else "KV_")]
        began = time.monotonic()
        await asyncio.to_thread(server.end)
        await asyncio.gather(*sending)
        # Two of three are enough.
        await settled(one, len(accepted), 120)
        slowest_s = max(slowest_s, time.monotonic() - began)
        await asyncio.to_thread(server.start)
    assert len(set(accepted.values())) == len(accepted) == EVENTS
    record = await other.record(accepted[EVENTS - 1])
    assert [delivery.agent for delivery in record.deliveries] == list(CHAIN)
    repeated, most = len(seen.asked) - len(set(seen.asked)), KILLS * CONCURRENCY * len(CHAIN)
    assert repeated <= most
    trial.holds(
        events=EVENTS,
        kills=KILLS,
        repeated=repeated,
        bound=str(most),
        measured=f"all done within {slowest_s:.1f} s of a kill",
    )
    for world in worlds:
        await world.engine.stop(0)


def reached(accepted: dict[int, str], count: int) -> bool:
    return len(accepted) >= count


async def settled(world: World, events: int, within_s: float) -> None:
    end = time.monotonic() + within_s
    counts: dict[str, int] = {}
    while counts != {"done": events}:
        assert time.monotonic() < end, counts
        # Three servers have to agree on who reads: not too often.
        await asyncio.sleep(0.5)
        try:
            counts = await world.engine.counts()
        except EngineError:
            continue
