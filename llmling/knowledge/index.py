"""Folders that are searched: an index in memory, kept in step with the files, that gives each run what fits it."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeAlias

from llmling.errors import StartupError
from llmling.knowledge.passages import passages
from llmling.manifest.knowledge import FolderKnowledgeConfig
from llmling.runtime.clock import Clock
from llmling.runtime.readable import readable
from llmling.runtime.search import TOKENS, match_query, spaced
from llmling.runtime.services import Services

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 5_000_000
MAX_TOTAL_BYTES = 200_000_000
_SCAN_EVERY_S = 1.0
_MARKDOWN = frozenset({".md", ".markdown", ".mdx", ".rst", ".txt", ".adoc", ".org"})
_HTML = frozenset({".html", ".htm", ".xhtml"})
_PLAIN = frozenset(
    {
        ".json",
        ".jsonl",
        ".csv",
        ".tsv",
        ".yml",
        ".yaml",
        ".toml",
        ".ini",
        ".cfg",
        ".conf",
        ".xml",
        ".log",
        ".tex",
        ".sql",
    }
    | {".py", ".pyi", ".js", ".mjs", ".ts", ".tsx", ".jsx", ".go", ".rs", ".java", ".kt", ".swift", ".c", ".h", ".cc"}
    | {".cpp", ".hpp", ".cs", ".rb", ".php", ".pl", ".lua", ".r", ".scala", ".sh", ".css", ".proto", ".graphql"}
)

Version: TypeAlias = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""

_SCHEMA = f"""
CREATE TABLE passages (id INTEGER PRIMARY KEY, path TEXT, heading TEXT, text TEXT);
CREATE INDEX by_path ON passages (path);
CREATE VIRTUAL TABLE words USING fts5 (
    text, heading, path, content = '', tokenize = '{TOKENS}'
);
"""
_SEARCH = """
SELECT path, heading, text FROM (
    SELECT rowid, bm25(words, 1.0, 2.0, 1.5) AS score FROM words WHERE words MATCH ? ORDER BY score LIMIT ?
) JOIN passages ON id = rowid ORDER BY score, id
"""


class FolderKnowledge:
    """A folder of text files that is searched with the message of each run instead of being put in whole.

    The index is built when it is entered and follows added, changed and removed files before each search, looking at
    most once a second. Names that start with `.`, links that lead out of the folder, files over 5 MB and files that
    are not UTF-8 are left out.
    """

    def __init__(self, config: FolderKnowledgeConfig, services: Services) -> None:
        self._config = config
        self._index = _Index(services.folder / config.path, config.path, services.clock)
        # One thread of its own: SQLite wants one user at a time, and a long build must not hold up others.
        self._thread: ThreadPoolExecutor | None = None

    @property
    def title(self) -> str:
        """Short name shown to the model above the text."""
        return self._config.path

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="llmling-index")
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._index.open)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._index.stopping.set()
            await asyncio.get_running_loop().run_in_executor(thread, self._index.close)
            thread.shutdown(wait=False)

    async def text(self, query: str) -> str:
        """Return the `top_k` passages that fit the query best, each below its path and heading; empty without any.

        Raises:
            StartupError: It was not entered.
        """
        if self._thread is None:
            raise StartupError(f"knowledge {self._config.path!r}: enter it with `async with` before searching it")
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, self._index.search, query, self._config.top_k)
        return "\n\n".join(found)


class _Index:
    """The index itself; every method runs in the one thread that owns it."""

    def __init__(self, folder: Path, shown: str, clock: Clock) -> None:
        self.stopping = threading.Event()
        self._folder = folder
        self._shown = shown
        self._clock = clock
        self._database: sqlite3.Connection | None = None
        self._files: dict[str, Version] = {}
        self._left_out: dict[str, Version] = {}
        self._total_bytes = 0
        self._scan_due_s = 0.0

    def open(self) -> None:
        if not self._folder.is_dir():
            raise StartupError(f"knowledge {self._shown!r}: {self._folder} is not a folder", usage=True)
        self.stopping.clear()
        self._files, self._left_out, self._total_bytes = {}, {}, 0
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.executescript(_SCHEMA)
        self._follow(self._database)

    def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def search(self, query: str, most: int) -> list[str]:
        database = self._database
        if database is None:
            return []
        if self._clock.monotonic() >= self._scan_due_s:
            self._follow(database)
        wanted = match_query(query)
        if not wanted:
            return []
        return [
            f"[{path}{' > ' if heading else ''}{heading}]\n{text}"
            for path, heading, text in database.execute(_SEARCH, (wanted, most))
        ]

    def _follow(self, database: sqlite3.Connection) -> None:
        """Bring the index to what the folder holds now."""
        began = self._clock.monotonic()
        found = dict(self._scan())
        if found or self._folder.is_dir():
            known = {**self._files, **self._left_out}
            with database:
                for path in known.keys() - found.keys():
                    self._remove(database, path)
                for path, version in found.items():
                    if known.get(path) != version and not self.stopping.is_set():
                        self._remove(database, path)
                        self._add(database, path, version)
        else:
            logger.warning("knowledge %r: %s is gone; what was read before stays in use", self._shown, self._folder)
        ended = self._clock.monotonic()
        # A scan of a huge folder may take a second itself: it then gets at most a tenth of the time.
        self._scan_due_s = ended + max(_SCAN_EVERY_S, 9 * (ended - began))

    def _scan(self) -> Iterator[tuple[str, Version]]:
        root = os.path.realpath(self._folder)
        for place, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = os.path.join(place, name)  # noqa: PTH118 - a hundred thousand files are quick this way
                if name.startswith(".") or _kind(name) is None:
                    continue
                try:
                    path.encode()
                    inside = not os.path.islink(path) or os.path.realpath(path).startswith(root + os.sep)  # noqa: PTH114
                    facts = os.stat(path)  # noqa: PTH116
                except (OSError, UnicodeEncodeError):
                    continue
                if inside and stat.S_ISREG(facts.st_mode):
                    yield os.path.relpath(path, root), (facts.st_size, facts.st_mtime_ns)

    def _remove(self, database: sqlite3.Connection, path: str) -> None:
        self._left_out.pop(path, None)
        version = self._files.pop(path, None)
        if version is None:
            return
        self._total_bytes -= version[0]
        rows = database.execute("SELECT id, text, heading, path FROM passages WHERE path = ?", (path,)).fetchall()
        # An index without content forgets a row only when it is told again what stood there.
        database.executemany(
            "INSERT INTO words (words, rowid, text, heading, path) VALUES ('delete', ?, ?, ?, ?)",
            [(row[0], *(spaced(column) for column in row[1:])) for row in rows],
        )
        database.execute("DELETE FROM passages WHERE path = ?", (path,))

    def _add(self, database: sqlite3.Connection, path: str, version: Version) -> None:
        text = self._read(path, version)
        if text is None:
            self._left_out[path] = version
            return
        self._files[path] = version
        self._total_bytes += version[0]
        for passage in passages(text, headings=_kind(path) != "plain"):
            row = database.execute(
                "INSERT INTO passages (path, heading, text) VALUES (?, ?, ?)", (path, passage.heading, passage.text)
            ).lastrowid
            database.execute(
                "INSERT INTO words (rowid, text, heading, path) VALUES (?, ?, ?, ?)",
                (row, spaced(passage.text), spaced(passage.heading), spaced(path)),
            )

    def _read(self, path: str, version: Version) -> str | None:
        if version[0] > MAX_FILE_BYTES or self._total_bytes + version[0] > MAX_TOTAL_BYTES:
            logger.warning("knowledge %r: %s is left out, it is too large to be searched", self._shown, path)
            return None
        try:
            text = (self._folder / path).read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            logger.warning("knowledge %r: %s is left out: %s", self._shown, path, error)
            return None
        return readable(text) if _kind(path) == "html" else text


def _kind(name: str) -> str | None:
    """Return how a file is read: `markdown`, `html` or `plain`; None when it is no text file."""
    ending = Path(name).suffix.lower()
    if ending in _MARKDOWN:
        return "markdown"
    return "html" if ending in _HTML else "plain" if ending in _PLAIN else None
