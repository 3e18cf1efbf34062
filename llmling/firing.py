"""Sending one event through a trigger by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmling.errors import EngineBusy, EngineError, LLMlingError, StartupError
from llmling.events import Event
from llmling.manifest.root import Manifest
from llmling.manifest.triggers import TriggerBase
from llmling.pool import AgentPool
from llmling.prompts.instructions import event_message
from llmling.protocols import Engine, EventRecord
from llmling.templates import TemplateFailed, expression
from llmling.triggers.by_hand import NO_DATA, event_by_hand
from llmling.wiring import Source, order_key_of
from llmling.wiring import open_engine as build_engine

_LOOK_S = 0.25
_OVER = ("done", "dead", "waiting")


@dataclass(frozen=True, slots=True)
class FireResult:
    """What became of a fired event; of a dry run only `event`, `wanted`, `prompt` and `key` are known.

    `wanted` is whether the trigger's filter lets the event through, `prompt` the message the agent gets, `why_not`
    the reason the trigger itself would not have taken the file, `key` what it is kept in order by.
    """

    event: Event
    agent: str
    wanted: bool
    prompt: str | None
    why_not: str | None = None
    record: EventRecord | None = None
    served: bool = False
    key: str | None = None


@asynccontextmanager
async def open_engine(manifest: Manifest) -> AsyncGenerator[Engine]:
    """Open the engine of a manifest to look or to write, also while another process serves it.

    Raises:
        EngineError: The manifest keeps events in memory, so there is nothing to open; or the file cannot be used.
    """
    if manifest.engine.type == "memory":
        raise EngineError(
            "engine: type is memory, so events live only inside the serving process; use `type: sqlite` to keep them"
        )
    engine = build_engine(manifest)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.stop(0)


async def fire(
    manifest: Manifest,
    trigger: str,
    *,
    file: Path | None = None,
    data: Any = NO_DATA,
    dry_run: bool = False,
    model: str | None = None,
    record: str | Path | None = None,
    timeout_s: float | None = None,
) -> FireResult:
    """Send one event through a trigger: into the serving process when there is one, else run it here.

    A file trigger takes `file`, a schedule `data`, every other one either of them. `model` and `record` are as for
    `AgentPool`. Returns when the event is settled or waits for a person, or after `timeout_s` with a record that is
    not.

    Raises:
        LookupError: There is no such trigger; the message lists those there are.
        StartupError: `file` or `data` does not fit the trigger or cannot be read; or `model` or `record` is given and
            would have no effect, since it is a dry run or another process serves the manifest.
        LLMlingError: The engine cannot be used.
    """
    node, config = _find(manifest, trigger)
    own = [flag for flag, value in (("--model", model), ("--record", record)) if value is not None]
    if dry_run and own:
        raise StartupError(f"--dry-run asks no model: leave out {' and '.join(own)}, or --dry-run", usage=True)
    event, why_not = await asyncio.to_thread(event_by_hand, config, manifest.folder, file=file, data=data)
    wanted = config.filter is None or expression(config.filter)({"event": event})
    prompt = event_message(event, config.prompt).text if wanted else None
    if dry_run:
        return FireResult(event, node, wanted, prompt, why_not, key=_key(config, event) if wanted else None)
    ends = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
    while True:
        if manifest.engine.type != "memory":
            async with open_engine(manifest) as engine:
                if own and engine.serving:
                    raise StartupError(
                        "another process serves this manifest and would run the event with its own settings: stop it, "
                        f"or start it with {' and '.join(own)}, or leave out {' and '.join(own)} here",
                        usage=True,
                    )
                # What this process alone can do is never handed over, also to one that begins to serve just now.
                settled = None if own else await _served(engine, Source(config, node, engine), event, ends)
            if settled is not None:
                return FireResult(event, node, wanted, prompt, why_not, settled, served=True)
        pool = AgentPool[None](manifest, model=model, record=record)
        try:
            settled = await _here(pool, config, node, event, ends)
        except EngineBusy:
            # Somebody has begun to serve since we looked.
            continue
        return FireResult(event, node, wanted, prompt, why_not, settled)


async def fire_in(
    pool: AgentPool[Any],
    trigger: str,
    *,
    file: Path | None = None,
    data: Any = NO_DATA,
    timeout_s: float | None = None,
) -> EventRecord:
    """Send one event through a trigger of a pool that was entered, and return what became of it and its whole chain.

    An event that waits for a person is returned as it is then.

    Raises:
        LookupError: There is no such trigger; the message lists those there are.
        TimeoutError: It is not settled after `timeout_s`.
        StartupError: `file` or `data` does not fit the trigger or cannot be read.
        LLMlingError: The pool has no trigger to fire.
    """
    node, config = _find(pool.manifest, trigger)
    event, _ = await asyncio.to_thread(event_by_hand, config, pool.manifest.folder, file=file, data=data)
    ends = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
    settled = await _in(pool, config, node, event, ends)
    if settled is None or settled.status not in _OVER:
        raise TimeoutError(f"event {event.id} of trigger {trigger!r} is not settled after {timeout_s} s")
    return settled


def _key(config: TriggerBase, event: Event) -> str | None:
    try:
        return order_key_of(config, event)
    except TemplateFailed as error:
        raise TemplateFailed(f"trigger {config.name!r}, key: {error}") from error


async def _served(engine: Engine, source: Source, event: Event, ends: float | None) -> EventRecord | None:
    """Send an event into the serving process; None when there is none, or it stopped before the event was settled."""
    accepted = False
    while engine.serving:
        if not accepted:
            await source.emit(event)
            accepted = True
        left_s = _left_s(ends)
        record = await engine.wait(event.id, _LOOK_S if left_s is None else min(left_s, _LOOK_S))
        record = record or await engine.inspect(event.id)
        if record is not None and (record.status in _OVER or left_s == 0.0):
            return record
    return None


def _left_s(ends: float | None) -> float | None:
    return None if ends is None else max(0.0, ends - asyncio.get_running_loop().time())


async def _here(pool: AgentPool[None], config: Any, node: str, event: Event, ends: float | None) -> EventRecord | None:
    pool.arm = False
    async with pool:
        return await _in(pool, config, node, event, ends)


async def _in(pool: AgentPool[Any], config: Any, node: str, event: Event, ends: float | None) -> EventRecord | None:
    engine = pool.engine
    if engine is None:
        raise LLMlingError(
            "no trigger of this manifest is enabled: set `enabled: true` to fire one, and open the pool without "
            "triggers=False"
        )
    receipt = await Source(config, node, engine).emit(event)
    while True:
        left_s = _left_s(ends)
        record = await engine.wait(receipt.event_id, _LOOK_S if left_s is None else min(left_s, _LOOK_S))
        record = record or await engine.inspect(receipt.event_id)
        if record is None or record.status in _OVER or left_s == 0.0:
            return record


def _find(manifest: Manifest, trigger: str) -> tuple[str, TriggerBase]:
    names: list[str] = []
    for name, node in manifest.nodes.items():
        for config in node.triggers:
            names.append(config.name)
            if config.name == trigger:
                return name, config
    raise LookupError(f"no trigger {trigger!r} in the manifest; triggers: {', '.join(names) or 'none'}")
