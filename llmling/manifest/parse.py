"""The reader: text to nodes, by events, so that no limit can be exceeded before it is seen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import yaml

from llmling.manifest.nodes import AliasNode, Entry, MappingNode, Mark, Node, ScalarNode, SequenceNode, followed
from llmling.manifest.problems import Place, Report, Source, did_you_mean

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_ALIASES = 100
MAX_EXPANDED = 100_000
"""Most values that aliases may add to a file."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STANDARD = "tag:yaml.org,2002:"
_SCALAR_TAGS = {"str": False, "int": True, "float": True, "bool": True, "null": True}
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_TEMPLATE = re.compile(r"[:,\[-]\s+(\{\{(?:(?!: ).)*?\}\})")
# Stand in for the braces of an unquoted `${...}` so that reading can go on behind it; same width, private use.
_OPEN, _CLOSE = "\ue000", "\ue001"
# Fills an unquoted `{{ ... }}`; nothing is said about such a value but that it must be quoted.
_FILLED = "\ue002"
_TOO_DEEP = "exceeded maximum nesting depth"  # libyaml 0.2.6, at a thousand
_NO_KEY = "mapping values are not allowed in this context"
_HINTS = {
    _NO_KEY: ('a value with ": " in it must be quoted, or this line is indented too far'),
    "did not find expected key": "check the indentation, and quote values that start with a special character",
    "did not find expected '-' indicator": "check the indentation",
    "could not find expected ':'": 'a key needs ":" and a space behind it',
    "found unknown escape character": "write it in single quotes, or double the backslash",
}


class _Stop(Exception):
    """Reading this file makes no sense any more; the reason is in the report."""


class _Unquoted(Exception):
    """A value starts with `{{`, which YAML reads as a mapping in a mapping."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class _Frame:
    """A collection that is still open."""

    __slots__ = ("anchor", "dropped", "key", "merges", "node")

    def __init__(self, node: MappingNode | SequenceNode, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: ScalarNode | None = None
        self.dropped = False
        self.merges: list[tuple[ScalarNode, Node]] = []


def decode(data: bytes, source: Source, report: Report, most: int = MAX_BYTES) -> str | None:
    """Return the text of a file, or None when it is too large or not printable UTF-8; fills `source.lines`."""
    if len(data) > most:
        report.add(
            Place(source),
            "LL003",
            f"the file has {len(data):,} bytes; at most {most:,} are allowed",
            hint="split it with `include:`",
        )
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        line = before.count("\n") + 1
        column = len(before) - before.rfind("\n")
        report.add(
            Place(source, line, column),
            "LL002",
            f"not UTF-8: byte 0x{data[error.start]:02x}",
            hint="save the file as UTF-8",
        )
        return None
    source.lines = _BREAK.split(text)
    if (bad := _UNPRINTABLE.search(text)) is not None:
        before = _BREAK.split(text[: bad.start()])
        name = f"U+{ord(bad.group()):04X}"
        report.add(
            Place(source, len(before), len(before[-1]) + 1), "LL002", f"control character {name}", hint="remove it"
        )
        return None
    return text


def parse(text: str, source: Source, report: Report, empty: str = "start with `agents:`") -> Node | None:
    """Return the one document of a text, or None when it cannot be read; reasons go to the report.

    `empty` says what to write into an empty file. An unquoted `${...}` inside a flow collection is reported and then
    read as if it were quoted.
    """
    patched = False
    for _ in range(100):
        try:
            root = _Composer(source, report, patched).compose(text)
            if root is None or (isinstance(root, ScalarNode) and not root.text and root.plain):
                report.add(Place(source), "LL009", "the file is empty", hint=empty)
                return None
            return root
        except _Stop:
            return None
        except _Unquoted as found:
            text, patched = _filled(text, found.index, source, report), True
        except yaml.MarkedYAMLError as error:
            if error.problem == _TOO_DEEP and error.problem_mark is not None:
                # The scanner is ahead of us; what stands before this place is deep enough to be refused by ours.
                text = text[: error.problem_mark.index]
                continue
            if (start := _doubled(text, error)) is not None:
                text, patched = _filled(text, start, source, report), True
                continue
            cut = _unquoted(text, error)
            if cut is None:
                _syntax(error, source, report)
                return None
            start, end = cut
            shown = text[start:end]
            _must_be_quoted(shown, f"{shown} inside {{}} or []", _at(text, source, start, end), report)
            text = f"{text[:start]}${_OPEN}{text[start + 2 : end - 1]}{_CLOSE}{text[end:]}"
            patched = True
    return None


def _filled(text: str, start: int, source: Source, report: Report) -> str:
    end = text.find("}}", start) + 2
    _must_be_quoted(text[start:end], "a value that starts with {{", _at(text, source, start, end), report)
    return text[:start] + _FILLED * (end - start) + text[end:]


def _doubled(text: str, error: yaml.MarkedYAMLError) -> int | None:
    """Return where an unquoted `{{` starts in the line of an error."""
    mark: Any = error.problem_mark
    if mark is None:
        return None
    first = mark.index - mark.column
    for match in _TEMPLATE.finditer(_BREAK.split(text[first:], maxsplit=1)[0]):
        before = match.string[: match.start(1)]
        if match.start(1) <= mark.column and before.count('"') % 2 == before.count("'") % 2 == 0:
            return first + match.start(1)
    return None


def _at(text: str, source: Source, start: int, end: int) -> Place:
    lines = _BREAK.split(text[:start])
    return Place(source, len(lines), len(lines[-1]) + 1, end - start)


def _must_be_quoted(text: str, what: str, place: Place, report: Report) -> None:
    report.add(place, "LL005", f"{what} must be quoted", hint=f'write "{text}"' if "\n" not in text else "")


def _unquoted(text: str, error: yaml.MarkedYAMLError) -> tuple[int, int] | None:
    mark: Any = error.problem_mark
    if mark is None or text[mark.index - 1 : mark.index + 1] != "${":
        return None
    end = _BREAK.split(text[mark.index :], maxsplit=1)[0].find("}")
    return None if end < 0 else (mark.index - 1, mark.index + end + 1)


def _syntax(error: yaml.MarkedYAMLError, source: Source, report: Report) -> None:
    problem = error.problem or "malformed"
    context = error.context or ""
    mark: Any = error.problem_mark or error.context_mark
    opened = ""
    start: Any = error.context_mark
    if context in {"while scanning a simple key", "while scanning a quoted scalar"} and start is not None:
        mark = start
    elif context in {"while scanning an alias", "while scanning an anchor"} and start is not None:
        mark, sign = start, "*" if context.endswith("alias") else "&"
        problem = f'a value cannot start with "{sign}"'
    elif context.startswith("while parsing a flow") and start is not None:
        opened = f" (opened at line {start.line + 1}, column {start.column + 1})"
    if context == "while scanning a quoted scalar" and "end of stream" in problem:
        problem = "the quote is never closed"
    hint = "put the value in quotes" if problem.startswith("a value cannot") else _HINTS.get(problem, "")
    line, column = mark.line, mark.column
    if line >= len(source.lines):
        line, column = len(source.lines) - 1, len(source.lines[-1])
    if (
        problem in {_NO_KEY, "did not find expected key"}
        and (key := _without_colon(source.lines, line, column)) is not None
    ):
        (line, column), problem = key, "could not find expected ':'"
        hint = _HINTS[problem]
    char = source.lines[line][column : column + 1]
    if problem == "found character that cannot start any token":
        problem = "a tab cannot indent YAML" if char == "\t" else f'a value cannot start with "{char}"'
        hint = "use spaces" if char == "\t" else "put the value in quotes"
    report.add(Place(source, line + 1, column + 1), "LL004", problem + opened, hint=hint)


def _without_colon(lines: list[str], line: int, column: int) -> tuple[int, int] | None:
    """Return where the line above starts when it stands in a row with this one and is no key: its colon is missing."""
    indent = len(lines[line]) - len(lines[line].lstrip())
    if ": " in lines[line][:column]:
        return None
    for above in range(line - 1, -1, -1):
        text = lines[above].lstrip()
        if not text or text.startswith("#"):
            continue
        bare = text.rstrip().removeprefix("- ")
        if len(lines[above]) - len(text) + len(text.rstrip()) - len(bare) != indent or re.search(r":(\s|$)", bare):
            return None
        return above, indent
    return None


class _Composer:
    """Builds nodes from events, with a stack of its own."""

    def __init__(self, source: Source, report: Report, patched: bool) -> None:
        self._source = source
        self._report = report
        self._patched = patched
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Node] = {}
        self._aliases = 0
        self._expanded = 0
        self._root: Node | None = None

    def compose(self, text: str) -> Node | None:
        """Return the document.

        Raises:
            _Stop: A limit is exceeded; it is in the report.
        """
        documents = 0
        for event in _events(text):
            kind = cast("type[object]", type(event))
            if kind is yaml.ScalarEvent:
                self._scalar(event)
            elif kind is yaml.MappingStartEvent:
                self._open(event, MappingNode(self._source, event.start_mark, event.end_mark))
            elif kind is yaml.SequenceStartEvent:
                self._open(event, SequenceNode(self._source, event.start_mark, event.end_mark))
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self._close()
            elif kind is yaml.AliasEvent:
                self._alias(event)
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    self._stop(event.start_mark, "LL009", "a second document starts here", "use one file per document")
        return self._root

    def _place(self, mark: Mark) -> Place:
        return Place(self._source, mark.line + 1, mark.column + 1)

    def _stop(self, mark: Mark, code: str, message: str, hint: str = "") -> None:
        self._report.add(self._place(mark), code, message, hint=hint)
        raise _Stop

    def _scalar(self, event: Any) -> None:
        text: str = event.value
        if self._patched and _OPEN in text:
            text = text.replace(_OPEN, "{").replace(_CLOSE, "}")
        plain = bool(event.implicit[0])
        node = ScalarNode(self._source, event.start_mark, event.end_mark, text, plain, event.style or "")
        if event.tag is not None:
            node.plain = self._tag(event, node, _SCALAR_TAGS)
        node.broken = node.broken or (self._patched and _FILLED in text)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._add(node)

    def _tag(self, event: Any, node: Node, allowed: dict[str, bool]) -> bool:
        tag: str = event.tag
        short = tag.removeprefix(_STANDARD)
        if tag == "!":
            return False
        if short != tag and short in allowed:
            return allowed[short]
        shown = f"!!{short}" if short != tag else tag
        hint = "write ${NAME}" if tag == "!ENV" else "write the value without it"
        self._report.add(self._place(event.start_mark), "LL007", f'tag "{shown}" is not allowed', hint=hint)
        node.broken = True
        return False

    def _open(self, event: Any, node: MappingNode | SequenceNode) -> None:
        if event.tag is not None:
            self._tag(event, node, {"map": True} if isinstance(node, MappingNode) else {"seq": True})
        if len(self._stack) >= MAX_DEPTH:
            self._stop(event.start_mark, "LL003", f"nested more than {MAX_DEPTH} deep")
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        if self._stack and isinstance(self._stack[-1].node, MappingNode):
            frame = self._stack[-1]
            if frame.key is None and not frame.dropped:
                if (
                    isinstance(node, MappingNode)
                    and (index := self._doubled(frame.node.start, event.start_mark)) is not None
                ):
                    raise _Unquoted(index)
                self._report.add(node.place, "LL010", "a key must be plain text, not a list or a mapping")
        self._stack.append(_Frame(node, event.anchor))

    def _doubled(self, outer: Mark | None, inner: Mark) -> int | None:
        """Return where `{{` starts when two mappings open side by side and `}}` stands in their line."""
        if outer is None or inner.index != outer.index + 1:
            return None
        line: str = self._source.lines[outer.line]
        found = line.startswith("{{", outer.column) and "}}" in line[outer.column :].partition(": ")[0]
        return outer.index if found else None

    def _close(self) -> None:
        frame = self._stack.pop()
        if isinstance(frame.node, MappingNode):
            for key, node in frame.merges:
                self._merge(frame.node, key, node)
        self._add(frame.node)

    def _alias(self, event: Any) -> None:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            self._stop(event.start_mark, "LL003", f"more than {MAX_ALIASES} aliases")
        target = self._anchors.get(event.anchor)
        place = Place(self._source, event.start_mark.line + 1, event.start_mark.column + 1, len(event.anchor) + 1)
        if target is None:
            hint = did_you_mean(f"*{event.anchor}", (f"*{name}" for name in self._anchors))
            self._report.add(place, "LL008", f'alias "*{event.anchor}" names no anchor above it', hint=hint)
            target = ScalarNode(self._source, event.start_mark, event.end_mark, "", plain=True)
            target.broken = True
        elif any(frame.node is target for frame in self._stack):
            self._report.add(place, "LL008", f'alias "*{event.anchor}" stands inside its own anchor')
            raise _Stop
        self._expanded += target.size
        if self._expanded > MAX_EXPANDED:
            self._stop(event.start_mark, "LL003", f"aliases add more than {MAX_EXPANDED:,} values up to here")
        if len(self._stack) + target.height > MAX_DEPTH:
            self._stop(event.start_mark, "LL003", f"nested more than {MAX_DEPTH} deep once this alias is followed")
        self._add(AliasNode(self._source, event.start_mark, event.end_mark, target))

    def _add(self, node: Node) -> None:
        if not self._stack:
            self._root = node
            return
        frame = self._stack[-1]
        parent = frame.node
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if isinstance(parent, SequenceNode):
            parent.items.append(node)
        elif frame.dropped:
            frame.dropped = False
        elif frame.key is None:
            key = followed(node)
            frame.key = key if isinstance(key, ScalarNode) else None
            frame.dropped = frame.key is None
        else:
            key, frame.key = frame.key, None
            self._put(frame, parent, key, node)

    def _put(self, frame: _Frame, mapping: MappingNode, key: ScalarNode, node: Node) -> None:
        merges = key.plain and key.text == "<<"
        first = mapping.entries.get(key.text)
        if merges and frame.merges:
            self._twice(key, frame.merges[0][0], "write `<<: [*one, *other]`")
        elif first is not None:
            self._twice(key, first.key, "remove one")
        elif merges:
            frame.merges.append((key, node))
        else:
            mapping.entries[key.text] = Entry(key, node)

    def _twice(self, key: ScalarNode, first: ScalarNode, hint: str) -> None:
        message = f'key "{key.text}" is already written at line {first.place.line}'
        self._report.add(key.place, "LL006", message, hint=hint)

    def _merge(self, mapping: MappingNode, key: ScalarNode, node: Node) -> None:
        target = followed(node)
        for part in target.items if isinstance(target, SequenceNode) else [node]:
            base = followed(part)
            if not isinstance(base, MappingNode):
                if not base.broken:
                    place = node.place if isinstance(node, AliasNode) else part.place
                    self._report.add(place, "LL010", '"<<" takes a mapping or a list of mappings')
                continue
            via = part.place if isinstance(part, AliasNode) else key.place
            for name, entry in base.entries.items():
                mapping.entries.setdefault(name, Entry(entry.key, entry.node, via))


def _events(text: str) -> Iterator[Any]:
    yield from yaml.parse(text, Loader=_Loader)
