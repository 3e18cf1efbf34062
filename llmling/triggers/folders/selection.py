"""Which files a file trigger means: its folders, files and globs, less what is ignored or never taken."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmling.manifest.triggers import FileTriggerConfig

_UNFINISHED = ("~", ".swp", ".tmp", ".part", ".crdownload")
_MAGIC = re.compile(r"[*?\[]")


def _segment(glob: str) -> str:
    """Return the regular expression of one part of a glob."""
    out: list[str] = []
    at = 0
    while at < len(glob):
        char = glob[at]
        end = glob.find("]", at + 2 + (glob[at + 1 : at + 2] in {"!", "^"})) if char == "[" else -1
        if end > 0:
            negated = glob[at + 1] in {"!", "^"}
            inside = glob[at + 1 + negated : end].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            out.append(f"(?!/)[{'^' if negated else ''}{inside}]")
            at = end
        elif char == "*":
            out.append("[^/]*")
        else:
            out.append("[^/]" if char == "?" else re.escape(char))
        at += 1
    return "".join(out)


def compile_glob(glob: str) -> re.Pattern[str]:
    """Return a glob as a pattern for `fullmatch` on a path with `/`; `**` stands for zero or more folders."""
    parts = glob.split("/")
    last = len(parts) - 1
    out: list[str] = []
    for index, part in enumerate(parts):
        if part == "**":
            out.append(".+" if index == last else "(?:[^/]+/)*")
        else:
            out.append(_segment(part) + ("" if index == last else "/"))
    return re.compile("".join(out), re.DOTALL)


@dataclass(frozen=True, slots=True)
class Root:
    """One entry of `paths`: `path` is absolute, `glob` matches what lies below it (None: the path itself).

    `depth` is how many levels below may match, None: any. `prefix` is the path from the manifest's folder.
    """

    written: str
    path: str
    glob: re.Pattern[str] | None
    depth: int | None
    prefix: str

    def relative(self, below: str) -> str:
        """Return the path from the manifest's folder of something below this root; "" is the root itself."""
        if not below:
            return self.prefix
        return below if self.prefix == "." else f"{self.prefix}/{below}"

    def below(self, path: str) -> str | None:
        """Return the way from this root to an absolute path, "" for the root itself, None when it is elsewhere."""
        if path == self.path:
            return ""
        start = self.path if self.path.endswith("/") else self.path + "/"
        return path[len(start) :] if path.startswith(start) else None


def _root(written: str, folder: str) -> Root:
    path = os.path.normpath(os.path.join(folder, os.path.expanduser(written)))  # noqa: PTH111, PTH118
    parts = path.split("/")
    first = next((index for index, part in enumerate(parts) if _MAGIC.search(part)), None)
    if first is None or os.path.lexists(path):
        return Root(written, path, None, None, os.path.relpath(path, folder))
    base, rest = "/".join(parts[:first]) or "/", parts[first:]
    depth = None if "**" in rest else len(rest)
    return Root(written, base, compile_glob("/".join(rest)), depth, os.path.relpath(base, folder))


class Selection:
    """The files of one trigger. It looks at names only, except for a `paths` entry that exists under its very name."""

    def __init__(self, config: FileTriggerConfig, folder: Path) -> None:
        self.folder = os.path.abspath(folder)  # noqa: PTH100 - a symlinked folder keeps the name its user knows
        self.roots: tuple[Root, ...] = tuple(dict.fromkeys(_root(written, self.folder) for written in config.paths))
        self._ignored: Sequence[re.Pattern[str]] = [compile_glob(glob.rstrip("/")) for glob in config.ignore]
        self._endings = (
            None
            if config.extensions is None
            else tuple(f".{extension.lstrip('.')}".lower() for extension in config.extensions)
        )

    def ignored(self, name: str, relative: str) -> bool:
        """Say whether a file or folder is named by `ignore`, by its name or its path from the manifest's folder."""
        return any(glob.fullmatch(name) or glob.fullmatch(relative) for glob in self._ignored)

    def enters(self, root: Root, below: str) -> bool:
        """Say whether files inside the folder `below` a root can be meant, its parents taken for granted."""
        name = below.rpartition("/")[2]
        if name.startswith("."):
            return False
        if root.depth is not None and below.count("/") + 2 > root.depth:
            return False
        return not self.ignored(name, root.relative(below))

    def takes(self, root: Root, below: str) -> bool:
        """Say whether the file `below` a root is meant, its folders taken for granted; "" is the root as a file."""
        relative = root.relative(below)
        name = (below or root.path).rpartition("/")[2]
        if name.startswith((".", "~")) or name.endswith(_UNFINISHED):
            return False
        if self._endings is not None and not name.lower().endswith(self._endings):
            return False
        if root.glob is not None and root.glob.fullmatch(below) is None:
            return False
        return not self.ignored(name, relative)

    def reaches(self, root: Root, below: str) -> bool:
        """Say whether every folder on the way to `below` is entered."""
        parts = below.split("/")
        return all(self.enters(root, "/".join(parts[:count])) for count in range(1, len(parts)))

    def full(self, relative: str) -> str:
        """Return the absolute path of a path from the manifest's folder."""
        return os.path.normpath(os.path.join(self.folder, relative))  # noqa: PTH118

    def covers(self, relative: str) -> bool:
        """Say whether a path from the manifest's folder is that of a file this trigger means."""
        path = self.full(relative)
        for root in self.roots:
            below = root.below(path)
            if below is not None and self.reaches(root, below) and self.takes(root, below):
                return True
        return False

    def may_concern(self, path: str) -> bool:
        """Say whether a change of an absolute path can matter: it is a root or a way below one, nothing hidden."""
        for root in self.roots:
            below = root.below(path)
            if below is not None and not below.startswith(".") and "/." not in below:
                return True
        return False
