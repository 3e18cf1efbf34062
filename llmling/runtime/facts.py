"""What an agent remembers beyond a conversation: short facts, found again by their words."""

from __future__ import annotations

import hashlib

from llmling.events import new_id
from llmling.protocols import Store
from llmling.runtime.history import named
from llmling.runtime.search import rank
from llmling.runtime.threads import run_in_thread

LONGEST_FACT = 2000


class Facts:
    """The facts of one agent, in its store.

    Example:
        >>> await agent.memory.remember("Ada prefers tea.")
        >>> await agent.memory.recall("What does Ada drink? Tea?")
        ['Ada prefers tea.']
    """

    def __init__(self, agent: str, store: Store) -> None:
        self._space = f"facts/{named(agent)}"
        self._store = store

    async def remember(self, fact: str) -> None:
        """Keep a fact; one that is known already, but for spaces and capitals, is kept once.

        Raises:
            ValueError: It is empty, or longer than 2,000 characters.
            EngineError: It cannot be written.
        """
        text = " ".join(fact.split())
        if not text:
            raise ValueError("the fact is empty")
        if len(text) > LONGEST_FACT:
            raise ValueError(f"a fact has at most {LONGEST_FACT} characters, this one {len(text)}: keep what matters")
        await self._store.swap(self._space, _key(text), None, {"fact": text, "id": new_id()})

    async def recall(self, query: str, limit: int = 5) -> list[str]:
        """Return up to `limit` facts that share words with a query, the best first; of an empty query the newest.

        Raises:
            EngineError: The store cannot be read.
        """
        facts = await self.facts()
        if not query.strip():
            return facts[::-1][: max(limit, 0)]
        return [facts[place] for place in await run_in_thread(rank, facts, query, max(limit, 0))]

    async def facts(self) -> list[str]:
        """Return every fact, the oldest first.

        Raises:
            EngineError: The store cannot be read.
        """
        rows = (await self._store.items(self._space)).values()
        return [row["fact"] for row in sorted(rows, key=lambda row: row["id"])]

    async def forget(self, fact: str) -> None:
        """Forget a fact; one that is not known is no error.

        Raises:
            EngineError: The store cannot be written.
        """
        await self._store.remove(self._space, [_key(" ".join(fact.split()))])

    async def clear(self) -> None:
        """Forget every fact.

        Raises:
            EngineError: The store cannot be written.
        """
        await self._store.remove(self._space, list(await self._store.items(self._space)))


def _key(text: str) -> str:
    return hashlib.sha256(text.casefold().encode("utf-8", "surrogatepass")).hexdigest()[:32]
