"""Several agents that stand where one may."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self, TypedDict, Unpack, cast

from pydantic import ValidationError

from llmling import manifest as manifests
from llmling.errors import TeamError
from llmling.events import new_id
from llmling.manifest.agents import InboxConfig
from llmling.manifest.importing import import_object
from llmling.manifest.models import AutoModelConfig
from llmling.manifest.problems import check_keywords
from llmling.manifest.teams import Mode, TeamConfig
from llmling.messages import Message, RunResult, Usage
from llmling.protocols import Model
from llmling.runtime.attempt import Attempt, attempt, gathered
from llmling.runtime.context import RunContext
from llmling.runtime.gate import Bounds, model_limits
from llmling.runtime.items import check_count, items, text_of, title_of
from llmling.runtime.node import Node, Target, as_node
from llmling.runtime.output import dump
from llmling.runtime.parts import Choosing, live_model, model_config, notice_of
from llmling.runtime.pick import ByCallable, ByCondition, ByModel, Picker
from llmling.runtime.runnable import Runnable
from llmling.runtime.services import Services
from llmling.runtime.spans import team_completed, team_span
from llmling.runtime.stream import RunEvent, RunEventType, completed, ended
from llmling.runtime.tracing import Span


class Member(Runnable):
    """A node that `|` and `&` make teams of."""

    def __or__(self, other: Target) -> Team:
        """Return a sequential team: the other one gets this one's answer."""
        return join("sequential", self, as_node(other))

    def __and__(self, other: Target) -> Team:
        """Return a parallel team: both get the message."""
        return join("parallel", self, as_node(other))


class TeamOptions(TypedDict, total=False):
    """Further keys of a team in the manifest, under the same names; `when` holds the conditions by member."""

    description: str
    instructions: str
    when: Mapping[str, str]
    over: str
    max_concurrency: int
    sinks: Sequence[Any]
    concurrency: int
    inbox: InboxConfig | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer of a team, and everything that led to it."""

    content: Any
    message: Message
    attempts: Sequence[Attempt]
    stop_reason: str = "stop"


class Team(Member):
    """Runs its members on each message and answers as one.

    `parallel`: all get the message; the answer is every member's answer under its name. `sequential`: each gets the
    answer of the one before. `pick`: one answers, chosen by `when` (an expression for each member), by `pick` (a
    callable that returns a name), or by a model that reads the descriptions. `map`: each item of a list goes through
    the members, `max_concurrency` items at once; the answer is the list of answers.

    When some members of a parallel team, or some items, fail, the others still count; only when all fail the team
    fails.

    Example:
        >>> desk = Team([billing, support], mode="pick", model="openai/gpt-4o-mini")
        >>> result = await desk.run("Where is my invoice?")
    """

    def __init__(
        self,
        members: Sequence[Target],
        *,
        mode: Mode = "parallel",
        name: str | None = None,
        pick: Callable[[Message], Any] | None = None,
        model: str | Mapping[str, Any] | Model | None = None,
        **options: Unpack[TeamOptions],
    ) -> None:
        nodes = [as_node(member) for member in members]
        if not nodes:
            raise ValueError("a team needs at least one member")
        if (pick is not None or model is not None) and mode != "pick":
            raise ValueError('`pick` and `model` are for mode="pick"')
        config = _config(nodes, mode, options)
        if pick is not None and (model is not None or config.picks_by == "when"):
            raise ValueError("a team picks by `pick`, by `when` or by a `model`, not by two of them")
        joint = " | " if mode == "sequential" else " & "
        self._set_up(name or joint.join(node.name for node in nodes), config, nodes, Services(), pick, model)
        self.unnamed = name is None

    @classmethod
    def from_config(
        cls, name: str, config: TeamConfig, members: Sequence[Node], services: Services, *, model: Any = None
    ) -> Self:
        """Build a team of a pool; `model` replaces the configured one."""
        self = cls.__new__(cls)
        pick = import_object(config.pick, services.folder) if config.pick else None
        self._set_up(name, config, members, services, pick, model)
        return self

    def _set_up(
        self, name: str, config: TeamConfig, members: Sequence[Node], services: Services, pick: Any, model: Any
    ) -> None:
        super().__init__(name, description=config.description, concurrency=config.concurrency, inbox=config.inbox)
        self.config = config
        self.members = tuple(members)
        self.mode: Mode = config.mode
        self.unnamed = False
        self.add_sinks(config.sinks, services)
        self.model: Model | None = None
        self._picker: Picker | None = None
        if self.mode != "pick":
            return
        if pick is not None:
            self._picker = ByCallable(name, config.names, pick)
        elif config.picks_by == "when":
            self._picker = ByCondition(name, [(member.name, member.when) for member in config.members])
        else:
            chosen = model if model is not None else config.model or AutoModelConfig()
            self.model = live_model(chosen, replace(services, agent=name))
            bounds = services.bounds or Bounds(services.clock, models=model_limits([model_config(chosen)]))
            gate = bounds.gate(name)
            self._picker = ByModel(name, self.model, self.members, config.instructions, services.clock, gate)

    @property
    def home(self) -> asyncio.AbstractEventLoop | None:
        """The loop of the first member that has one."""
        homes = (member.home for member in self.members if isinstance(member, Runnable))
        return next((home for home in homes if home is not None), None)

    async def open(self) -> None:
        """Let a model that chooses what it is do so."""
        if isinstance(self.model, Choosing):
            await self.model.resolve()

    def share(self, bounds: Bounds) -> None:
        """Let the limits and budgets of a pool bound the requests to the model that picks."""
        if isinstance(self._picker, ByModel):
            self._picker.share(bounds.gate(self.name))

    @property
    def notice(self) -> str:
        """A line a person should read about the model that picks; else empty."""
        return "" if self.model is None else notice_of(self.model)

    # --- answering -------------------------------------------------------------------------------------------------

    async def answer(self, message: Message, context: RunContext) -> RunResult:
        """Answer with the members.

        Raises:
            RunError: A member of a sequential team failed, the one that was picked, every one of a parallel team, or
                every item; or there is nobody to pick, or no list.
        """
        started = time.perf_counter()
        run = _Run(self.name, context)
        with self.answering(), team_span(self.name, context.event) as span:
            run.say("run_started", f"{self.name} started", mode=self.mode)
            try:
                answer = await self._answer(message, run)
            except BaseException as error:
                run.say(*ended(error), error=type(error).__name__)
                raise
            results = [done.result for done in answer.attempts if done.result is not None]
            spans = team_completed(span, results)
        result = _result(self.name, run.id, answer, time.perf_counter() - started, spans)
        run.tell(completed(run.id, self.name, result))
        return result

    async def _answer(self, message: Message, run: _Run) -> _Answer:
        match self.mode:
            case "sequential":
                return await self._one_by_one(message, run.context)
            case "parallel":
                return await self._all_at_once(message, run.context)
            case "pick":
                return await self._picked(message, run)
            case "map":
                return await self._mapped(message, run.context)

    async def _one_by_one(self, message: Message, context: RunContext) -> _Answer:
        attempts: list[Attempt] = []
        result: RunResult | None = None
        for index, member in enumerate(self.members):
            inner = _inner(context, index, member)
            result = await member.answer(message, inner)
            attempts.append(Attempt(member.name, inner.spent, result))
            message = Message.user(result.response, name=member.name)
        last = cast("RunResult", result)
        return _Answer(last.content, last.message, attempts, last.stop_reason)

    async def _all_at_once(self, message: Message, context: RunContext) -> _Answer:
        works: list[Callable[[], Any]] = []
        for index, member in enumerate(self.members):
            inner = _inner(context, index, member)
            works.append(partial(attempt, member.name, inner.spent, partial(member.answer, message, inner)))
        attempts = await gathered(works)
        text = _sections(attempts)
        return _Answer(text, Message.assistant(text, name=self.name), attempts)

    async def _picked(self, message: Message, run: _Run) -> _Answer:
        assert self._picker is not None  # noqa: S101 - set by mode
        picked = await self._picker.pick(message, run.context)
        index = self.config.names.index(picked.name)
        member = self.members[index]
        run.say("handoff", f"{self.name} >> {member.name}", to=member.name)
        inner = _inner(run.context, index, member)
        result = await member.answer(message, inner)
        # The choice is paid for, but no part of the exchange. Who of them answered is told by the name on the answer.
        choice = [] if picked.run is None else [Attempt("", inner.spent, replace(picked.run, messages=()))]
        answer = replace(result.message, name=result.message.name or member.name)
        return _Answer(result.content, answer, [*choice, Attempt(member.name, inner.spent, result)], result.stop_reason)

    async def _mapped(self, message: Message, context: RunContext) -> _Answer:
        listed = items(self.name, self.config.over, message, context.event)
        check_count(self.name, len(listed), context.mapped.count, self.max_messages)
        context.mapped.count += len(listed)
        if not listed:
            # Nothing to do is no failure; an empty text goes no further.
            return _Answer([], Message.assistant("", name=self.name), [])
        works: list[Callable[[], Any]] = []
        for index, item in enumerate(listed):
            text = text_of(item)
            inner = context.part(f"item {index}/")
            title = title_of(index + 1, text)
            each = Message.user(text, name=message.name)
            works.append(partial(attempt, title, inner.spent, partial(self._item, each, inner)))
        attempts = await gathered(works, self.config.max_concurrency)
        results = [outcome.result for outcome in attempts]
        if not any(result is not None and not isinstance(result.content, str) for result in results):
            text = _sections(attempts)
            return _Answer(text, Message.assistant(text, name=self.name), attempts)
        content = [
            {"item": item, "failed": str(outcome.error)} if outcome.result is None else outcome.result.content
            for item, outcome in zip(listed, attempts, strict=True)
            if outcome.result is not None or outcome.error is not None
        ]
        return _Answer(content, Message.assistant(dump(content), name=self.name), attempts)

    async def _item(self, message: Message, context: RunContext) -> RunResult:
        if not message.text.strip():
            raise TeamError("the item is empty")
        started = time.perf_counter()
        answer = await self._one_by_one(message, context)
        spans = tuple(span for done in answer.attempts if done.result is not None for span in done.result.spans)
        return _result(self.name, new_id(), answer, time.perf_counter() - started, spans)


class _Run:
    """One answer of a team, going on: its surroundings, and its voice in the stream."""

    def __init__(self, team: str, context: RunContext) -> None:
        self.id = new_id()
        self._team = team
        self._count = itertools.count()
        self.context = context

    def say(self, type_: RunEventType, message: str, **data: Any) -> None:
        """Say what happens, to who listens and to the journal."""
        self.tell(RunEvent(type_, self.id, self._team, message, data))

    def tell(self, event: RunEvent) -> None:
        """Hand an event to who listens and to the journal."""
        self.context.journal.note(event.as_step(next(self._count)))
        self.context.listen(event)


def join(mode: Mode, left: Node, right: Node) -> Team:
    """Return a team of two nodes; `a & b & c` is one team of three, but a named team stays a member of its own."""
    if isinstance(left, Team) and left.mode == mode and left.unnamed and not left.connections:
        return Team([*left.members, right], mode=mode)
    return Team([left, right], mode=mode)


def _config(members: Sequence[Node], mode: Mode, options: TeamOptions) -> TeamConfig:
    """Return the config of a team built in Python.

    Raises:
        TypeError: There is no such option.
        ManifestError: A value of an option is wrong.
        ValueError: Options do not fit together.
    """
    check_keywords("Team", options, TeamOptions.__annotations__)
    names = [member.name for member in members]
    when = options.get("when", {})
    for name in when:
        if name not in names:
            raise ValueError(f"`when` names {name!r}, which is no member; members: {', '.join(names)}")
    written = {key: value for key, value in options.items() if key != "when"}
    entries = [{"name": name, **({"when": when[name]} if name in when else {})} for name in names]
    data = {"mode": mode, "members": entries, **written}
    try:
        config = TeamConfig.model_validate(data)
    except ValidationError:
        # As for an agent: the loader says the same better. Members' own names, such as "a | b", may be none for it.
        agents: dict[str, Any] = {f"member_{index}": {} for index in range(len(names))}
        entries = [{**entry, "name": agent} for entry, agent in zip(entries, agents, strict=True)]
        manifests.load({"agents": agents, "teams": {"team": {**data, "members": entries}}})
        raise
    for _, message, _ in config.faults():
        raise ValueError(message)
    return config


def _inner(context: RunContext, index: int, member: Node) -> RunContext:
    return context.part(f"{index}:{member.name}/")


def _sections(attempts: Sequence[Attempt]) -> str:
    """Return every answer under its heading; what a callable dropped is left out."""
    return "\n\n".join(
        f"## {done.title}\n\n" + (done.result.response if done.result is not None else f"(failed: {done.error})")
        for done in attempts
        if done.result is not None or done.error is not None
    )


def _result(team: str, run_id: str, answer: _Answer, latency_s: float, spans: Sequence[Span]) -> RunResult:
    costs = [done.cost_usd for done in answer.attempts if done.cost_usd is not None]
    results = [done.result for done in answer.attempts if done.result is not None]
    return RunResult(
        content=answer.content,
        message=answer.message,
        messages=tuple(turn for result in results for turn in result.messages),
        usage=sum((done.usage for done in answer.attempts), Usage()),
        model=", ".join(dict.fromkeys(result.model for result in results if result.model)),
        agent=team,
        run_id=run_id,
        cost_usd=sum(costs) if costs else None,
        latency_s=latency_s,
        stop_reason=answer.stop_reason,
        demo=any(result.demo for result in results),
        spans=spans,
    )
