"""An Agent Spec document as it was read: components that know their place, references followed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, cast

from llmling.agentspec.component import VERSIONS
from llmling.agentspec.fields import COMMON, FIELDS, NOT_OURS, ONLY
from llmling.agentspec.text import plain
from llmling.manifest.interpolate import Values
from llmling.manifest.nodes import MappingNode, Node, ScalarNode, SequenceNode, followed
from llmling.manifest.problems import Place, Report, did_you_mean

_REF = "$component_ref"
_SHARED = "$referenced_components"


class Document:
    """The components of one document; what is wrong with them is collected in the report."""

    def __init__(self, root: MappingNode, report: Report) -> None:
        self.report = report
        self._root = root
        self._values = Values(None, report)
        self._shared: dict[str, Node] = {}
        self._parts: dict[int, Part | None] = {}
        self._collect(root)

    def root(self, kinds: Collection[str]) -> Part | None:
        """Return the component the document is."""
        found = [name for name in ("agentspec_version", "air_version") if name in self._root.entries]
        for name in found:
            node = followed(self._root.entries[name].node)
            if (version := self.plain(node)) not in VERSIONS:
                known = f"known: {', '.join(VERSIONS)}"
                self.report.add(node.place, "LL601", f"there is no version {version} of Agent Spec", hint=known)
        return self.part(self._root, kinds)

    def plain(self, node: Node) -> Any:
        """Return what a node stands for."""
        return plain(self._values.plain(node))

    def part(self, node: Node, kinds: Collection[str]) -> Part | None:
        """Return the component at a node, which may be a reference; None when it is none of the kinds, a problem."""
        place = followed(node).place
        target = self._target(followed(node))
        if not isinstance(target, MappingNode):
            if target is not None:
                self.report.add(place, "LL203", "a component should be a mapping")
            return None
        if id(target) not in self._parts:
            self._parts[id(target)] = self._read(target)
        part = self._parts[id(target)]
        if part is not None and part.type not in kinds:
            self.report.add(
                place, "LL203", f"a {part.type} cannot stand here", hint=f"this should be {' or '.join(sorted(kinds))}"
            )
            return None
        return part

    def reference(self, node: Node) -> str | None:
        """Return the id a node refers to, or None."""
        node = followed(node)
        entry = node.entries.get(_REF) if isinstance(node, MappingNode) else None
        return str(self.plain(entry.node)) if entry is not None else None

    def _target(self, node: Node) -> Node | None:
        for _ in range(len(self._shared) + 1):
            name = self.reference(node)
            if name is None:
                return node
            if name not in self._shared:
                hint = did_you_mean(name, self._shared) or f"write it in {_SHARED}"
                self.report.add(node.place, "LL604", f'there is no component "{name}"', hint=hint)
                return None
            node = followed(self._shared[name])
        self.report.add(node.place, "LL604", "references lead in a circle")
        return None

    def _read(self, node: MappingNode) -> Part | None:
        entry = node.entries.get("component_type")
        if entry is None:
            self.report.add(node.place, "LL202", 'missing key "component_type"', hint="this should be a component")
            return None
        kind = str(self.plain(entry.node))
        place = followed(entry.node).place
        if kind in NOT_OURS:
            message = f"llmling does not support {_title(node, self)}"
            self.report.add(place, "LL603", message, hint=NOT_OURS[kind])
            return None
        if kind not in FIELDS:
            plugin = node.entries.get("component_plugin_name")
            hint = did_you_mean(kind, (*FIELDS, *NOT_OURS))
            if plugin is not None:
                hint = f"it belongs to {self.plain(plugin.node)}, not to Agent Spec"
            self.report.add(place, "LL602", f'unknown component type "{kind}"', hint=hint)
            return None
        part = Part(self, node, kind)
        part.check()
        return part

    def _collect(self, root: Node) -> None:
        todo: list[Node] = [root]
        while todo:
            node = followed(todo.pop())
            if isinstance(node, MappingNode):
                shared = node.entries.get(_SHARED)
                if shared is not None and isinstance(below := followed(shared.node), MappingNode):
                    for name, entry in below.entries.items():
                        if name in self._shared:
                            self.report.add(entry.key.place, "LL006", f'component "{name}" is written twice')
                        self._shared[name] = entry.node
                todo.extend(entry.node for entry in node.entries.values())
            elif isinstance(node, SequenceNode):
                todo.extend(node.items)


class Part:
    """One component; two references to it lead to the same object."""

    def __init__(self, document: Document, node: MappingNode, kind: str) -> None:
        self.document = document
        self.node = node
        self.type = kind

    @property
    def name(self) -> str:
        """Its name, or what it is."""
        return self.text("name") or self.type

    @property
    def extras(self) -> dict[str, Any]:
        """What llmling itself has noted in the metadata."""
        metadata = self.value("metadata")
        found: Any = cast("dict[str, Any]", metadata).get("llmling") if isinstance(metadata, dict) else None
        return cast("dict[str, Any]", found) if isinstance(found, dict) else {}

    def noted(self, name: str) -> dict[str, Any]:
        """Return a mapping llmling has noted, empty when there is none."""
        return cast("dict[str, Any]", self._noted(name, dict) or {})

    def noted_list(self, name: str) -> list[Any] | None:
        """Return a list llmling has noted."""
        return cast("list[Any] | None", self._noted(name, list))

    def _noted(self, name: str, kind: type) -> Any:
        found = self.extras.get(name)
        if found is None or isinstance(found, kind):
            return found
        self.problem("metadata", "LL203", f'"{name}" in metadata.llmling is not what llmling writes there')
        return None

    def check(self) -> None:
        """Report fields it cannot have, and values we have no word for."""
        allowed = (*COMMON, *FIELDS[self.type])
        only = ONLY.get(self.type, {})
        for name, entry in self.node.entries.items():
            if name not in allowed:
                hint = did_you_mean(name, allowed)
                self.document.report.add(
                    entry.key.place, "LL201", f'unknown key "{name}"', where=_title(self.node, self.document), hint=hint
                )
            elif name in only and (value := self.value(name)) is not None and value not in only[name]:
                self.problem(name, "LL603", f'llmling has no word for this "{name}"')

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self.value(name) is not None

    def at(self, name: str) -> Node | None:
        """Return the node of a field that is there and not null."""
        return followed(self.node.entries[name].node) if self.has(name) else None

    def value(self, name: str, default: Any = None) -> Any:
        """Return a field as plain data."""
        entry = self.node.entries.get(name)
        found = None if entry is None else self.document.plain(entry.node)
        return default if found is None else found

    def text(self, name: str, *, required: bool = False) -> str:
        """Return a text; one that is required and missing is a problem."""
        value = self.value(name)
        if value is None and required:
            self._missing(name)
        elif value is not None and not isinstance(value, str):
            self.problem(name, "LL203", f'"{name}" should be text')
        return value if isinstance(value, str) else ""

    def mapping(self, name: str) -> dict[str, Any]:
        """Return a mapping, empty when there is none."""
        value = self.value(name, {})
        if not isinstance(value, dict):
            self.problem(name, "LL203", f'"{name}" should be a mapping')
            return {}
        return cast("dict[str, Any]", value)

    def reference(self, name: str) -> str | None:
        """Return the id a field refers to, or None when it is written out."""
        node = self.at(name)
        return None if node is None else self.document.reference(node)

    def part(self, name: str, kinds: Collection[str], *, required: bool = True) -> Part | None:
        """Return the component in a field."""
        node = self.at(name)
        if node is None:
            if required:
                self._missing(name)
            return None
        return self.document.part(node, kinds)

    def nodes(self, name: str) -> list[Node]:
        """Return the items of a list, empty when there is none."""
        node = self.at(name)
        if node is not None and not isinstance(node, SequenceNode):
            self.problem(name, "LL203", f'"{name}" should be a list')
        return node.items if isinstance(node, SequenceNode) else []

    def parts(self, name: str, kinds: Collection[str]) -> Iterator[Part]:
        """Yield the components in a list."""
        for item in self.nodes(name):
            if (part := self.document.part(item, kinds)) is not None:
                yield part

    def properties(self, name: str) -> list[dict[str, Any]]:
        """Return inputs or outputs: JSON Schemas with a title."""
        found: list[dict[str, Any]] = []
        for item in self.nodes(name):
            value = self.document.plain(item)
            if isinstance(value, dict) and isinstance(cast("dict[str, Any]", value).get("title"), str):
                found.append(cast("dict[str, Any]", value))
            else:
                self.problem(name, "LL203", "a property is a JSON Schema with a title", place=item.place)
        return found

    def problem(self, name: str | None, code: str, message: str, *, hint: str = "", place: Place | None = None) -> None:
        """Report a problem of a field, or of the whole component."""
        if place is None:
            entry = None if name is None else self.node.entries.get(name)
            value = None if entry is None else followed(entry.node)
            if entry is not None and isinstance(value, ScalarNode) and value.written:
                place = value.place
            else:
                place = self.node.place if entry is None else entry.key.place
        self.document.report.add(place, code, message, where=_title(self.node, self.document), hint=hint)

    def _missing(self, name: str) -> None:
        self.problem(None, "LL202", f'missing key "{name}"')


def _title(node: MappingNode, document: Document) -> str:
    parts = [document.plain(node.entries[key].node) for key in ("component_type", "name") if key in node.entries]
    return " ".join([str(parts[0]), *(f'"{name}"' for name in parts[1:])]) if parts else ""
