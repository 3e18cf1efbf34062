"""Hot reload: another manifest takes the place of the running one, and only what is different starts anew."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmling import manifest as manifests
from llmling.arming import Triggers
from llmling.changes import changes
from llmling.deaths import Deaths
from llmling.errors import EngineError, LLMlingError, ManifestError
from llmling.live import Live, Prepared
from llmling.manifest.files import ManifestFiles
from llmling.manifest.root import Manifest
from llmling.protocols import Engine, Store
from llmling.report import Reload
from llmling.runtime.delivery import Deliveries
from llmling.runtime.gate import Bounds
from llmling.runtime.services import Services
from llmling.runtime.tasks import TaskSet, to_its_end
from llmling.server.listener import Listeners
from llmling.server.metrics import Sample
from llmling.spending import bounded
from llmling.starting import Starting
from llmling.wiring import build_triggers, check_keys, policies

logger = logging.getLogger("llmling.reload")
LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Serving:
    """What events go through in a pool that serves; `services` are those of triggers, None when none may be armed."""

    engine: Engine
    deliveries: Deliveries
    triggers: Triggers
    listeners: Listeners
    services: Services | None
    deaths: Deaths
    starting: Starting


class Reloads:
    """Replaces the manifest of a pool; `manifest` is the one that runs.

    One that cannot be used changes nothing. Calls that come while one is waiting for its turn share it.
    """

    def __init__(
        self, manifest: Manifest, files: ManifestFiles, live: Live, bounds: Bounds, store: Store, model: str | None
    ) -> None:
        self.manifest = manifest
        self.serving: Serving | None = None
        self._files = files
        self._live = live
        self._bounds = bounds
        self._store = store
        self._model = model
        self._fixed = manifest
        self._tasks = TaskSet()
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[Reload] | None = None
        self._closed = False
        self._counts = {True: 0, False: 0}
        self._refused = False

    async def aclose(self) -> None:
        """Take up no manifest any more; one that is being put in place is finished or given up first."""
        self._closed = True
        await self._tasks.cancel()

    async def reload(self, manifest: str | Path | Mapping[str, Any] | Manifest | None = None) -> Reload:
        """Put another manifest in place, None: the running one as its file reads now.

        Raises:
            ValueError: There is no file to read anew.
        """
        if manifest is None and self.manifest.path is None:
            raise ValueError("this pool's manifest was not read from a file: pass the new one to `reload`")
        if self._closed:
            return _refusal("the pool is stopping")
        task = self._next if manifest is None else None
        if task is None:
            task = self._tasks.spawn(self._in_turn(manifest), name="reload")
            if manifest is None:
                self._next = task
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                return _refusal("the pool is stopping")
            raise

    async def follow(self, told: Callable[[Reload], None]) -> None:
        """Reload whenever a file of the manifest says something else, until cancelled; `told` hears how it went."""
        files = self._files
        while True:
            await asyncio.sleep(LOOK_S)
            facts = await asyncio.to_thread(files.touched)
            if facts is None:
                continue
            await asyncio.sleep(LOOK_S)
            # Who is still writing is not done writing.
            if await asyncio.to_thread(files.touched) == facts and await asyncio.to_thread(files.changed, facts):
                told(await self.reload())

    def metrics(self) -> Iterator[Sample]:
        """Yield what `/metrics` shows of reloads."""
        for applied, result in ((True, "applied"), (False, "refused")):
            labels = {"result": result}
            yield Sample("llmling_reloads_total", self._counts[applied], labels, "counter", "Reloads by outcome.")
        yield Sample("llmling_reload_refused", float(self._refused), {}, "gauge", "1 while the last one was refused.")

    async def _in_turn(self, manifest: Any) -> Reload:
        async with self._turn:
            if manifest is None:
                self._next = None
            result = await self._reload(manifest)
        self._counts[result.applied] += 1
        self._refused = not result.applied
        logger.log(logging.INFO if result.applied else logging.ERROR, "%s", result)
        return result

    async def _reload(self, given: Any) -> Reload:
        try:
            manifest: Manifest = given
            if given is None:
                manifest = await asyncio.to_thread(self._files.read)
            elif not isinstance(given, Manifest):
                manifest = await asyncio.to_thread(manifests.load, given)
            if manifest.folder != self.manifest.folder:
                return _refusal(f"the new manifest is in {manifest.folder}, not in {self.manifest.folder}")
            if missing := check_keys(manifest, self._model):
                return Reload(applied=False, problems=tuple(missing))
            return await self._replace(manifest)
        except ManifestError as error:
            return Reload(applied=False, problems=tuple(problem.render() for problem in error.problems))
        except LLMlingError as error:
            return _refusal(str(error))
        except Exception as error:
            # The border to the parts of others that a manifest names: the pool goes on as it was.
            logger.exception("a mistake outside the manifest ended a reload")
            return _refusal(f"{type(error).__name__}: {error}")

    async def _replace(self, manifest: Manifest) -> Reload:
        began = time.monotonic()
        found = changes(self.manifest, manifest, self._live.given)
        bounds = await bounded(manifest, self._store, self._live.given)
        prepared = await self._live.prepare(manifest, found.nodes, found.servers)
        try:
            async with self._triggers(prepared):
                _, cancelled = await to_its_end(self._install(prepared, bounds), name="new manifest")
        except BaseException:
            if self.manifest is not manifest:
                await self._live.discard(prepared)
            raise
        if cancelled is not None:
            raise cancelled
        return found.report(self._restart(manifest), time.monotonic() - began)

    @asynccontextmanager
    async def _triggers(self, prepared: Prepared) -> AsyncGenerator[None]:
        """Let the triggers of the new manifest take the place of those of the old one; what follows puts the rest."""
        serving = self.serving
        if serving is None:
            yield
            return
        before = policies(self.manifest)
        # From now on there may be events of new agents, and still some of old ones.
        with serving.deliveries.coming():
            try:
                await serving.engine.update({**before, **policies(prepared.manifest)}, **_bounds(self.manifest))
                if serving.services is not None:
                    async with serving.listeners.change():
                        wanted = build_triggers(prepared.manifest, serving.services, serving.engine)
                        await serving.triggers.change(wanted)
            except BaseException:
                if not self._closed:
                    await serving.engine.update(before, **_bounds(self.manifest))
                raise
            yield

    async def _install(self, prepared: Prepared, bounds: Bounds) -> None:
        manifest = self.manifest = prepared.manifest
        different = self._bounds.become(bounds)
        gone = self._live.install(prepared, self._bounds if different else None)
        if self.serving is None:
            return
        redelivery = {name: node.redelivery for name, node in manifest.nodes.items()}
        await self.serving.deaths.become()
        self.serving.deliveries.update(redelivery, manifest.limits.max_hops, gone)
        try:
            await self.serving.engine.update(policies(manifest), **_bounds(manifest))
        except EngineError as error:
            logger.error("what waits for removed agents is settled at the next start: %s", error)
        self.serving.starting.tell(self._live.graph.nodes.values())

    def _restart(self, manifest: Manifest) -> list[str]:
        keys = [key for key in ("engine", "server") if getattr(manifest, key) != getattr(self._fixed, key)]
        return [*keys, "triggers"] if self.serving is None and manifest.triggered else keys


def ignored(reload: Reload) -> None:
    """Hear of a reload, and do nothing: the log has it."""


def _bounds(manifest: Manifest) -> dict[str, int]:
    limits = manifest.limits
    return {"concurrency": limits.concurrency, "max_messages_per_event": limits.max_messages_per_event}


def _refusal(*problems: str) -> Reload:
    return Reload(applied=False, problems=problems)
