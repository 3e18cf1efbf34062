"""Files that appear or change, as events."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from llmling.errors import StartupError
from llmling.events import Event
from llmling.manifest.triggers import FileTriggerConfig
from llmling.protocols import Emit, Engine, EventStatus, Receipt
from llmling.records import PASSED_OVER
from llmling.runtime.clock import SYSTEM_CLOCK
from llmling.runtime.lease import lease
from llmling.runtime.services import Services
from llmling.triggers.after import After
from llmling.triggers.folders.intake import Intake
from llmling.triggers.folders.lane import Lane, lane
from llmling.triggers.folders.patrol import Patrol
from llmling.triggers.folders.places import Places
from llmling.triggers.folders.scan import Scanner
from llmling.triggers.folders.seen import Seen
from llmling.triggers.folders.selection import Selection
from llmling.triggers.folders.watch import Watch

_log = logging.getLogger("llmling.triggers.file")
_MOST_OWED = 1_000


class FileTrigger:
    """Makes an event of every file that is dropped into its folders, once per version.

    What the scan sees and the engine knows decides; the operating system's notifications only say when to look.
    """

    def __init__(self, config: FileTriggerConfig, services: Services, agent: str) -> None:
        self._config = config
        self._engine = services.engine
        self._agent = agent
        self._selection = Selection(config, services.folder)
        self._after = After(config)
        # Files that could not be moved or deleted yet, by the id of their event.
        self._owed: OrderedDict[str, tuple[Event, EventStatus, str | None]] = OrderedDict()
        self._seen: Seen | None = None
        self._patrol: Patrol | None = None

    @property
    def name(self) -> str:
        """Name, unique in the pool."""
        return self._config.name

    @property
    def place(self) -> str:
        """The paths as the user wrote them."""
        return ", ".join(self._config.paths)

    async def run(self, emit: Emit, started: Callable[[], None]) -> None:
        """Watch until cancelled; a missing folder is waited for.

        Of several processes that share their events one watches; another one takes over when it is gone.

        Raises:
            StartupError: Another process watches one of the folders.
        """
        engine = self._engine
        if engine is None:
            raise StartupError(f"trigger {self.name!r} of agent {self._agent!r} needs a pool, which keeps its events")
        if not engine.shared:
            await self._watch(emit, started, engine)
            return
        # Who waits for its turn is armed: files are seen, by the one whose turn it is.
        started()
        async with lease(engine.store, f"trigger {self.name}", SYSTEM_CLOCK):
            await self._watch(emit, started, engine)

    async def _watch(self, emit: Emit, started: Callable[[], None], engine: Engine) -> None:
        seen = Seen(engine.store, self.name)
        await seen.load()
        places = Places(self.name, self._selection.roots, await self._devices(seen), self._engine)
        with lane(f"llmling-files-{self.name}") as files:
            try:
                await self._work(emit, started, engine, seen, places, files)
            finally:
                self._patrol = self._seen = None
                places.release()

    async def settled(self, event: Event, status: EventStatus, error: str | None) -> None:
        """Move or delete the file of a settled event, if it still is the version that was run."""
        if not self._after.acts(status):
            return
        try:
            taken = await asyncio.to_thread(self._after.apply, event, status, error)
        except OSError as problem:
            if event.id not in self._owed:
                _log.warning(
                    "trigger %r cannot put %r away (%s); it is tried again every %g s",
                    self.name,
                    event.subject,
                    problem.strerror,
                    self._config.poll_s,
                )
            self._owed[event.id] = (event, status, error)
            while len(self._owed) > _MOST_OWED:
                self._owed.popitem(last=False)
            return
        self._owed.pop(event.id, None)
        if taken and self._seen is not None and self._patrol is not None:
            self._seen.leave(event.subject)
            self._patrol.wake()

    async def _work(
        self, emit: Emit, started: Callable[[], None], engine: Engine, seen: Seen, places: Places, files: Lane
    ) -> None:
        intake = Intake(self._config, self._selection, seen, engine, emit, files)
        scanner = Scanner(self._selection, self.name)
        patrol = Patrol(self._config, scanner, places, seen, intake, files, self._settle_known)
        await patrol.arm()
        self._seen, self._patrol = seen, patrol
        watch = Watch(self.name, self._selection.may_concern, patrol.hint, patrol.scan_soon)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(watch.run())
                tasks.create_task(patrol.run(watch))
                if not self._after.idle:
                    tasks.create_task(self._put_away(seen, intake))
                started()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _devices(self, seen: Seen) -> dict[str, int]:
        devices: dict[str, int] = {}
        for root in self._selection.roots:
            device = await seen.state(f"device:{root.path}")
            if isinstance(device, int):
                devices[root.path] = device
        return devices

    async def _put_away(self, seen: Seen, intake: Intake) -> None:
        """Do what an earlier process did not get to, then again and again what did not succeed."""
        await self._settle_known(list((await intake.receipts(seen.paths())).values()))
        while True:
            await asyncio.sleep(self._config.poll_s)
            for event, status, error in list(self._owed.values()):
                await self.settled(event, status, error)

    async def _settle_known(self, receipts: Sequence[Receipt]) -> None:
        if self._engine is None:
            return
        for receipt in receipts:
            if self._after.acts(receipt.status):
                record = await self._engine.inspect(receipt.event_id)
                if record is not None and record.outcome not in PASSED_OVER:
                    await self.settled(record.event, record.status, record.error)
