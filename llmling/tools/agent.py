"""Another agent as a tool: it answers a prompt with a history of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from llmling.errors import DecisionNeeded, EngineError, LLMlingError, ToolError
from llmling.manifest.tools import AgentToolConfig
from llmling.protocols import ToolSpec
from llmling.runtime.services import Services
from llmling.tools.naming import agent_tool_name

MAX_DEPTH = 10

_asking: ContextVar[tuple[str, ...]] = ContextVar("llmling_asking", default=())


class AgentTool:
    """Asks an agent or team of the pool; the model sees it as `ask_<agent>` with one text, `prompt`.

    It is repeatable: the steps of the other agent's run are recorded under this call, so a repeated call takes them
    from there, and a tool call of its own that was in flight is decided there.
    """

    repeatable = True
    destructive = False

    def __init__(self, config: AgentToolConfig, services: Services, description: str = "") -> None:
        self.agent = config.name
        self.timeout_s = config.timeout_s
        self.approval = config.approval
        self._ask = services.ask
        about = config.description or description
        self.spec = ToolSpec(
            agent_tool_name(config.name),
            about or f"Ask the agent {config.name!r} and get its answer.",
            {
                "type": "object",
                "properties": {
                    "prompt": {
                        "type": "string",
                        "description": "The task or question, with everything needed to work on it.",
                    }
                },
                "required": ["prompt"],
                "additionalProperties": False,
            },
        )

    @property
    def hands_over_to(self) -> str:
        """The agent that answers."""
        return self.agent

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Run the agent on `prompt` and return its answer; cancelling it cancels that run.

        Raises:
            ToolError: `prompt` is missing or empty, the run failed or took longer than `timeout_s`, or agents ask
                one another in a circle.
        """
        prompt = arguments.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip() or len(arguments) != 1:
            raise ToolError("this tool takes one argument, 'prompt', a text that is not empty")
        chain = (*_asking.get(), self.agent)
        if len(chain) > MAX_DEPTH:
            raise ToolError(f"agents ask one another too deep ({MAX_DEPTH} at most): {' > '.join(chain)}")
        token = _asking.set(chain)
        limit = asyncio.timeout(self.timeout_s)
        try:
            async with limit:
                result = await self._ask(self.agent, prompt)
        except TimeoutError:
            if limit.expired():
                raise ToolError(f"agent {self.agent!r} took longer than {self.timeout_s:g} s (timeout_s)") from None
            raise
        except (DecisionNeeded, EngineError):
            raise
        except LLMlingError as error:
            raise ToolError(f"agent {self.agent!r} failed: {error or type(error).__name__}") from error
        finally:
            _asking.reset(token)
        return result.response
