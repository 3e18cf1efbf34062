"""The tools by which a model remembers facts and finds them again."""

from __future__ import annotations

from llmling.errors import ToolError
from llmling.protocols import Tool
from llmling.runtime.facts import Facts
from llmling.tools.function import FunctionTool, ToolOptions


def fact_tools(facts: Facts) -> list[Tool]:
    """Return `remember` and `recall` over an agent's facts."""

    async def remember(fact: str) -> str:
        """Remember a fact for later conversations. Write one short sentence that can be understood on its own.

        Args:
            fact: The fact, such as "Ada Lovelace prefers mail over phone."
        """
        try:
            await facts.remember(fact)
        except ValueError as error:
            raise ToolError(str(error)) from error
        return "remembered"

    async def recall(query: str, limit: int = 5) -> str:
        """Look up what was remembered earlier.

        Args:
            query: Words that the facts you look for have in them.
            limit: Most facts to return.
        """
        found = await facts.recall(query, limit)
        return "\n".join(f"- {fact}" for fact in found) or "nothing that was remembered has one of these words"

    # Remembering the same fact twice keeps it once.
    again = ToolOptions(idempotent=True)
    return [FunctionTool(remember, again), FunctionTool(recall, again)]
