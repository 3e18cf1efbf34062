"""How many events an engine accepts, and how many run through a chain of three agents, per second.

    python benchmarks/engine.py [--events 5000] [--in-flight 64]

Nothing here passes or fails: figures depend on the disk and on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from pathlib import Path

from llmling.engines.memory import MemoryEngine
from llmling.engines.sqlite import SqliteEngine
from llmling.events import Event
from llmling.manifest.pool import MemoryEngineConfig, SqliteEngineConfig
from llmling.messages import Message
from llmling.protocols import Delivery, Done, EventRecord, Policy, Work

CHAIN = ("a", "b", "c")
PARTS = {"accept": "events accepted", "chain": "three-hop events run"}


def first(event: Event) -> Delivery:
    return Delivery(f"{event.id}/a", event.id, "a", Message.user("A document to look at, with a few words in it."))


async def answer(work: Work) -> Done:
    delivery = work.delivery
    place = CHAIN.index(delivery.agent) + 1
    if place == len(CHAIN):
        return Done("an answer")
    agent = CHAIN[place]
    way = Delivery(f"{delivery.id}/{agent}", delivery.event_id, agent, Message.user("an answer"), delivery.hops + 1)
    return Done("an answer", (way,))


async def send(engine: SqliteEngine | MemoryEngine, events: int, in_flight: int) -> float:
    numbers = iter(range(events))

    async def one_after_the_other() -> None:
        for number in numbers:
            event = Event("bench", "dev.llmling.bench", data={"number": number})
            await engine.accept(event, first(event), trigger="bench", agent="a", key=str(number))

    began = time.perf_counter()
    await asyncio.gather(*itertools.starmap(one_after_the_other, [()] * in_flight))
    return events / (time.perf_counter() - began)


async def measure(name: str, events: int, in_flight: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            engine: SqliteEngine | MemoryEngine
            if name == "sqlite":
                engine = SqliteEngine(SqliteEngineConfig(path=f"{part}.db"), Path(folder))
            else:
                engine = MemoryEngine(MemoryEngineConfig(), Path(folder))
            await engine.open()
            cpu_s = time.process_time()
            rate = await (send if part == "accept" else chain)(engine, events, in_flight)
            cpu_ms = (time.process_time() - cpu_s) * 1000 / events
            print(f"{name:7} {PARTS[part]:22} {rate:8,.0f}/s {cpu_ms:8.3f} ms CPU each")
            await engine.stop(0)


async def chain(engine: SqliteEngine | MemoryEngine, events: int, in_flight: int) -> float:
    left = events
    finished = asyncio.Event()

    def settled(record: EventRecord) -> None:
        nonlocal left
        left -= 1
        if not left:
            finished.set()

    policies = {agent: Policy(concurrency=in_flight, inbox_size=events) for agent in CHAIN}
    await engine.start(answer, policies, concurrency=3 * in_flight, settled=settled)
    began = time.perf_counter()
    await send(engine, events, in_flight)
    await finished.wait()
    return events / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--in-flight", type=int, default=64)
    arguments = parser.parse_args()
    for name in ("sqlite", "memory"):
        asyncio.run(measure(name, arguments.events, arguments.in_flight))


if __name__ == "__main__":
    main()
