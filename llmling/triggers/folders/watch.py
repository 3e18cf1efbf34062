"""Hints of the operating system that something changed; the only import of watchfiles.

watchfiles loses changes without a word: an overflowing queue, files made right after their folder, a root that was
replaced. A hint therefore only says where to look soon; what is true, the scan decides.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from watchfiles import watch

_log = logging.getLogger("llmling.triggers.file")
# It reports every batch of changes at level INFO.
logging.getLogger("watchfiles").setLevel(logging.WARNING)

_STEP_MS = 5
_BATCH_MS = 100
_TURN_MS = 250
_LONGEST_WAIT_S = 30.0


class Watch:
    """Watches folders in threads of its own and calls back on the loop.

    `hint` gets changed absolute paths, of those that `concerns` lets through; `armed` is called whenever a watch has
    begun, as what happened before it is not reported.
    """

    def __init__(
        self, trigger: str, concerns: Callable[[str], bool], hint: Callable[[set[str]], None], armed: Callable[[], None]
    ) -> None:
        self._trigger = trigger
        self._concerns = concerns
        self._hint = hint
        self._armed = armed
        self._paths: dict[bool, Sequence[str]] = {True: (), False: ()}
        self._changed = {True: asyncio.Event(), False: asyncio.Event()}

    def aim(self, deep: Sequence[str], flat: Sequence[str]) -> None:
        """Watch these folders from now on, `deep` with everything below; folders named again are watched anew."""
        for recursive, paths in ((True, deep), (False, flat)):
            if paths or self._paths[recursive]:
                self._paths[recursive] = tuple(paths)
                self._changed[recursive].set()

    async def run(self) -> None:
        """Watch until cancelled."""
        threads = ThreadPoolExecutor(2, thread_name_prefix=f"llmling-watch-{self._trigger}")
        try:
            async with asyncio.TaskGroup() as tasks:
                for recursive in (True, False):
                    tasks.create_task(self._keep(threads, recursive=recursive))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    async def _keep(self, threads: ThreadPoolExecutor, *, recursive: bool) -> None:
        changed = self._changed[recursive]
        wait_s = 0.1
        while True:
            changed.clear()
            if not self._paths[recursive]:
                await changed.wait()
                continue
            begun = asyncio.get_running_loop().time()
            try:
                await self._watch(threads, changed, recursive=recursive)
                wait_s = 0.1
                continue
            except FileNotFoundError:
                _log.debug("trigger %r: a watched folder has vanished", self._trigger)
            except (OSError, RuntimeError) as error:
                if asyncio.get_running_loop().time() - begun > _LONGEST_WAIT_S:
                    wait_s = 0.1
                _log.warning(
                    "trigger %r: the operating system gives no hints of changes (%s); until it does, new files are"
                    " found by the scan every `poll_s` seconds",
                    self._trigger,
                    error,
                )
            try:
                async with asyncio.timeout(wait_s):
                    await changed.wait()
            except TimeoutError:
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    async def _watch(self, threads: ThreadPoolExecutor, changed: asyncio.Event, *, recursive: bool) -> None:
        """Watch until `changed`."""
        loop = asyncio.get_running_loop()
        stop = threading.Event()

        def look() -> None:
            armed = False
            # Nothing is filtered inside: a batch that is filtered out whole would hide that the watch has begun.
            for changes in watch(
                *self._paths[recursive],
                watch_filter=None,
                debounce=_BATCH_MS,
                step=_STEP_MS,
                stop_event=stop,
                rust_timeout=_TURN_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                recursive=recursive,
                ignore_permission_denied=True,
            ):
                if stop.is_set():
                    return
                if not armed:
                    armed = True
                    loop.call_soon_threadsafe(self._armed)
                paths = {path for _, path in changes if self._concerns(path)}
                if paths:
                    loop.call_soon_threadsafe(self._hint, paths)

        async def until_changed() -> None:
            await changed.wait()
            stop.set()

        looking = loop.run_in_executor(threads, look)
        try:
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(until_changed())
                await asyncio.wait((looking,))
                waiting.cancel()
        finally:
            stop.set()
            if not looking.done():
                looking.cancel()
        looking.result()
