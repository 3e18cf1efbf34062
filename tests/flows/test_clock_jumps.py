"""The wall clock is set an hour forward and back under load: nothing is run twice, early, or never."""

from __future__ import annotations

import os
from collections import Counter
from itertools import groupby
from pathlib import Path

import aiohttp
import pytest
from chaos import Trial
from serving import Serve, free_port, post, rows, until

FULL = bool(os.environ.get("CHAOS"))
EACH, ROOMS = (10, 10) if FULL else (4, 5)
JUMPS = (3_600, -3_600, 0, 7_200, 3_600, -3_600, -7_200, 0) * 3 if FULL else (3_600, -3_600)

MANIFEST = """
server: false
limits: {{circuit_failures: null}}
agents:
  clerk:
    model: demo:script.yml
    concurrency: 50
    session: "{{{{ event.data.room }}}}"
    retries: {{attempts: 1}}
    redelivery: {{attempts: 100, backoff_s: 0.5, max_backoff_s: 1}}  # the model says how often it fails in all
    hooks: [rules:Door]
    triggers: [{{type: webhook, name: hook, port: {port}, prompt: "{{{{ event.data.text }}}}"}}]
"""
SCRIPT = """
- {match: flaky, error: 500, times: %d}
- {reply: said, delay_s: 0.05}
"""
RULES = '''
class Door:
    """Writes down who is in which room."""

    async def before_model(self, request, run):
        with open("door", "a") as file:
            file.write(f"in {run.event.data['room']} {run.event.id}\\n")

    async def after_model(self, response, run):
        with open("door", "a") as file:
            file.write(f"out {run.event.data['room']} {run.event.id}\\n")
'''


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_a_clock_that_jumps_steals_no_lease_and_stalls_no_run(tmp_path: Path) -> None:
    trial, port, rounds = Trial("wall clock set an hour forward and back (Q8)"), free_port(), len(JUMPS) + 1
    script = SCRIPT % rounds
    for name, text in (("agents.yml", MANIFEST.format(port=port)), ("script.yml", script), ("rules.py", RULES)):
        (tmp_path / name).write_text(text)
    clock = tmp_path / "clock"
    clock.write_text("0")
    accepted = dict[str, str]()
    program = str(Path(__file__).with_name("jumping_clock.py"))
    async with (
        Serve(tmp_path, env={"CLOCK_OFF_BY": str(clock)}, program=(program,)) as serve,
        aiohttp.ClientSession() as session,
    ):
        for number, jump in enumerate((*JUMPS, 0)):
            for turn in range(EACH * ROOMS):
                # One in each round fails and is tried again on the other side of the jump.
                text = "flaky" if turn == 0 else "hello"
                body = {"room": turn % ROOMS, "text": text}
                status, answer = await post(session, f"http://127.0.0.1:{port}/webhook", body)
                assert status == 202
                accepted[answer["event_id"]] = text
            await until(lambda number=number: len(serve.events) > number * EACH * ROOMS + 5, "some to end", 60)
            (tmp_path / "new").write_text(str(jump))
            (tmp_path / "new").rename(clock)
        await until(lambda: len(serve.events) >= len(accepted), "every event to end", 60)
        assert await serve.stop() == 0
    assert dict(rows(tmp_path / ".llmling" / "pool.db", "select id, status from event")) == dict.fromkeys(
        accepted, "done"
    )
    times = [event["created"] for event in serve.events]
    assert max(times) - min(times) > 3_600, "the clock was not moved"
    assert Counter(event["id"] for event in serve.events) == dict.fromkeys(accepted, 1)
    attempts = {event["id"]: event["attempts"] for event in serve.events}
    assert sum(attempts.values()) == len(accepted) + rounds, "more was tried again than what had failed"
    passed = [line.split() for line in (tmp_path / "door").read_text().splitlines()]
    failed = {event_id for event_id, text in accepted.items() if text == "flaky"}
    for _, lines in groupby(sorted(passed, key=lambda line: line[1]), key=lambda line: line[1]):
        # Two of one session are never in at once; one that fails leaves without a word.
        moves = [(what, event_id) for what, _, event_id in lines if event_id not in failed]
        assert [what for what, _ in moves] == ["in", "out"] * (len(moves) // 2)
        assert all(ins == outs for (_, ins), (_, outs) in zip(moves[::2], moves[1::2], strict=True))
    trial.holds(events=len(accepted), measured=f"{len(JUMPS)} jumps")
