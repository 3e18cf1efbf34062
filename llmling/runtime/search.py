"""Full-text search with SQLite's FTS5: queries made of what anybody writes, and the ranking of a few texts."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing

TOKENS = "porter unicode61 remove_diacritics 2"
"""How a text is cut into words: without accents, and in English by their stems."""
_MOST_WORDS = 100
_MOST_CHARS = 20_000
_WORD = re.compile(r"\w+")
# Scripts written without spaces: one word per character, or nothing in them would ever be found.
_UNSPACED = re.compile(r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")


def rank(texts: Sequence[str], query: str, limit: int) -> list[int]:
    """Return the positions of up to `limit` texts that share words with a query, the best first, of equals the last."""
    wanted = match_query(query)
    if not wanted or not texts:
        return []
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(f"create virtual table texts using fts5 (text, content = '', tokenize = '{TOKENS}')")
        # SQLite takes no lone surrogates, which names of files may hold.
        rows = ((number, spaced(text).encode("utf-8", "replace").decode()) for number, text in enumerate(texts))
        database.executemany("insert into texts (rowid, text) values (?, ?)", rows)
        found = database.execute(
            "select rowid from texts where texts match ? order by bm25(texts), rowid desc limit ?", (wanted, limit)
        )
        return [number for (number,) in found]


def match_query(text: str) -> str:
    """Return an FTS5 query for any of the first 100 different words of a text; empty when it has none.

    Every word is quoted, so nothing a user writes is an operator.
    """
    words = {word.lower(): word for word in _WORD.findall(spaced(text[:_MOST_CHARS]))}
    useful = [word for word in words.values() if len(word) > 1 or not word.isascii()] or list(words.values())
    return " OR ".join(f'"{word}"' for word in useful[:_MOST_WORDS])


def spaced(text: str) -> str:
    """Return a text with spaces around each character of a script that is written without them."""
    return _UNSPACED.sub(r" \1 ", text)
