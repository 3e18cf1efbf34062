"""The webhook trigger against slow and random senders."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import statistics
import time

import pytest
from chaos import Trial
from webhook_door import HOST, hook, random_request

from llmling.server.connection import Bounds

FULL = bool(os.environ.get("CHAOS"))
SLOW, QUICK, TIMEOUT_S = (200, 500, 10) if FULL else (100, 30, 2)


@pytest.mark.chaos
async def test_slow_bodies_are_cut_while_others_are_answered() -> None:
    trial, seconds, cut = Trial("slow senders beside quick ones (W9)"), list[float](), list[float]()
    async with hook(body_timeout_s=TIMEOUT_S, bounds=Bounds(head_timeout_s=TIMEOUT_S)) as door:

        async def drip() -> bytes:
            reader, writer = await asyncio.open_connection(HOST, door.port)
            began = time.monotonic()
            writer.write(
                b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"
            )
            reading = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
            while not reading.done():
                writer.write(b"1")
                await asyncio.wait({reading}, timeout=TIMEOUT_S / 20)
            cut.append(time.monotonic() - began)
            writer.close()
            return await reading

        slow = [asyncio.create_task(drip()) for _ in range(SLOW)]
        while len(seconds) < QUICK and not all(task.done() for task in slow):
            began = time.monotonic()
            assert (await door.post())[0] == 202
            seconds.append(time.monotonic() - began)
        assert len(seconds) == QUICK, "others were answered only after the slow ones"
        answers = await asyncio.wait_for(asyncio.gather(*slow), 60)
    assert all(b" 408 " in answer for answer in answers)
    p99 = statistics.quantiles(seconds, n=100)[98]
    measured = f"answered in {p99 * 1000:.0f} ms (p99), cut after {max(cut):.1f} s at most"
    trial.holds(events=len(seconds), measured=measured)


RANDOM = 5_000 if FULL else 2_000


@pytest.mark.chaos
async def test_random_requests_never_make_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    trial = Trial("random requests (W10)")
    caplog.set_level(logging.INFO)
    rng = random.Random(20261121)
    bounds = Bounds(head_timeout_s=0.1, linger_s=0.05, keepalive_s=0.05)
    async with hook(body_timeout_s=0.05, bounds=bounds, max_body_bytes=2500) as door:
        limit = asyncio.Semaphore(40)

        async def shoot(data: bytes) -> tuple[bytes, bytes]:
            async with limit:
                reader, writer = await asyncio.open_connection(HOST, door.port)
                writer.write(data)
                if rng.random() < 0.1:
                    writer.transport.abort()
                    return data, b""
                try:
                    return data, await asyncio.wait_for(reader.read(), 10)
                except ConnectionError:
                    return data, b""
                finally:
                    writer.close()

        answers = await asyncio.gather(*(shoot(random_request(rng)) for _ in range(RANDOM)))
        assert (await door.post())[0] == 202
    codes: dict[int, int] = {}
    for data, answer in answers:
        if answer:
            code = int(answer[9:12])
            codes[code] = codes.get(code, 0) + 1
            assert code < 500 or code == 501, (data, answer)
    assert {202, 400, 404, 405, 413, 415} <= set(codes), codes
    bad = [record for record in caplog.records if record.exc_info or record.levelno >= logging.WARNING]
    assert not bad, bad[0].getMessage()
    trial.holds(events=RANDOM, measured="no 500, nothing in the log")
