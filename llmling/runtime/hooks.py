"""Hooks: users' code around model requests and tool calls, which may look, replace or veto, and listen to events.

    class Guard:
        def before_tool(self, call, run):
            if call.name == "send" and run.event.source == "inbox":
                raise Veto("mail is not sent on behalf of strangers")

Each method may be sync (it runs in a thread) or async, and returning None changes nothing. `before_model(request,
run)` may return another `ModelRequest`, or the answer as a `ModelResponse` or text; `after_model(response, run)`
another response or text; `before_tool(call, run)` other arguments as a mapping, or the result as a text;
`after_tool(result, run)` another text. `on_event(event)` hears every event of the run's stream.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias, cast

from llmling.errors import HookError, RunError, StartupError, Veto
from llmling.manifest.hooks import METHODS, hook_methods
from llmling.manifest.importing import import_object
from llmling.messages import Message, ToolCallPart, ToolCallResponsePart, Usage
from llmling.records import ModelRequest, ModelResponse, RunInfo
from llmling.runtime.callables import call_user
from llmling.runtime.stream import Listener, RunEvent, silent

logger = logging.getLogger("llmling.hooks")

DRAIN_S = 5.0
"""Longest time a run that has ended waits until its events were heard."""

Method: TypeAlias = "tuple[str, Callable[..., Any]]"


class Hooks:
    """The hooks of one agent, in their order. Those before and after see what the one in front of them left.

    Raises:
        StartupError: One of them is no hook.
    """

    def __init__(self, hooks: Sequence[Any] = (), folder: Path = Path()) -> None:
        self._methods: dict[str, list[Method]] = {name: [] for name in METHODS}
        for hook in hooks:
            try:
                found = import_object(hook, folder) if isinstance(hook, str) else hook
                methods = hook_methods(found)
            except ValueError as error:
                raise StartupError(f"hook {_name(hook)} {error}", usage=True) from error
            for name, method in methods.items():
                self._methods[name].append((_name(hook), method))

    async def before_model(self, request: ModelRequest, run: RunInfo) -> ModelRequest | ModelResponse:
        """Return the request to make, or the answer when a hook gives it.

        Raises:
            HookError: A hook failed or vetoed.
        """
        for name, method in self._methods["before_model"]:
            changed = await _around_model("before_model", name, method, request, run)
            if isinstance(changed, ModelRequest):
                request = changed
            elif changed is not None:
                return _response("before_model", name, changed, None, run)
        return request

    async def after_model(self, response: ModelResponse, run: RunInfo) -> ModelResponse:
        """Return the answer to go on with.

        Raises:
            HookError: A hook failed or vetoed.
        """
        for name, method in self._methods["after_model"]:
            changed = await _around_model("after_model", name, method, response, run)
            if changed is not None:
                response = _response("after_model", name, changed, response, run)
        return response

    async def before_tool(self, call: ToolCallPart, run: RunInfo) -> ToolCallPart | ToolCallResponsePart:
        """Return the call to make, or its result when a hook gives it, vetoes or fails: then the tool does not run."""
        for name, method in self._methods["before_tool"]:
            try:
                changed = await call_user(method, call, run)
            except Exception as error:  # noqa: BLE001 - the border to hooks: a guard that fails lets nothing through
                return _refused(call.id, call.name, name, "was not called", error, run)
            if isinstance(changed, str):
                return ToolCallResponsePart(call.id, call.name, changed)
            if isinstance(changed, Mapping):
                call = dataclasses.replace(call, arguments=dict(cast("Mapping[str, Any]", changed)))
            elif changed is not None:
                error = TypeError(f"before_tool returned {changed!r}, not arguments, a text or None")
                return _refused(call.id, call.name, name, "was not called", error, run)
        return call

    async def after_tool(self, result: ToolCallResponsePart, run: RunInfo) -> ToolCallResponsePart:
        """Return the result the model sees; a hook that vetoes or fails withholds it."""
        for name, method in self._methods["after_tool"]:
            try:
                changed = await call_user(method, result, run)
            except Exception as error:  # noqa: BLE001 - the border to hooks: what could not be looked at is not shown
                return _refused(result.id, result.name, name, "was called, but its result is withheld", error, run)
            if isinstance(changed, str):
                result = dataclasses.replace(result, response=changed)
            elif changed is not None:
                error = TypeError(f"after_tool returned {changed!r}, not a text or None")
                return _refused(result.id, result.name, name, "was called, but its result is withheld", error, run)
        return result

    def listening(self, listen: Listener) -> AbstractAsyncContextManager[Listener]:
        """Give a listener that also tells `on_event`, in order and without holding up the run.

        Leaving returns when all was heard, after `DRAIN_S` seconds at most, a cancelled run after a tenth of that.
        """
        return self._listening(listen) if self._methods["on_event"] else nullcontext(listen)

    @asynccontextmanager
    async def _listening(self, listen: Listener) -> AsyncGenerator[Listener]:
        events: asyncio.Queue[RunEvent | None] = asyncio.Queue()

        def both(event: RunEvent) -> None:
            if listen is not silent:
                listen(event)
            events.put_nowait(event)

        task = asyncio.create_task(self._tell(events), name="llmling hooks")
        limit_s = DRAIN_S
        try:
            yield both
        except asyncio.CancelledError:
            limit_s = DRAIN_S / 10
            raise
        finally:
            events.put_nowait(None)
            try:
                async with asyncio.timeout(limit_s):
                    await task
            except TimeoutError:
                logger.warning("on_event of a hook took longer than %g s after its run; it is left", limit_s)

    async def _tell(self, events: asyncio.Queue[RunEvent | None]) -> None:
        while (event := await events.get()) is not None:
            for name, method in self._methods["on_event"]:
                try:
                    await call_user(method, event)
                except Exception:  # the border to hooks: no listener is worth a run
                    logger.exception("hook %s failed on event %s of agent %r", name, event.type, event.agent)


NO_HOOKS = Hooks()


async def _around_model(kind: str, name: str, method: Callable[..., Any], value: Any, run: RunInfo) -> Any:
    try:
        return await call_user(method, value, run)
    except (Veto, PermissionError) as error:
        raise HookError(f"agent {run.agent!r}: hook {name} vetoed in {kind}: {error}", retryable=False) from error
    except RunError:
        raise
    except Exception as error:
        text = f"agent {run.agent!r}: {kind} of hook {name} failed: {type(error).__name__}: {error}"
        raise HookError(text) from error


def _response(kind: str, name: str, value: Any, instead_of: ModelResponse | None, run: RunInfo) -> ModelResponse:
    if isinstance(value, ModelResponse):
        return value
    if isinstance(value, str):
        message = Message.assistant(value)
        if instead_of is not None:
            return dataclasses.replace(instead_of, message=message)
        return ModelResponse(message, Usage(), cost_usd=0.0)
    wanted = "a ModelRequest, a ModelResponse, a text" if kind == "before_model" else "a ModelResponse, a text"
    raise HookError(
        f"agent {run.agent!r}: {kind} of hook {name} returned {type(value).__name__}, not {wanted} or None",
        retryable=False,
    )


def _refused(
    id: str,  # noqa: A002
    tool: str,
    hook: str,
    what: str,
    error: Exception,
    run: RunInfo,
) -> ToolCallResponsePart:
    if isinstance(error, Veto | PermissionError):
        return ToolCallResponsePart(id, tool, f"{tool} {what}: {error}", failed=True)
    logger.error("hook %s of agent %r failed on tool %r", hook, run.agent, tool, exc_info=error)
    reason = f"a hook failed: {type(error).__name__}: {error}"
    return ToolCallResponsePart(id, tool, f"{tool} {what}: {reason}", failed=True)


def _name(hook: Any) -> str:
    if isinstance(hook, str):
        return hook
    named: Any = hook if hasattr(hook, "__qualname__") else cast("object", hook).__class__
    return f"{named.__module__}:{named.__qualname__}"
