"""`llmling events approve|deny|answer`: what a person says to an event that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import typer

from llmling.asks import Ask, Decision, open_asks, why_not
from llmling.deciding import decide
from llmling.errors import EngineError, OutputError
from llmling.firing import open_engine
from llmling.manifest import Manifest
from llmling.protocols import EventRecord
from llmling_cli import console

_SAID = {"approve": "approved", "deny": "denied", "answer": "answered"}


def settle(
    manifest: Manifest, act: Literal["approve", "deny", "answer"], event_id: str, text: str, *, json: bool
) -> int:
    """Tell a decision to an event, print what it settled and return the exit code.

    Raises:
        EngineError: There is no such event.
        BadParameter: The answer does not match the agent's `output`.
    """
    decision = Decision(answer=text) if act == "answer" else Decision(approved=act == "approve", reason=text)
    try:
        asks, record = asyncio.run(_settle(manifest, event_id, decision))
    except LookupError as error:
        raise EngineError(str(error.args[0])) from None
    except OutputError as error:
        raise typer.BadParameter(str(error)) from None
    reason = "" if asks or record is None else console.masked(why_not(record, decision, manifest.named))
    if json:
        console.say_json({"id": event_id, act: len(asks), **({"reason": reason} if reason else {})})
        return 0 if asks else 1
    for ask in asks:
        console.say(f"{_SAID[act]}  {console.plain(console.masked(ask.text))}")
    if reason:
        console.say(console.plain(reason))
    for delivery in record.deliveries if record else ():
        for ask in open_asks(delivery.steps) if delivery.status == "waiting" else ():
            console.say(f"still waiting  {console.short(console.masked(ask.reason()), 100)}")
    return 0 if asks else 1


async def _settle(manifest: Manifest, event_id: str, decision: Decision) -> tuple[Sequence[Ask], EventRecord | None]:
    async with open_engine(manifest) as engine:
        asks = await decide(engine, event_id, decision)
        return asks, await engine.inspect(event_id)
