"""A real process around the SQLite engine, to be killed or starved: `engine_worker.py MODE FOLDER N`, or `nurse`.

What it has done is appended to FOLDER/log, one line for each, so that a test can count it from outside.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from pathlib import Path

import psutil
from engine_world import World, to, until

from llmling.errors import Full
from llmling.events import Event
from llmling.messages import Message
from llmling.protocols import Delivery, Done, EventRecord, Policy, Settlement, Work

CHAIN = ("a", "b", "c")
CONCURRENCY = 4


class Log:
    """Lines that are in the file when `write` returns, whatever happens to this process."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, what: str, about: str) -> None:
        os.write(self._fd, f"{what} {about}\n".encode())


async def chain(world: World, log: Log, events: int, first: int) -> None:
    """Accept the events from `first` on until there are `events` of them, and run each through three agents."""
    settled = asyncio.Event()

    async def step(work: Work) -> Settlement:
        log.write("start", work.delivery.id)
        if work.delivery.order_key is not None:
            log.write(f"{work.delivery.agent}:{work.delivery.order_key.replace(' ', '-')}", work.event.id)
        await asyncio.sleep(0.01)
        place = CHAIN.index(work.delivery.agent) + 1
        log.write("end", work.delivery.id)
        return Done(work.delivery.agent, to(work, *CHAIN[place : place + 1]))

    def heard(record: EventRecord) -> None:
        log.write("settled", record.id)
        settled.set()

    policies = {agent: Policy(concurrency=CONCURRENCY, inbox_size=50, attempts=1000) for agent in CHAIN}
    await world.engine.start(step, policies, settled=heard)
    log.write("ready", "-")
    for number in range(first, events):
        event = Event("inbox", "t", data=number)
        while True:
            # Every other one has one of four keys, so that its line is killed, too.
            order_key = f"key {number // 2 % 4}" if number % 2 else None
            message = Message.user(str(number))
            delivery = Delivery(f"{event.id}/a", event.id, "a", message, order_key=order_key)
            try:
                receipt = await world.engine.accept(event, delivery, trigger="inbox", agent="a", key=str(number))
            except Full:
                await asyncio.sleep(0.01)
                continue
            log.write("accepted", receipt.event_id)
            break
    settled.clear()
    while set(counts := await world.engine.counts()) - {"done", "dead"} or sum(counts.values()) < events:
        await asyncio.wait_for(settled.wait(), 30)
        settled.clear()


async def poison(world: World, log: Log) -> None:
    """Run a delivery that kills its process, and one that does not."""

    async def deadly(work: Work) -> Settlement:
        log.write("start", f"{work.delivery.message.text}-{work.attempt}")
        if work.delivery.message.text == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return Done("survived")

    await world.engine.start(deadly, {"a": Policy(concurrency=1, attempts=3)}, settled=world.settled.append)
    for text in ("deadly", "harmless"):
        await world.accept(text=text, key=text)
    await until(lambda: len(world.settled) == 2)
    for record in world.settled:
        log.write("settled", json.dumps([record.event.data, record.status, record.error]))


async def fill(world: World, log: Log, folder: Path) -> None:
    """Run out of space with an answer in hand, and get space again."""
    entered, gate = asyncio.Event(), asyncio.Event()

    async def answer(work: Work) -> Settlement:
        entered.set()
        await gate.wait()
        return Done("x" * 100_000)

    world.answers["a"] = answer
    await world.start()
    first = await world.accept()
    await entered.wait()
    used = max(path.stat().st_size for path in (folder / "state").iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 30_000, resource.RLIM_INFINITY))
    try:
        for _ in range(100):
            await world.accept(text="y" * 4_000)
    except Full as full:
        log.write("full", f"{full.retry_after_s} {full}")
    gate.set()
    log.write("meanwhile", str(await world.engine.wait(first.event_id, 0.5)))
    log.write("then", (await world.record(first.event_id)).status)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    record = await world.finished(first.event_id)
    log.write("recovered", f"{record.status} {len(record.content or '')} {record.attempts}")
    log.write("accepted", str((await world.accept()).new))


async def flood(world: World, log: Log, events: int) -> None:
    """Queue `events` events before anybody serves, then run them all; log how much memory that takes at most."""
    done = most = 0
    all_done = asyncio.Event()

    def look() -> int:
        nonlocal most
        resident = psutil.Process().memory_info().rss
        most = max(most, resident)
        return resident

    def heard(record: EventRecord) -> None:
        nonlocal done
        done += 1
        if done % 100 == 0:
            look()
        if done == events:
            all_done.set()

    async def answer(work: Work) -> Settlement:
        return Done("fine")

    await asyncio.gather(*(world.accept(text="warm " * 100) for _ in range(200)))
    before = look()
    for start in range(200, events, 200):
        look()
        # Of all kinds, and many of them in one line.
        await asyncio.gather(
            *(
                world.accept(
                    text="word " * 100, order_key=f"key {number % 40}" if number % 2 else None, priority=number % 3 - 1
                )
                for number in range(start, min(start + 200, events))
            )
        )
    log.write("queued", json.dumps(await world.engine.counts()))
    await world.engine.start(answer, {"a": Policy(concurrency=20, inbox_size=events)}, settled=heard)
    await all_done.wait()
    log.write("done", json.dumps(await world.engine.counts()))
    log.write("grown", str(most - before))


async def main(mode: str, folder: Path, events: int, first: int = 0) -> None:
    world, log = World("sqlite", folder), Log(folder / "log")
    await world.engine.open()
    if mode == "chain":
        await chain(world, log, events, first)
    elif mode == "poison":
        await poison(world, log)
    elif mode == "fill":
        await fill(world, log, folder)
    else:
        await flood(world, log, events)
    await world.engine.stop(5)


def nurse() -> None:
    """Start a worker for each line `MODE FOLDER N FIRST`, say its process id and then how it ended.

    A worker is a fork of this process, which has imported everything: five hundred of them need not do it again.
    """
    for line in sys.stdin:
        mode, folder, events, first = line.split()
        worker = os.fork()
        if worker == 0:
            asyncio.run(main(mode, Path(folder), int(events), int(first)))
            os._exit(0)
        os.write(1, f"{worker}\n".encode())
        os.write(1, f"{os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])}\n".encode())


if __name__ == "__main__":
    if sys.argv[1] == "nurse":
        nurse()
    else:
        asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
