"""An agent: a model, its tools, its knowledge and the runs made of them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Self, Unpack

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypeVar

from llmling import manifest as manifests
from llmling import plugins
from llmling.asks import Attending, check_attending
from llmling.errors import StartupError
from llmling.manifest.agents import AgentConfig, InstructionsConfig
from llmling.manifest.importing import import_object
from llmling.manifest.models import HumanModelConfig
from llmling.manifest.people import not_for_people
from llmling.manifest.problems import check_keywords
from llmling.manifest.root import Manifest
from llmling.messages import Message, RunResult
from llmling.protocols import Approval, Model, RetryPolicy, Store
from llmling.protocols import Prompt as Instructions
from llmling.runtime.background import Background
from llmling.runtime.context import RunContext
from llmling.runtime.conversations import Conversations
from llmling.runtime.facts import Facts
from llmling.runtime.gate import Bounds, agent_budget, model_limits
from llmling.runtime.hooks import NO_HOOKS, Hooks
from llmling.runtime.output import OutputType, output_type
from llmling.runtime.parts import Parts, model_config
from llmling.runtime.profile import Profile
from llmling.runtime.run_loop import RunLoop
from llmling.runtime.services import Services
from llmling.runtime.session import Session
from llmling.runtime.stores import Keep, given_store
from llmling.runtime.summaries import Summaries
from llmling.runtime.team import Member

TDeps = TypeVar("TDeps", default=None)
_instructions: TypeAdapter[Any] = TypeAdapter(InstructionsConfig)
_NOTHING_SAID = AgentConfig()
_WRITTEN = (str, Sequence, Mapping)


class AgentOptions(Attending, total=False):
    """Further keys of an agent in the manifest, under the same names, and whoever attends its runs."""

    description: str
    model_settings: Mapping[str, Any]
    knowledge: Sequence[Any]
    mcp_servers: Sequence[Any]
    session: str
    memory: Mapping[str, Any]
    sinks: Sequence[Any]
    concurrency: int
    inbox: Mapping[str, Any]
    retries: Mapping[str, Any]
    redelivery: Mapping[str, Any]
    limits: Mapping[str, Any]
    budget: Mapping[str, Any] | None
    parallel_tools: bool
    context: Mapping[str, Any]
    plan: Mapping[str, Any]
    approval: Approval


class AgentArguments(AgentOptions, total=False):
    """What is only there in Python."""

    store: str | Path | Mapping[str, Any] | Store
    """Where sessions and facts are kept: an SQLite file, an `engine` as a manifest has it, or a store."""


class Agent(Member, Generic[TDeps]):
    """Answers prompts with a model, tools and knowledge.

    `Agent("name", model=..., instructions=..., tools=[fn])` is built in Python; `Agent("agent.yml")` is read from a
    file and, entered with `async with`, runs the triggers written there. Agents without MCP servers and knowledge
    also work without `async with`. Runs are independent of each other and may go on at once, unless they name a
    `session`. Sessions and facts are kept in memory, in the pool's engine, or with `store="chats.db"` in a file.

    Example:
        >>> agent = Agent("greeter", model="demo", instructions="You greet people.")
        >>> result = await agent.run("Greet Ada.")
    """

    _told: Any = None
    """Instructions that its config has not taken in yet."""

    def __init__(
        self,
        name: str | Path = "agent",
        *,
        model: str | Mapping[str, Any] | Model | None = None,
        instructions: str | Sequence[str] | Mapping[str, Any] | Instructions = (),
        tools: Sequence[Any] = (),
        output: type | Mapping[str, Any] | str | None = None,
        hooks: Sequence[Any] = (),
        parallel_init: bool = True,
        **options: Unpack[AgentArguments],
    ) -> None:
        self._manifest: Manifest | None = None
        approve = person = store = None
        if options:
            check_attending(options)
            approve, person = options.pop("approve", None), options.pop("ask", None)
            store = options.pop("store", None)
        prompt: Instructions | None = None
        if _is_file(name):
            self._manifest = manifests.load_agent(name)
            name, config = next(iter(self._manifest.agents.items()))
            folder, pins = self._manifest.folder, self._manifest.pins
            services = Services(folder, approve=approve, person=person, agent=name, pins=pins)
            if store is None and not self._manifest.triggered:
                store = self._manifest.engine
        else:
            if not isinstance(instructions, _WRITTEN):
                prompt, instructions = instructions, ()
            config, self._told = _config(options, instructions)
            name = str(name)
            services = Services(approve=approve, person=person, agent=name)
        self._set_up(
            name,
            config,
            services,
            model=model,
            tools=tools,
            prompt=self._told if prompt is None else prompt,
            output=output,
            hooks=hooks,
            parallel_init=parallel_init,
            store=given_store(store, services.folder),
        )

    @classmethod
    def from_config(
        cls, name: str, config: AgentConfig, services: Services, *, model: Any = None, parallel_init: bool = True
    ) -> Self:
        """Build an agent of a pool; `model` replaces the configured one."""
        self = cls.__new__(cls)
        self._manifest = None
        self._set_up(name, config, services, model=model, parallel_init=parallel_init)
        return self

    def _set_up(
        self,
        name: str,
        config: AgentConfig,
        services: Services,
        *,
        model: Any,
        tools: Sequence[Any] = (),
        prompt: Any = None,
        output: Any = None,
        hooks: Sequence[Any] = (),
        parallel_init: bool,
        store: Store | None = None,
    ) -> None:
        super().__init__(name, description=config.description, concurrency=config.concurrency, inbox=config.inbox)
        self._said = config
        model = model_config(config.model if model is None else model)
        if isinstance(model, HumanModelConfig):
            _refuse_for_people(name, config, tools)
        self.keep = Keep(store)
        self.keep.lend(services.store)
        if config.memory.facts:
            tools = (*tools, *plugins.load(plugins.FACT_TOOLS)(self.memory))
        self.parts = Parts(name, config, services, model=model, tools=tools, prompt=prompt, parallel=parallel_init)
        self.add_sinks(config.sinks, services)
        self._services = services
        self._host: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        shape = output if output is not None else config.output
        self._output = None if shape is None else _output(shape, services.folder)
        self._hooks = Hooks((*config.hooks, *hooks), services.folder) if config.hooks or hooks else NO_HOOKS
        self._bounds = services.bounds

    # What mistakes cannot be in is made when it is first needed: a thousand agents may be built and few of them run.

    @functools.cached_property
    def config(self) -> AgentConfig:
        """What a manifest would say of it, without what only Python can give."""
        if self._said is not _NOTHING_SAID:
            return self._said
        # Others say nothing else either, and what is in it can be changed.
        return self._said.model_copy(update={} if self._told is None else {"instructions": self._told}, deep=True)

    @functools.cached_property
    def memory(self) -> Facts:
        """The facts it remembers."""
        return Facts(self.name, self.keep)

    @functools.cached_property
    def _conversations(self) -> Conversations:
        return Conversations(self.name, self.config.session, self.keep, self._services.clock)

    @functools.cached_property
    def _background(self) -> Background:
        return Background(self, self.name, self._services.clock)

    @functools.cached_property
    def _summaries(self) -> Summaries:
        return Summaries()

    @functools.cached_property
    def _profile(self) -> Profile:
        config, services = self.config, self._services
        if self._bounds is None:
            self._bounds = self._own_bounds()
        return Profile(
            agent=self.name,
            model=self.parts.model,
            limits=config.limits,
            retries=RetryPolicy(config.retries.attempts, config.retries.backoff_s, config.retries.max_backoff_s),
            settings=_settings(config),
            request_timeout_s=config.model_settings.timeout_s,
            output=self._output,
            parallel_tools=config.parallel_tools,
            window=config.context,
            summaries=self._summaries,
            plan_every=config.plan.every if config.plan else None,
            gate=self._bounds.gate(self.name, config.limits.requests_per_minute),
            hooks=self._hooks,
            approval=config.approval,
            approve=services.approve,
            clock=services.clock,
        )

    def _own_bounds(self) -> Bounds:
        config = self.config
        return Bounds(
            self._services.clock,
            models=model_limits([self.parts.model_config]),
            budgets=() if config.budget is None else (agent_budget(self.name, config.budget),),
        )

    def share(self, bounds: Bounds) -> None:
        """Let the limits and budgets of a pool bound the model requests of this agent."""
        self._bounds = bounds
        # The profile is made anew when it is next needed.
        vars(self).pop("_profile", None)

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the file it was read from, or None."""
        return self._manifest

    @property
    def output(self) -> Mapping[str, Any] | None:
        """JSON Schema of its answers, or None when they are text."""
        return None if self._output is None else self._output.schema

    # --- lifetime --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._manifest is not None and self._manifest.triggered and self._host is None:
            self._host = plugins.load(plugins.POOL)(self._manifest, agents={self.name: self})
            await self._host.__aenter__()
        else:
            await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._host is not None:
            host, self._host = self._host, None
            await host.__aexit__(None, None, None)
        else:
            await self.aclose()

    async def open(self) -> None:
        """Start MCP servers and knowledge; a pool calls this for its agents.

        Raises:
            StartupError: A part that is required did not start.
        """
        self._loop = asyncio.get_running_loop()
        await self.keep.open()
        await self.parts.open()

    async def aclose(self) -> None:
        """Stop background work, what is queued, and the parts."""
        try:
            await self.stop()
            await self.close_channels()
            await self.parts.aclose()
        finally:
            await self.keep.aclose()
            self._loop = None

    # --- runs ------------------------------------------------------------------------------------------------------

    @property
    def notice(self) -> str:
        """A line a person should read about its model, such as that it is a demo; else empty."""
        return self.parts.notice

    @property
    def home(self) -> asyncio.AbstractEventLoop | None:
        """The loop it was opened in."""
        return self._loop

    async def answer(self, message: Message, context: RunContext) -> RunResult:
        """Answer one message in its surroundings, without sinks and connections.

        Raises:
            RunError: The run failed.
            StartupError: The agent needs `async with` first.
            EngineError: The history of its session cannot be read or written.
        """
        with self.answering():
            if self.parts.waits:
                await self.parts.ready()
            conversation = self._conversations.of(context)
            if conversation is None:
                turns = await self.parts.turns(message, context, self._output)
                return await self._run_loop(context).run(turns)
            async with conversation.turn(context) as turn:
                turns = await self.parts.turns(message, turn.context, self._output)
                result = await self._run_loop(turn.context).run(turns)
                await turn.complete(turns[-1], result)
            return result

    def _run_loop(self, context: RunContext) -> RunLoop:
        tools = self.parts.tools()
        return RunLoop(self._profile, tools, context, listen=context.listen, streaming=context.streaming)

    def session(self, id: str) -> Session:  # noqa: A002
        """Return the conversation of that id, new or going on.

        It is kept in the engine's store of a pool, where events with the same `session` find it, in the `store` of
        the agent, or else as long as this agent lives.

        Raises:
            TypeError: The id is no text.
            ValueError: The id is empty.
        """
        return Session(self, self._conversations, id)

    async def run_in_background(
        self, prompt: str | Callable[[], str], *, interval: float, max_count: int | None = None
    ) -> asyncio.Task[RunResult | None]:
        """Run a prompt every `interval` seconds and return the task; a second call replaces the first.

        A failing round is logged and the rounds go on. `stop` and leaving the pool end them; awaiting the task gives
        the last result.

        Raises:
            ValueError: The prompt is empty.
        """
        return await self._background.start(prompt, interval=interval, max_count=max_count)

    async def stop(self) -> None:
        """End the background rounds."""
        await self._background.stop()


def _config(options: AgentOptions, instructions: str | Sequence[str] | Mapping[str, Any]) -> tuple[AgentConfig, Any]:
    """Return the config of an agent built in Python and, unless they are in it already, its instructions.

    Raises:
        TypeError: There is no such option.
        ManifestError: A value of an option is wrong.
    """
    check_keywords("Agent", options, AgentArguments.__annotations__)
    written = instructions if isinstance(instructions, str | Mapping) else list(instructions)
    data = {**options, **({"instructions": written} if written else {})}
    try:
        if options:
            return AgentConfig.model_validate(data), None
        # Most say nothing else; then thirty defaults need not be made and checked anew.
        return _NOTHING_SAID, _instructions.validate_python(written) if written else None
    except ValidationError:
        # The loader says the same better; it is slower, so it is only asked about mistakes.
        manifests.load({"agents": {"agent": data}})
        raise


def _refuse_for_people(name: str, config: AgentConfig, tools: Sequence[Any]) -> None:
    why = dict(not_for_people(config.model_copy(update={"tools": [*config.tools, *tools]})))
    if why:
        key, reason = next(iter(why.items()))
        raise StartupError(f"agent {name!r}: {reason}; remove `{key}`", usage=True)


def _is_file(name: str | Path) -> bool:
    return isinstance(name, Path) or name.endswith((".yml", ".yaml"))


def _output(shape: Any, folder: Path) -> OutputType:
    return output_type(import_object(shape, folder) if isinstance(shape, str) else shape)


def _settings(config: AgentConfig) -> dict[str, Any]:
    plain = config.model_settings.model_dump(exclude_none=True, exclude={"timeout_s", "extra"})
    return {**plain, **config.model_settings.extra}
