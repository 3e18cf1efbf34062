"""The tools' side of a run: the calls of one reply, together or in turn, each with a result the model sees."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from llmling.errors import DecisionNeeded, EngineError, RunError, ToolError
from llmling.masking import masked
from llmling.messages import NOTHING, ToolCallPart, ToolCallResponsePart, Usage
from llmling.protocols import Step, Tool
from llmling.runtime.approval import Approvals
from llmling.runtime.context import NO_JOURNAL, Meter, RunContext, current_run
from llmling.runtime.hooks import NO_HOOKS
from llmling.runtime.limits import shortened
from llmling.runtime.profile import Profile
from llmling.runtime.progress import Progress
from llmling.runtime.spans import tool_span
from llmling.runtime.toolbox import origin_of

logger = logging.getLogger("llmling.run")


_Outcome: TypeAlias = ToolCallResponsePart | RunError | EngineError


class HandsOver(Protocol):
    """A tool behind which another agent answers."""

    @property
    def hands_over_to(self) -> str:
        """The name of that agent."""
        ...


class Calling:
    """Makes the tool calls of one run.

    A call means the tool that had its name when the model replied, also in a run that goes on after a restart, when
    servers that offer tools of one name may have got each other's. Every result is recorded. Before any call of a
    reply is made, a person is asked for those that need it. A call that was in flight when the process ended is made
    again only when its tool is repeatable; otherwise it ends the run with `DecisionNeeded`.
    """

    def __init__(self, profile: Profile, context: RunContext, progress: Progress, tools: Sequence[Tool]) -> None:
        self._profile = profile
        self._context = context
        self._progress = progress
        self._tools = {tool.spec.name: tool for tool in tools}
        self._approvals = Approvals(profile, context, progress)
        self._asked: dict[str, Meter] = {}

    async def call_all(self, iteration: int, calls: Sequence[ToolCallPart]) -> list[ToolCallResponsePart]:
        """Return the results of the calls of one reply, in the order of the calls.

        Raises:
            RunError: The run ends here; nothing that a tool does or is sent raises.
        """
        meant = self._meant(iteration, calls)
        wanted = {f"{iteration}.{index}": (call, meant.get(call.name)) for index, call in enumerate(calls)}
        refused = await self._approvals.refusals(wanted)
        if not self._profile.parallel_tools or len(calls) == 1:
            return [await self._call(key, *each, refused.get(key)) for key, each in wanted.items()]

        async def outcome(key: str, call: ToolCallPart, tool: Tool | None) -> _Outcome:
            # Nothing but the end of the run is raised by a call; the others are not cut short by it.
            try:
                return await self._call(key, call, tool, refused.get(key))
            except (RunError, EngineError) as error:
                return error

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(outcome(key, *each)) for key, each in wanted.items()]
        results: list[ToolCallResponsePart] = []
        for task in tasks:
            result = task.result()
            if isinstance(result, RunError | EngineError):
                raise result
            results.append(result)
        return results

    def origins(self, calls: Sequence[ToolCallPart]) -> dict[str, str]:
        """Return whose tools are called, by name; those of the agent itself and unknown ones are left out."""
        found = {call.name: self._tools.get(call.name) for call in calls}
        return {name: origin for name, tool in found.items() if tool is not None and (origin := origin_of(tool))}

    def _meant(self, iteration: int, calls: Sequence[ToolCallPart]) -> dict[str, Tool]:
        step = self._context.journal.recorded(f"{iteration}:reply")
        if step is None or "origins" not in step.data:
            return self._tools
        by_origin = {origin_of(tool): tool for tool in self._tools.values()}
        own = {name: tool for name, tool in self._tools.items() if not origin_of(tool)}
        origins: Mapping[str, str] = step.data["origins"]
        found = {call.name: by_origin.get(origins[call.name]) for call in calls if call.name in origins}
        return {name: tool for name, tool in {**own, **found}.items() if tool is not None}

    async def _call(self, key: str, call: ToolCallPart, tool: Tool | None, refused: str | None) -> ToolCallResponsePart:
        step = self._context.journal.recorded(f"{key}:result")
        if step is not None:
            if "usage" in step.data:
                self._progress.add(Usage(**step.data["usage"]), step.data["cost_usd"])
            return ToolCallResponsePart(call.id, call.name, step.data["response"], step.data["failed"])
        with tool_span(self._profile.agent, call.name, call.id, known=tool is not None) as span:
            part = await self._answer(key, call, tool, refused)
            if part.failed:
                span.end(part.response)
        return part

    async def _answer(
        self, key: str, call: ToolCallPart, tool: Tool | None, refused: str | None
    ) -> ToolCallResponsePart:
        say = self._progress.say
        if self._progress.told:
            say("tool_called", f"{call.name}({call.arguments_json()})", tool=call.name, call_id=call.id)
        if tool is None:
            part = ToolCallResponsePart(call.id, call.name, self._unknown(call.name), failed=True)
        elif isinstance(call.arguments, str):
            part = ToolCallResponsePart(call.id, call.name, _malformed(call.arguments), failed=True)
        elif refused is not None:
            part = ToolCallResponsePart(call.id, call.name, f"{call.name} was not called: {refused}", failed=True)
        else:
            part = await self._guarded(key, call, tool)
        # What no model sees, none can be talked into passing on; nor is it kept or shown.
        if (text := shortened(masked(part.response))) != part.response:
            part = replace(part, response=text)
        asked = self._asked.pop(key, None)
        if self._context.journal is not NO_JOURNAL:
            await self._record(key, call, part, asked)
        say("tool_failed" if part.failed else "tool_result", part.response, tool=call.name, call_id=call.id)
        return part

    async def _record(self, key: str, call: ToolCallPart, part: ToolCallResponsePart, asked: Meter | None) -> None:
        result: dict[str, Any] = {"response": part.response, "failed": part.failed}
        result |= {"tool": call.name, "call_id": call.id, **self._progress.stamp()}
        if asked is not None and asked.usage != NOTHING:
            result |= {"usage": asked.usage.to_dict(), "cost_usd": asked.cost_usd}
        await self._context.journal.record(Step(f"{key}:result", "result", result))

    def _unknown(self, name: str) -> str:
        if name in self._tools:
            return f"{name} was not called: the tool that had this name is not on offer now, and another one has it"
        return f"unknown tool {name!r}; known tools: {', '.join(sorted(self._tools)) or 'none'}"

    async def _guarded(self, key: str, call: ToolCallPart, tool: Tool) -> ToolCallResponsePart:
        self._check_repeatable(key, call, tool)
        hooks = self._profile.hooks
        if hooks is NO_HOOKS:
            await self._mark(key, call, tool)
            return await self._invoke(key, call, tool)
        decided = await hooks.before_tool(call, self._progress.info)
        if isinstance(decided, ToolCallResponsePart):
            return decided
        await self._mark(key, decided, tool)
        return await hooks.after_tool(await self._invoke(key, decided, tool), self._progress.info)

    def _check_repeatable(self, key: str, call: ToolCallPart, tool: Tool) -> None:
        if not tool.repeatable and self._context.journal.recorded(f"{key}:call") is not None:
            raise DecisionNeeded(
                f"tool {call.name!r} was being called when the process ended, and it is not marked `idempotent: true`: "
                f"look whether it took effect, then `llmling events retry` calls it again and `drop` gives up. "
                f"Arguments: {call.arguments_json()[:500]}"
            )

    async def _mark(self, key: str, call: ToolCallPart, tool: Tool) -> None:
        if not tool.repeatable and self._context.journal is not NO_JOURNAL:
            step = Step(f"{key}:call", "call", {"tool": call.name, "arguments": call.arguments_json()})
            await self._context.journal.record(step, committed=True)

    async def _invoke(self, key: str, call: ToolCallPart, tool: Tool) -> ToolCallResponsePart:
        arguments: Mapping[str, Any] = {} if isinstance(call.arguments, str) else call.arguments
        inner = self._context.within(self._profile.agent, f"{key}/")
        token = current_run.set(inner)
        # As `isinstance(tool, HandsOver)`, which takes fifty times as long.
        if (other := getattr(tool, "hands_over_to", None)) is not None:
            way = f"{self._profile.agent} >> {other}"
            self._progress.say("handoff", way, to=other, tool=call.name, call_id=call.id)
        try:
            return ToolCallResponsePart(call.id, call.name, _text(await tool.call(arguments)))
        except ToolError as error:
            return ToolCallResponsePart(call.id, call.name, str(error), failed=True)
        except (DecisionNeeded, EngineError):
            raise
        except Exception as error:  # the border to what users wrote: the model sees every failure
            logger.warning("tool %r of agent %r failed", call.name, self._profile.agent, exc_info=True)
            return ToolCallResponsePart(call.id, call.name, f"{type(error).__name__}: {error}", failed=True)
        finally:
            current_run.reset(token)
            self._asked[key] = inner.spent
            self._progress.add(inner.spent.usage, inner.spent.cost_usd)


def _text(response: Any) -> str:
    if not isinstance(response, str):
        raise TypeError(f"`call` of a tool should return text, not {type(response).__name__}")
    return response


def _malformed(arguments: str) -> str:
    try:
        json.loads(arguments)
    except ValueError as error:
        return f"the arguments are not valid JSON ({error}): send one JSON object"
    return "the arguments are not a JSON object: send one JSON object"
