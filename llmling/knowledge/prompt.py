"""Text written in the manifest: as it is, or made anew for every run."""

from __future__ import annotations

from typing import Self

from llmling.manifest.knowledge import PromptKnowledgeConfig, TextKnowledgeConfig
from llmling.runtime.scope import current_event
from llmling.runtime.services import Services
from llmling.templates import template


class TextKnowledge:
    """The text of the manifest, the same for every run."""

    def __init__(self, config: TextKnowledgeConfig, services: Services) -> None:
        self._content = config.content

    @property
    def title(self) -> str:
        """Short name shown to the model above the text."""
        return "text"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    async def text(self, query: str) -> str:
        """Return the text, whatever the query."""
        return self._content


class PromptKnowledge:
    """A template rendered for each run, with `now` and, when the run works on an event, `event` in scope."""

    def __init__(self, config: PromptKnowledgeConfig, services: Services) -> None:
        self._render = template(config.template)

    @property
    def title(self) -> str:
        """Short name shown to the model above the text."""
        return "prompt"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    async def text(self, query: str) -> str:
        """Return the text for the event of the running task.

        Raises:
            TemplateFailed: The template asks for something the event does not have.
        """
        event = current_event.get()
        return self._render({} if event is None else {"event": event})
