"""What templates and expressions take from outside: names that are never there, and keys no event has."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from llmling import templates
from llmling.events import Event
from llmling.manifest.agents import AgentConfig, InstructionsConfig
from llmling.manifest.draft import Draft
from llmling.manifest.knowledge import PromptKnowledgeConfig
from llmling.manifest.nodes import Loc, Node, ScalarNode, find
from llmling.manifest.problems import did_you_mean
from llmling.manifest.prompts import TemplateInstructionsConfig
from llmling.manifest.shape import Part
from llmling.manifest.sinks import FileSinkConfig
from llmling.manifest.teams import TeamConfig
from llmling.manifest.triggers import TriggerBase

_PROMPT = ("event", "now")
_INSTRUCTIONS = ("event", "now", "agent")
_KEY = _INSTRUCTIONS
_FRAMING = (*_INSTRUCTIONS, "message")
_PATH = ("event", "now", "agent", "delivery_id")
_EXPRESSION = ("event", "message")
_OVER = (*_EXPRESSION, "data")
_EXPRESSIONS = (_EXPRESSION, _OVER)
_EVENT = (*(field.name for field in dataclasses.fields(Event)), "to_dict")


def check_scopes(draft: Draft) -> None:
    """Report names in templates that would fail every run, and warn of those that make an expression false."""
    for _, part in draft.nodes():
        for loc, text, scope in _texts(part):
            if _sound(text, scope):
                continue
            node = find(part.node, loc).node
            if isinstance(node, ScalarNode) and node.style == ">" and not node.variables:
                # A folded text has lost its lines; as it is written, it says the same.
                text = node.lines  # noqa: PLW2901
            _check(draft, part, loc, text, scope, _filled(node))


def _sound(text: str, scope: tuple[str, ...]) -> bool:
    try:
        asked = templates.names(text, whole=scope not in _EXPRESSIONS)
        return all(name in scope and not _no_key(name, attribute) for name, attribute, _ in asked)
    except templates.TemplateInvalid:
        return False


def _no_key(name: str, attribute: str | None) -> bool:
    return name == "event" and attribute is not None and attribute not in _EVENT


def _filled(node: Node) -> str:
    # What is wrong would quote pieces of what the variables hold.
    names = node.variables if isinstance(node, ScalarNode) else ()
    return f"once {', '.join(names)} is filled in, it asks for what is not there" if names else ""


def _texts(part: Part) -> Iterator[tuple[Loc, str, tuple[str, ...]]]:
    yield from _triggers(part.config.triggers)
    for index, connection in enumerate(part.config.connections):
        if connection.when is not None:
            yield ("connections", index, "when"), connection.when, _EXPRESSION
    for index, sink in enumerate(part.config.sinks):
        if isinstance(sink, FileSinkConfig):
            yield ("sinks", index, "path"), sink.path, _PATH
    if isinstance(part.config, TeamConfig):
        yield from _team(part.config)
    if isinstance(part.config, AgentConfig):
        yield ("session",), part.config.session, _KEY
        yield from _instructions(part.config.instructions)
        for index, item in enumerate(part.config.knowledge):
            if isinstance(item, PromptKnowledgeConfig):
                yield ("knowledge", index, "template"), item.template, _PROMPT


def _triggers(triggers: Sequence[TriggerBase]) -> Iterator[tuple[Loc, str, tuple[str, ...]]]:
    for index, trigger in enumerate(triggers):
        if isinstance(trigger.prompt, TemplateInstructionsConfig):
            for loc, text in trigger.prompt.texts():
                yield ("triggers", index, "prompt", *loc), text, _PROMPT
        elif trigger.prompt is not None:
            yield ("triggers", index, "prompt"), trigger.prompt, _PROMPT
        if trigger.filter is not None:
            yield ("triggers", index, "filter"), trigger.filter, _EXPRESSION


def _team(config: TeamConfig) -> Iterator[tuple[Loc, str, tuple[str, ...]]]:
    yield ("instructions",), config.instructions, _PROMPT
    for index, member in enumerate(config.members):
        if member.when is not None:
            yield ("members", index, "when"), member.when, _EXPRESSION
    if config.over is not None:
        yield ("over",), config.over, _OVER


def _instructions(config: InstructionsConfig) -> Iterator[tuple[Loc, str, tuple[str, ...]]]:
    if isinstance(config, str):
        yield ("instructions",), config, _INSTRUCTIONS
    elif isinstance(config, list):
        yield from ((("instructions", index), text, _INSTRUCTIONS) for index, text in enumerate(config))
    else:
        framing = isinstance(config, TemplateInstructionsConfig)
        for loc, text in config.texts():
            scope = _FRAMING if framing or loc == ("directive",) else _INSTRUCTIONS
            yield ("instructions", *loc), text, scope


def _check(draft: Draft, part: Part, loc: Loc, text: str, scope: tuple[str, ...], filled: str) -> None:
    whole = scope not in _EXPRESSIONS
    severity, code = ("error", "LL208") if whole else ("warning", "LL209")
    effect = "" if whole else ", so there is nothing to map over" if scope == _OVER else ", so this is always false"
    try:
        for name, attribute, line in templates.names(text, whole=whole):
            if name not in scope:
                hint = did_you_mean(name, scope) or f"known: {', '.join(scope)}"
                message = f'there is no "{name}"{effect}'
            elif _no_key(name, attribute):
                hint = did_you_mean(attribute or "", _EVENT) or (
                    f"write event.data.{attribute} for what it carries; known: {', '.join(_EVENT[:-1])}"
                )
                message = f'an event has no "{attribute}"{effect}'
            else:
                continue
            draft.problem(part, loc, code, filled or message, hint="" if filled else hint, severity=severity, line=line)
    except templates.TemplateInvalid as error:
        draft.problem(part, loc, "LL208", f"invalid template: {filled or error}", line=error.line)
