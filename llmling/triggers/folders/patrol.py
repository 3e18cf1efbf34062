"""The round a file trigger walks: look at hints, scan, let files settle, commit them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from llmling.manifest.triggers import FileTriggerConfig
from llmling.protocols import Receipt
from llmling.triggers.folders.intake import Intake
from llmling.triggers.folders.lane import Lane
from llmling.triggers.folders.places import Places
from llmling.triggers.folders.scan import Scan, Scanner, Sighting
from llmling.triggers.folders.seen import Seen
from llmling.triggers.folders.settling import Settling
from llmling.triggers.folders.watch import Watch

_ROOTS_S = 1.0
_MOST_HINTS = 1_000
_MOST_YOUNG = 20_000
_SECOND_LOOK_S = 1.0
_SHORTEST_S = 0.25
_COST = 4.0
_STARTED = "started"


class Patrol:
    """One armed file trigger. Everything happens in one task, so that no two looks contradict each other.

    While the engine has no room nothing new is read; what changes meanwhile is found by the next scan.
    """

    def __init__(
        self,
        config: FileTriggerConfig,
        scanner: Scanner,
        places: Places,
        seen: Seen,
        intake: Intake,
        lane: Lane,
        known: Callable[[Sequence[Receipt]], Awaitable[None]],
    ) -> None:
        self._config = config
        self._scanner = scanner
        self._places = places
        self._seen = seen
        self._intake = intake
        self._lane = lane
        self._known = known
        self._settling = Settling(config.settle_s)
        self._devices = dict(places.devices)
        self._wake = asyncio.Event()
        self._hints: set[str] = set()
        self._more = False
        self._next_scan = 0.0
        self._no_scan_before = 0.0
        self._next_roots = 0.0

    async def arm(self) -> None:
        """Hold the folders, and at the very first start take note of what is there, if that is not to be run.

        Raises:
            StartupError: Another process holds one of the folders.
        """
        await self._lane(lambda: self._places.check(first=True))
        await self._remember_devices()
        if await self._seen.state(_STARTED) is None:
            if self._config.backlog == "ignore":
                roots = self._places.present()
                scan = await self._lane(lambda: self._scanner.full(roots, self._seen, waiting=(), room=float("inf")))
                await self._seen.add({one.relative: self._version(one) for one in scan.found})
            await self._seen.set_state(_STARTED, 1)

    async def run(self, watch: Watch) -> None:
        """Walk the round until cancelled."""
        watch.aim(self._places.deep(), self._places.flat())
        self._next_roots = time.monotonic() + _ROOTS_S
        while True:
            if time.monotonic() >= self._next_roots:
                await self._check_roots(watch)
            if time.monotonic() >= self._next_scan:
                await self._scan()
            if self._hints:
                await self._follow_hints()
            if not await self._settle():
                await self._rest()

    def hint(self, paths: set[str]) -> None:
        """Look at these paths soon; too many of them are a reason to scan all."""
        if len(self._hints) + len(paths) > _MOST_HINTS:
            self._hints.clear()
            self.scan_soon()
        else:
            self._hints |= paths
        self._wake.set()

    def scan_soon(self, wait_s: float = 0.0) -> None:
        """Scan all in `wait_s` seconds; later, when the scan takes so long that it would do little else."""
        self._next_scan = min(self._next_scan, max(time.monotonic() + wait_s, self._no_scan_before))
        self._wake.set()

    def wake(self) -> None:
        """Walk a round now."""
        self._wake.set()

    def _version(self, sighting: Sighting) -> str:
        return self._seen.version(sighting.relative, sighting.size, sighting.mtime_ns)

    async def _check_roots(self, watch: Watch) -> None:
        self._next_roots = time.monotonic() + _ROOTS_S
        if await self._lane(self._places.check):
            watch.aim(self._places.deep(), self._places.flat())
            self._next_scan = 0.0
            await self._remember_devices()

    async def _remember_devices(self) -> None:
        """Store on which file systems the roots are, if that is news."""
        for path, device in self._places.devices.items():
            if self._devices.get(path) != device:
                self._devices[path] = device
                await self._seen.set_state(f"device:{path}", device)

    async def _scan(self) -> None:
        begun = time.monotonic()
        roots, room = self._places.present(), _MOST_YOUNG - len(self._settling)
        scan = await self._lane(
            lambda: self._scanner.full(roots, self._seen, waiting=self._settling.waiting, room=room)
        )
        ended = time.monotonic()
        self._more = scan.more
        self._next_scan = ended + self._config.poll_s
        self._no_scan_before = ended + max(_SHORTEST_S, _COST * (ended - begun))
        self._note(scan, ended)

    async def _follow_hints(self) -> None:
        hints, self._hints = list(self._hints), set()
        roots, room = self._places.present(), _MOST_YOUNG - len(self._settling)
        scan = await self._lane(lambda: self._scanner.hinted(hints, roots, self._seen, room=room))
        self._more = self._more or scan.more
        if scan.folders:
            # Files made right after their folder may have been made before it was watched.
            self.scan_soon(_SECOND_LOOK_S)
        if any(root.path in hints for root in self._places.roots):
            self._next_roots = 0.0
        self._note(scan, time.monotonic())

    def _note(self, scan: Scan, now: float) -> None:
        for sighting in scan.found:
            self._settling.see(sighting, now)
        for relative in scan.gone:
            self._settling.miss(relative, now)

    async def _settle(self) -> bool:
        """Deal with the files that waited long enough; False when there are none."""
        now = time.monotonic()
        due, lost = self._settling.due(now), self._settling.lost(now)
        if due:
            again = await self._lane(lambda: [self._scanner.look(sighting.relative) for sighting in due])
            now = time.monotonic()
            ready = [new for old, new in zip(due, again, strict=True) if new and new.size and new.same_version(old)]
            for old, new in zip(due, again, strict=True):
                if new is None and old.relative in self._seen:
                    self._settling.miss(old.relative, now)
                elif new is not None and new.size and not new.same_version(old):
                    self._settling.see(new, now)
            if ready:
                changed, known = await self._intake.take(ready)
                for sighting in changed:
                    self._settling.see(sighting, time.monotonic())
                await self._known(known)
        if lost:
            again = await self._lane(lambda: [self._scanner.look(relative) for relative in lost])
            gone = [path for path, new in zip(lost, again, strict=True) if new is None and path in self._seen]
            if gone:
                await self._intake.gone(gone)
        if self._more and len(self._settling) < _MOST_YOUNG // 2:
            self._more = False
            self.scan_soon()
        return bool(due or lost)

    async def _rest(self) -> None:
        """Wait for a hint or for the time of the next look."""
        await self._seen.flush()
        looks = [self._next_scan, self._next_roots]
        if (look := self._settling.next_look()) is not None:
            looks.append(look)
        try:
            async with asyncio.timeout(max(0.0, min(looks) - time.monotonic())):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()
