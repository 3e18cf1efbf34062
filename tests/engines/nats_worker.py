"""A real process that serves events in NATS, to be killed: `nats_worker.py URL FOLDER LEASE_S ATTEMPTS`.

What it does is appended to FOLDER/log, one line for each, so that a test can count it from outside.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from engine_worker import CHAIN, Log
from engine_world import World, to

from llmling.errors import EngineError
from llmling.protocols import Done, Policy, Settlement, Step, Work

CONCURRENCY = 8
_PULSE_S, _STILL_S = 0.05, 0.2


async def serving(url: str, folder: Path, lease_s: float, begin: Callable[[World], Awaitable[None]]) -> World:
    """Return a world that serves, once a server answers long enough: the test restarts that, too."""
    while True:
        world = World("nats", folder, lease_s=lease_s, url=url)
        try:
            await world.engine.open()
            await begin(world)
        except EngineError:
            await world.engine.stop(0)
            await asyncio.sleep(0.1)
        else:
            return world


def stamp(delivery_id: str) -> str:
    # The steady clock is one for all processes of a machine.
    return f"{delivery_id} {os.getpid()} {time.monotonic():.3f}"


async def pulse(log: Log) -> None:
    """Write down when this process stood still: then it is at nothing, though it lives."""
    last = time.monotonic()
    while True:
        await asyncio.sleep(_PULSE_S)
        now = time.monotonic()
        if now - last > _STILL_S:
            log.write("still", f"{os.getpid()} {last:.3f} {now:.3f}")
        last = now


class Handed(logging.Handler):
    """Writes down what the queue has handed to this process, and for what time, before anything is done about it."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.DEBUG)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if record.module == "lane" and isinstance(record.args, tuple):
            delivery_id, time_ = record.args
            self._log.write("handed", f"{stamp(str(delivery_id))} {time_}")


async def serve(url: str, folder: Path, lease_s: float, attempts: int) -> None:
    log = Log(folder / "log")
    engine = logging.getLogger("llmling.engine")
    engine.setLevel(logging.DEBUG)
    engine.addHandler(Handed(log))

    async def step(work: Work) -> Settlement:
        try:
            return await run(work)
        except asyncio.CancelledError:
            log.write("cut", stamp(work.delivery.id))
            raise

    async def run(work: Work) -> Settlement:
        delivery = work.delivery
        log.write("begun", stamp(delivery.id))
        if delivery.message.text == "deadly":
            # When its neighbours have begun, too.
            await asyncio.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        if delivery.message.text == "neighbour":
            await asyncio.sleep(0.4)
        if work.journal.recorded("1") is None:
            log.write("asked", delivery.id)
            await asyncio.sleep(0.02)
            await work.journal.record(Step("1", "reply", {"text": delivery.agent}), committed=True)
            log.write("recorded", delivery.id)
        await asyncio.sleep(0.01)
        log.write("end", stamp(delivery.id))
        after = CHAIN.index(delivery.agent) + 1
        return Done(delivery.agent, to(work, *CHAIN[after : after + 1]))

    policies = {agent: Policy(concurrency=CONCURRENCY, inbox_size=100, attempts=attempts) for agent in CHAIN}
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    world = await serving(
        url,
        folder,
        lease_s,
        lambda world: world.engine.start(step, policies, settled=lambda record: log.write("settled", record.id)),
    )
    log.write("ready", "-")
    pulsing = asyncio.create_task(pulse(log))
    await stop.wait()
    pulsing.cancel()
    await world.engine.stop(5)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
