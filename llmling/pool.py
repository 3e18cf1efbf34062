"""The pool: starts everything a manifest names, keeps it running, and stops it without losing an event."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Generic, Self, Unpack

from typing_extensions import TypeVar

from llmling import garbage
from llmling import manifest as manifests
from llmling.arming import Triggers
from llmling.asks import Ask, Attending, Decision, check_attending
from llmling.deaths import Deaths
from llmling.deciding import decide
from llmling.endpoints.dashboard import Dashboard
from llmling.engines.trying import keep_trying
from llmling.errors import StartupError
from llmling.exporters.choose import exporter
from llmling.live import Live
from llmling.manifest.files import ManifestFiles
from llmling.manifest.pool import MemoryEngineConfig
from llmling.manifest.problems import check_keywords
from llmling.manifest.root import Manifest
from llmling.masking import hiding
from llmling.models.cassettes.recording import recorded
from llmling.picture import picture
from llmling.protocols import Engine, EventRecord, Host
from llmling.readings import samples, start_report, unready
from llmling.reloading import Reloads, Serving, ignored
from llmling.report import Reload, StartReport
from llmling.runtime.agent import Agent
from llmling.runtime.delivery import Deliveries
from llmling.runtime.gate import Bounds
from llmling.runtime.http import http_scope
from llmling.runtime.loopwatch import LoopWatch
from llmling.runtime.node import Failure, Node, reachable
from llmling.runtime.runnable import Runnable
from llmling.runtime.services import Services
from llmling.runtime.spans import event_settled
from llmling.runtime.stores import StoreOnDemand
from llmling.runtime.stream import RunEvent
from llmling.runtime.tasks import TaskSet
from llmling.runtime.team import Team
from llmling.runtime.waiting import Counter
from llmling.server.health import Health
from llmling.server.listener import Listeners
from llmling.server.metrics import Sample
from llmling.spending import bounded, unpriced_models
from llmling.starting import Starting
from llmling.trace import trace_of
from llmling.wiring import Graph, build_triggers, check_keys, open_engine, policies, with_engine

logger = logging.getLogger("llmling")
TDeps = TypeVar("TDeps", default=None)


class AgentPool(Generic[TDeps]):
    """Agents that work together, read from a manifest.

    Entering starts MCP servers and agents in parallel; when the manifest has a trigger it also opens the engine,
    takes up what an earlier process left, and arms the triggers. Without triggers the engine is opened when a session
    or a fact is first kept, and not before. Leaving drains: triggers stop, running work gets
    `limits.drain_timeout_s`, the rest continues at the next start. It installs no signal handlers.

    `model` replaces the model of every agent but people. `record` is a file, relative to the manifest's folder, in
    which every model request and its answer is kept; `model="replay:FILE"` answers from it. `on_event` hears of every
    event that is done, dead or from now on waits for a person. Runs that Python code starts ask whoever attends them:
    `approve(call, run)` says True, False or a reason about tool calls, `ask(question, run)` answers for `model: human`.

    Example:
        >>> async with AgentPool("agents.yml") as pool:
        ...     result = await pool.get_agent("analyzer").run("What is this?")

    Raises:
        ManifestError: The manifest is wrong; already when the pool is built.
        StartupError: A required part, a trigger or the engine could not be started.
    """

    def __init__(
        self,
        manifest: str | Path | Mapping[str, Any] | Manifest | None = None,
        *,
        parallel_load: bool = True,
        triggers: bool = True,
        model: str | None = None,
        agents: Mapping[str, Agent[Any]] | None = None,
        on_event: Callable[[EventRecord], None] | None = None,
        record: str | Path | None = None,
        **attending: Unpack[Attending],
    ) -> None:
        check_keywords("AgentPool", attending, Attending.__annotations__)
        check_attending(attending)
        self._written = manifest if isinstance(manifest, Manifest) else manifests.load(manifest or {"agents": {}})
        self._files = ManifestFiles(self._written)
        self._parallel = parallel_load
        self._model = model
        self._record = record
        self._told = f"every model request and its answer is recorded in {record}" if record else ""
        self._on_event = on_event
        self._attending = attending
        self._serving = triggers and self._written.triggered
        self.arm = True
        self._given = dict(agents or {})
        if record and self._given:
            raise ValueError("record= cannot be used with agents=: their models are built already")
        self._graph = Graph()
        self._stack = AsyncExitStack()
        self._tasks = TaskSet()
        self._triggers = Triggers()
        self._store = StoreOnDemand(lambda: open_engine(self._written))
        self._engine: Engine | None = None
        self._health: Health | None = None
        self._deliveries: Deliveries | None = None
        self._deaths = Deaths()
        self._bounds: Bounds | None = None
        self._reloads: Reloads | None = None
        self._draining = self._entered = False
        self._stopped = asyncio.Event()
        self._cost_usd = self._seconds = 0.0

    # --- what is in it ---------------------------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """What it runs; another one after a reload."""
        return self._written if self._reloads is None else self._reloads.manifest

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Agents and teams by name."""
        return self._graph.nodes

    @property
    def agents(self) -> dict[str, Agent[Any]]:
        """Agents by name."""
        return {name: node for name, node in self._graph.nodes.items() if isinstance(node, Agent)}

    @property
    def engine(self) -> Engine | None:
        """What keeps the events, while triggers run."""
        return self._engine

    @property
    def failures(self) -> list[Failure]:
        """Messages between agents that could not be delivered, of runs that Python code started."""
        return [failure for node in self._graph.nodes.values() for failure in node.failures]

    def get_agent(self, name: str) -> Agent[TDeps]:
        """Return an agent.

        Raises:
            LookupError: There is none of that name; the message lists those there are.
        """
        node = self.agents.get(name)
        if node is None:
            known = ", ".join(self.agents) or "none yet: enter the pool first"
            raise LookupError(f"no agent {name!r} in the pool; agents: {known}")
        return node

    @property
    def _runnables(self) -> dict[str, Runnable]:
        return {name: node for name, node in self._graph.nodes.items() if isinstance(node, Runnable)}

    def get_team(self, name: str) -> Team:
        """Return a team.

        Raises:
            LookupError: There is none of that name.
        """
        teams = {team.name: team for team in self._graph.nodes.values() if isinstance(team, Team)}
        if name not in teams:
            raise LookupError(f"no team {name!r} in the pool; teams: {', '.join(teams) or 'none'}")
        return teams[name]

    # --- starting --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            raise StartupError("a pool is entered once; build a new one")
        self._entered = True
        started = time.monotonic()
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        self._seconds = time.monotonic() - started
        return self

    async def _open(self) -> None:
        if missing := check_keys(self.manifest, self._model):
            raise StartupError("\n".join(missing), usage=True)
        self._stack.enter_context(hiding(self.manifest.secrets))
        await self._stack.enter_async_context(exporter(os.environ))
        await self._stack.enter_async_context(http_scope())
        await self._stack.enter_async_context(self._tasks)
        tape = recorded(self._record, self.manifest.folder, self.manifest.path)
        around_model = await self._stack.enter_async_context(tape)
        await self._stack.enter_async_context(self._store)
        engine: Engine | None = None
        listeners = Listeners()
        if self._serving:
            await self._stack.enter_async_context(listeners)
            engine = self._engine = open_engine(self.manifest)
            self._stack.push_async_callback(engine.stop, 0)
            await engine.open()
            self._store.use(engine)
        self._bounds = await bounded(self.manifest, self._store, self._given)
        services = Services(
            folder=self.manifest.folder,
            around_model=around_model,
            ask=self._graph.ask,
            read_resource=self._graph.read_resource,
            bounds=self._bounds,
            providers=self._graph.providers,
            approve=self._attending.get("approve"),
            person=self._attending.get("ask"),
            store=self._store,
            tools=self.manifest.tools,
            pins=self.manifest.pins,
        )
        live = await self._stack.enter_async_context(Live(services, self._graph, self._given, self._model))
        live.install(await live.prepare(self.manifest, frozenset(), frozenset(), parallel=self._parallel))
        if not self._serving:
            # Triggers are armed while optional servers still start, since deliveries of their agents wait for them.
            # Without triggers, entering the pool is the wait.
            await live.settled()
        reloads = Reloads(self.manifest, self._files, live, self._bounds, self._store, self._model)
        if engine is not None:
            reloads.serving = await self._serve(engine, listeners, services)
        self._reloads = reloads

    async def _serve(self, engine: Engine, listeners: Listeners, services: Services) -> Serving:
        limits = self.manifest.limits
        self._stack.enter_context(LoopWatch())
        self._stack.enter_context(garbage.patient())
        deliveries = self._deliveries = Deliveries(
            self._graph.nodes,
            {name: node.redelivery for name, node in self.manifest.nodes.items()},
            limits.max_hops,
            Counter(self.manifest.named, isinstance(self.manifest.engine, MemoryEngineConfig), self._event_url),
        )
        if self.manifest.server is not False and self.arm:
            taken = {t.port for node in self.manifest.nodes.values() for t in node.triggers if t.type == "webhook"}
            pages = Dashboard(self.manifest.named, self, engine.runs, lambda: picture(self.manifest)).pages
            health = Health(self, self.manifest.server, listeners, avoid=taken, file=self.manifest.named, more=pages)
            self._health = await self._stack.enter_async_context(health)
        if self.arm:
            # Before the engine starts, since it tells at once which events settled while nobody listened.
            services = with_engine(services, engine, listeners, self._event_url)
            self._triggers = Triggers(build_triggers(self.manifest, services, engine))
        deaths = self._deaths = Deaths(self._graph.nodes, engine)
        await engine.start(
            deliveries,
            policies(self.manifest),
            concurrency=limits.concurrency,
            max_messages_per_event=limits.max_messages_per_event,
            settled=self._settled,
            waiting=self._on_event,
        )
        self._tasks.spawn(keep_trying(engine), name="watch over the engine")
        starting = Starting(engine.store, self._tasks)
        starting.tell(self.nodes.values())
        self._stack.push_async_callback(lambda: engine.stop(self.manifest.limits.drain_timeout_s))
        await self._stack.enter_async_context(deaths)
        if self.arm:
            await self._arm(listeners)
        return Serving(engine, deliveries, self._triggers, listeners, services if self.arm else None, deaths, starting)

    def _event_url(self, event_id: str) -> str | None:
        return None if self._health is None else self._health.event_url(event_id)

    async def _arm(self, listeners: Listeners) -> None:
        async def disarm() -> None:
            self._draining = listeners.draining = True
            await self._triggers.disarm()

        self._stack.push_async_callback(disarm)
        await self._triggers.arm()

    async def reload(self, manifest: str | Path | Mapping[str, Any] | Manifest | None = None) -> Reload:
        """Put another manifest in place, None: the one in its file now; what is the same goes on undisturbed.

        Runs that are going on end on the agents they began with; what is queued runs on the new ones. A manifest that
        cannot be used changes nothing, and the problems of the report say why. Calls at the same time share one.

        Raises:
            ValueError: There is no file to read, or the pool is not entered.
        """
        if self._reloads is None:
            raise ValueError("enter the pool first")
        return await self._reloads.reload(manifest)

    async def reload_on_change(self, told: Callable[[Reload], None] = ignored) -> None:
        """Reload whenever a file of the manifest says something else, until cancelled; `told` hears how it went.

        Raises:
            ValueError: There is no file to look at, or the pool is not entered.
        """
        if self._reloads is None:
            raise ValueError("enter the pool first")
        await self._reloads.follow(told)

    # --- going on --------------------------------------------------------------------------------------------------

    def _settled(self, record: EventRecord) -> None:
        self._cost_usd += record.cost_usd or 0.0
        event_settled(record)
        self._deaths.heard(record)
        self._triggers.settled(record, self._tasks)
        if self._on_event is not None:
            self._on_event(record)

    async def until_stopped(self) -> None:
        """Return when `stop` was called."""
        await self._stopped.wait()

    def stop(self) -> None:
        """Let `until_stopped` return; leaving the pool then drains it."""
        self._stopped.set()

    def ready(self) -> Sequence[str]:
        """Return why the pool is not ready to take events; nothing when it is."""
        return [*unready(self._triggers.broken, self._graph, self.manifest, self._engine, self._draining)]

    def hosts(self) -> Sequence[Host]:
        """Return the processes that serve the pool's events together; nothing where only this one may."""
        return () if self._engine is None else self._engine.hosts

    async def counts(self) -> Mapping[str, int]:
        """Return how many events there are by status."""
        return {} if self._engine is None else await self._engine.counts()

    async def decide(self, event_id: str, decision: Decision) -> Sequence[Ask]:
        """Tell a person's decision to an event that waits for it, and return what it settled; nothing if too late.

        Raises:
            LookupError: There is no such event, or the pool keeps none: it has no triggers, or is not entered.
            OutputError: The answer does not match the agent's `output`.
            EngineError: The engine cannot be used.
        """
        if self._engine is None:
            raise LookupError(f"no event {event_id!r}: this pool keeps none; enter it, with triggers in its manifest")
        return await decide(self._engine, event_id, decision)

    async def inspect(self, event_id: str) -> EventRecord | None:
        """Return one event with its deliveries."""
        return None if self._engine is None else await self._engine.inspect(event_id)

    async def trace(self, event_id: str) -> list[RunEvent]:
        """Return what happened in the runs of an event, as the events of their streams; nothing of an unknown one."""
        record = await self.inspect(event_id)
        return [] if record is None else trace_of(record)

    def metrics(self) -> Iterable[Sample]:
        """Return what `/metrics` shows beside the counts of events."""
        runs = {} if self._deliveries is None else self._deliveries.runs
        yield from samples(self._graph, runs, self._bounds, self._cost_usd)
        yield from self._deaths.samples()
        yield from () if self._reloads is None else self._reloads.metrics()

    @property
    def report(self) -> StartReport:
        """What is running right now, for people."""
        url = self._health.url if self._health else None
        unpriced = (line for _, line in unpriced_models(self.manifest, self._model))
        return start_report(self._graph, self._triggers.states, url, (self._told, *unpriced), self._seconds)

    # --- stopping --------------------------------------------------------------------------------------------------

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        self._stopped.set()
        try:
            if self._reloads is not None:
                await self._reloads.aclose()
            await self._drain()
        finally:
            await self._stack.aclose()

    async def _drain(self) -> None:
        """Let messages that Python code sent between agents arrive, for `limits.drain_timeout_s` at most."""
        for agent in self.agents.values():
            await agent.stop()
        try:
            async with asyncio.timeout(self.manifest.limits.drain_timeout_s):
                # One node's last message may be the next one's first, so look again until all are idle.
                while busy := [node for node in reachable(self._graph.nodes.values()) if node.busy]:
                    await busy[0].complete_tasks()
        except TimeoutError:
            logger.warning("the pool stops while messages between agents are still under way; they are dropped")
