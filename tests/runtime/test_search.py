"""Full-text search: no query is an error, and the best texts come first."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmling.runtime.search import match_query, rank

QUERIES = st.text() | st.text(alphabet="\"'*():^-+{}[]ANDORNEAR abcé返_\0\\;,. \n")


@pytest.fixture(scope="module")
def table() -> Any:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE VIRTUAL TABLE w USING fts5 (text, tokenize = 'porter unicode61 remove_diacritics 2')")
        database.execute("INSERT INTO w VALUES ('a b c near and or not')")
        yield database


@given(query=QUERIES)
@example(query='NEAR("a" b, 2) OR text:* ^"')
@example(query="a" * 100_000)
@example(query="w" + " w".join(map(str, range(10_000))))
@example(query="\ud800 x")
def test_no_query_is_an_error(table: sqlite3.Connection, query: str) -> None:
    wanted = match_query(query)
    if wanted:
        table.execute("SELECT * FROM w WHERE w MATCH ?", (wanted,)).fetchall()


def test_words_of_a_message_are_never_operators() -> None:
    assert match_query("NOT Ärger AND x OR ärger") == '"NOT" OR "ärger" OR "AND" OR "OR"'
    assert match_query("a b") == '"a" OR "b"'


def test_of_equal_texts_the_later_comes_first() -> None:
    assert rank(["a b", "x", "a b"], "a", 5) == [2, 0]
    assert rank([], "a", 5) == rank(["a"], "...", 5) == []
