"""YAML 1.2 text as nodes that know their place; limits are checked while reading, not after."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

from llmling.manifest.problems import Place, Source

Loc: TypeAlias = tuple[str | int, ...]


class Mark(Protocol):
    """A position in the text, as PyYAML gives it: everything counts from 0."""

    line: int
    column: int
    index: int


# `&anchor` and `!!tag` in front of a value: the value itself is what a problem points at.
_PROPERTIES = re.compile(r"(?:[&!]\S*[ \t]+)+(?=\S)")


class Node:
    """One value as written. `size` and `height` count what it becomes once aliases are followed.

    What is `broken` has been reported; nothing that follows from it should be.
    """

    __slots__ = ("broken", "end", "height", "size", "source", "start")

    def __init__(self, source: Source, start: Mark | None, end: Mark | None) -> None:
        self.source = source
        self.start = start
        self.end = end
        self.size = 1
        self.height = 1
        self.broken = False

    @property
    def place(self) -> Place:
        """Where it starts; values that were not read from text have the file's start."""
        if self.start is None or self.end is None:
            return Place(self.source)
        lines, line, column = self.source.lines, self.start.line, self.start.column
        if line < len(lines) and (behind := _PROPERTIES.match(lines[line], column)) is not None:
            column = behind.end()
        return Place(self.source, line + 1, column + 1, self._length(line, column, self.end))

    def _length(self, line: int, column: int, end: Mark) -> int:
        return 1


class ScalarNode(Node):
    """A text, or (from Python) any value; `plain` when it was written without quotes.

    `value` is what it stands for once variables are filled in, `variables` the names that were.
    """

    __slots__ = ("plain", "ready", "style", "text", "value", "variables")

    def __init__(
        self, source: Source, start: Mark | None, end: Mark | None, text: str, plain: bool, style: str = ""
    ) -> None:
        super().__init__(source, start, end)
        self.text = text
        self.plain = plain
        self.style = style
        self.ready = False
        self.value: Any = None
        self.variables: tuple[str, ...] = ()

    def _length(self, line: int, column: int, end: Mark) -> int:
        if line == end.line:
            return max(1, end.column - column)
        lines = self.source.lines
        return max(1, len(lines[line].rstrip()) - column) if line < len(lines) else 1

    @property
    def written(self) -> bool:
        """False for the empty value behind a key, which has no character to point at."""
        return self.start is None or self.end is None or self.start.index != self.end.index

    @property
    def lines(self) -> str:
        """A block scalar as it is written, line breaks and all; of others the text."""
        if self.start is None or self.end is None or self.style not in {"|", ">"}:
            return self.text
        lines = self.source.lines
        rest = lines[self.end.line][: self.end.column] if self.end.line < len(lines) else ""
        return "\n".join([*lines[self.start.line + 1 : self.end.line], rest])

    def inner(self, line: int, text: str = "") -> Place:
        """Return the place of a line of a block scalar (counted from 1), or of a text in that line or below it.

        Others have one place only.
        """
        if self.start is None or self.end is None or self.style not in {"|", ">"} or not self.text:
            return self.place
        lines = self.source.lines
        number = min(self.start.line + line, len(lines) - 1)
        if text:
            below = range(number, min(self.end.line + 1, len(lines)))
            number = next((index for index in below if text in lines[index]), number)
            if text in lines[number]:
                return Place(self.source, number + 1, lines[number].index(text) + 1, len(text))
        indent = len(lines[number]) - len(lines[number].lstrip())
        return Place(self.source, number + 1, indent + 1, max(1, len(lines[number].strip())))


class SequenceNode(Node):
    """A list; `numbers` are the indexes its items had before some were left out."""

    __slots__ = ("items", "numbers")

    def __init__(self, source: Source, start: Mark | None, end: Mark | None, items: list[Node] | None = None) -> None:
        super().__init__(source, start, end)
        self.items: list[Node] = [] if items is None else items
        self.numbers: list[int] | None = None


@dataclass(slots=True, eq=False)
class Entry:
    """A key and its value; `via` is the alias of the `<<` that brought it here."""

    key: ScalarNode
    node: Node
    via: Place | None = None


class MappingNode(Node):
    """A mapping; its keys are texts."""

    __slots__ = ("entries",)

    def __init__(self, source: Source, start: Mark | None, end: Mark | None) -> None:
        super().__init__(source, start, end)
        self.entries: dict[str, Entry] = {}

    def like(self, entries: dict[str, Entry]) -> MappingNode:
        """Return a mapping at the same place with other entries."""
        other = MappingNode(self.source, self.start, self.end)
        other.entries = entries
        return other


class AliasNode(Node):
    """`*name`: stands for the node its anchor marks."""

    __slots__ = ("target",)

    def __init__(self, source: Source, start: Mark | None, end: Mark | None, target: Node) -> None:
        super().__init__(source, start, end)
        self.target = target
        self.size = target.size
        self.height = target.height


def followed(node: Node) -> Node:
    """Return what an alias stands for; other nodes are themselves."""
    while isinstance(node, AliasNode):
        node = node.target
    return node


@dataclass(slots=True)
class Found:
    """Where a path of keys leads: as far as it exists, `rest` is what does not.

    `key` is the key the node stands behind, `item` tells that it is an entry of a list, `path` are the keys that
    really exist.
    """

    node: Node
    key: ScalarNode | None
    item: bool
    uses: tuple[Place, ...]
    path: Loc
    rest: Loc

    @property
    def value_place(self) -> Place:
        """The value, or its key when the value is empty."""
        if isinstance(self.node, ScalarNode) and not self.node.written and self.key is not None:
            return self.key.place
        return self.node.place

    @property
    def key_place(self) -> Place:
        """The key, or the first key of a mapping in a list."""
        if self.key is not None and not self.item:
            return self.key.place
        if isinstance(self.node, MappingNode):
            for entry in self.node.entries.values():
                return entry.key.place
        return self.node.place


def find(root: Node, loc: Sequence[str | int], key: ScalarNode | None = None, *, branches: bool = False) -> Found:
    """Follow a path of keys; `key` is the one the root stands behind.

    With `branches` the path is the `loc` of a pydantic error, which also names the branches of unions.
    """
    found = Found(root, key, item=False, uses=(), path=(), rest=())
    tagged = not branches
    for index, part in enumerate(loc):
        _follow(found)
        node = found.node
        if isinstance(part, str) and part.startswith("<"):
            continue
        if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.items):
            found.node, found.item, tagged = node.items[part], True, not branches
            found.path = (*found.path, node.numbers[part] if node.numbers is not None else part)
        elif isinstance(node, MappingNode) and isinstance(part, str):
            branch = node.entries.get("type")
            if not tagged and branch is not None and _text(branch.node) == part:
                tagged = True
            elif (entry := node.entries.get(part)) is not None:
                found.node, found.key, found.item, tagged = entry.node, entry.key, False, not branches
                found.path = (*found.path, part)
                if entry.via is not None:
                    found.uses = (*found.uses, entry.via)
            elif index == len(loc) - 1:
                found.rest = (part,)
        elif not isinstance(node, ScalarNode):
            found.rest = tuple(loc[index:])
            break
    _follow(found)
    return found


def _follow(found: Found) -> None:
    while isinstance(found.node, AliasNode):
        found.uses = (*found.uses, found.node.place)
        found.node = found.node.target


def paths(root: Node, start: Loc = ()) -> dict[int, list[Loc]]:
    """Return by id of each mapping the paths that lead to it, several when aliases do."""
    found: dict[int, list[Loc]] = {}
    todo: list[tuple[Node, Loc]] = [(root, start)]
    while todo:
        node, loc = todo.pop()
        node = followed(node)
        if isinstance(node, MappingNode):
            found.setdefault(id(node), []).append(loc)
            todo.extend((entry.node, (*loc, name)) for name, entry in reversed(node.entries.items()))
        elif isinstance(node, SequenceNode):
            todo.extend((item, (*loc, index)) for index, item in reversed(list(enumerate(node.items))))
    return found


def _text(node: Node) -> Any:
    node = followed(node)
    return (node.value if node.ready else node.text) if isinstance(node, ScalarNode) else None


def from_python(value: object, source: Source, depth: int = 0) -> Node:
    """Return nodes for a mapping built in Python; they have no place of their own.

    Raises:
        ValueError: It is nested more than 50 deep, or a key is not a text.
    """
    if depth > 50:
        raise ValueError("the mapping is nested more than 50 deep, or contains itself")
    if isinstance(value, Mapping):
        mapping = MappingNode(source, None, None)
        pairs = cast("Mapping[Any, Any]", value)
        for key, item in pairs.items():
            if not isinstance(key, str):
                raise ValueError(f"key {key!r} is not a text")  # noqa: TRY004
            name = ScalarNode(source, None, None, key, plain=False)
            mapping.entries[key] = Entry(name, from_python(item, source, depth + 1))
        return mapping
    if isinstance(value, list | tuple):
        listed = cast("Sequence[Any]", value)
        return SequenceNode(source, None, None, [from_python(item, source, depth + 1) for item in listed])
    if isinstance(value, str):
        return ScalarNode(source, None, None, str(value), plain=False)
    scalar = ScalarNode(source, None, None, "", plain=True)
    scalar.value, scalar.ready = value, True
    return scalar


_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((sign + word for sign in ("", "+") for word in (".inf", ".Inf", ".INF")), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_LONGEST_NUMBER = 300


def core_value(text: str) -> Any:
    """Return what a plain scalar stands for in the YAML 1.2 core schema: `on`, `yes` and `12:30` are texts."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > _LONGEST_NUMBER:
        return text
    if _INTEGER.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    if text[:2] in {"0o", "0x"}:
        try:
            return int(text[2:].replace("_", "?"), 8 if text[1] == "o" else 16)
        except ValueError:
            return text
    return text
