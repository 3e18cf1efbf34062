"""Events in the book: read, changed over the version that was read, queued, forgotten."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from llmling.engines.jetstream import events
from llmling.engines.jetstream.book import Book, Found, digest, event_name, token
from llmling.engines.jetstream.events import Doc
from llmling.engines.jetstream.lines import Lines
from llmling.engines.jetstream.link import Conflict
from llmling.errors import EngineError
from llmling.events import new_id
from llmling.protocols import EventRecord, Step


class Archive:
    """All events of a pool and the steps of their deliveries."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.lines = Lines(book)

    # --- events ------------------------------------------------------------------------------------------------------

    async def find(self, event_id: str) -> Found | None:
        """Return an event, or None when it is unknown or forgotten."""
        found = await self.book.get(event_name(event_id))
        return None if found is None or "gone" in found.value else found

    async def rewrite(self, found: Found) -> Found:
        """Write an event once more as it is, unless it has changed; return it."""
        doc = found.value
        with contextlib.suppress(Conflict):
            key, group = event_name(doc["id"]), token(doc["id"])
            return await self.book.write(key, doc, found, facts=events.facts(doc), group=group)
        return found

    async def create(self, doc: Doc) -> Found:
        """Write a new event.

        Raises:
            Conflict: There is one of that id.
        """
        try:
            return await self.book.write(
                event_name(doc["id"]), doc, None, facts=events.facts(doc), group=token(doc["id"])
            )
        except Conflict:
            if doc["mark"] and (found := await self.find(doc["id"])) and found.value["mark"] == doc["mark"]:
                return found
            raise

    async def change(
        self, event_id: str, mutate: Callable[[Doc], bool], *, found: Found | None = None, patient: bool = False
    ) -> Found | None:
        """Change an event, and return it as it was written; None when it is unknown or `mutate` says no.

        `mutate` gets a copy and may be called more than once: when somebody else was first it decides again. With
        `patient` this waits for a NATS that does not answer. `found` is the event as it was last read.
        """
        mark = new_id()

        async def attempt() -> Found | None:
            nonlocal found
            # Only the first look may be an older one.
            current, found = found, None
            while True:
                current = current or await self.find(event_id)
                if current is None:
                    return None
                if current.value["mark"] == mark:
                    # The answer to this very change was lost.
                    return current
                doc = copy.deepcopy(current.value)
                if not mutate(doc):
                    return None
                doc["n"] = doc["n"] or current.revision
                doc["mark"] = mark
                try:
                    key, group = event_name(event_id), token(event_id)
                    return await self.book.write(key, doc, current, facts=events.facts(doc), group=group)
                except Conflict:
                    current = None

        return await self.book.link.patiently(attempt) if patient else await attempt()

    async def forget(self, event_id: str) -> bool:
        """Delete a settled event with all that belongs to it but its key; return whether it was settled."""
        known: list[str] = []

        def settle(doc: Doc) -> bool:
            if doc["finished"] is None:
                return False
            known[:] = [doc["key"]] if doc["key"] else []
            doc["gone"] = True
            return True

        forgotten = await self.change(event_id, settle)
        if forgotten is None:
            return False
        for key in known:
            with contextlib.suppress(Conflict):
                if (found := await self.book.get(key)) is not None and found.value["event"] == event_id:
                    await self.book.write(key, {**found.value, "gone": True}, found, facts=_expiry(found.value))
        if (watch := forgotten.value["watch"]) is not None:
            await self._forget_watch(watch, event_id)
        for kind in ("step", "body"):
            await self.book.forget(f"{kind}.{token(event_id)}.>")
        await self.book.erase(forgotten)
        return True

    async def _forget_watch(self, watch: str, event_id: str) -> None:
        listed = await self.book.get(watch)
        if listed is not None:
            others = [each for each in listed.value if each != event_id]
            if not any([await self.find(each) is not None for each in others]):
                await self.book.erase(listed)

    async def queue(self, doc: Doc, entries: Iterable[Doc]) -> None:
        """Queue deliveries, each once however often it is asked for; one with a key when it has its turn."""
        for entry in entries:
            if entry["order_key"] is None:
                await self.book.enqueue(doc["id"], entry)
            else:
                await self.lines.join(doc, entry)

    async def leave(self, doc: Doc, entries: Iterable[Doc]) -> None:
        """Let others have the turn of those deliveries that have settled."""
        for entry in entries:
            if entry["order_key"] is not None and entry["status"] in events.OVER:
                await self.lines.leave(doc, entry)

    async def unqueue(self, doc: Doc, entries: Iterable[Doc]) -> None:
        """Take deliveries out of the queue."""
        for entry in entries:
            await self.book.dequeue(doc["id"], entry)

    # --- keys --------------------------------------------------------------------------------------------------------

    async def take_key(self, name: str, event_id: str, expires: float | None, over: Found | None) -> None:
        """Write a key down.

        Raises:
            Conflict: Somebody else was first.
        """
        value = {"event": event_id, "expires": expires}
        await self.book.write(name, value, over, facts=_expiry(value))

    async def forget_keys(self, now: float) -> None:
        """Delete keys that have expired."""
        async with aclosing(self.book.headings("key.>")) as headings:
            dated = [each async for each in headings]
        for each in dated:
            if each.facts["expires"] is not None and each.facts["expires"] <= now:
                await self.book.erase(each)

    # --- steps -------------------------------------------------------------------------------------------------------

    async def steps(self, doc: Doc, entry: Doc | None = None) -> dict[str, tuple[Step, ...]]:
        """Return the steps of one or all deliveries of an event, by delivery, in the order of their recording."""
        entries = doc["deliveries"] if entry is None else [entry]
        written: dict[str, list[_Written]] = {digest(each["id"]): [] for each in entries}
        pattern = f"step.{token(doc['id'])}.{'*' if entry is None else digest(entry['id'])}.>"
        async with aclosing(self.book.scan(pattern)) as found:
            async for key, record in found:
                _, _, delivery, _, begun = key.split(".")
                if delivery in written:
                    written[delivery].append(_Written(int(begun), record.revision, _step(record.value)))
        steps: dict[str, tuple[Step, ...]] = {}
        for each in entries:
            by_key = _in_force(written[digest(each["id"])])
            for decided in each["decided"]:
                step = _step(decided)
                by_key.setdefault(step.key, step)
            steps[each["id"]] = tuple(by_key.values())
        return steps

    async def write_step(self, event_id: str, delivery_id: str, step: Step, begun: int) -> None:
        """Write a step down, over an earlier one of the same key; `begun` is the place at which its attempt began."""
        name = f"{_step_of(event_id, delivery_id, step.key)}.{begun}"
        await self.book.put(name, step_data(step), group=token(event_id))

    async def forget_step(self, event_id: str, delivery_id: str, key: str) -> None:
        """Delete a step."""
        await self.book.forget(f"{_step_of(event_id, delivery_id, key)}.*")

    async def record(self, found: Found) -> EventRecord:
        """Return an event with its deliveries and their steps."""
        return events.event_record(found.value, await self.all_steps(found.value))

    async def all_steps(self, doc: Doc) -> dict[str, tuple[Step, ...]]:
        """Return the steps of all deliveries of an event."""
        # Most events have no steps that somebody could look for: only runs that wait or fail are asked again.
        return await self.steps(doc) if doc["deliveries"] else {}


def _expiry(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"expires": value["expires"]}


def key_of(trigger: str, key: str) -> str:
    """Return where a trigger's own id of an event is remembered."""
    return f"key.{digest(trigger)}.{digest(key)}"


def _step_of(event_id: str, delivery_id: str, key: str) -> str:
    return f"step.{token(event_id)}.{digest(delivery_id)}.{digest(key)}"


def step_data(step: Step) -> dict[str, Any]:
    """Return a step as it is written down."""
    return {"key": step.key, "kind": step.kind, "data": dict(step.data)}


@dataclass(frozen=True, slots=True)
class _Written:
    """A step, its place, and the place at which the attempt that wrote it began."""

    begun: int
    place: int
    step: Step


def _in_force(written: Sequence[_Written]) -> dict[str, Step]:
    """Return the steps that count, by their keys, in the order of their recording.

    Of an attempt that was taken over they are those that whoever took over could read.
    """
    steps: dict[str, Step] = {}
    for each in sorted(written, key=lambda each: each.place):
        if not any(each.begun < other.begun < each.place for other in written):
            steps.pop(each.step.key, None)
            steps[each.step.key] = each.step
    return steps


def _step(data: Mapping[str, Any]) -> Step:
    try:
        return Step(data["key"], data["kind"], data["data"])
    except KeyError as error:
        raise EngineError(f"a step cannot be read from NATS: {error} is missing") from error
