"""Several texts become one tree: includes, then `defaults`, then `extends`; every node keeps its own place."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from llmling.manifest.interpolate import Values
from llmling.manifest.nodes import AliasNode, Entry, MappingNode, Node, ScalarNode, SequenceNode, followed
from llmling.manifest.parse import MAX_BYTES, decode, parse
from llmling.manifest.problems import Place, Report, Source, did_you_mean
from llmling.manifest.reading import read_file

MAX_FILES = 500


def deep_merge(base: MappingNode, over: MappingNode) -> MappingNode:
    """Return `base` overlaid with `over`: mappings merge, anything else replaces, and so does another `type:`."""
    entries = dict(base.entries)
    for name, entry in over.entries.items():
        old = entries.get(name)
        if old is not None and name != "type":
            below, above = followed(old.node), followed(entry.node)
            if isinstance(below, MappingNode) and isinstance(above, MappingNode) and _same_type(below, above):
                via = entry.node.place if isinstance(entry.node, AliasNode) else entry.via
                entries[name] = Entry(entry.key, deep_merge(below, above), via)
                continue
        entries[name] = entry
    return over.like(entries)


def _same_type(below: MappingNode, above: MappingNode) -> bool:
    new = above.entries.get("type")
    old = below.entries.get("type")
    return new is None or (old is not None and _text(new.node) == _text(old.node))


def _text(node: Node) -> str | None:
    node = followed(node)
    return node.text if isinstance(node, ScalarNode) else None


class Files:
    """Reads a manifest's file and everything it includes."""

    def __init__(self, report: Report, values: Values) -> None:
        self._report = report
        self._values = values
        self._merged: dict[Path, MappingNode | None] = {}
        self._patterns: dict[tuple[Path, str], None] = {}
        self._folder = Path()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that was read, or should have been."""
        return tuple(self._merged)

    @property
    def patterns(self) -> tuple[tuple[Path, str], ...]:
        """Every pattern of `include`, with the folder it starts from."""
        return tuple(self._patterns)

    def load(self, path: Path, shown: str) -> MappingNode | None:
        """Return the root mapping of a file with its includes merged below it, or None when it cannot be read."""
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow links out of the folder
        self._folder = absolute.parent
        return self._load(absolute, shown, None, ())

    def _load(self, path: Path, shown: str, asked: Place | None, chain: tuple[Path, ...]) -> MappingNode | None:
        if path in self._merged:
            return self._merged[path]
        prefix = os.path.relpath(path.parent, self._folder)
        source = Source(shown, "" if prefix == "." else prefix)
        self._merged[path] = None
        root = self._read(path, source, asked)
        if root is None:
            self._report.incomplete = True
            return None
        result: MappingNode | None = None
        for other, name, place in self._included(root, path, source, (*chain, path)):
            part = self._load(other, name, place, (*chain, path))
            if part is not None:
                result = part if result is None else deep_merge(result, part)
        result = root if result is None else deep_merge(result, root)
        self._merged[path] = result
        return result

    def _read(self, path: Path, source: Source, asked: Place | None) -> MappingNode | None:
        try:
            data = _first_bytes(path) if asked is None else read_file(path, MAX_BYTES)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            reason = "no such file" if missing else (error.strerror or str(error)).lower()
            hint = _nearby(path) if missing or path.is_dir() else ""
            if asked is None:
                self._report.add(Place(source), "LL001", f"cannot read the manifest: {reason}", hint=hint)
            else:
                self._report.add(asked, "LL101", f"cannot include {source.name}: {reason}", hint=hint)
            return None
        text = decode(data, source, self._report)
        root = None if text is None else parse(text, source, self._report)
        if root is None:
            return None
        if not isinstance(root, MappingNode):
            kind = "a list" if isinstance(root, SequenceNode) else "a text"
            self._report.add(root.place, "LL009", f"a manifest is a mapping, not {kind}", hint="start with `agents:`")
            return None
        return root

    def _included(
        self, root: MappingNode, path: Path, source: Source, chain: tuple[Path, ...]
    ) -> Iterator[tuple[Path, str, Place]]:
        entry = root.entries.get("include")
        if entry is None:
            return
        listed = followed(entry.node)
        if not isinstance(listed, SequenceNode):
            text = _text(listed)
            place = listed.place if text else entry.key.place
            hint = f"write `include: [{text}]`" if text else ""
            self._report.add(place, "LL203", "include should be a list of files", hint=hint)
            return
        for item in listed.items:
            node = followed(item)
            value = self._values.scalar(node) if isinstance(node, ScalarNode) else None
            if not isinstance(value, str) or not value:
                self._report.add(node.place, "LL203", "an entry of include should be the name of a file")
                continue
            for other in self._matches(value, path, node.place):
                name = os.path.normpath(os.path.join(os.path.dirname(source.name), other[1]))  # noqa: PTH118, PTH120
                if other[0] in chain:
                    names = [
                        os.path.relpath(part, self._folder) for part in (*chain[chain.index(other[0]) :], other[0])
                    ]
                    self._report.add(
                        node.place, "LL102", f"include cycle: {' -> '.join(names)}", hint="remove one include"
                    )
                elif len(self._merged) >= MAX_FILES and other[0] not in self._merged:
                    self._report.add(node.place, "LL101", f"more than {MAX_FILES} files are included")
                    return
                else:
                    yield other[0], name, node.place

    def _matches(self, value: str, path: Path, place: Place) -> list[tuple[Path, str]]:
        folder = path.parent
        if not glob.has_magic(value):
            found = Path(os.path.abspath(folder / value))  # noqa: PTH100
            if found.is_dir():
                self._report.add(place, "LL101", f"{value} is a folder", hint=f"write {value.rstrip('/')}/*.yml")
                return []
            return [(found, value)]
        self._patterns[folder, value] = None
        names = sorted(glob.glob(value, root_dir=folder, recursive=True))  # noqa: PTH207
        top = value.partition("/")[0]
        if not names and not glob.has_magic(top) and not (folder / top).exists() and (hint := _near(folder / top)):
            self._report.add(place, "LL101", f"no file matches {value}", hint=hint, severity="warning")
        found_all = [(Path(os.path.abspath(folder / name)), name) for name in names]  # noqa: PTH100
        return [(file, name) for file, name in found_all if file != path and file.is_file()]


def _nearby(path: Path) -> str:
    if not os.access(path.parent, os.R_OK):
        return f"the folder {path.parent.name or path.parent} cannot be read"
    return _near(path) or "check the path; it is relative to the file it is written in"


def _near(path: Path) -> str:
    try:
        return did_you_mean(path.name, [item.name for item in path.parent.iterdir()])
    except OSError:
        return ""


class Agents:
    """Applies `defaults` and `extends`: what each agent says once everything it starts from is below it."""

    def __init__(self, agents: dict[str, Entry], defaults: MappingNode | None, report: Report, values: Values) -> None:
        self._agents = agents
        self._defaults = defaults
        self._report = report
        self._values = values
        self._done: dict[str, MappingNode] = {}

    def merged(self) -> dict[str, MappingNode]:
        """Return the whole mapping of each agent; an agent stands behind the one it extends."""
        for name in self._agents:
            self._resolve(name)
        return self._done

    def _resolve(self, name: str) -> None:
        chain: list[str] = []
        while name not in self._done:
            if name in chain:
                self._cycle(chain[chain.index(name) :])
                break
            node = followed(self._agents[name].node)
            if not isinstance(node, MappingNode):
                return
            chain.append(name)
            parent = self._parent(name, node)
            if parent is None:
                break
            name = parent
        for child in reversed(chain):
            node = followed(self._agents[child].node)
            assert isinstance(node, MappingNode)  # noqa: S101
            parent = self._parent_name(node)
            base = self._done.get(parent) if parent is not None else None
            base = base or self._defaults
            self._done[child] = node if base is None else deep_merge(base, node)

    def _parent_name(self, node: MappingNode) -> str | None:
        entry = node.entries.get("extends")
        scalar = None if entry is None else followed(entry.node)
        value = self._values.scalar(scalar) if isinstance(scalar, ScalarNode) else None
        return value if isinstance(value, str) else None

    def _parent(self, name: str, node: MappingNode) -> str | None:
        parent = self._parent_name(node)
        if parent is None or (parent in self._agents and not parent.startswith("x-")):
            if parent is not None and not isinstance(followed(self._agents[parent].node), MappingNode):
                return None
            return parent
        others = [other for other in self._agents if other != name]
        place = followed(node.entries["extends"].node).place
        hint = did_you_mean(parent, others)
        if not hint and self._report.incomplete:
            return None
        hint = hint or "name an agent of this manifest"
        self._report.add(
            place, "LL103", f'extends names an unknown agent "{parent}"', where=f"agents.{name}", hint=hint
        )
        return None

    def _cycle(self, names: list[str]) -> None:
        node = followed(self._agents[names[0]].node)
        assert isinstance(node, MappingNode)  # noqa: S101
        place = followed(node.entries["extends"].node).place
        text = " -> ".join([*names, names[0]])
        self._report.add(place, "LL104", f"agents extend each other in a cycle: {text}", hint="remove one `extends:`")


def _first_bytes(path: Path) -> bytes:
    # Whoever names a pipe on the command line, as shells do for `<(...)`, wants it to be waited for. One byte more than
    # allowed is enough to see that there are too many.
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
