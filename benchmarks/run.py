"""Measures llmling beside a bare aiohttp client and prints every figure beside its gate: `make bench`.

    python benchmarks/run.py [--repetitions 5] [--scale 1.0] [--only start,stages] [--page docs/performance.md]

Ratios are taken inside one repetition. Nothing passes or fails here. The page is written when everything was measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path

from children import interruptible
from measuring import Measured, contender, names_of, provider, reasons, run, tell
from table import Found, Row, around, markdown, number, put, said, table


def _ratio(metric: str, of: str = "llmling_", to: str = "raw") -> Callable[[Found], float]:
    return lambda found: found[f"{of}.{metric}"] / found[f"{to}.{metric}"]


def _of(name: str) -> Callable[[Found], float]:
    return lambda found: found[name]


def _paused(beside: str) -> Callable[[Found], float]:
    return lambda found: found["stages.webhook.paused_per_s"] / found[f"stages.webhook.{beside}_per_s"]


ROWS = (
    Row("single turn, 200 at once: CPU beside raw aiohttp", _ratio("single.cpu_us"), " x", most=1.5),
    Row("the same with the engine, every run a durable event", _ratio("single.cpu_us", "engine"), " x", most=2.0),
    Row("the same with a bare client behind our own layer", _ratio("single.cpu_us", "layer"), " x"),
    Row("CPU of a raw aiohttp call", _of("raw.single.cpu_us"), " us"),
    Row("500 runs at once against 200 ms: wall beside raw", _ratio("burst.s"), " x", most=1.2),
    Row("chain of three agents: chains/s beside raw", _ratio("chain.per_s"), " x", least=0.5),
    Row("3 rounds of 4 parallel tools of 50 ms: wall beside ideal", _of("llmling_.tools.ideal"), " x", most=1.05),
    Row("the same, 50 at once: CPU beside raw", _ratio("tools.cpu_us"), " x", most=1.8),
    Row("stream of 2,000 chunks: chunks/s beside raw", _ratio("stream.per_s"), " x", least=0.5),
    Row("Python memory grown from run 5,000 to run 25,000", _of("llmling_.leak.kib"), " KiB", most=64),
    Row("1,000 agents with a tool: time each", _of("llmling_.construct.us"), " us", most=20),
    Row("1,000 agents with a tool: memory each", _of("llmling_.construct.kib"), " KiB", most=6),
    Row("`import llmling` beside `import aiohttp`", _of("start.imports.ratio"), " x", most=0.5),
    Row("`llmling --help`", _of("start.commands.help_s"), " s", most=0.3),
    Row("`llmling validate` of the example", _of("start.commands.validate_s"), " s", most=0.5),
    Row("`llmling serve` with the demo model: ready", _of("start.serve.s"), " s", most=1.0),
    Row("that pool idle: resident memory", _of("start.serve.idle_mib"), " MiB", most=80),
    Row("manifest of 1,000 agents beside CSafeLoader alone", _of("start.manifest.load_ratio"), " x", most=3.0),
    Row("pool of 1,000 agents entered", _of("start.manifest.enter_s"), " s"),
    Row("10 agents with 3 MCP servers of 1 s each: all answer", _of("start.servers.s"), " s"),
    Row("durable 202s while agents are paused, beside a bare handler", _paused("bare"), " x", least=0.5),
    Row("the same beside a bare server without an application around the handler", _paused("server"), " x"),
    Row("durable 202s while a chain of three runs", _of("stages.webhook.running_per_s"), "/s", least=1000),
    Row("POST until its 202", _of("stages.answers.accepted_ms"), " ms"),
    Row("POST until its answer", _of("stages.answers.result_ms"), " ms"),
    Row("chain of three with the engine, a model that takes no time", _of("stages.chain.per_s"), "/s", least=1000),
    Row("CPU of such an event", _of("stages.chain.cpu_us"), " us"),
    Row("file settled until its run asks the model", _of("stages.file.ms"), " ms", most=20),
)
SHARES = {
    "http": "aiohttp",
    "loop": "the event loop, its tasks and sockets",
    "own": "code of the contender itself",
    "model": "our model calls: request, answer, usage, cost",
    "trace": "our spans",
    "run": "our run around them: prompt, limits, circuits, result",
    "engine": "our engine, in the thread of the loop",
    "threads": "other threads: the engine's writer",
    "garbage": "the garbage collector",
    "other": "the rest",
    "all": "all of it",
}
PROFILED = {"raw": "raw aiohttp", "llmling_": "llmling", "engine": "llmling with the engine"}
PARTS = ("contenders", "stages", "leak", "start", "profile")
REPEATED = {"contenders", "stages"}
SIDE_BY_SIDE = {
    "single": ("raw", "llmling_", "layer", "engine"),
    "burst": ("raw", "llmling_"),
    "tools": ("raw", "llmling_"),
    "chain": ("raw", "llmling_"),
    "stream": ("raw", "llmling_"),
    "construct": ("llmling_",),
}
"""Each scenario with those who run it, one right after the other: the machine may be another one a minute later."""


def measured(url: str, scale: float, parts: Collection[str], *, first: bool) -> Measured:
    """Return one repetition; what takes long and hardly varies only in the first one."""
    found = Measured()
    if "contenders" in parts:
        for scenario, names in SIDE_BY_SIDE.items():
            for name in names:
                found.add(contender(name, url, scale, scenarios=scenario))
    if "leak" in parts and first:
        found.add(contender("llmling_", url, scale, scenarios="leak"))
    if "start" in parts and first:
        found.add(run("start.py", "--scale", str(scale), prefix="start"))
    if "stages" in parts:
        found.add(run("stages.py", "--scale", str(scale), prefix="stages"))
    if "profile" in parts and first:
        for name in PROFILED:
            found.add(contender(name, url, scale, scenarios="profile"))
    return found


def shares(found: Found) -> str:
    """Return the table of where the CPU time of a single turn goes."""
    lines: list[list[str]] = []
    for part, label in SHARES.items():
        values = [found.get(f"{name}.profile.{part}", 0.0) for name in PROFILED]
        if max(values) >= 0.5:
            lines.append([label, *(number(value) if value >= 0.5 else "-" for value in values)])
    return markdown(("us of CPU in a single turn, 200 at once", *PROFILED.values()), lines)


def main(repetitions: int, scale: float, parts: Collection[str], page: Path | None) -> None:
    for block in ("make bench", "make bench, by parts"):
        if page is not None:
            around(page, block)
    repetitions = repetitions if REPEATED & set(parts) else 1
    all_found: list[Found] = []
    failed: dict[str, str] = {}
    with provider() as url:
        for turn in range(repetitions):
            tell(f"repetition {turn + 1} of {repetitions}\n")
            once = measured(url, scale, parts, first=turn == 0)
            all_found.append(once.found)
            failed |= once.failed
    text = "\n\n".join([said("make bench", repetitions, scale), *table(ROWS, all_found), *reasons(failed)])
    where = shares(all_found[0]) if "profile" in parts else ""
    print(text, where, sep="\n\n")
    if page is not None and set(parts) == set(PARTS):
        put(page, "make bench", text)
        put(page, "make bench, by parts", where)
    elif page is not None:
        tell(f"a part of it: {page} stays as it was\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: a tenth of all counts")
    parser.add_argument("--only", type=names_of(PARTS), default=PARTS, help=f"of {', '.join(PARTS)}")
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    with interruptible():
        main(given.repetitions, given.scale, given.only, given.page)
