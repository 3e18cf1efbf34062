"""Runs the scenarios of one contender in its own interpreter and prints a line of JSON for each.

    python benchmarks/contender.py raw --url http://127.0.0.1:PORT [--scenarios single,tools] [--scale 0.1]

A contender is a class `Contender(url)` in `contenders/NAME.py` with `make(number)` and the coroutines `run(prompt)`,
`tool_run(prompt)`, `chain(prompt)` and `stream(prompt)`; what it lacks is not measured, and its `lacks` says why. Only
the standard library is used here, so that nothing but the contender decides. Every answer is checked, and every
scenario fails that has not asked the model exactly as often as it had to.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import ctypes
import gc
import importlib
import json
import logging
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
import urllib.request
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampling import Sampler

SYSTEM = "You are a terse logistics clerk."
CHECKER, SUMMER = "You check what you are told.", "You sum up what you are told."
PROMPT = "Where is crate 17 and when does it arrive?"
MODEL, KEY = "gpt-4o-mini", "sk-bench"
TOOL_S = 0.05
SCENARIOS = "imports,construct,single,burst,tools,chain,stream"
NEEDS = {"construct": "make", "tools": "tool_run", "chain": "chain", "stream": "stream"}
ENOUGH_S = 15.0
PATIENCE_S = {"leak": 800.0}
PARTS = (
    ("aiohttp", "http"), ("yarl", "http"), ("multidict", "http"),
    ("asyncio", "loop"), ("selectors", "loop"), ("uvloop", "loop"),
    ("llmling.models", "model"), ("litellm", "model"),
    ("llmling.runtime.tracing", "trace"), ("llmling.runtime.spans", "trace"), ("opentelemetry", "trace"),
    ("llmling.engines", "engine"),
    ("llmling", "run"), ("contenders", "own"),
)  # fmt: skip
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


@dataclass(frozen=True, slots=True)
class Pumped:
    """Many runs: wall time, CPU time of the process and of the loop's thread alone."""

    count: int
    seconds: float
    cpu_s: float
    loop_s: float


class Scenarios:
    """What is measured; `scale` makes all counts smaller, to try the harness itself."""

    def __init__(self, url: str, contender: Any, imports: str, scale: float) -> None:
        self._url = url
        self._contender = contender
        self._imports = imports
        self._scale = scale

    def _count(self, number: int) -> int:
        return max(2, round(number * self._scale))

    async def imports(self) -> dict[str, float]:
        """Fresh processes that import what the contender imports; the first one fills the page cache."""
        found = [_fresh(self._imports) for _ in range(4)][1:]
        times, sizes = zip(*found, strict=True)
        return {"ms": statistics.median(times) * 1e3, "mib": statistics.median(sizes) / 2**20}

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
        found = await self._batches(1000, 200, self._contender.run)
        return {
            "per_s": statistics.median(done.count / done.seconds for done in found),
            "cpu_us": statistics.median(done.cpu_s / done.count * 1e6 for done in found),
        }

    async def burst(self) -> dict[str, float]:
        """500 runs at once against 200 ms."""
        self._script(latency_s=0.2)
        await self._pump(20, 20, self._contender.run)
        return {"s": (await self._pump(500, 500, self._contender.run)).seconds}

    async def tools(self) -> dict[str, float]:
        """3 rounds of 4 parallel tools of 50 ms; one run alone, then 100 of them, 50 at once."""
        self._script(tool_rounds=3, tool_calls=4)
        await self._contender.tool_run(PROMPT)
        alone = [await self._pump(1, 1, self._contender.tool_run, requests=4) for _ in range(self._count(7))]
        found = await self._batches(100, 50, self._contender.tool_run, requests=4)
        wall_s = statistics.median(one.seconds for one in alone)
        cpu_s = statistics.median(done.cpu_s / done.count for done in found)
        return {"ideal": wall_s / (3 * TOOL_S), "cpu_us": cpu_s * 1e6}

    async def chain(self) -> dict[str, float]:
        """300 chains of three agents, 50 at once."""
        self._script()
        await self._pump(50, 50, self._contender.chain, requests=3)
        found = await self._batches(300, 50, self._contender.chain, requests=3)
        return {"per_s": statistics.median(done.count / done.seconds for done in found)}

    async def stream(self) -> dict[str, float]:
        """Streams of 2,000 chunks, one after the other."""
        chunks = self._count(2000)
        self._script(chunks=chunks)
        seconds: list[float] = []
        before = self._requests()
        for _ in range(6):
            began = time.perf_counter()
            pieces = [piece async for piece in self._contender.stream(PROMPT)]
            seconds.append(time.perf_counter() - began)
            if (text := "".join(pieces)).count("tok") != chunks:
                raise RuntimeError(f"{text.count('tok')} of {chunks} chunks came")
        self._asked(before, 6)
        return {"per_s": chunks / statistics.median(seconds[1:])}

    async def profile(self) -> dict[str, float]:
        """Where the CPU time of a single turn goes: measured alone, then shared out by what a sampler sees."""
        self._script()
        await self._pump(200, 50, self._contender.run)
        batches = sorted(await self._batches(2000, 200, self._contender.run), key=lambda done: done.cpu_s)
        alone = batches[len(batches) // 2]
        with Sampler(PARTS) as sampler:
            await self._all(self._count(10_000), 200, self._contender.run)
        whole, each = sum(sampler.spent.values()), 1e6 / alone.count
        found = {part: seconds / whole * alone.loop_s * each for part, seconds in sampler.spent.items()}
        return {**found, "threads": (alone.cpu_s - alone.loop_s) * each, "all": alone.cpu_s * each}

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

    async def _batches(
        self, count: int, at_once: int, run: Callable[[str], Coroutine[Any, Any, str]], *, requests: int = 1
    ) -> list[Pumped]:
        """Three batches; fewer when those took long enough to tell, more when they were over at once."""
        found: list[Pumped] = []
        seconds = 0.0
        while seconds < ENOUGH_S and (len(found) < 3 or (seconds < 1.0 and len(found) < 9)):
            found.append(await self._pump(count, at_once, run, requests=requests))
            seconds += found[-1].seconds
        return found

    async def _pump(
        self, count: int, at_once: int, run: Callable[[str], Coroutine[Any, Any, str]], *, requests: int = 1
    ) -> Pumped:
        """Run so often, so many at once; each run makes so many requests."""
        count = self._count(count) if count > 1 else count
        before = self._requests()
        gc.collect()
        began, cpu, loop = time.perf_counter(), time.process_time(), time.thread_time()
        await self._all(count, at_once, run)
        done = Pumped(count, time.perf_counter() - began, time.process_time() - cpu, time.thread_time() - loop)
        self._asked(before, count * requests)
        return done

    async def _all(self, count: int, at_once: int, run: Callable[[str], Coroutine[Any, Any, str]]) -> None:
        numbers = iter(range(count))

        async def one_after_the_other() -> None:
            for _ in numbers:
                _check(await run(PROMPT))

        await asyncio.gather(*[one_after_the_other() for _ in range(min(at_once, count))])

    def _script(self, **script: Any) -> None:
        _http(f"{self._url}/script", json.dumps(script).encode())

    def _requests(self) -> int:
        return _http(f"{self._url}/counts")["requests"]

    def _asked(self, before: int, wanted: int) -> None:
        if (made := self._requests() - before) != wanted:
            raise RuntimeError(f"{made} requests where {wanted} were due")


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


def _fresh(code: str) -> tuple[float, int]:
    """Return how long a new process takes to run some code, and the memory it has then."""
    size = "open('/proc/self/statm').read().split()[1]"
    command = [sys.executable, "-c", f"{code}\nimport os\nprint({size}, flush=True)\nos._exit(0)"]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    seconds = time.perf_counter() - began
    return seconds, int(done.stdout.split()[-1]) * os.sysconf("SC_PAGE_SIZE")


def _imports(path: Path) -> str:
    """Return the imports of a contender, as a user of what it is made with writes them."""
    found = [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module != "contender")
    ]
    return "\n".join(map(ast.unparse, found))


async def main(arguments: argparse.Namespace) -> None:
    module = importlib.import_module(f"contenders.{arguments.name}")
    contender = module.Contender(arguments.url)
    await getattr(contender, "open", _nothing)()
    scenarios = Scenarios(arguments.url, contender, _imports(Path(module.__file__ or "")), arguments.scale)
    for name in arguments.scenarios.split(","):
        if not hasattr(contender, NEEDS.get(name, "run")):
            _print(name, failed=getattr(contender, "lacks", {}).get(name, "it has no such thing"))
            continue
        patience_s = PATIENCE_S.get(name, 300.0)
        time_limit = asyncio.timeout(patience_s)
        try:
            async with time_limit:
                found = await getattr(scenarios, name)()
        except Exception as error:  # noqa: BLE001 - what a contender cannot do is told, and the next one measured
            late = f"took longer than {patience_s:g} s"
            _print(name, failed=late if time_limit.expired() else f"{type(error).__name__}: {error}")
        else:
            _print(name, **found)
    await getattr(contender, "close", _nothing)()


def _print(scenario: str, **found: Any) -> None:
    print(json.dumps({"scenario": scenario, **found}), flush=True)


async def _nothing() -> None:
    return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--url", required=True)
    parser.add_argument("--scenarios", default=SCENARIOS)
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
