"""Measures llmling beside a bare aiohttp client and prints every figure beside its gate: `make bench`.

    python benchmarks/run.py [--repetitions 3] [--scale 1.0] [--only single,start] [--page docs/performance.md]

Ratios are taken inside one repetition. Nothing passes or fails here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from measuring import contender, provider, run
from table import Found, Row, put, table


def _ratio(metric: str, of: str = "llmling_", to: str = "raw"):
    return lambda found: found[f"{of}.{metric}"] / found[f"{to}.{metric}"]


def _of(name: str):
    return lambda found: found[name]


def _paused(found: Found) -> float:
    return found["stages.webhook.paused_per_s"] / found["stages.webhook.bare_per_s"]


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
    Row("durable 202s while agents are paused, beside a bare handler", _paused, " x", least=0.5),
    Row("durable 202s while a chain of three runs", _of("stages.webhook.running_per_s"), "/s", least=1000),
    Row("POST until its 202", _of("stages.answers.accepted_ms"), " ms"),
    Row("POST until its answer", _of("stages.answers.result_ms"), " ms"),
    Row("chain of three with the engine, a model that takes no time", _of("stages.chain.per_s"), "/s", least=1000),
    Row("CPU of such an event", _of("stages.chain.cpu_us"), " us"),
    Row("file settled until its run asks the model", _of("stages.file.ms"), " ms", most=20),
)
PARTS = ("contenders", "leak", "start", "stages")


def measured(url: str, scale: float, parts: set[str], *, first: bool) -> Found:
    """Return one repetition; what takes long and hardly varies only in the first one."""
    found: Found = {}
    if "contenders" in parts:
        found |= contender("raw", url, scale)
        found |= contender("llmling_", url, scale)
        found |= contender("layer", url, scale, scenarios="single")
        found |= contender("engine", url, scale, scenarios="single")
    if "leak" in parts and first:
        found |= contender("llmling_", url, scale, scenarios="leak")
    if "start" in parts and first:
        found |= run("start.py", "--scale", str(scale), prefix="start")
    if "stages" in parts:
        found |= run("stages.py", "--scale", str(scale), prefix="stages")
    return found


def main(repetitions: int, scale: float, parts: set[str], page: Path | None) -> None:
    with provider() as url:
        found = [measured(url, scale, parts, first=number == 0) for number in range(repetitions)]
    text = table(ROWS, found, "make bench")
    print(text)
    if page is not None:
        put(page, "make bench", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    main(given.repetitions, given.scale, set(given.only.split(",")), given.page)
