"""Several agents that stand where one may."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, TypeAlias

from llmling.errors import DecisionNeeded, RunError
from llmling.events import new_id
from llmling.manifest.agents import InboxConfig
from llmling.messages import Message, RunResult, Usage
from llmling.runtime.context import RunContext
from llmling.runtime.node import DEFAULT_INBOX, Node, Target, as_node
from llmling.runtime.runnable import Runnable
from llmling.runtime.spans import team_completed, team_span
from llmling.runtime.tracing import OpenSpan

Mode: TypeAlias = Literal["parallel", "sequential"]


class Member(Runnable):
    """A node that `|` and `&` make teams of."""

    def __or__(self, other: Target) -> Team:
        """Return a sequential team: the other one gets this one's answer."""
        return join("sequential", self, as_node(other))

    def __and__(self, other: Target) -> Team:
        """Return a parallel team: both get the message."""
        return join("parallel", self, as_node(other))


class Team(Member):
    """Runs its members on each message: all at once, or each on the answer of the one before.

    The answer of a parallel team is every member's answer under its name; when some members fail the others still
    count, and only when all fail the team fails. A sequential team fails with its first failing member.

    Example:
        >>> desk = Team([analyzer, critic], mode="parallel")
        >>> result = await desk.run("What is wrong here?")
    """

    def __init__(
        self,
        members: Sequence[Target],
        *,
        mode: Mode = "parallel",
        name: str | None = None,
        description: str = "",
        concurrency: int = 4,
        inbox: InboxConfig = DEFAULT_INBOX,
    ) -> None:
        self.members: tuple[Node, ...] = tuple(as_node(member) for member in members)
        if not self.members:
            raise ValueError("a team needs at least one member")
        self.mode: Mode = mode
        self.unnamed = name is None
        joint = " & " if mode == "parallel" else " | "
        super().__init__(
            name or joint.join(member.name for member in self.members),
            description=description,
            concurrency=concurrency,
            inbox=inbox,
        )

    @property
    def home(self) -> asyncio.AbstractEventLoop | None:
        """The loop of the first member that has one."""
        homes = (member.home for member in self.members if isinstance(member, Runnable))
        return next((home for home in homes if home is not None), None)

    async def answer(self, message: Message, context: RunContext) -> RunResult:
        """Answer with all members.

        Raises:
            RunError: A member of a sequential team failed, or every member of a parallel one.
        """
        with team_span(self.name, context.event) as span:
            if self.mode == "sequential":
                return await self._one_by_one(message, context, span)
            return await self._all_at_once(message, context, span)

    def _inner(self, context: RunContext, index: int, member: Node) -> RunContext:
        return context.part(f"{index}:{member.name}/")

    async def _one_by_one(self, message: Message, context: RunContext, span: OpenSpan) -> RunResult:
        results: list[RunResult] = []
        for index, member in enumerate(self.members):
            result = await member.answer(message, self._inner(context, index, member))
            results.append(result)
            message = Message.user(result.response, name=member.name)
        last = results[-1]
        return self._combined(results, last.content, last.message, span)

    async def _all_at_once(self, message: Message, context: RunContext, span: OpenSpan) -> RunResult:
        async def attempt(index: int, member: Node) -> RunResult | RunError:
            try:
                return await member.answer(message, self._inner(context, index, member))
            except RunError as error:
                return error

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt(index, member)) for index, member in enumerate(self.members)]
        outcomes = [task.result() for task in tasks]
        for outcome in outcomes:
            # A person must decide first; until then there is no answer of the whole team.
            if isinstance(outcome, DecisionNeeded):
                raise outcome
        results = [outcome for outcome in outcomes if isinstance(outcome, RunResult)]
        if not results:
            raise next(outcome for outcome in outcomes if isinstance(outcome, RunError))
        sections = [
            f"## {member.name}\n\n" + (outcome.response if isinstance(outcome, RunResult) else f"(failed: {outcome})")
            for member, outcome in zip(self.members, outcomes, strict=True)
        ]
        text = "\n\n".join(sections)
        return self._combined(results, text, Message.assistant(text, name=self.name), span)

    def _combined(self, results: Sequence[RunResult], content: object, message: Message, span: OpenSpan) -> RunResult:
        costs = [result.cost_usd for result in results if result.cost_usd is not None]
        return RunResult(
            content=content,
            message=message,
            messages=tuple(turn for result in results for turn in result.messages),
            usage=sum((result.usage for result in results), Usage()),
            model=", ".join(dict.fromkeys(result.model for result in results if result.model)),
            agent=self.name,
            run_id=new_id(),
            cost_usd=sum(costs) if costs else None,
            latency_s=max(result.latency_s for result in results)
            if self.mode == "parallel"
            else sum(result.latency_s for result in results),
            demo=any(result.demo for result in results),
            spans=team_completed(span, results),
        )


def join(mode: Mode, left: Node, right: Node) -> Team:
    """Return a team of two nodes; `a & b & c` is one team of three, but a named team stays a member of its own."""
    if isinstance(left, Team) and left.mode == mode and left.unnamed and not left.connections:
        return Team([*left.members, right], mode=mode)
    return Team([left, right], mode=mode)
