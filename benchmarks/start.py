"""How long things take to be there: imports, commands, a pool, a manifest of 1,000 agents.

    python benchmarks/start.py [--scale 0.1]

Prints a line of JSON for each. Each is a process of its own, with its byte code written before; times are from the fork
to the exit, or to the line that says `ready`.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cores import anywhere, free_port, pinned
from mcp_start import SERVER

ROOT = Path(__file__).parents[1]
LLMLING = [sys.executable, "-c", "from llmling_cli import main; main()"]
SERVED = """
server: {{port: {server}}}
agents:
  one: {{model: demo, instructions: Be brief., triggers: [{{type: webhook, port: {port}}}]}}
"""
AGENT = """
  agent_{number}:
    description: Clerk number {number}
    model: openai/gpt-4o-mini
    model_settings: {{temperature: 0.2, max_tokens: 400}}
    instructions:
      - You are a terse logistics clerk.
      - "Answer {{{{ event.source }}}} in one line, as clerk {number}."
    limits: {{timeout_s: 30, max_iterations: 5}}
    connections: [{next}]
"""
# One process for both, so that each is measured on the same core in the same minute.
LOAD = """
import gc, json, statistics, sys, time, yaml
from llmling import Manifest
text = open(sys.argv[1]).read()
def seconds(work):
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
ours, alone = [], []
for _ in range(5):
    ours.append(seconds(lambda: Manifest.load(sys.argv[1])))
    alone.append(seconds(lambda: yaml.load(text, yaml.CSafeLoader)))
ratio = statistics.median(a / b for a, b in zip(ours, alone))
print(json.dumps({"s": statistics.median(ours), "ratio": ratio}))
"""
ENTER = """
import asyncio, json, sys, time
from llmling import AgentPool
async def main():
    began = time.perf_counter()
    async with AgentPool(sys.argv[1]):
        print(json.dumps({"s": time.perf_counter() - began}))
asyncio.run(main())
"""


def seconds(*command: str, folder: Path | None = None, times: int = 5) -> float:
    """Return the median time of a process; the first one, which fills the page cache, is not counted."""
    found: list[float] = []
    for _ in range(times + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=folder or ROOT, **pinned(0))
        found.append(time.perf_counter() - began)
    return statistics.median(found[1:])


def imports(folder: Path, scale: float) -> dict[str, float]:
    found = {"bare_s": seconds(sys.executable, "-c", "pass")}
    for name in ("aiohttp", "llmling"):
        found[f"{name}_s"] = seconds(sys.executable, "-c", f"import {name}")
    return {**found, "ratio": found["llmling_s"] / found["aiohttp_s"]}


def commands(folder: Path, scale: float) -> dict[str, float]:
    return {
        "help_s": seconds(*LLMLING[:2], f"import sys; sys.argv[1:] = ['--help']; {LLMLING[2]}"),
        "validate_s": seconds(*LLMLING[:2], f"import sys; sys.argv[1:] = ['validate', 'agents.yml']; {LLMLING[2]}"),
    }


def serve(folder: Path, scale: float) -> dict[str, float]:
    """A pool with the demo model, a webhook and no MCP server: until it is ready, and what it holds when idle."""
    (folder / "agents.yml").write_text(SERVED.format(server=free_port(), port=free_port()))
    ready: list[float] = []
    resident: list[float] = []
    code = f"import sys; sys.argv[1:] = ['serve', 'agents.yml', '--json']; {LLMLING[2]}"
    for _ in range(4):
        began = time.perf_counter()
        process = subprocess.Popen(
            [*LLMLING[:2], code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **pinned(0)
        )
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["type"] == "ready":
                break
        ready.append(time.perf_counter() - began)
        time.sleep(1.0)
        resident.append(_resident_mib(process.pid))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    return {"s": statistics.median(ready[1:]), "idle_mib": statistics.median(resident)}


def manifest(folder: Path, scale: float) -> dict[str, float]:
    """1,000 agents: read and validated with the place of every key, and entered as a pool."""
    count = max(10, round(1000 * scale))
    agents = [AGENT.format(number=n, next=f"agent_{n + 1}" if n % 10 else "") for n in range(count - 1)]
    last = AGENT.format(number=count - 1, next="")
    (folder / "agents.yml").write_text("agents:" + "".join([*agents, last]))
    path = str(folder / "agents.yml")
    environment = {**os.environ, "OPENAI_API_KEY": "sk-bench"}
    found: dict[str, float] = {}
    for name, code in (("load", LOAD), ("enter", ENTER)):
        done = subprocess.run(
            [sys.executable, "-c", code, path], check=True, capture_output=True, text=True, env=environment, **pinned(0)
        )
        found.update({f"{name}_{key}": value for key, value in json.loads(done.stdout).items()})
    return found


def servers(folder: Path, scale: float) -> dict[str, float]:
    """10 agents with 3 MCP servers each, every one of which takes a second until it answers: until all do."""
    count = max(1, round(10 * scale))
    server = {
        "type": "stdio",
        "command": sys.executable,
        "args": ["-c", SERVER, "1"],
        "start_timeout_s": 120,
        "required": True,
    }
    agents = {f"agent_{number}": {"model": "demo", "mcp_servers": [server] * 3} for number in range(count)}
    (folder / "agents.yml").write_text(json.dumps({"agents": agents}))
    done = subprocess.run(
        [sys.executable, "-c", ENTER, str(folder / "agents.yml")],
        check=True, capture_output=True, text=True, **anywhere(),
    )  # fmt: skip
    return {"s": json.loads(done.stdout)["s"]}


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


SCENARIOS = {"imports": imports, "commands": commands, "serve": serve, "manifest": manifest, "servers": servers}


def measured(name: str, scale: float) -> dict[str, Any]:
    """Return the figures of a scenario, or why there are none."""
    with tempfile.TemporaryDirectory() as place:
        try:
            return SCENARIOS[name](Path(place), scale)
        except subprocess.CalledProcessError as error:
            said = error.stderr if isinstance(error.stderr, str) else (error.stderr or b"").decode(errors="replace")
            return {"failed": (said.splitlines() or [f"exit status {error.returncode}"])[-1]}
        except Exception as error:  # noqa: BLE001 - what cannot be measured is told, and the next one tried
            return {"failed": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for source in ("llmling", "cli"):
        compileall.compile_dir(ROOT / source, quiet=1)
    for scenario in given.scenarios.split(","):
        print(json.dumps({"scenario": scenario, **measured(scenario, given.scale)}), flush=True)
