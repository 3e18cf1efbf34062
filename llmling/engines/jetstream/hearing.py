"""Who wants to know what happened to an event: those that wait for it, the process it came through, and the others."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Generator
from contextlib import contextmanager, suppress
from typing import Any

from llmling.engines.jetstream import events
from llmling.engines.jetstream.archive import Archive
from llmling.engines.jetstream.book import Found
from llmling.engines.jetstream.events import Doc
from llmling.engines.jetstream.link import Unreachable
from llmling.errors import EngineError
from llmling.protocols import EventRecord, Settled
from llmling.runtime.tasks import TaskSet

log = logging.getLogger("llmling.engine")
_ASK_S = 1.0
_CLOSE_S = 2.0
_MOST_TOLD = 10_000


class Hearing:
    """Tells what has changed, here and to the other processes, each settled event at least once.

    A settled event is told in the process that accepted it; when that one is gone, in the one that settled it, or
    whichever is handed its ticket again or starts next. News between processes may get lost: they only save looking.
    """

    def __init__(self, archive: Archive, host: str, tasks: TaskSet) -> None:
        self._archive = archive
        self._link = archive.book.link
        self._name = archive.book.name
        self._host = host
        self._tasks = tasks
        self._settled: Settled | None = None
        self._waits: Settled | None = None
        self._runs: Callable[[str], bool] = lambda delivery_id: False
        self._heard: Callable[[Doc], Awaitable[None]] | None = None
        self._stop: Callable[[Collection[str]], None] = lambda delivery_ids: None
        self._places: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._take: Callable[[Doc], bool] = lambda ticket: False
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._quiet = asyncio.Event()
        self._told: OrderedDict[tuple[str, float], None] = OrderedDict()

    async def open(self) -> None:
        """Hear the news of other processes from now on."""
        await self._link.listen(f"{self._name}.news", self._news)
        self._link.on_return(self.wake_all)

    async def serve(
        self,
        settled: Settled | None,
        waits: Settled | None,
        runs: Callable[[str], bool],
        heard: Callable[[Doc], Awaitable[None]],
        stop: Callable[[Collection[str]], None],
        places: Callable[[], tuple[int, int]],
        take: Callable[[Doc], bool],
    ) -> None:
        """Answer other processes: `runs` says whether a delivery is running here, `heard` gets their news.

        `stop` is told of deliveries that were settled while they run; `places` says how many run, and how many may;
        `take` takes a ticket whose delivery runs here, if it has none yet.
        """
        self._places, self._take = places, take
        self._settled, self._waits, self._runs, self._heard, self._stop = settled, waits, runs, heard, stop
        await self._link.listen(f"{self._name}.host.{self._host}", self._asked)
        await self._link.listen(f"{self._name}.hosts", self._asked)

    def tells(self, doc: Doc) -> bool:
        """Whether this process is the one to tell of the end of an event."""
        return self._settled is not None and doc["host"] in {self._host, None}

    # --- waiting -----------------------------------------------------------------------------------------------------

    @contextmanager
    def listen(self, event_id: str) -> Generator[asyncio.Event]:
        """Give an event that is set whenever this one may have changed."""
        changed = asyncio.Event()
        self._waiting.setdefault(event_id, set()).add(changed)
        try:
            yield changed
        finally:
            listeners = self._waiting[event_id]
            listeners.discard(changed)
            if not listeners:
                del self._waiting[event_id]
            if not self._waiting:
                self._quiet.set()

    async def close(self) -> None:
        """Let all that wait have a last look."""
        self._quiet.clear()
        self.wake_all()
        if self._waiting:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._quiet.wait()

    def wake_all(self) -> None:
        """Let all that wait look again."""
        for event_id in list(self._waiting):
            self._wake(event_id)

    def _wake(self, event_id: str) -> None:
        for changed in self._waiting.get(event_id, ()):
            changed.set()

    # --- telling -----------------------------------------------------------------------------------------------------

    async def announce(self, found: Found, *, stopped: Collection[str] = (), before: Doc | None = None) -> None:
        """Tell of a change: of the end of an event, of one that waits for a person, of deliveries that must stop."""
        doc = found.value
        self._wake(doc["id"])
        self._stop(stopped)
        later = [entry for entry in doc["deliveries"] if entry["status"] == "pending" and entry["due"]]
        news = {"id": doc["id"], "stopped": list(stopped), "deliveries": [_short(entry) for entry in later]}
        await self._link.tell(f"{self._name}.news", json.dumps(news).encode())
        if self._waits is not None and doc["status"] == "waiting" and (before is None or before["status"] != "waiting"):
            _call(self._waits, doc)
        if doc["finished"] is not None and (before is None or before["finished"] is None):
            await self.end(found)

    async def end(self, found: Found) -> None:
        """Tell that an event has settled, in the process whose matter it is."""
        doc = found.value
        if self.tells(doc):
            self._tell(doc)
            if not doc["told"]:
                self._tasks.spawn(self._mark(doc["id"]), name=f"mark of event {doc['id']}")
        elif not self.serves:
            # What it leaves to a task it may not live to see.
            await self.adopt(doc)
        elif doc["host"] not in {self._host, None}:
            self._tasks.spawn(self.adopt(doc), name=f"end of event {doc['id']}")

    async def adopt(self, doc: Doc, settler: str | None = None) -> None:
        """See to it that the end of an event is told that may not have been: by the first of these that is there.

        That is who accepted it, the `settler` when it is known, this process, and any other one that serves.
        """
        for host in (doc["host"], settler):
            if host == self._host:
                break
            if host is not None and await self._ask(host, {"ended": doc["id"]}) is not None:
                return
        if self._settled is not None:
            self._tell(doc)
            if not doc["told"]:
                await self._mark(doc["id"])
        elif (other := await self._ask(None, {"listens": ""})) is not None:
            await self._ask(other.decode(), {"ended": doc["id"]})

    def _tell(self, doc: Doc) -> None:
        # Two ways may lead here at once: the end itself, and a look at what nobody was told of.
        settling = doc["id"], doc["finished"]
        if self._settled is None or settling in self._told:
            return
        self._told[settling] = None
        while len(self._told) > _MOST_TOLD:
            self._told.popitem(last=False)
        _call(self._settled, doc)

    async def _mark(self, event_id: str) -> None:
        def mark(doc: Doc) -> bool:
            told = doc["finished"] is not None and not doc["told"]
            doc["told"] = True
            return told

        with suppress(EngineError):
            await self._archive.change(event_id, mark, patient=True)

    # --- other processes ---------------------------------------------------------------------------------------------

    async def alive(self, host: str) -> bool:
        """Whether a process serves right now."""
        return await self._ask(host, {}) is not None

    async def runs(self, host: str, delivery_id: str) -> bool | None:
        """Whether another process runs a delivery, None when it does not answer."""
        answer = await self._ask(host, {"runs": delivery_id})
        return None if answer is None else answer == b"yes"

    async def hand_over(self, host: str, ticket: Doc) -> bool:
        """Give another process the ticket of a delivery that it runs; return whether it had none and has it now."""
        return await self._ask(host, {"take": ticket}) == b"yes"

    async def places(self, hosts: Collection[str]) -> list[tuple[int, int]]:
        """Return of those processes that answer how many deliveries run in each, and how many may."""
        others = [host for host in hosts if host != self._host]
        answers = await asyncio.gather(*(self._ask(host, {"places": ""}) for host in others))
        found = [tuple(json.loads(answer)) for answer in answers if answer is not None]
        return [*([self._places()] if self.serves else []), *found]

    @property
    def serves(self) -> bool:
        """Whether this process serves."""
        return self._heard is not None

    async def anybody(self) -> bool:
        """Whether any other process serves."""
        return await self._ask(None, {}) is not None

    async def _ask(self, host: str | None, question: dict[str, Any]) -> bytes | None:
        subject = f"{self._name}.hosts" if host is None else f"{self._name}.host.{host}"
        try:
            return (await self._link.request(subject, json.dumps(question).encode(), timeout_s=_ASK_S)).data
        except Unreachable:
            return None

    async def _asked(self, message: Any) -> None:
        question = json.loads(message.data)
        answer = b"yes"
        if "runs" in question:
            answer = b"yes" if self._runs(question["runs"]) else b"no"
        elif "take" in question:
            answer = b"yes" if self._take(question["take"]) else b"no"
        elif "places" in question:
            answer = json.dumps(self._places()).encode()
        elif "listens" in question:
            if self._settled is None:
                return
            answer = self._host.encode()
        elif "ended" in question:
            ended = self._ended(question["ended"], message.reply)
            self._tasks.spawn(ended, name="news of the end of an event")
            return
        await self._link.tell(message.reply, answer)

    async def _ended(self, event_id: str, reply: str) -> None:
        found = await self._link.patiently(lambda: self._archive.find(event_id))
        if found is not None and found.value["finished"] is not None and not found.value["told"]:
            self._wake(event_id)
            await self.end(found)
        # Now, not before: who dies on the way to it has not answered.
        await self._link.tell(reply, b"yes")

    async def _news(self, message: Any) -> None:
        news = json.loads(message.data)
        self._wake(news["id"])
        if self._heard is not None:
            await self._heard(news)


def _short(entry: Doc) -> Doc:
    return {key: entry[key] for key in ("id", "agent", "status", "turn", "due", "wait_s")}


def _call(listener: Settled, doc: Doc) -> None:
    record: EventRecord = events.event_record(doc)
    try:
        listener(record)
    except Exception:  # the border to whoever listens: no event is lost for that
        log.exception("the listener failed for event %s; the event itself is safe", doc["id"])
