"""The parts of one agent: model, tools, MCP servers, knowledge; started in parallel, one owner task each."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

from pydantic import BaseModel, TypeAdapter

from llmling import plugins
from llmling.errors import LLMlingError, StartupError
from llmling.manifest.agents import AgentConfig
from llmling.manifest.models import ModelConfig
from llmling.masking import masked
from llmling.messages import Message, TextPart
from llmling.protocols import KnowledgeSource, Model, Tool, ToolProvider
from llmling.runtime.context import RunContext
from llmling.runtime.instructions import PlainInstructions, as_prompt
from llmling.runtime.lifespan import Lifespans, reason
from llmling.runtime.output import OutputType
from llmling.runtime.scope import current_event
from llmling.runtime.services import Services
from llmling.runtime.toolbox import Toolbox

RETRY_KNOWLEDGE_S = 30.0
logger = logging.getLogger("llmling")
_model_config: TypeAdapter[Any] = TypeAdapter(ModelConfig)
_ONLY_TEXT = frozenset({str})


@runtime_checkable
class Choosing(Protocol):
    """A model that decides what it is before its first request, and may have something to say about it."""

    @property
    def notice(self) -> str | None:
        """What a person must be told about the choice."""
        ...

    async def resolve(self) -> object:
        """Choose now."""
        ...


class Parts:
    """What an agent is made of. `failures` names the parts that did not start, with the reason.

    `model_config` is what the model was made of, or a model somebody else made.
    """

    def __init__(
        self,
        agent: str,
        config: AgentConfig,
        services: Services,
        *,
        model: Any,
        tools: Sequence[Any] = (),
        prompt: Any = None,
        parallel: bool = True,
    ) -> None:
        self._agent = agent
        self._parallel = parallel
        self.model_config = model
        self.model = live_model(model, services if services.agent == agent else replace(services, agent=agent))
        self._toolbox = Toolbox(agent, config.tools, services, tools)
        self.providers: list[ToolProvider] = []
        self._own: dict[str, ToolProvider] = {}
        for index, server in enumerate(config.mcp_servers):
            if isinstance(server, str):
                self.providers.append(_shared(agent, server, services))
            else:
                own: ToolProvider = plugins.create("mcp_servers", server, services, f"{agent}_{index}")
                self.providers.append(own)
                self._own[f"mcp_servers[{index}]"] = own
        self._knowledge: dict[str, KnowledgeSource] = {
            f"knowledge[{index}] ({source.type})": plugins.create("knowledge", source, services)
            for index, source in enumerate(config.knowledge)
        }
        self.prompt = as_prompt(config.instructions if prompt is None else prompt)
        self._spans: AsyncExitStack | None = None
        self._lifespans: Lifespans | None = None
        self._retry_s: dict[str, float] = {}
        self._services = services
        self.failures: dict[str, str] = {}
        self.seconds: Mapping[str, float] = {}

    @property
    def folder(self) -> Path:
        """Where its relative paths start."""
        return self._services.folder

    @functools.cached_property
    def _same(self) -> tuple[Message, ...] | None:
        """What stands before the history of every run, or None when it is made for each."""
        if self._knowledge or not isinstance(self.prompt, PlainInstructions) or self.prompt.same is None:
            return None
        return (Message.system(self.prompt.same),) if self.prompt.same else ()

    @property
    def _needs_opening(self) -> bool:
        return bool(self._own or self._knowledge)

    async def open(self) -> None:
        """Start MCP servers and knowledge sources of this agent.

        A part that fails is left out and named in `failures`; the agent works without it.

        Raises:
            StartupError: An MCP server with `required: true` did not start.
        """
        if self._spans is not None:
            return
        if isinstance(self.model, Choosing):
            await self.model.resolve()
        entered: dict[str, AbstractAsyncContextManager[Any]] = {**self._own, **self._knowledge}
        stack = AsyncExitStack()
        spans = await stack.enter_async_context(Lifespans())
        try:
            started = await spans.enter_all(entered, parallel=self._parallel)
        except BaseException:
            await stack.aclose()
            raise
        self._spans, self._lifespans = stack, spans
        self.seconds = {part: start.seconds for part, start in started.items()}
        for part, start in started.items():
            if start.error is None:
                continue
            message = f"agent {self._agent!r}, {part}: {reason(start.error)}"
            if part in self._own:
                await self.aclose()
                raise StartupError(message) from start.error
            self.failures[part] = reason(start.error)
            self._retry_s[part] = self._services.clock.monotonic() + RETRY_KNOWLEDGE_S
            logger.warning("%s; the agent works without it", message)

    async def aclose(self) -> None:
        """Stop what `open` started."""
        stack, self._spans = self._spans, None
        self._lifespans = None
        if stack is not None:
            await stack.aclose()

    @property
    def waits(self) -> bool:
        """Whether there is anything that `ready` looks at."""
        return bool(self.providers or self._own or self._knowledge)

    async def ready(self) -> None:
        """Return when every MCP server has started or given up for now.

        Raises:
            StartupError: `async with` was forgotten.
        """
        if self._needs_opening and self._spans is None:
            raise StartupError(
                f"agent {self._agent!r} has MCP servers or knowledge: use `async with agent:` before running it"
            )
        for provider in self.providers:
            await provider.settled()

    @property
    def notice(self) -> str:
        """A line a person should read about the model, such as that it is a demo; else empty."""
        return notice_of(self.model)

    @property
    def reasons(self) -> list[str]:
        """Why the agent is not whole: parts that did not start, MCP servers that are down."""
        down = [f"MCP server {p.name!r}: {p.reason}" for p in self.providers if p.state in {"broken", "stopped"}]
        return [*(f"{part}: {why}" for part, why in self.failures.items()), *down]

    @property
    def state(self) -> Literal["ready", "starting", "degraded"]:
        """How the agent is."""
        if self.reasons:
            return "degraded"
        return "starting" if any(provider.state == "starting" for provider in self.providers) else "ready"

    def tools(self) -> list[Tool]:
        """Return the tools on offer right now, no two with the same name."""
        return self._toolbox.tools(self.providers)

    async def turns(self, message: Message, context: RunContext, output: OutputType | None) -> list[Message]:
        """Return what a run begins with: the system message, the history, and the user turn of a message.

        Raises:
            TemplateFailed: The instructions ask for something that is not there.
        """
        if output is None and (same := self._same) is not None:
            return [*same, *context.history, message]
        system = await self.system(message, context, output)
        before = (Message.system(system),) if system else ()
        return [*before, *context.history, self.framed(message, context)]

    async def system(self, message: Message, context: RunContext, output: OutputType | None) -> str:
        """Return the system message of one run: instructions, knowledge, and the shape of the answer.

        Raises:
            TemplateFailed: The instructions ask for something that is not there.
        """
        blocks = [text] if (text := self.prompt.system(self._values(context))) else []
        if self._knowledge:
            token = current_event.set(context.event)
            try:
                texts = await asyncio.gather(*(self._known(name, message.text) for name in self._knowledge))
            finally:
                current_event.reset(token)
            blocks.extend(text for text in texts if text)
        if output is not None:
            blocks.append(output.request)
        return "\n\n".join(blocks)

    def framed(self, message: Message, context: RunContext) -> Message:
        """Return the user turn of a message: the instructions may frame it.

        Raises:
            TemplateFailed: The instructions ask for something that is not there.
        """
        text = self.prompt.user(message.text, self._values(context))
        return message if text == message.text else Message(message.role, (TextPart(text),), message.name)

    def _values(self, context: RunContext) -> dict[str, Any]:
        return {"event": context.event, "agent": self._agent}

    async def _try_again(self, name: str, source: KnowledgeSource) -> None:
        """Start a knowledge source that failed at the start, at most every half minute."""
        now_s = self._services.clock.monotonic()
        if name not in self.failures or self._lifespans is None or now_s < self._retry_s.get(name, 0.0):
            return
        self._retry_s[name] = now_s + RETRY_KNOWLEDGE_S
        spans = self._lifespans
        attempt = f"{name} again at {now_s}"
        start = (await spans.enter_all({attempt: source}))[attempt]
        if start.error is None:
            logger.info("agent %r, %s: is there now", self._agent, name)
            del self.failures[name]
        else:
            self.failures[name] = reason(start.error)
            # It holds nothing; only the record of each failed try would stay, as long as the page is gone.
            await spans.leave([attempt])

    async def _known(self, name: str, query: str) -> str:
        source = self._knowledge[name]
        try:
            await self._try_again(name, source)
            text = f"({self.failures[name]})" if name in self.failures else await source.text(query)
        except LLMlingError as error:
            logger.warning("agent %r, %s: %s", self._agent, name, error)
            text = f"(not available right now: {error})"
        return f'<knowledge title="{source.title}">\n{masked(text.strip())}\n</knowledge>' if text.strip() else ""


def notice_of(model: Model) -> str:
    """Return a line a person should read about a model, such as that it is a demo; else an empty text."""
    if isinstance(model, Choosing) and model.notice:
        return model.notice
    match model.name.partition(":")[0]:
        case "demo":
            return "the demo model answers: no key, no network, and no real model behind it"
        case "replay":
            return f"{model.name}: recorded answers, no model is asked"
        case _:
            return ""


def model_config(model: Any) -> Any:
    """Return the config of what a manifest says of a model; a config, or a model itself, as it is."""
    if isinstance(model, BaseModel) or not isinstance(model, str | Mapping):
        return model
    # Many agents are given the same one.
    kind = cast("object", model).__class__
    if kind is str:
        return _config_of(cast("str", model))
    if kind is dict and _ONLY_TEXT.issuperset(map(type, cast("Mapping[Any, Any]", model).values())):
        return _config_of(tuple(cast("Mapping[Any, Any]", model).items()))
    return _model_config.validate_python(model)


@functools.lru_cache(maxsize=256)
def _config_of(said: str | tuple[tuple[Any, str], ...]) -> Any:
    return _model_config.validate_python(said if isinstance(said, str) else dict(said))


def live_model(model: Any, services: Services) -> Model:
    """Return a model as it is, and a config or what a manifest says of one turned into it."""
    model = model_config(model)
    if isinstance(model, BaseModel):
        return services.model(model)
    if not isinstance(model, Model):
        kind = type(cast("object", model)).__name__
        raise TypeError(f"the model should be a name, a mapping or a `Model`, not {kind}")
    return model


def _shared(agent: str, server: str, services: Services) -> ToolProvider:
    try:
        return services.providers[server]
    except KeyError:
        known = ", ".join(services.providers) or "none"
        raise StartupError(f"agent {agent!r}: MCP server {server!r} is not in the pool; known: {known}") from None
