"""Structured instructions of a manifest: parts, or a reasoning template, around the message of each run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmling import plugins
from llmling.events import Event, render
from llmling.manifest.prompts import (
    TEMPLATES,
    ConstraintsConfig,
    Depth,
    GuidanceConfig,
    StructuredInstructionsConfig,
    TemplateInstructionsConfig,
)
from llmling.messages import Message
from llmling.prompts.parts import Constraints, Fill, Guidance, system_text
from llmling.protocols import Prompt
from llmling.templates import TemplateFailed, names, template

if TYPE_CHECKING:
    from llmling.prompts.template import ReasoningTemplate


class StructuredInstructions:
    """Guidance and constraints for the system turn, a directive around the message; all of it sandboxed Jinja."""

    def __init__(self, config: StructuredInstructionsConfig) -> None:
        self._guidance = _guidance(config.guidance)
        self._constraints = _constraints(config.constraints)
        self._directive = config.directive
        asked = () if config.directive is None else names(config.directive)
        self._placed = any(name == "message" for name, _, _ in asked)

    def system(self, values: Mapping[str, Any]) -> str:
        """Return guidance and constraints.

        Raises:
            TemplateFailed: They ask for something that is not there.
        """
        fill = _filling(values)
        parts = (self._guidance, self._constraints)
        return system_text(*(fill(part) if isinstance(part, str) else part.filled(fill) for part in parts))

    def user(self, message: str, values: Mapping[str, Any]) -> str:
        """Return the message where the directive has a place for it, else behind the directive.

        Raises:
            TemplateFailed: The directive asks for something that is not there.
        """
        if self._directive is None:
            return message
        framed = template(self._directive)({**values, "message": message}).strip()
        return framed if self._placed else f"{framed}\n\n{message}"


class TemplateInstructions:
    """A reasoning template; what it is about is the message, unless the manifest says it."""

    def __init__(self, config: TemplateInstructionsConfig) -> None:
        self._template: ReasoningTemplate = plugins.load(plugins.REASONING)(config.prompt)
        self._depth: Depth = config.depth
        self._arguments = config.arguments

    def system(self, values: Mapping[str, Any]) -> str:
        """Return guidance and constraints of the template."""
        return system_text(self._template.guidance, self._template.limits(self._depth))

    def user(self, message: str, values: Mapping[str, Any]) -> str:
        """Return the template's directive around the message.

        Raises:
            TemplateFailed: An argument asks for something that is not there.
        """
        fill = _filling({**values, "message": message})
        given = {
            name: fill(text) if isinstance(text, str) else [fill(item) for item in text]
            for name, text in self._arguments.items()
        }
        subject = self._template.spec.subject
        written = bool("".join(given.get(subject, "")).strip())
        if not written:
            given[subject] = message
            if not message.strip():
                raise TemplateFailed(f"{type(self._template).__name__}: {subject!r} is empty")
        outside = message if written else ""
        return self._template.build({**given, "depth": self._depth}).user(outside)


def event_message(event: Event, prompt: str | TemplateInstructionsConfig | None) -> Message:
    """Make the user message of an event from a trigger's `prompt`: a template of text, or a reasoning template.

    A reasoning template is about what the event's default message says, unless the manifest says it; role, rules and
    constraints stand above it, because the system turn is the agent's own. The message may be empty.

    Raises:
        TemplateFailed: The prompt asks for something the event does not have.
    """
    if not isinstance(prompt, TemplateInstructionsConfig):
        return render(event, prompt)
    about, values = render(event).text, {"event": event}
    if not about.strip():
        return Message.user("", name=event.source)
    instructions = TemplateInstructions(prompt)
    written = TEMPLATES[prompt.prompt].subject in prompt.arguments
    text = instructions.user("" if written else about, values)
    return Message.user(system_text(instructions.system(values), text), name=event.source)


def structured(config: StructuredInstructionsConfig | TemplateInstructionsConfig) -> Prompt:
    """Return the prompt of structured instructions."""
    if isinstance(config, TemplateInstructionsConfig):
        return TemplateInstructions(config)
    return StructuredInstructions(config)


def _filling(values: Mapping[str, Any]) -> Fill:
    return lambda text: template(text)(values)


def _guidance(config: GuidanceConfig | str | None) -> Guidance | str:
    if config is None or isinstance(config, str):
        return config or ""
    return Guidance(config.role, config.goal, config.style, config.rules)


def _constraints(config: ConstraintsConfig | str | None) -> Constraints | str:
    if config is None or isinstance(config, str):
        return config or ""
    return Constraints(config.must, config.must_not, config.format, config.max_words, config.language)
