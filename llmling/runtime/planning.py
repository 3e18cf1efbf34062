"""Plans an agent makes for itself: a model request of its own, whose answer stands in every request until the next."""

from __future__ import annotations

from collections.abc import Sequence

from llmling.messages import Message
from llmling.protocols import ToolSpec
from llmling.runtime.context import RunContext
from llmling.runtime.profile import Profile
from llmling.runtime.progress import Progress
from llmling.runtime.window import Window

_ASK = """\
Do not answer yet. Write down your plan for what is still to be done: a few short numbered steps in plain text, \
nothing else. It will stand in front of you while you work{instead}. {tools}"""


class Planning:
    """Asks for a plan before the first turn of a run and then every so many turns."""

    def __init__(self, profile: Profile, context: RunContext, progress: Progress, window: Window) -> None:
        self._every = profile.plan_every
        self._journal = context.journal
        self._progress = progress
        self._window = window

    async def before(self, iteration: int, exchange: Sequence[Message], tools: Sequence[ToolSpec]) -> None:
        """Make a plan, or take the recorded one, when it is time for one.

        Raises:
            RunError: The model gave none, or a limit was passed.
        """
        if self._every is None or iteration % self._every:
            return
        recorded = self._journal.recorded
        if recorded(f"{iteration}:plan") is None and recorded(f"{iteration}:reply") is not None:
            return  # the turn was made without one, by another manifest
        instead = ", instead of the plan so far" if self._window.plan else ""
        ask = _ASK.format(instead=instead, tools=_named(tools))
        response, replayed = await self._window.reply(iteration, "plan", exchange, ask=ask)
        plan = response.message.text.strip()
        if not plan:
            return
        self._window.plan = plan
        if not replayed:
            self._progress.say("plan", plan, iteration=iteration)


def _named(tools: Sequence[ToolSpec]) -> str:
    if not tools:
        return "You have no tools."
    lines = (f"- {tool.name}: {tool.description.strip().partition(chr(10))[0]}" for tool in tools)
    return "The tools you will have:\n" + "\n".join(lines)
