"""Runs the scenarios of one contender in its own interpreter and prints a line of JSON for each.

    python benchmarks/contender.py raw --url http://127.0.0.1:PORT [--scenarios single,tools] [--scale 0.1]

A contender is a class `Contender(url)` in `contenders/NAME.py` with `make(number)` and the coroutines `run(prompt)`,
`tool_run(prompt)`, `chain(prompt)` and `stream(prompt)`; what it lacks is not measured. Only the standard library is
used here, so that nothing but the contender decides. Every answer is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import importlib
import json
import logging
import os
import statistics
import sys
import time
import tracemalloc
import urllib.request
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

SYSTEM = "You are a terse logistics clerk."
CHECKER, SUMMER = "You check what you are told.", "You sum up what you are told."
PROMPT = "Where is crate 17 and when does it arrive?"
MODEL, KEY = "gpt-4o-mini", "sk-bench"
TOOL_S = 0.05
# Nothing may leave the machine, and nothing may be spent on trying to.
_QUIET = {
    "OPENAI_API_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "CREWAI_DISABLE_TELEMETRY": "true", "CREWAI_TRACING_ENABLED": "false", "OTEL_SDK_DISABLED": "true",
    "AGNO_TELEMETRY": "false", "LANGSMITH_TRACING": "false", "DO_NOT_TRACK": "1",
}  # fmt: skip


async def ask_harbour(i: int) -> str:
    """Ask the harbour and wait for its answer.

    Args:
        i: number of the question
    """
    await asyncio.sleep(TOOL_S)
    return f"answer {i}"


class Scenarios:
    """What is measured; `scale` makes all counts smaller, to try the harness itself."""

    def __init__(self, url: str, contender: Any, scale: float) -> None:
        self._url = url
        self._contender = contender
        self._scale = scale

    def _count(self, number: int) -> int:
        return max(2, round(number * self._scale))

    async def construct(self) -> dict[str, float]:
        """1,000 agents with one tool each."""
        make = self._contender.make
        for number in range(3):
            make(number)
        _trim()
        memory, began = _resident(), time.perf_counter()
        kept = [make(number) for number in range(self._count(1000))]
        seconds = time.perf_counter() - began
        _trim()
        return {"us": seconds / len(kept) * 1e6, "kib": (_resident() - memory) / 1024 / len(kept)}

    async def single(self) -> dict[str, float]:
        """1,000 runs, 200 at once."""
        self._script()
        await self._pump(200, 50, self._contender.run)
        rates: list[float] = []
        cpus: list[float] = []
        for _ in range(3):
            seconds, cpu_s, count = await self._pump(1000, 200, self._contender.run)
            rates.append(count / seconds)
            cpus.append(cpu_s / count * 1e6)
        return {"per_s": statistics.median(rates), "cpu_us": statistics.median(cpus)}

    async def burst(self) -> dict[str, float]:
        """500 runs at once against 200 ms."""
        self._script(latency_s=0.2)
        await self._pump(20, 20, self._contender.run)
        seconds, _, _ = await self._pump(500, 500, self._contender.run)
        return {"s": seconds}

    async def tools(self) -> dict[str, float]:
        """3 rounds of 4 parallel tools of 50 ms; one run alone, then 100 of them, 50 at once."""
        self._script(tool_rounds=3, tool_calls=4)
        await self._contender.tool_run(PROMPT)
        walls: list[float] = []
        before = self._requests()
        for _ in range(self._count(7)):
            began = time.perf_counter()
            _check(await self._contender.tool_run(PROMPT))
            walls.append(time.perf_counter() - began)
        if (made := self._requests() - before) != 4 * len(walls):
            raise RuntimeError(f"{made} requests for {len(walls)} runs of three rounds and an answer")
        _, cpu_s, count = await self._pump(100, 50, self._contender.tool_run)
        return {"ideal": statistics.median(walls) / (3 * TOOL_S), "cpu_us": cpu_s / count * 1e6}

    async def chain(self) -> dict[str, float]:
        """300 chains of three agents, 50 at once."""
        self._script()
        await self._pump(50, 50, self._contender.chain)
        found = [await self._pump(300, 50, self._contender.chain) for _ in range(3)]
        return {"per_s": statistics.median(count / seconds for seconds, _, count in found)}

    async def stream(self) -> dict[str, float]:
        """Streams of 2,000 chunks, one after the other."""
        chunks = self._count(2000)
        self._script(chunks=chunks)
        seconds: list[float] = []
        for _ in range(6):
            began = time.perf_counter()
            pieces = [piece async for piece in self._contender.stream(PROMPT)]
            seconds.append(time.perf_counter() - began)
            if (text := "".join(pieces)).count("tok") != chunks:
                raise RuntimeError(f"{text.count('tok')} of {chunks} chunks came")
        return {"per_s": chunks / statistics.median(seconds[1:])}

    async def leak(self) -> dict[str, float]:
        """How much traced Python memory grows between run 5,000 and run 25,000."""
        self._script()
        tracemalloc.start()
        await self._pump(5_000, 50, self._contender.run)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        await self._pump(20_000, 50, self._contender.run)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        return {"kib": grown / 1024}

    async def _pump(
        self, count: int, at_once: int, run: Callable[[str], Coroutine[Any, Any, str]]
    ) -> tuple[float, float, int]:
        """Return seconds, CPU seconds of this process, and how many runs that were."""
        count = self._count(count)
        numbers = iter(range(count))

        async def one_after_the_other() -> None:
            for _ in numbers:
                _check(await run(PROMPT))

        gc.collect()
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*[one_after_the_other() for _ in range(min(at_once, count))])
        return time.perf_counter() - began, time.process_time() - cpu, count

    def _script(self, **script: Any) -> None:
        _http(f"{self._url}/script", json.dumps(script).encode())

    def _requests(self) -> int:
        return _http(f"{self._url}/counts")["requests"]


def _check(text: str) -> None:
    if "evening tide" not in (text or ""):
        raise RuntimeError(f"unexpected answer {text!r}")


def _http(url: str, body: bytes | None = None) -> Any:
    with urllib.request.urlopen(url, body, timeout=10) as response:
        return json.loads(response.read())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _trim() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


async def main(arguments: argparse.Namespace) -> None:
    contender = importlib.import_module(f"contenders.{arguments.name}").Contender(arguments.url)
    await getattr(contender, "open", _nothing)()
    scenarios = Scenarios(arguments.url, contender, arguments.scale)
    needs = {"construct": "make", "tools": "tool_run", "chain": "chain", "stream": "stream"}
    for name in arguments.scenarios.split(","):
        if not hasattr(contender, needs.get(name, "run")):
            continue
        try:
            found = await asyncio.wait_for(getattr(scenarios, name)(), 120)
        except Exception as error:  # noqa: BLE001 - what a contender cannot do is told, and the next one measured
            print(f"{arguments.name}, {name}: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            print(json.dumps({"scenario": name, **found}), flush=True)
    await getattr(contender, "close", _nothing)()


async def _nothing() -> None:
    return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--url", required=True)
    parser.add_argument("--scenarios", default="construct,single,burst,tools,chain,stream")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    given = parser.parse_args()
    os.environ.update(_QUIET)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if given.loop == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main(given))
    # Some leave threads behind that would hold the process up.
    sys.stdout.flush()
    os._exit(0)
