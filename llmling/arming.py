"""The triggers of a pool: armed together, each armed again when it breaks, disarmed before anything else stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from llmling.errors import StartupError
from llmling.protocols import EventRecord, Trigger
from llmling.records import PASSED_OVER
from llmling.report import TriggerState
from llmling.runtime.tasks import TaskSet
from llmling.wiring import Source

logger = logging.getLogger("llmling")


class Triggers:
    """Runs triggers until `disarm`. `broken` says why one is not armed right now, by its name."""

    def __init__(self, triggers: Sequence[tuple[Source, Trigger]] = ()) -> None:
        self._triggers = list(triggers)
        self._tasks = TaskSet()
        self._running: dict[str, asyncio.Task[None]] = {}
        self.broken: dict[str, str] = {}

    @property
    def states(self) -> tuple[TriggerState, ...]:
        """What listens where, for people."""
        return tuple(
            TriggerState(trigger.name, source.config.type, source.node, trigger.place)
            for source, trigger in self._triggers
        )

    async def arm(self) -> None:
        """Return once every trigger is armed.

        Raises:
            StartupError: One of them can never be.
        """
        await self._arm(self._triggers)

    async def change(self, wanted: Sequence[tuple[Source, Trigger]]) -> None:
        """Return once these are armed instead; one of the same config and node goes on undisturbed.

        Raises:
            StartupError: One of them can never be; then those of before are armed again.
        """
        before = self._triggers
        kept = {trigger.name: (source, trigger) for source, trigger in before}
        after = [kept[t.name] if t.name in kept and kept[t.name][0] == s else (s, t) for s, t in wanted]
        out = [each for each in before if each not in after]
        new = [each for each in after if each not in before]
        await self._disarm(out)
        self._triggers = after
        try:
            await self._arm(new)
        except StartupError:
            await self._disarm(new)
            self._triggers = before
            await self._arm(out)
            raise

    async def _disarm(self, triggers: Sequence[tuple[Source, Trigger]]) -> None:
        tasks = [task for _, trigger in triggers if (task := self._running.pop(trigger.name, None)) is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for _, trigger in triggers:
            self.broken.pop(trigger.name, None)

    async def _arm(self, triggers: Sequence[tuple[Source, Trigger]]) -> None:
        loop = asyncio.get_running_loop()
        ready: list[asyncio.Future[None]] = []
        for source, trigger in triggers:
            future: asyncio.Future[None] = loop.create_future()
            ready.append(future)
            keeping = self._keep(source, trigger, future)
            self._running[trigger.name] = self._tasks.spawn(keeping, name=f"trigger {trigger.name}")
        outcomes = await asyncio.gather(*ready, return_exceptions=True)
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if errors:
            usage = any(isinstance(error, StartupError) and error.usage for error in errors)
            raise StartupError("\n".join(str(error) for error in errors), usage=usage)

    async def disarm(self) -> None:
        """Stop every trigger."""
        await self._tasks.cancel()

    def settled(self, record: EventRecord, tasks: TaskSet) -> None:
        """Tell a trigger that one of its events is done or dead, unless it was skipped or coalesced.

        What it has to do then becomes one of `tasks`.
        """
        if record.outcome in PASSED_OVER:
            # Nobody has read what it is about, so nothing is put away.
            return
        for _, trigger in self._triggers:
            if trigger.name == record.trigger:
                work = trigger.settled(record.event, record.status, record.error)
                if work is not None:
                    tasks.spawn(work, name=f"end of event {record.id}")

    async def _keep(self, source: Source, trigger: Trigger, ready: asyncio.Future[None]) -> None:
        name, pause_s = trigger.name, 1.0

        def started() -> None:
            self.broken.pop(name, None)
            if not ready.done():
                ready.set_result(None)

        while True:
            try:
                await trigger.run(source.emit, started)
                why = "it ended"
            except Exception as error:  # noqa: BLE001 - the supervised border around triggers
                if not ready.done():
                    place = "" if isinstance(error, StartupError) else f"trigger {name!r}: {type(error).__name__}: "
                    usage = isinstance(error, StartupError) and error.usage
                    ready.set_exception(StartupError(f"{place}{error}", usage=usage))
                    return
                why = f"{type(error).__name__}: {error}"
            self.broken[name] = why
            logger.error("trigger %r stopped: %s; it is armed again in %.0f s", name, why, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(60.0, pause_s * 2)
