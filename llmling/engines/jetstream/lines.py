"""One delivery of an agent and order key after the other, in the order in which they came, whichever process runs them.

Those that wait are messages of a stream: their places in it are the order. Who has the turn stands in a record that
is written only over the version that was read. What a delivery's event says decides whether it still holds the turn,
so that whoever comes next makes good for a process that died before it could pass the turn on.
"""

from __future__ import annotations

import contextlib
import json
from base64 import b64decode
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from llmling.engines.jetstream import events
from llmling.engines.jetstream.book import Book, Found, digest, event_name, token
from llmling.engines.jetstream.events import Doc
from llmling.engines.jetstream.link import Conflict


@dataclass(frozen=True, slots=True)
class Line:
    """The deliveries of one agent that share an order key; both as parts of a subject."""

    agent: str
    key: str

    @classmethod
    def of(cls, entry: Doc) -> Line:
        """Return the line of a delivery."""
        return cls(token(entry["agent"]), digest(entry["order_key"]))


@dataclass(frozen=True, slots=True)
class Member:
    """A delivery, the `join`th time it stands in its line; `place` is where it stood first, None when not known."""

    event_id: str
    delivery_id: str
    join: int
    place: int | None = None

    @classmethod
    def of(cls, doc: Doc, entry: Doc) -> Member:
        """Return what stands in line for a delivery."""
        return cls(doc["id"], entry["id"], entry["join"], entry["place"])

    def is_(self, other: Member | None) -> bool:
        """Whether both are the same stay in line."""
        return other is not None and (self.delivery_id, self.join) == (other.delivery_id, other.join)

    def to_list(self) -> list[Any]:
        """Return plain data that `Member(*data)` takes back."""
        return [self.event_id, self.delivery_id, self.join, self.place]


@dataclass(frozen=True, slots=True)
class Turn:
    """Who has the turn of a line, who has come back to its old place in it, and the version in which this stands."""

    holder: Member | None = None
    again: tuple[Member, ...] = ()
    found: Found | None = None


class Lines:
    """The lines of all agents and order keys; every method may be done twice."""

    def __init__(self, book: Book) -> None:
        self._book = book

    async def join(self, doc: Doc, entry: Doc) -> None:
        """Let a pending delivery wait for its turn, and queue it when it has it.

        Raises:
            Unreachable: NATS does not answer.
        """
        if await self._enter(doc, entry):
            await self._pass(Line.of(entry))

    async def _enter(self, doc: Doc, entry: Doc) -> bool:
        """Put a delivery into its line, or into the queue when it has the turn; return whether it is in line."""
        mine, line = Member.of(doc, entry), Line.of(entry)
        turn = await self._turn(line)
        if mine.is_(turn.holder):
            await self._book.enqueue(doc["id"], entry)
            return False
        if mine.join and mine.place is not None:
            await self._come_back(line, mine)
        else:
            with contextlib.suppress(Conflict):
                body = json.dumps(mine.to_list()).encode()
                await self._book.link.publish(self._subject(doc["id"], entry), body, last=0)
        return True

    async def leave(self, doc: Doc, entry: Doc) -> None:
        """Let the next one have the turn of a delivery that has settled, which is written already.

        Raises:
            Unreachable: NATS does not answer.
        """
        mine, line = Member.of(doc, entry), Line.of(entry)
        while True:
            turn = await self._turn(line)
            if mine.is_(turn.holder):
                await self._pass(line, mine)
                return
            again = tuple(each for each in turn.again if not mine.is_(each))
            if again == turn.again or await self._write(line, turn, turn.holder, again):
                break
        found = await self._book.link.last(self._book.lines, self._subject(doc["id"], entry))
        if found is not None:
            await self._book.link.delete(self._book.lines, found[1])

    async def holds(self, doc: Doc, entry: Doc) -> Member | None:
        """Return a delivery as it has the turn, None while another one has it."""
        holder = (await self._turn(Line.of(entry))).holder
        return holder if Member.of(doc, entry).is_(holder) else None

    async def ahead(self, doc: Doc, entry: Doc) -> str | None:
        """Return the event that has the turn a delivery waits for, None when it has it."""
        holder = (await self._turn(Line.of(entry))).holder
        if holder is None:
            return "another one"
        return None if Member.of(doc, entry).is_(holder) else holder.event_id

    async def place(self, doc: Doc, entry: Doc) -> int | None:
        """Return where a delivery stands in its line, None when it does not."""
        if entry["place"] is not None:
            return entry["place"]
        found = await self._book.link.last(self._book.lines, self._subject(doc["id"], entry))
        if found is not None:
            return found[1]
        holder = await self.holds(doc, entry)
        return None if holder is None else holder.place

    async def waiting(self, agent: str) -> int:
        """Return how many deliveries of an agent wait for their turn."""
        return await self._book.link.count(self._book.lines, f"{self._book.name}.line.{token(agent)}.>")

    async def oldest(self, agent: str, priority: int) -> tuple[Member, str] | None:
        """Return the one of a priority that waits longest for its turn, and since when."""
        subject = f"{self._book.name}.line.{token(agent)}.{priority}.>"
        found = await self._book.link.next(self._book.lines, subject, 0)
        return None if found is None else (_member(found), stamp(found[0]))

    async def look(self) -> None:
        """Go through all lines in which somebody waits, in case that one who had the turn is not there any more."""
        pattern = f"{self._book.name}.line.>"
        async with aclosing(self._book.link.scan(self._book.lines, pattern, headers_only=True)) as waiting:
            lines = {Line(*message.subject.split(".")[-6:-2:2]) async for message, _ in waiting}
        for line in lines:
            await self._pass(line)

    # --- whose turn it is --------------------------------------------------------------------------------------------

    async def _pass(self, line: Line, left: Member | None = None) -> None:
        """See to it that one that is open has the turn, if there is one, and is queued when it is to run.

        `left` has queued what follows from it. Of another one that has settled this is not sure, and it must be done
        before the turn goes on: what follows is in line in the same order.
        """
        lines = {line}
        while lines:
            lines |= await self._pass_one(lines.pop(), left)

    async def _pass_one(self, line: Line, left: Member | None) -> set[Line]:
        """Return the lines in which somebody waits now because of this one."""
        followed: set[Line] = set()
        while True:
            turn = await self._turn(line)
            if turn.holder is not None:
                if (state := await self._open(turn.holder)) is not None:
                    doc, holder = state
                    if holder["status"] == "pending" and not holder["due"]:
                        await self._book.enqueue(doc["id"], holder)
                    return followed
                if not turn.holder.is_(left):
                    followed |= await self._follow(turn.holder)
            head, place = await self._head(line, turn)
            if head is None:
                if turn.found is not None:
                    await self._book.erase(turn.found)
                return followed
            again = tuple(each for each in turn.again if not head.is_(each))
            if await self._write(line, turn, head, again) and place is not None:
                await self._book.link.delete(self._book.lines, place)

    async def _follow(self, member: Member) -> set[Line]:
        """Queue what follows from a delivery whose process may have died before it could."""
        found = await self._book.get(event_name(member.event_id))
        lines: set[Line] = set()
        doc: Doc = {"deliveries": []} if found is None else found.value
        for entry in doc["deliveries"]:
            if entry["status"] == "pending" and not entry["due"]:
                if entry["order_key"] is None:
                    await self._book.enqueue(member.event_id, entry)
                elif await self._enter(doc, entry):
                    lines.add(Line.of(entry))
        return lines

    async def _head(self, line: Line, turn: Turn) -> tuple[Member | None, int | None]:
        """Return who is first, and its place in the stream when it waits there."""
        back = min(turn.again, key=lambda each: each.place or 0, default=None)
        while True:
            found = await self._book.link.next(
                self._book.lines, f"{self._book.name}.line.{line.agent}.*.{line.key}.>", 0
            )
            if found is None or (back is not None and (back.place or 0) < found[1]):
                return back, None
            head = _member(found)
            if not head.is_(turn.holder):
                return head, found[1]
            # It got the turn, and who gave it died before this was taken away.
            await self._book.link.delete(self._book.lines, found[1])

    async def _open(self, member: Member) -> tuple[Doc, Doc] | None:
        """Return the event and the delivery of one that has not settled since it stands in line."""
        found = await self._book.get(event_name(member.event_id))
        entry = None if found is None else events.find(found.value, member.delivery_id)
        if found is None or entry is None or entry["join"] != member.join or entry["status"] in events.OVER:
            return None
        return found.value, entry

    async def _come_back(self, line: Line, mine: Member) -> None:
        while True:
            turn = await self._turn(line)
            known = any(mine.is_(each) for each in turn.again)
            if known or await self._write(line, turn, turn.holder, (*turn.again, mine)):
                return

    async def _turn(self, line: Line) -> Turn:
        found = await self._book.get(f"turn.{line.agent}.{line.key}")
        if found is None:
            return Turn()
        holder, again = found.value
        return Turn(None if holder is None else Member(*holder), tuple(Member(*each) for each in again), found)

    async def _write(self, line: Line, turn: Turn, holder: Member | None, again: tuple[Member, ...]) -> bool:
        value = [None if holder is None else holder.to_list(), [each.to_list() for each in again]]
        name = f"turn.{line.agent}.{line.key}"
        try:
            await self._book.write(name, value, turn.found, group=name)
        except Conflict:
            return False
        return True

    def _subject(self, event_id: str, entry: Doc) -> str:
        line = Line.of(entry)
        way = f"{line.agent}.{entry['priority']}.{line.key}.{token(event_id)}.{digest(entry['id'])}.{entry['join']}"
        return f"{self._book.name}.line.{way}"


def _member(found: tuple[dict[str, Any], int]) -> Member:
    message, place = found
    event_id, delivery_id, join, _ = json.loads(b64decode(message["data"]))
    return Member(event_id, delivery_id, join, place)


def stamp(message: Mapping[str, Any]) -> str:
    """Return when a message was written, so that earlier ones come before later ones."""
    return message["time"].rstrip("Z")
