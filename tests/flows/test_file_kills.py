"""Files dropped while the pool is killed at random: each is run to its end, and no recorded step is made again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import time
from collections import Counter
from pathlib import Path

import pytest
from chaos import Trial
from serving import Serve, rows, until

FULL = bool(os.environ.get("CHAOS"))
PER_S = 150 if FULL else 100
HINTS = [pytest.param("", 10_000, id="F1"), pytest.param("1", 1_000, id="F10")] if FULL else [("", 100)]
"""Whether the folder is polled, as those of other machines have to be, and how many files are dropped."""
CONCURRENCY = 50
STEPS = {"0:reply": "asked", "0.0:result": "noted", "1:reply": "told"}
"""What has been done when a step is recorded."""

RULES = '''
import os

LOG = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

def write(what, run):
    os.write(LOG, f"{what} {run.event.id}\\n".encode())

class Witness:
    """Writes down what is asked and done for which event; the call gets its id."""

    async def before_model(self, request, run):
        write("told" if request.messages[-1].role == "tool" else "asked", run)

    async def before_tool(self, call, run):
        return {"event_id": run.event.id}

def note(event_id: str) -> str:
    """Note an event."""
    os.write(LOG, f"noted {event_id}\\n".encode())
    return f"noted {event_id}"
'''

SCRIPT = """
- {match: ^noted, reply: It is noted.}
- {tool_calls: [{name: note, arguments: {event_id: it}}], delay_s: 0.1}
"""

MANIFEST = f"""
server: false
agents:
  reader:
    model: demo:script.yml
    concurrency: {CONCURRENCY}
    inbox: {{size: 20000}}
    redelivery: {{attempts: 1000}}  # none of these is poison, but the same ones can be in flight at every kill
    hooks: [rules:Witness]
    tools: [{{type: function, function: "rules:note", idempotent: true}}]
    triggers: [{{type: file, name: inbox, paths: [inbox], extensions: [.md], settle_s: 1}}]
"""


def text_of(number: int) -> str:
    return f"file-{number} " + f"line {number}\n" * 3


async def drop(inbox: Path, numbers: range) -> None:
    """Write files: every other one beside the folder and renamed into it, the others slowly in their place."""

    async def slowly(number: int) -> None:
        text = text_of(number)
        with (inbox / f"{number}.md").open("w") as file:
            for start in range(0, len(text), 10):
                file.write(text[start : start + 10])
                file.flush()
                await asyncio.sleep(0.05)

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in numbers:
            if number % 2:
                group.create_task(slowly(number))
            else:
                outside = inbox.parent / f"{number}.tmp"
                outside.write_text(text_of(number))
                outside.rename(inbox / f"{number}.md")
            await asyncio.sleep(began + (number - numbers.start) / PER_S - time.monotonic())


class Killing:
    """Kills a pool at random moments, starts it again, and knows what had been recorded when it died."""

    def __init__(self, serve: Serve) -> None:
        self.over = asyncio.Event()
        self.starts: list[float] = []
        """How long each start took."""
        self.recorded: dict[tuple[str, str], int] = {}
        """By what and event, how many lines had been witnessed when it was found in the engine's file."""
        self._serve = serve

    async def run(self) -> None:
        chance = random.Random(11)
        while not self.over.is_set():
            if FULL:
                # The moments of the kills are the matter of this trial.
                await asyncio.sleep(chance.uniform(3, 8))
            else:
                more = len(self.witnessed()) + chance.randrange(50, 200)
                await until(lambda more=more: len(self.witnessed()) >= more or self.over.is_set(), "some work")
            await self._serve.kill()
            lines = len(self.witnessed())
            for delivery, key in rows(self.database, "select delivery_id, key from step"):
                if key in STEPS:
                    self.recorded.setdefault((STEPS[key], delivery.removesuffix("/reader")), lines)
            began = time.monotonic()
            await self._serve.start()
            self.starts.append(time.monotonic() - began)

    @property
    def database(self) -> Path:
        return self._serve.folder / ".llmling" / "pool.db"

    def witnessed(self) -> list[tuple[str, str]]:
        """Return what was asked and done, each as what and for which event."""
        log = self._serve.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(what, event_id) for what, _, event_id in (line.partition(" ") for line in lines)]


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("polling", "files"), HINTS)
async def test_files_dropped_between_kills_are_each_run_once_and_no_recorded_step_is_repeated(
    tmp_path: Path, polling: str, files: int
) -> None:
    trial = Trial("files between kills, polled (F10)" if polling else "files between kills (F1)")
    inbox, serve = tmp_path / "inbox", Serve(tmp_path, env={"WATCHFILES_FORCE_POLLING": polling})
    inbox.mkdir()
    for name, text in (("agents.yml", MANIFEST), ("rules.py", RULES), ("script.yml", SCRIPT)):
        (tmp_path / name).write_text(text)
    killing = Killing(serve)
    done = "select count(*) from event where status = 'done'"
    async with serve:
        async with asyncio.TaskGroup() as group:
            group.create_task(killing.run())
            await drop(inbox, range(files))
            await until(lambda: rows(killing.database, done)[0][0] >= files * 9 // 10, "most files", 1200)
            killing.over.set()
        await until(lambda: rows(killing.database, done)[0][0] >= files, "every file", 300)
        assert await serve.stop() == 0

    events = rows(killing.database, "select status, data, id from event")
    assert Counter(status for status, _, _ in events) == {"done": files}
    texts = {data["subject"]: data["data"]["text"] for data in (json.loads(text) for _, text, _ in events)}
    assert texts == {f"inbox/{number}.md": text_of(number) for number in range(files)}
    witnessed = killing.witnessed()
    for line, step in enumerate(witnessed):
        assert killing.recorded.get(step, line + 1) > line, f"{step}: a recorded step was made again"
    assert set(witnessed) == {(what, event_id) for what in STEPS.values() for _, _, event_id in events}
    # A run that goes on after a crash makes again what was not recorded yet: once for each kill that met it in flight.
    again = {event_id: 0 for _, _, event_id in events}
    for (_, event_id), count in Counter(witnessed).items():
        again[event_id] = max(again[event_id], count - 1)
    repeated, kills = sum(again.values()), len(killing.starts)
    assert repeated <= kills * CONCURRENCY
    assert rows(killing.database, "pragma integrity_check") == [("ok",)]
    ready = f"ready in {statistics.median(killing.starts):.1f} s (median)"
    trial.holds(events=files, kills=kills, repeated=repeated, bound=str(kills * CONCURRENCY), measured=ready)
