"""Instructions and system prompts: sandboxed Jinja on our side, text with `{{placeholders}}` on the other.

A placeholder is an input. It is `event.data.<name>` in a manifest: filled from what the event carries, an error that
names it when that is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from jinja2 import Environment, nodes
from pydantic import TypeAdapter

from llmling.agentspec.shapes import Unspeakable
from llmling.manifest.agents import InstructionsConfig
from llmling.manifest.prompts import StructuredInstructionsConfig, TemplateInstructionsConfig
from llmling.prompts.instructions import structured

PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_OPENING = re.compile(r"\{[{%#]|\{\Z")
_MESSAGE = "(the user's message)"
_UNTOUCHED = frozenset({"prompt", "depth", "max_words", "language"})
_PLAIN = Environment(keep_trailing_newline=True, autoescape=False)  # noqa: S701 - it parses and never renders
_config: TypeAdapter[Any] = TypeAdapter(InstructionsConfig)


@dataclass(slots=True)
class Prose:
    """A text with placeholders, and the properties they are filled from."""

    text: str = ""
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def add(self, name: str, default: str | None = None) -> str:
        """Return a placeholder and note its input."""
        shape = self.inputs.setdefault(name, {"title": name, "type": "string"})
        if default is not None:
            shape["default"] = default
        return f"{{{{{name}}}}}"


def spoken(instructions: Any) -> Prose:
    """Return what Agent Spec can say of the instructions of an agent.

    Whatever a template inserts becomes an input: `event.data.user` is `{{user}}`, `now.date()` is `{{now_date}}`.

    Raises:
        Unspeakable: A template decides or repeats, which a system prompt cannot.
    """
    prose = Prose()
    if isinstance(instructions, StructuredInstructionsConfig | TemplateInstructionsConfig):
        prose.text = _structured(instructions, prose)
    else:
        texts = [instructions] if isinstance(instructions, str) else cast("list[str]", instructions)
        prose.text = "\n\n".join(text for source in texts if (text := _spoken(source, prose).strip()))
    if odd := [name for name in placeholders(prose.text) if name not in prose.inputs]:
        raise Unspeakable(f"{{{{{odd[0]}}}}} would be read as an input")
    return prose


def spoken_again(fragment: Any) -> Prose:
    """Return what was once said of instructions that are a fragment of a manifest."""
    return spoken(_config.validate_python(fragment))


def says(instructions: Any, prose: Prose) -> bool:
    """Whether reading the prose gives these instructions, so that nothing else need be written."""
    if not isinstance(instructions, str | list):
        return False
    texts = [instructions] if isinstance(instructions, str) else cast("list[str]", instructions)
    whole = "\n\n".join(text for source in texts if (text := source.strip()))
    return whole == jinja(prose.text, lambda name: of_event(name, prose.inputs[name].get("default")))


def jinja(text: str, filled: Callable[[str], str]) -> str:
    """Return a text with placeholders as a template of a manifest; `filled` gives the expression of a placeholder."""
    pieces: list[str] = []
    end = 0
    for found in PLACEHOLDER.finditer(text):
        pieces += [literal(text[end : found.start()]), f"{{{{ {filled(found[1])} }}}}"]
        end = found.end()
    return "".join([*pieces, literal(text[end:])])


def of_event(name: str, default: Any = None) -> str:
    """Return the expression of an input that the event carries."""
    plain = name.isidentifier() and not hasattr(dict, name)
    expression = f"event.data.{name}" if plain else f'event.data["{name}"]'
    return expression if default is None else f"{expression} | default({_quoted(str(default))})"


def placeholders(text: str) -> list[str]:
    """Return the inputs a text asks for, in their order."""
    return list(dict.fromkeys(found[1] for found in PLACEHOLDER.finditer(text)))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def literal(text: str) -> str:
    """Return a text as a template must write it to mean just that."""
    return _OPENING.sub(lambda found: f"{{{{ '{found[0]}' }}}}", text)


def _spoken(source: str, prose: Prose) -> str:
    pieces: list[str] = []
    for node in _PLAIN.parse(source).body:
        if not isinstance(node, nodes.Output):
            word = type(node).__name__.lower()
            raise Unspeakable(f"a system prompt of Agent Spec inserts values and decides nothing: no {{% {word} %}}")
        for item in node.nodes:
            if isinstance(item, nodes.TemplateData):
                pieces.append(item.data)
            elif isinstance(item, nodes.Const):
                pieces.append(str(item.value))
            elif isinstance(item, nodes.Name) and item.name == "message":
                pieces.append(_MESSAGE)
            else:
                name, default = _named(item)
                pieces.append(prose.add(name, default))
    return "".join(pieces)


def _named(node: nodes.Node) -> tuple[str, str | None]:
    default: str | None = None
    if isinstance(node, nodes.Filter) and node.name in {"default", "d"} and len(node.args) == 1 and node.node:
        said = node.args[0]
        if isinstance(said, nodes.Const) and isinstance(said.value, str):
            node, default = node.node, said.value
    words = _words(node)
    if words[:2] == ["event", "data"] and len(words) > 2:
        words = words[2:]
    return re.sub(r"\W+", "_", "_".join(words)), default


def _words(node: nodes.Node | None) -> list[str]:
    match node:
        case nodes.Name():
            return [node.name]
        case nodes.Getattr():
            return [*_words(node.node), node.attr]
        case nodes.Getitem(arg=nodes.Const(value=key)):
            return [*_words(node.node), str(key)]
        case nodes.Call():
            return _words(node.node)
        case nodes.CondExpr():
            return _words(node.expr1)
        case nodes.Filter():
            return [*_words(node.node), node.name]
        case _:
            raise Unspeakable("a system prompt of Agent Spec inserts values by their name and computes nothing")


def _structured(config: StructuredInstructionsConfig | TemplateInstructionsConfig, prose: Prose) -> str:
    """Return the parts put together as a run would, with a phrase where the message of a run stands."""

    def kept(value: Any, key: str) -> Any:
        if isinstance(value, str):
            return value if key in _UNTOUCHED else literal(_spoken(value, prose))
        if isinstance(value, Mapping):
            return {name: kept(item, name) for name, item in cast("Mapping[str, Any]", value).items()}
        return [kept(item, key) for item in cast("list[Any]", value)] if isinstance(value, list) else value

    data = {name: kept(value, name) for name, value in config.model_dump(exclude_none=True, exclude_unset=True).items()}
    prompt = structured(type(config).model_validate(data))
    system, user = prompt.system({}), prompt.user(_MESSAGE, {})
    # What says already where the message belongs needs no second place for it.
    framed = user.removesuffix(f"\n\n{_MESSAGE}")
    return "\n\n".join(text for text in (system, "" if user == _MESSAGE else framed) if text.strip())
