"""A component of an Agent Spec document before it is written: its fields, its children, its id made of both."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

NAMESPACE = uuid.UUID("6d4e3a52-5f0e-5c1b-9d0a-4b1c8f2e7a31")
VERSIONS = ("25.3.0", "25.3.1", "25.4.0", "25.4.1", "25.4.2", "26.1.0", "26.1.2", "26.3.1")
"""Every version of Agent Spec we can read."""
FIRST = "25.4.1"
"""The first official version: what is written when nothing asks for a later one."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """A value that is not written; in its place stands a reference to it, by component and field."""


@dataclass(slots=True, eq=False)
class Component:
    """One component; `extras` are what only llmling knows, `since` is the first version that can express it."""

    type: str
    name: str
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    description: str | None = None
    extras: dict[str, Any] = field(default_factory=dict[str, Any])
    since: str = FIRST
    _id: str = ""

    @property
    def id(self) -> str:
        """The same content has the same id, so that only what changed differs between two documents."""
        if not self._id:
            content = [self.type, self.name, self.description, self.extras, _flat(self.fields)]
            text = json.dumps(content, sort_keys=True, ensure_ascii=False)
            self._id = str(uuid.uuid5(NAMESPACE, text))
        return self._id

    def hide(self, name: str, text: Any) -> None:
        """Put a reference where a field is, and note how a manifest writes its value."""
        self.fields[name] = Hidden()
        self.extras.setdefault("secrets", {})[name] = text

    def children(self) -> Iterator[Component]:
        """Yield the components in the fields, as often as they stand there."""
        yield from _components(self.fields)


def written(root: Component) -> dict[str, Any]:
    """Return the document of a component: what is used twice is written once and referred to."""
    uses: dict[str, int] = {}
    parts: dict[str, Component] = {}
    version = FIRST
    todo = [root]
    while todo:
        part = todo.pop()
        if part.id in parts:
            continue
        parts[part.id] = part
        version = max(version, part.since)
        for child in part.children():
            uses[child.id] = uses.get(child.id, 0) + 1
            todo.append(child)
    shared = {name for name, count in uses.items() if count > 1}
    writer = _Writer(shared)
    document = writer.component(root)
    if shared:
        document["$referenced_components"] = {
            name: writer.component(part) for name, part in _in_order(root).items() if name in shared
        }
    document["agentspec_version"] = version
    return document


class _Writer:
    def __init__(self, shared: set[str]) -> None:
        self._shared = shared

    def component(self, part: Component) -> dict[str, Any]:
        head: dict[str, Any] = {
            "component_type": part.type,
            "id": part.id,
            "name": part.name,
            "description": part.description,
            "metadata": {"llmling": part.extras} if part.extras else {},
        }
        for name, value in part.fields.items():
            hidden = isinstance(value, Hidden)
            head[name] = {"$component_ref": f"{part.id}.{name}"} if hidden else self._value(value)
        return head

    def _value(self, value: Any) -> Any:
        if isinstance(value, Component):
            return {"$component_ref": value.id} if value.id in self._shared else self.component(value)
        if isinstance(value, list | tuple):
            return [self._value(item) for item in cast("list[Any]", value)]
        return value


def _in_order(root: Component) -> dict[str, Component]:
    found: dict[str, Component] = {}
    todo = [root]
    while todo:
        part = todo.pop()
        if part.id not in found:
            found[part.id] = part
            todo.extend(reversed(list(part.children())))
    return found


def _components(value: Any) -> Iterator[Component]:
    if isinstance(value, Component):
        yield value
    elif isinstance(value, list | tuple):
        for item in cast("list[Any]", value):
            yield from _components(item)
    elif isinstance(value, dict):
        for item in cast("dict[str, Any]", value).values():
            yield from _components(item)


def _flat(value: Any) -> Any:
    if isinstance(value, Component):
        return {"$component_ref": value.id}
    if isinstance(value, Hidden):
        return {"$component_ref": ""}
    if isinstance(value, list | tuple):
        return [_flat(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {name: _flat(item) for name, item in cast("dict[str, Any]", value).items()}
    return value
