from __future__ import annotations

import datetime as dt

import pytest

from llmling.events import Event
from llmling.knowledge.prompt import PromptKnowledge, TextKnowledge
from llmling.manifest.knowledge import PromptKnowledgeConfig, TextKnowledgeConfig
from llmling.runtime.scope import current_event
from llmling.runtime.services import Services
from llmling.templates import TemplateFailed


async def test_text_is_text_and_no_template() -> None:
    async with TextKnowledge(TextKnowledgeConfig(content="{{ 7 * 7 }}"), Services()) as it:
        assert await it.text("q") == "{{ 7 * 7 }}"


async def test_a_prompt_knows_the_time_and_the_event() -> None:
    config = PromptKnowledgeConfig(template="{{ now.year }}{% if event is defined %} {{ event.data }}{% endif %}")
    async with PromptKnowledge(config, Services()) as it:
        year = str(dt.datetime.now(dt.UTC).astimezone().year)
        assert await it.text("q") == year
        token = current_event.set(Event("hook", "dev.llmling.webhook", data="{{ 7 * 7 }}"))
        assert await it.text("q") == f"{year} {{{{ 7 * 7 }}}}"
        current_event.reset(token)


async def test_a_prompt_that_needs_an_event_says_so() -> None:
    async with PromptKnowledge(PromptKnowledgeConfig(template="{{ event.subject }}"), Services()) as it:
        with pytest.raises(TemplateFailed, match="'event' is undefined"):
            await it.text("q")
