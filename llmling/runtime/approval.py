"""Leave to call tools: which calls need a person's yes, who is asked, and what the model reads after a no.

A run that an engine keeps waits there until somebody has decided. Any other run asks the callable `approve(call, run)`,
sync or async: True allows the call, False or a reason refuses it. Without one, a call that `approval: always` wants is
refused, and a destructive one is made: whoever wrote the program is attending.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from llmling.asks import Approve, Ask, ask_key, decision_key, decision_of
from llmling.errors import Asked, RunError
from llmling.masking import masked_arguments
from llmling.messages import ToolCallPart
from llmling.protocols import Approval, Tool
from llmling.runtime.callables import call_user
from llmling.runtime.context import RunContext
from llmling.runtime.limits import clipped
from llmling.runtime.profile import Profile
from llmling.runtime.progress import Progress

logger = logging.getLogger("llmling.run")
LONGEST_SHOWN = 500
"""Most characters of a call's arguments that a person is shown."""

_NOBODY = (
    "it needs a person's approval (approval: always), and there is nobody to ask here: give the agent or pool "
    "`approve=`, run it on a terminal, or let a trigger start it, so that the event waits for `llmling events approve`"
)


_Needing: TypeAlias = tuple[str, ToolCallPart, Tool]


class Approvals:
    """Decides about the calls of one run before any of a reply is made."""

    def __init__(self, profile: Profile, context: RunContext, progress: Progress) -> None:
        self._profile = profile
        self._context = context
        self._progress = progress

    async def refusals(self, wanted: Mapping[str, tuple[ToolCallPart, Tool | None]]) -> dict[str, str]:
        """Return why calls of one reply, given by key with their tools, may not be made.

        Raises:
            Asked: A person must be asked first; what is asked is recorded.
        """
        needing = [
            (key, call, tool)
            for key, (call, tool) in wanted.items()
            if tool is not None and self._needs(key, call, tool)
        ]
        if not needing:
            return {}
        return await (self._by_engine(needing) if self._context.kept else self._by_approver(needing))

    def _needs(self, key: str, call: ToolCallPart, tool: Tool) -> bool:
        if isinstance(call.arguments, str) or self._context.journal.recorded(f"{key}:result"):
            return False
        return needs_approval(self._rule(tool), destructive=tool.destructive)

    def _rule(self, tool: Tool) -> Approval:
        return tool.approval or self._profile.approval

    async def _by_engine(self, needing: Sequence[_Needing]) -> dict[str, str]:
        journal = self._context.journal
        refused: dict[str, str] = {}
        asks: list[Ask] = []
        for key, call, _ in needing:
            step = journal.recorded(decision_key(key))
            if step is None:
                asks.append(Ask(key, self._profile.agent, shown(call), call.name))
            elif not (decision := decision_of(step)).approved:
                refused[key] = _denied(decision.reason)
        for ask in asks:
            if journal.recorded(ask_key(ask.key)) is None:
                await journal.record(ask.step(), committed=True)
        if asks:
            raise Asked("; ".join(ask.reason() for ask in asks))
        return refused

    async def _by_approver(self, needing: Sequence[_Needing]) -> dict[str, str]:
        approve = self._profile.approve
        refused: dict[str, str] = {}
        for key, call, tool in needing:
            if approve is not None:
                reason = await self._asked(approve, call)
            else:
                reason = _NOBODY if self._rule(tool) == "always" else None
            if reason is not None:
                refused[key] = reason
        return refused

    async def _asked(self, approve: Approve, call: ToolCallPart) -> str | None:
        """Return why a person refuses a call, None when it may be made.

        Raises:
            RunError: `approve` gave no decision.
        """
        try:
            said = await call_user(approve, call, self._progress.info)
        except RunError:
            raise
        except Exception as error:  # the border to what users wrote: a person who cannot be asked has not said yes
            logger.exception("`approve` of agent %r failed on tool %r", self._profile.agent, call.name)
            return f"asking a person failed: {type(error).__name__}: {error}"
        if said is True:
            return None
        if said is False or isinstance(said, str):
            return _denied(said or "")
        who = f"`approve` of agent {self._profile.agent!r}"
        raise RunError(f"{who} returned {said!r} for {call.name}: return True, False or the reason of a no")


def needs_approval(rule: Approval, *, destructive: bool) -> bool:
    """Return whether a person must say yes to a call under this rule."""
    return rule == "always" or (rule == "destructive" and destructive)


def shown(call: ToolCallPart) -> str:
    """Return a call for people: secrets masked, its arguments cut to `LONGEST_SHOWN` characters."""
    return f"{call.name}({clipped(masked_arguments(call.arguments), LONGEST_SHOWN)})"


def _denied(reason: str) -> str:
    return f"a person refused it: {reason}" if reason else "a person refused it"
